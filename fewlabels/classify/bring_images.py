"""The second phase of a run: the images, decoded once, each that cannot be read set aside by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from fewlabels.classify.choose import MOST_RESIDENT, ImagePlan, choose_feed
from fewlabels.config import Options
from fewlabels.data.image import is_pixels
from fewlabels.data.table import Labels, Table
from fewlabels.errors import Interrupted, UserError
from fewlabels.inputs.base import Provider
from fewlabels.inputs.images.cache import Cache, Cached, content_of, default_folder
from fewlabels.inputs.images.store import ResidentImages, StreamedImages, decode_all, resident
from fewlabels.inputs.images.workers import Broken
from fewlabels.processes import Process, any_of, local_process
from fewlabels.runs.show import Show

SAID_EVERY = 10.0  # seconds
NAMED = 5  # images named in an error


@dataclass(frozen=True, eq=False)
class Brought:
    """The images of a run, or its vectors.

    Attributes:
        table: of the rows that can be read; the others are in its quarantine.
        images: of its rows.
        content: a hash of what they hold.
    """

    table: Table
    images: Provider
    content: str


def bring_images(
    table: Table, plan: ImagePlan, options: Options, device: torch.device, stop: Callable[[], bool], show: Show
) -> Brought:
    """Decode the images of all rows, or take them from the cache.

    Raises:
        UserError: more than half cannot be read, or there is no room for them.
        Interrupted: the run was asked to stop; what is decoded is kept.
    """
    form = plan.form
    feed, why = choose_feed(options, len(table) * form.channels * form.size[0] * form.size[1], device)
    # Processes may have different memories; they must take the same way, since they wait for each other on it.
    feed = "streamed" if any_of(feed == "streamed") else "resident"
    plan.why["feed"] = why
    in_memory = all(is_pixels(image) or isinstance(image, Image.Image) for image in table.images)
    content = content_of(table.images, _Progress("reading", len(table), stop, show))
    cache = Cache(options.cache or default_folder(), table.images, content, form)
    stored = None if in_memory and feed == "resident" else _stored(cache, feed, stop, show)
    if stored is None:
        pixels, broken = decode_all(table.images, form)
        return Brought(set_aside(table, broken)[1], ResidentImages(pixels.to(device)), content.key)
    good, table = set_aside(table, stored.broken)
    images = StreamedImages(stored.pixels, good, device)
    return Brought(table, resident(images) if feed == "resident" else images, content.key)


def _stored(cache: Cache, feed: str, stop: Callable[[], bool], show: Show) -> Cached | None:
    """Give the decoded images on disk, made where they are not there; None where they cannot be kept and need not."""
    try:
        return _opened(cache, stop, show)
    except OSError as error:
        folder = cache.whole.parent
        if feed == "streamed" or cache.bytes > MOST_RESIDENT:
            raise UserError(
                f"the decoded images ({cache.bytes / 1e6:,.0f} MB) cannot be kept in {folder}: {error}. "
                "Make room, give another folder by --cache, or a smaller --size."
            ) from error
        show.line(f"decoded images are kept in memory only: {folder} cannot take them ({error})", "yellow")
        return None


def _opened(cache: Cache, stop: Callable[[], bool], show: Show) -> Cached:
    """Open a cache, made by all processes of this machine together where it is not there."""
    found = cache.open()
    if not any_of(found is None):
        assert found is not None
        return found
    process = local_process()
    failed: OSError | None = None
    try:
        if found is None:
            _make(cache, process, stop, show)
    except OSError as error:
        failed = error if cache.open() is None else None  # made meanwhile by another run
    if any_of(stop()):
        raise Interrupted("stopped while images were decoded; those that are done are kept")
    if not any_of(failed is not None) and process.rank == 0:
        try:
            found = cache.finish()
        except OSError as error:
            failed = error
    if any_of(failed is not None):
        raise failed or OSError("another process of this run could not write there")
    found = found or cache.open()
    if any_of(found is None):
        raise OSError(f"{cache.whole} was taken away")
    assert found is not None
    show.line(f"decoded images are kept in {found.folder} ({cache.bytes / 1e6:,.0f} MB)")
    return found


def _make(cache: Cache, process: Process, stop: Callable[[], bool], show: Show) -> None:
    start = time.perf_counter()
    counts = cache.make(process.rank, process.world_size)
    done = before = next(counts)
    progress = _Progress("decoding", len(cache.images) // process.world_size, lambda: False, show)
    for more in counts:
        done += more
        progress(done)
        if stop():
            return  # all processes raise together
    seconds = time.perf_counter() - start
    if done > before:
        show.line(f"decoded {done - before:,} images in {seconds:.1f} s, {(done - before) / seconds:,.0f} a second")


class _Progress:
    """Says now and then how much of some work is done, and stops it where the run was asked to."""

    def __init__(self, name: str, count: int, stop: Callable[[], bool], show: Show) -> None:
        self.name, self.count, self.stop, self.show = name, count, stop, show
        self.said = time.perf_counter()

    def __call__(self, done: int) -> None:
        if self.stop():
            raise Interrupted(f"stopped while {self.name} images; what is done is kept")
        if time.perf_counter() - self.said > SAID_EVERY:
            self.said = time.perf_counter()
            self.show.line(f"{self.name}: {done:,} of {self.count:,} images")


def set_aside(table: Table, broken: Broken, what: str = "images") -> tuple[Labels, Table]:
    """Leave out the rows that cannot be read; give those that are left, and their table.

    Raises:
        UserError: they are more than half.
    """
    good = np.array([row for row in range(len(table)) if row not in broken], np.int64)
    lost, rows = len(broken) + table.lost, len(table) + table.lost
    named = {table.names[row]: reason for row, reason in sorted(broken.items())}
    if 2 * lost > rows:
        some = list((named | dict(table.quarantine)).items())[:NAMED]
        listed = "".join(f"\n  - {name}: {reason}" for name, reason in some)
        raise UserError(
            f"{table.name}: of {rows} {what} {lost} cannot be read, more than half, such as{listed}\n"
            "Mend or remove them, or look whether this is the right data."
        )
    if not broken:
        return good, table
    return good, replace(table.take(good), quarantine={**table.quarantine, **named})
