"""The images of a run as uint8 of one form: in the memory of the training device, or read from disk as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.image import ImageLike, Pixels
from fewlabels.data.table import Labels
from fewlabels.inputs.base import CHUNK, Provider, chunks, cores
from fewlabels.inputs.images.decode import ImageForm, decode_into

MOST_THREADS = 8  # that decode ahead: each holds a chunk


class Images(Provider, Protocol):
    """Gives images, uint8 [n, C, H, W]; both kinds give the same."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        ...


class ResidentImages:
    """Images that lie whole on the training device.

    Args:
        images: uint8 [N, C, H, W].
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.device = images.device
        n, c, h, w = images.shape
        self.shape = (n, c, h, w)

    def take(self, rows: Labels) -> Tensor:
        """Give the images of these rows."""
        return self.images[torch.from_numpy(rows).to(self.device, non_blocking=True)]

    def expect(self, *coming: Labels) -> None:
        """Do nothing: all is there."""


class StreamedImages:
    """Images that are read from a memory-mapped file, those of the next step while the device works.

    Args:
        stored: uint8 [n, C, H, W], memory-mapped.
        places: where each row lies in it, int64 [N].
        device: where to give them.
    """

    def __init__(self, stored: Pixels, places: Labels, device: torch.device) -> None:
        self.stored, self.places, self.device = stored, places, device
        _, c, h, w = stored.shape
        self.shape = (len(places), c, h, w)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="images")
        self._coming: dict[bytes, Future[Tensor]] = {}

    def take(self, rows: Labels) -> Tensor:
        """Give the images of these rows."""
        read = self._coming.pop(rows.tobytes(), None)
        return (self._read(rows) if read is None else read.result()).to(self.device, non_blocking=True)

    def expect(self, *coming: Labels) -> None:
        """Begin to read these rows; what was expected before and not taken is forgotten."""
        self._coming = {rows.tobytes(): self._reader.submit(self._read, rows) for rows in coming}

    def _read(self, rows: Labels) -> Tensor:
        images = torch.from_numpy(self.stored[self.places[rows]])
        return images.pin_memory() if self.device.type == "cuda" else images


def resident(images: StreamedImages) -> ResidentImages:
    """Bring images whole into the memory of their device."""
    whole = torch.empty(images.shape, dtype=torch.uint8, device=images.device)
    for rows in chunks(np.arange(len(whole))):
        whole[torch.from_numpy(rows)] = images.take(rows)
    return ResidentImages(whole)


def pixel_statistics(images: Provider, rows: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and deviation of each channel over these rows, of pixels in 0..1, from their counted levels."""
    levels = np.arange(256) / 255
    counts = np.zeros((images.shape[1], 256), np.int64)
    for part in chunks(rows):
        pixels: NDArray[np.uint8] = images.take(part).cpu().numpy()
        counts += np.stack([np.bincount(pixels[:, c].ravel(), minlength=256) for c in range(images.shape[1])])
    shares = counts / counts.sum(1, keepdims=True)
    mean = shares @ levels
    std = np.sqrt(np.maximum((shares * (levels - mean[:, None]) ** 2).sum(1), 1e-6))
    return tuple(map(float, mean)), tuple(map(float, std))


def decode_all(images: Sequence[ImageLike], form: ImageForm) -> tuple[Tensor, dict[int, str]]:
    """Read many images into memory.

    Returns:
        uint8 [n, C, H, W] of those that can be read, in order; and for each of the others its place in the sequence
        and the reason.
    """
    pixels = np.zeros((len(images), *form.size, form.channels), np.uint8)
    broken = decode_into(pixels, images, form)
    return readable(pixels, broken), broken


def readable(pixels: Pixels, broken: Mapping[int, str]) -> Tensor:
    """Return uint8 [n, C, H, W] of pixels [N, H, W, C], without those that could not be read."""
    good = pixels[[place for place in range(len(pixels)) if place not in broken]] if broken else pixels
    # A copy in any case: of one channel the transposed view counts as contiguous, and other strides give other sums.
    return torch.from_numpy(good.transpose(0, 3, 1, 2).copy())


def decoded(
    images: Sequence[ImageLike], form: ImageForm, chunk: int = CHUNK
) -> Iterator[tuple[int, Tensor, dict[int, str]]]:
    """Decode chunk after chunk, in threads, ahead of what the caller does with them; few are held at a time.

    Args:
        images: what to decode.
        form: what to bring it to.
        chunk: images that are given together.

    Yields:
        The place of the chunk's first image in the sequence, and what `decode_all` gives for the chunk.
    """
    threads = min(MOST_THREADS, cores())
    coming: deque[tuple[int, Future[tuple[Tensor, dict[int, str]]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for start in range(0, len(images), chunk):
            coming.append((start, pool.submit(decode_all, images[start : start + chunk], form)))
            if len(coming) > threads:
                first, pixels = coming.popleft()
                yield first, *pixels.result()
        for first, pixels in coming:
            yield first, *pixels.result()
    finally:
        pool.shutdown(cancel_futures=True)
