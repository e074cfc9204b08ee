"""Strong views: RandAugment with FixMatch's pool, then cutout."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.keys import Key
from fewlabels.views import operations

_GRAY = 127  # what a cut-out square is filled with (Sohn et al. 2020)


def rand_augment(images: Tensor, key: Key, count: int = 2) -> Tensor:
    """Apply `count` operations, drawn for each image with their strengths (Sohn et al. 2020, appendix D).

    Args:
        images: uint8 [n, C, H, W].
        key: one element an image, int64 [n].
        count: operations an image, drawn with repetition.

    Returns:
        uint8 [n, C, H, W].
    """
    for place in range(count):
        drawn = key.fold("operation", place)
        operation = drawn.fold("which").integers(len(operations.OPERATIONS))
        strength = operations.strengths(operation, drawn.fold("strength").uniform())
        images = operations.apply(images, operation, strength)
    return images


def cutout(images: Tensor, key: Key, largest: float = 0.5) -> Tensor:
    """Fill a square of random place with gray, its side uniform up to `largest` of the shorter side.

    Shapes as in `rand_augment`; source: DeVries and Taylor 2017, as FixMatch uses it.
    """
    height, width = images.shape[2:]
    half = key.fold("side").uniform() * largest * min(height, width) / 2
    y = _within(height, key.fold("y").uniform() * height, half)
    x = _within(width, key.fold("x").uniform() * width, half)
    hole = (y[:, :, None] & x[:, None, :])[:, None]
    return torch.where(hole, torch.full_like(images, _GRAY), images)


def _within(size: int, center: Tensor, half: Tensor) -> Tensor:
    """Tell for each image which pixels [n, size] along one side lie within `half` of its center [n]."""
    pixels = torch.arange(size, device=center.device) + 0.5
    return (pixels - center[:, None]).abs() <= half[:, None]
