"""Decoding in worker processes: a file that crashes or hangs a decoder takes a worker with it, never the run."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from fewlabels.data.image import ImageLike, ignore_warnings_of_pillow, image_name, reason_of
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm, decode_into
from fewlabels.inputs.images.digest import digest_of, fetch, image_state

PATIENCE = 120.0  # seconds for a part, after which its images are tried one by one
PATIENCE_ONE = 30.0  # seconds for one image

Broken: TypeAlias = dict[int, str]
"""places of images that cannot be read, with the reasons"""


@dataclass(frozen=True, eq=False)
class Part:
    """Some images to decode, and where their pixels go.

    Attributes:
        first: the place of the first in the whole set.
        images: in order.
        states: of their files when they were listed (`image_state`).
        file: of uint8 pixels [N, C, H, W]; it is long enough already.
    """

    first: int
    images: Sequence[ImageLike]
    states: Sequence[str]
    file: Path


@dataclass(frozen=True)
class PartResult:
    """What reading a part came to.

    Attributes:
        first: the place of its first image in the whole set.
        digests: of what each image holds, in order; of the error where a file cannot be read.
        broken: places of images that cannot be decoded, and why.
        unread: those among them whose files could not even be read, which may go another time.
    """

    first: int
    digests: list[str]
    broken: Broken
    unread: list[int]


def worker_count(sharing: int = 1) -> int:
    """Give the number of worker processes for a process that shares the machine with `sharing` - 1 others."""
    from joblib import cpu_count

    return max(2, min(16, int(cpu_count()) // sharing))


def decode_parts(
    firsts: Sequence[int], part_of: Callable[[int], Part], form: ImageForm, workers: int, patience: float = PATIENCE
) -> Iterator[PartResult]:
    """Decode parts into their files, in any order; give what each came to.

    The workers import neither the user's script nor torch, so a script needs no guard and they start soon.

    Args:
        firsts: the parts by their first places.
        part_of: makes a part, when it is about to be decoded.
        form: what to bring the images to.
        workers: processes.
        patience: seconds for one part.

    Raises:
        OSError: the pixels cannot be written.
        UserError: a file changed since it was listed.
    """
    waiting = list(firsts)
    while waiting:
        done: set[int] = set()
        try:
            for found in _parallel(map(part_of, waiting), form, workers, patience):
                done.add(found.first)
                yield found
        except Exception as error:
            if not _is_lost_worker(error):
                raise
        waiting = [first for first in waiting if first not in done]
        # A lost worker's part is among the first that are left: so many are handed out at a time.
        for first in waiting[: 2 * workers]:
            yield _one_by_one(part_of(first), form, min(patience, PATIENCE_ONE))
        waiting = waiting[2 * workers :]


def _parallel(parts: Iterator[Part], form: ImageForm, workers: int, patience: float) -> Iterator[PartResult]:
    from joblib import Parallel, delayed

    here = Path.cwd()
    run = Parallel(
        n_jobs=workers, backend="loky", return_as="generator_unordered", timeout=patience, batch_size=cast(Any, 1),
        pre_dispatch=cast(Any, 2 * workers), idle_worker_timeout=10, max_nbytes=None,
    )  # fmt: skip
    results: Any = run(delayed(_decode_from)(here, part, form) for part in parts)
    try:
        for result in results:  # noqa: UP028 - `yield from` would close it before `finally` does
            yield result
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib warns of parts that are given up, as on Ctrl-C they should be
            results.close()


def _is_lost_worker(error: Exception) -> bool:
    """Tell a worker that crashed, hangs or has too little memory from any other error."""
    lost = isinstance(error, MemoryError) or type(error).__name__ in ("TerminatedWorkerError", "BrokenProcessPool")
    return lost or _is_hanging(error)


def _is_hanging(error: Exception) -> bool:
    return isinstance(error, multiprocessing.TimeoutError)  # joblib's; Python's own is an OSError, of a network drive


def _one_by_one(part: Part, form: ImageForm, patience: float) -> PartResult:
    """Decode each image of a part as a part of its own, so that one that costs a worker is known by its place."""
    whole = PartResult(part.first, [], {}, [])
    for place, (image, state) in enumerate(zip(part.images, part.states, strict=True), start=part.first):
        alone = Part(place, [image], [state], part.file)
        # Twice: a worker may be lost to a lack of memory, or to a machine that slept, which say nothing of the image.
        found = _alone(alone, form, patience)
        found = _alone(alone, form, 2 * patience) if isinstance(found, str) else found
        if isinstance(found, str):  # its digest is not known: it is read once more, here, where nothing decodes it
            found = PartResult(place, [_read(image, state, place)[1]], {place: found}, [])
        whole.digests.extend(found.digests)
        whole.broken.update(found.broken)
        whole.unread.extend(found.unread)
    return whole


def _alone(part: Part, form: ImageForm, patience: float) -> PartResult | str:
    """Decode one image; say why it cannot be decoded where it costs the worker."""
    try:
        # With one worker joblib would use this process.
        (found,) = _parallel(iter([part]), form, 2, patience)
    except Exception as error:
        if not _is_lost_worker(error):
            raise
        _check_workers(patience)  # else it is not the image's fault, and must not be kept as if it were
        return f"the decoder {'takes too long' if _is_hanging(error) else 'crashed'} on it"
    return found


def _check_workers(patience: float) -> None:
    """Check that worker processes can be started and work at all.

    Raises:
        UserError: they cannot.
    """
    from joblib import Parallel, delayed

    try:
        Parallel(n_jobs=2, backend="loky", timeout=max(patience, PATIENCE_ONE))(delayed(abs)(i) for i in range(2))
    except Exception as error:
        if not _is_lost_worker(error):
            raise
        raise UserError(
            f"no worker process can be started to decode images ({type(error).__name__}): is this Python's environment "
            "whole, and is there memory? Then give the same command again."
        ) from error


def _decode_from(here: Path, part: Part, form: ImageForm) -> PartResult:
    """Decode a part in a worker, which may have been started when relative paths meant something else."""
    os.chdir(here)
    ignore_warnings_of_pillow()
    return decode_part(part, form)


def decode_part(part: Part, form: ImageForm) -> PartResult:
    """Read each image of a part once, decode it, and bring the pixels of all to the disk.

    Raises:
        UserError: a file changed since it was listed: what it holds now would be kept under what it was.
    """
    pixels = np.zeros((len(part.images), *form.size, form.channels), np.uint8)
    whole = PartResult(part.first, [], {}, [])
    for at, (image, state) in enumerate(zip(part.images, part.states, strict=True)):
        place = part.first + at
        fetched, digest = _read(image, state, place)
        whole.digests.append(digest)
        if isinstance(fetched, Exception):
            whole.broken[place] = reason_of(fetched)
            whole.unread.append(place)
        elif found := decode_into(pixels[at : at + 1], [fetched], form):
            whole.broken[place] = found[0]
    with open(part.file, "r+b") as file:
        file.seek(part.first * pixels[0].nbytes)
        file.write(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).data)
        file.flush()
        os.fsync(file.fileno())
    return whole


def _read(image: ImageLike, state: str, place: int) -> tuple[ImageLike | Exception, str]:
    """Read an image; give it, or the error, with its digest."""
    fetched = fetch(image)
    digest = digest_of(fetched).hex()
    if digest != state != image_state(image):  # of what lies in memory the state is the digest
        raise UserError(
            f"{image_name(image, place)} changed while it was read. Wait until nothing writes there, "
            "then give the same command again."
        )
    return fetched, digest
