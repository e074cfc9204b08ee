"""Parts of images, resized: each image with boxes of its own, by two products with small matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fewlabels.keys import Key


class Box(NamedTuple):
    """A rectangle in each image of a batch, in whole pixels; each is float32 [n]."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def whole(images: Tensor) -> Box:
    """Give the box of all pixels of images [n, C, H, W]."""
    n, _, height, width = images.shape
    zero = torch.zeros(n, device=images.device)
    return Box(zero, zero, zero + height, zero + width)


def resample(images: Tensor, source: Box, target: Box) -> Tensor:
    """Resize the pixels of `source` to those of `target`, the rest is 0: uint8 or float [n, C, H, W] -> the same.

    Equals Pillow's resize with its bilinear filter, which averages where it makes smaller, within a gray level.
    """
    height, width = images.shape[2:]
    rows = _weights(height, source.top, source.height, target.top, target.height)
    columns = _weights(width, source.left, source.width, target.left, target.width)
    if images.is_floating_point():
        return rows.to(images.dtype)[:, None] @ (images @ columns.to(images.dtype).transpose(1, 2)[:, None])
    # Rounded between the two, as Pillow does.
    across = (images.to(torch.float32) @ columns.transpose(1, 2)[:, None] + 0.5).floor()
    return (rows[:, None] @ across + 0.5).floor().clamp(0, 255).to(torch.uint8)


def _weights(size: int, start: Tensor, length: Tensor, to: Tensor, new_length: Tensor) -> Tensor:
    """Give the share of each input pixel in each output pixel along one side: float32 [n, size (out), size (in)]."""
    start, length, to, new_length = (each[:, None, None] for each in (start, length, to, new_length))
    pixel = torch.arange(size, device=start.device, dtype=torch.float32)
    scale = length / new_length
    center = start + (pixel[:, None] - to + 0.5) * scale
    weight = (1 - (pixel + 0.5 - center).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((pixel >= start) & (pixel < start + length))
    inside = (pixel[:, None] >= to) & (pixel[:, None] < to + new_length)
    return weight / weight.sum(2, keepdim=True).clamp(min=1e-6) * inside


def random_resized_crop(
    images: Tensor, key: Key, area: tuple[float, float] = (0.2, 1.0), aspect: tuple[float, float] = (3 / 4, 4 / 3)
) -> Tensor:
    """Take a rectangle of random place, area and aspect out of each image, and resize it to the whole.

    As torchvision's RandomResizedCrop, but for rectangles that do not fit: there they are drawn anew, here cut.

    Args:
        images: uint8 [n, C, H, W].
        key: one element an image, int64 [n].
        area: least and largest part of the image.
        aspect: least and largest width over height; drawn evenly on a logarithmic scale.

    Returns:
        uint8 [n, C, H, W].
    """
    height, width = images.shape[2:]
    u_area, u_aspect, y, x = key.uniforms(4)
    pixels = (area[0] + (area[1] - area[0]) * u_area) * (height * width)
    ratio = aspect[0] * (aspect[1] / aspect[0]) ** u_aspect
    h = (pixels / ratio).sqrt().round().clamp(1, height)
    w = (pixels * ratio).sqrt().round().clamp(1, width)
    box = Box((y * (height - h + 1)).floor(), (x * (width - w + 1)).floor(), h, w)
    return resample(images, box, whole(images))
