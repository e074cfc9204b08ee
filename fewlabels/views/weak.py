"""Weak views: flip and crop with reflect padding, by one gather over the whole batch."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fewlabels.keys import Key

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
    n, _, height, width = images.shape
    rows = _source_index(height, padding, key.fold("shift y"))
    columns = _source_index(width, padding, key.fold("shift x"))
    if flip != "none":
        columns = _mirrored(columns, key.fold("mirror x"))
    if flip == "dihedral":
        rows = _mirrored(rows, key.fold("mirror y"))
        if height == width:
            turn = key.fold("transpose").uniform().lt(0.5)[:, None, None, None]
            images = torch.where(turn, images.transpose(2, 3), images)
    samples = torch.arange(n, device=images.device)[:, None, None]
    # The indices stand on both sides of the channel's slice, so torch puts the channel last.
    return images[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _source_index(size: int, padding: float, key: Key) -> Tensor:
    """Draw for each image [n] the pixels along one side [n, size] that a shifted crop reads."""
    most = min(round(size * padding), size - 1)
    shift = key.integers(2 * most + 1) - most
    return reflect(torch.arange(size, device=shift.device) + shift[:, None], size)


def _mirrored(index: Tensor, key: Key) -> Tensor:
    return torch.where(key.uniform().lt(0.5)[:, None], index.flip(1), index)
