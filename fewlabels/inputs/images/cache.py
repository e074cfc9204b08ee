"""Decoded images on disk: made once for a content and a form, whole or absent, shared by processes and runs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.image import ImageLike, Pixels, reason_of
from fewlabels.files import read_array, replace_file, replace_text
from fewlabels.inputs.base import content_of
from fewlabels.inputs.images.decode import ImageForm, decode_into
from fewlabels.inputs.images.digest import digest_of, fetch, image_state
from fewlabels.inputs.images.store import readable
from fewlabels.inputs.images.workers import Broken, Part, PartResult, decode_parts, worker_count

FORMAT = 1
PART = 64  # images that a worker decodes at a time: some may be held in memory, whole files of megabytes
KEPT_DAYS = 30  # since it was last used, after which a cache is removed
READERS = 8  # threads that look at files

_PIXELS, _DONE, _INDEX, _ARRAY = "pixels.bin", "parts.jsonl", "index.json", "array.npy"
_NAME = re.compile(r"[0-9a-f]{24}(\.part)?")  # of a cache; other folders are the user's


@dataclass(frozen=True, eq=False)
class CachedImages:
    """Decoded images on disk.

    Attributes:
        pixels: uint8 [N, C, H, W], memory-mapped, read-only; zeros where an image cannot be read.
        broken: the places of such, and why.
        folder: where they lie.
        digests: of what each image holds.
    """

    pixels: Pixels
    broken: Broken
    folder: Path
    digests: tuple[str, ...]


def default_folder() -> Path:
    """Give the folder of decoded images: $FEWLABELS_CACHE, or fewlabels in the user's folder for caches."""
    if given := os.environ.get("FEWLABELS_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewlabels"


def states_of(images: Sequence[ImageLike], said: Callable[[int], object] = lambda done: None) -> list[str]:
    """Look at all images without opening a file; `said` is told how many are done, and may raise to stop it."""
    found: list[str] = []
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(images), PART):
            part = [images[i] for i in range(start, min(start + PART, len(images)))]
            found += readers.map(image_state, part)
            said(len(found))
    return found


def read_all(
    images: Sequence[ImageLike], form: ImageForm, said: Callable[[int], object] = lambda done: None
) -> tuple[Tensor, Broken, tuple[str, ...]]:
    """Read and decode all images into memory, each once; `said` is told how many are done, and may raise to stop it.

    Returns:
        uint8 [n, C, H, W] of those that can be read, in order; for each of the others its place and the reason; and
        the digests of all: one that cannot be read counts with its error.
    """
    pixels = np.zeros((len(images), *form.size, form.channels), np.uint8)
    broken, digests = Broken(), list[str]()
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(images), PART):
            part = [images[i] for i in range(start, min(start + PART, len(images)))]
            for place, fetched in enumerate(readers.map(fetch, part), start=start):
                digests.append(digest_of(fetched).hex())
                if isinstance(fetched, Exception):
                    broken[place] = reason_of(fetched)
                elif found := decode_into(pixels[place : place + 1], [fetched], form):
                    broken[place] = found[0]
            said(len(digests))
    return readable(pixels, broken), broken, tuple(digests)


class Cache:
    """The decoded images of one content and form.

    What the images hold is known when all are read. Until then the cache is called by their states, and an index
    has the digests that these came to: where it is there, no image is opened. Several processes may make a cache at
    once: each writes the same bytes to the same places, notes the parts it has done, and goes on where any of them
    stopped.

    Args:
        folder: of all caches.
        images: what is decoded.
        states: of the images, as `states_of` gives them.
        form: what they are brought to.
    """

    def __init__(self, folder: Path, images: Sequence[ImageLike], states: Sequence[str], form: ImageForm) -> None:
        self.folder, self.images, self.states, self.form = folder, images, states, form
        self.listed = self._place(hashlib.sha256("\0".join(states).encode(errors="backslashreplace")).hexdigest())
        self.making = self.listed.with_name(self.listed.name + ".part")
        self.shape = (len(images), form.channels, *form.size)
        self.bytes = int(np.prod(self.shape))

    def _place(self, of: str) -> Path:
        key = json.dumps([FORMAT, PART, PIL.__version__, of, len(self.images), asdict(self.form)])
        return self.folder / hashlib.sha256(key.encode()).hexdigest()[:24]

    def open(self, *, again: bool = False) -> CachedImages | None:
        """Give what is there; None where it is not there whole.

        Args:
            again: try the files that could not be read, and give None where one can be now.
        """
        try:
            listed = json.loads((self.listed / _INDEX).read_text(encoding="utf-8"))
            whole = self._place(content_of(listed["digests"]))
            said = json.loads((whole / _INDEX).read_text(encoding="utf-8"))["broken"].items()
            broken = {int(place): str(reason) for place, reason in said}
            if (whole / _PIXELS).stat().st_size != self.bytes:
                return None  # cut from outside
            unread = {k: listed["digests"][k] for k in listed["unread"]}
            if again and any(digest_of(fetch(self.images[k])).hex() != digest for k, digest in unread.items()):
                return None
            mapped = np.memmap(whole / _PIXELS, np.uint8, "r", shape=self.shape)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
        _touch(self.listed / _INDEX)
        _touch(whole / _INDEX)
        return CachedImages(mapped, broken, whole, tuple(listed["digests"]))

    def make(self, rank: int = 0, world: int = 1) -> Iterator[int]:
        """Decode what is not decoded yet; give the number of images done, part by part.

        Args:
            rank, world: this is process `rank` of `world` that make it together; each decodes its share.

        Raises:
            OSError: there is no room, or no permission to write.
            UserError: a file changed since it was listed.
        """
        self._begin()
        done = [first for first, found in self._done().items() if not found.unread]
        yield sum(self._count(first) for first in done)
        mine = range(rank * PART, len(self.images), world * PART)
        left = [first for first in mine if first not in done]
        for found in decode_parts(left, self._part, self.form, worker_count(world)):
            with open(self.making / _DONE, "a", encoding="utf-8") as file:
                # A line before it too: a kill may have cut the one that was written last.
                file.write("\n" + json.dumps(asdict(found)) + "\n")
            yield self._count(found.first)

    def finish(self) -> CachedImages:
        """Give all that is decoded its lasting name.

        Raises:
            OSError: it cannot be written, or was taken away meanwhile.
        """
        failed: OSError | None = None
        try:
            self._name()
        except OSError as error:
            failed = error  # unless another process was faster
        found = self.open()
        if found is None:
            raise failed or OSError(f"{self.listed} was taken away while it was made")
        shutil.rmtree(self.making, ignore_errors=True)  # left where the same images were decoded before
        return found

    def _name(self) -> None:
        done = [found for _, found in sorted(self._done().items())]
        digests = [digest for found in done for digest in found.digests]
        if len(digests) < len(self.images):
            raise OSError(f"{self.making} was taken away while it was made")
        unread = [place for found in done for place in found.unread]
        self.listed.mkdir(exist_ok=True)
        self._write(self.listed / _INDEX, {"digests": digests, "unread": unread})
        if self.open() is not None:
            return  # decoded before, from files of other names or times
        broken = {place: reason for found in done for place, reason in found.broken.items()}
        self._write(self.making / _INDEX, {"form": asdict(self.form), "broken": broken})
        whole = self._place(content_of(digests))
        try:
            self.making.rename(whole)
        except OSError:
            if self.open() is not None or not whole.exists():
                raise
            shutil.rmtree(whole)  # damaged from outside, else it had been opened
            self.making.rename(whole)

    def _write(self, path: Path, said: Mapping[str, Any]) -> None:
        """Write JSON, by a name of its own first: another process may be as far."""
        own = self.making / f"{uuid.uuid4().hex}.json"
        replace_text(own, json.dumps(said))
        own.replace(path)

    def _begin(self) -> None:
        """Make the file of pixels at its full length, which costs no disk yet, after what nobody uses is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unused(self.folder)
        self.making.mkdir(exist_ok=True)
        pixels, noted = self.making / _PIXELS, (self.making / _DONE).exists()
        there = pixels.stat().st_size if pixels.exists() else 0
        free = shutil.disk_usage(self.making).free
        if there < self.bytes:
            if noted:  # parts are noted after the file has its length: it was cut from outside
                (self.making / _DONE).unlink(missing_ok=True)
            if free < self.bytes:
                raise OSError(f"{self.bytes / 1e9:.2f} GB are needed there and {free / 1e9:.2f} GB are free")
            with open(pixels, "ab") as file:
                file.truncate(self.bytes)

    def _done(self) -> dict[int, PartResult]:
        """Read which parts are done; a line that was cut by a kill is none."""
        done: dict[int, PartResult] = {}
        path = self.making / _DONE
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            try:
                entry = json.loads(line)
                found = PartResult(
                    **entry | {"broken": {int(place): reason for place, reason in entry["broken"].items()}}
                )
                done[found.first] = found
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return done

    def _count(self, first: int) -> int:
        return min(PART, len(self.images) - first)

    def _part(self, first: int) -> Part:
        places = range(first, first + self._count(first))
        images = [self.images[i] for i in places]
        return Part(first, images, [self.states[i] for i in places], self.making / _PIXELS)


class KeptArray:
    """An array that is kept beside the decoded images, since making it takes long.

    Args:
        folder: of all caches.
        key: all that the array depends on.
    """

    def __init__(self, folder: Path, *key: object) -> None:
        text = json.dumps([FORMAT, *key])
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:24]

    def open(self) -> NDArray[np.float32] | None:
        """Give it; None where it is not there whole."""
        found = read_array(self.folder / _ARRAY)
        if found is not None:
            _touch(self.folder / _INDEX)
        return found

    def write(self, array: NDArray[np.float32]) -> None:
        """Keep it.

        Raises:
            OSError: there is no room, or no permission to write.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_unused(self.folder.parent)
        replace_text(self.folder / _INDEX, "{}")
        with io.BytesIO() as whole:
            np.save(whole, array)
            replace_file(self.folder / _ARRAY, lambda path: path.write_bytes(whole.getbuffer()))


def remove_unused(folder: Path) -> None:
    """Remove caches that nobody used for `KEPT_DAYS`, and nothing else that lies there."""
    for path in [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]:
        marks = [path / _INDEX, path / _DONE, path / _PIXELS]
        used = max((mark.stat().st_mtime for mark in marks if mark.exists()), default=time.time())
        if time.time() - used > KEPT_DAYS * 86_400:
            shutil.rmtree(path, ignore_errors=True)


def _touch(path: Path) -> None:
    with contextlib.suppress(OSError):  # a cache that only others may write to is used all the same
        os.utime(path)
