"""Strong views: RandAugment, then cutout."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.inputs.images import operations
from fewlabels.keys import Key, integers

_GRAY = 127  # what a cut-out square is filled with (Sohn et al. 2020)


def rand_augment(images: Tensor, key: Key, ranges: Tensor, count: int = 2) -> Tensor:
    """Apply `count` operations, drawn for each image with their strengths (Sohn et al. 2020, appendix D).

    Args:
        images: uint8 [n, C, H, W].
        key: one element an image, int64 [n].
        ranges: from `operations.strength_ranges`, on the device of the images.
        count: operations an image, drawn with repetition.

    Returns:
        uint8 [n, C, H, W].
    """
    draws = key.uniforms(2 * count)
    for which, strength in zip(draws[:count], draws[count:], strict=True):
        operation = integers(which, len(operations.OPERATIONS))
        images = operations.apply(images, operation, operations.strengths(operation, strength, ranges))
    return images


def cutout(images: Tensor, key: Key, largest: float = 0.5) -> Tensor:
    """Fill a square of random place with gray, its side uniform up to `largest` of the shorter side.

    Shapes as in `rand_augment`; source: DeVries and Taylor 2017, as FixMatch uses it.
    """
    height, width = images.shape[2:]
    side, y, x = key.uniforms(3)
    half = side * largest * min(height, width) / 2
    hole = _within(height, y * height, half)[:, None, :, None] & _within(width, x * width, half)[:, None, None, :]
    return images + hole * (_GRAY - images)  # modulo 256; on a CPU ten times as fast as torch.where


def _within(size: int, center: Tensor, half: Tensor) -> Tensor:
    """Tell for each image which pixels [n, size] along one side lie within `half` of its center [n]."""
    pixels = torch.arange(size, device=center.device) + 0.5
    return (pixels - center[:, None]).abs() <= half[:, None]
