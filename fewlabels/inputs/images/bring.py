"""The images of a run, decoded once or taken from the cache; each that cannot be read is quarantined by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch
from PIL import Image

from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.image import is_pixels
from fewlabels.data.table import Table
from fewlabels.errors import Interrupted, UserError
from fewlabels.inputs.base import GIVEN, Intake, quarantined
from fewlabels.inputs.images.cache import Cache, CachedImages, default_folder, read_all, states_of
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages, StreamedImages, resident
from fewlabels.processes import Process, any_of, local_process, world_size

SAID_EVERY = 10.0  # seconds
MOST_RESIDENT = 1 << 30  # bytes of images in the memory of a CPU


def choose_feed(
    options: Options, bytes_of_all: int, device: torch.device
) -> tuple[Literal["resident", "streamed"], str]:
    """Choose where the images are while training, with the reason; it changes nothing in the outcome."""
    if options.images_feed != "auto":
        return options.images_feed, GIVEN
    room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else MOST_RESIDENT
    size, limit = f"{bytes_of_all / 1e6:,.0f} MB", f"{room / 1e6:,.0f} MB"
    if bytes_of_all <= room:
        return "resident", f"all images take {size}, less than {limit}"
    return "streamed", f"all images take {size}, more than {limit}"


def bring_images(
    table: Table, form: ImageForm, options: Options, device: torch.device, stop: Callable[[], bool], show: Show
) -> Intake:
    """Read each file once and decode it, or take all from the cache without opening one.

    Raises:
        UserError: more than half cannot be read, or there is no room for them.
        Interrupted: the run was asked to stop; what is decoded is kept.
    """
    feed, why = choose_feed(options, len(table) * form.channels * form.size[0] * form.size[1], device)
    # Processes may have different memories; they must take the same way, since they wait for each other on it.
    feed = "streamed" if any_of(feed == "streamed") else "resident"
    why_feed = {"images_feed": why}
    in_memory = all(is_pixels(image) or isinstance(image, Image.Image) for image in table.contents)
    stored: CachedImages | None = None
    if not (in_memory and feed == "resident"):
        states = states_of(table.contents, _Progress("listing", len(table), stop, show))
        _stop_together(stop)
        cache = Cache(options.images_cache or default_folder(), table.contents, states, form)
        stored = _stored(cache, feed, stop, show)
    if stored is None:
        pixels, broken, digests = read_all(table.contents, form, _Progress("reading", len(table), stop, show))
        _stop_together(stop)
        _, table = quarantined(table, broken, "images")
        return Intake(table, ResidentImages(pixels.to(device)), digests, why_feed)
    good, table = quarantined(table, stored.broken, "images")
    images = StreamedImages(stored.pixels, good, device)
    return Intake(table, resident(images) if feed == "resident" else images, stored.digests, why_feed)


def _stop_together(stop: Callable[[], bool]) -> None:
    """Stop all processes where one was asked to: they wait for each other."""
    if any_of(stop()):
        raise Interrupted("stopped while images were read; what is done is kept")


def _stored(cache: Cache, feed: str, stop: Callable[[], bool], show: Show) -> CachedImages | None:
    """Give the decoded images on disk, made where they are not there; None where they cannot be kept and need not."""
    try:
        return _opened(cache, stop, show)
    except OSError as error:
        if feed == "streamed" or cache.bytes > MOST_RESIDENT:
            raise UserError(
                f"the decoded images ({cache.bytes / 1e6:,.0f} MB) cannot be kept in {cache.folder}: {error}. "
                "Make room, give another folder by --images.cache, or a smaller --images.size."
            ) from error
        show.line(f"decoded images are kept in memory only: {cache.folder} cannot take them ({error})", "yellow")
        return None


def _opened(cache: Cache, stop: Callable[[], bool], show: Show) -> CachedImages:
    """Open a cache, made by all processes of this machine together where it is not there."""
    found = cache.open(again=True)
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
        raise OSError(f"{cache.listed} was taken away")
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
        if world_size() == 1 and self.stop():  # several processes raise together
            raise Interrupted(f"stopped while {self.name} images; what is done is kept")
        if time.perf_counter() - self.said > SAID_EVERY:
            self.said = time.perf_counter()
            self.show.line(f"{self.name}: {done:,} of {self.count:,} images")
