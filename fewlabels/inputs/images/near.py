"""Near copies on both sides of a split: a test row that was also trained on tells nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.table import Labels, spread
from fewlabels.inputs.base import MOST_TEST, MOST_TRAIN, NearCopies, Provider, chunks

MOST_BITS = 6  # of 64 that may differ between the hashes of near copies
MOST_LEVELS = 4.0  # of 255 by which their thumbnails may differ, on average
THUMBNAIL = 16  # pixels

_ROWS, _COLUMNS = 8, 9  # of the hash: each pixel beside its right neighbor makes 64 bits


@dataclass(frozen=True, eq=False)
class _Prints:
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.float32]


def near_copies(images: Provider, test: Labels, train: Labels) -> NearCopies:
    """Find test images of which the training images hold a near copy: the same picture saved or scaled again.

    Two images are near copies when their perceptual hashes (64 bits: whether each point of a coarse gray image is
    brighter than its right neighbor) differ in few bits and their thumbnails by few levels: flat images agree in
    many bits by chance. Each test image is compared with the training image whose hash is nearest.

    Args:
        images: of all rows.
        test, train: rows; of very many an even spread is compared.
    """
    test, train = spread(test, MOST_TEST), spread(train, MOST_TRAIN)
    if not len(test) or not len(train):
        return NearCopies(test[:0], train[:0], 0)
    tested, trained = _prints(images, test), _prints(images, train)
    nearest = np.concatenate([_nearest(part, trained.hashes) for part in chunks(tested.hashes, 64)])
    bits = np.bitwise_count(tested.hashes ^ trained.hashes[nearest])
    levels = np.abs(tested.thumbnails - trained.thumbnails[nearest]).mean(1)
    near = (bits <= MOST_BITS) & (levels <= MOST_LEVELS)
    return NearCopies(test[near], train[nearest[near]], len(test))


def _nearest(hashes: NDArray[np.uint64], among: NDArray[np.uint64]) -> Labels:
    return np.bitwise_count(hashes[:, None] ^ among[None]).argmin(1)


def _prints(images: Provider, rows: Labels) -> _Prints:
    hashes, thumbnails = zip(*(_prints_of(images.take(part)) for part in chunks(rows)), strict=True)
    return _Prints(np.concatenate(hashes), np.concatenate(thumbnails))


def _prints_of(images: Tensor) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Give hashes [n] and thumbnails [n, 256] of uint8 images [n, C, H, W]."""
    gray = images.to(torch.float32).mean(1, keepdim=True)
    coarse = F.adaptive_avg_pool2d(gray, (_ROWS, _COLUMNS))
    brighter = (coarse[..., :-1] > coarse[..., 1:]).flatten(1).cpu().numpy()
    thumbnails = F.adaptive_avg_pool2d(gray, THUMBNAIL).flatten(1).cpu().numpy()
    return np.packbits(brighter, axis=1).view(np.uint64).ravel(), thumbnails
