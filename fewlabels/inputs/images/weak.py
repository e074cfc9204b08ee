"""Weak views: flip and crop with reflect padding, by one gather over the whole batch."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fewlabels.inputs.images.operations import take
from fewlabels.keys import Key, integers

Flip: TypeAlias = Literal["none", "horizontal", "dihedral"]


def reflect(index: Tensor, size: int) -> Tensor:
    """Fold indices in [-(size - 1), 2 * (size - 1)] back into the image, without repeating the border."""
    index = index.abs()
    return torch.where(index > size - 1, 2 * (size - 1) - index, index)


def weak_view(images: Tensor, key: Key, flip: Flip, padding: float = 1 / 8) -> Tensor:
    """Shift each image by up to `padding` of its side, filled by reflection, and flip it at random.

    Args:
        images: uint8 [n, C, H, W].
        key: one element an image, int64 [n].
        flip: none; horizontal (half of the images mirrored); dihedral (one of the square's eight
            symmetries; transposition only where H = W).
        padding: the largest shift as a part of the side (FixMatch: 4 of 32 pixels).

    Returns:
        uint8 [n, C, H, W].
    """
    height, width = images.shape[2:]
    y, x, mirror_y, mirror_x, turn = key.uniforms(5)
    rows = _source_index(height, padding, y)
    columns = _source_index(width, padding, x)
    if flip != "none":
        columns = _mirrored(columns, mirror_x)
    if flip == "dihedral":
        rows = _mirrored(rows, mirror_y)
    if flip == "dihedral" and height == width:
        turned = (turn < 0.5).to(torch.int64)[:, None]
        rows, columns = rows * (width + turned * (1 - width)), columns * (1 + turned * (width - 1))
    else:
        rows = rows * width
    return take(images, (rows[:, :, None] + columns[:, None, :])[:, None])


def _source_index(size: int, padding: float, uniform: Tensor) -> Tensor:
    """Give for each image [n] the pixels along one side [n, size] that a shifted crop reads."""
    most = min(round(size * padding), size - 1)
    shift = integers(uniform, 2 * most + 1) - most
    return reflect(torch.arange(size, device=shift.device) + shift[:, None], size)


def _mirrored(index: Tensor, uniform: Tensor) -> Tensor:
    return torch.where(uniform.lt(0.5)[:, None], index.flip(1), index)
