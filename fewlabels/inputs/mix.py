"""Views made of two images each: mixup, cutmix, resize-mix. Each tells how much of the first image is left."""

from __future__ import annotations

import torch
from scipy.special import betaincinv
from torch import Tensor

from fewlabels.errors import UserError
from fewlabels.inputs.images.resample import Box, resample, whole
from fewlabels.keys import Key

_STEPS = 4096


def beta_quantiles(alpha: float) -> Tensor:
    """Return the table [4097] from which `beta` draws Beta(alpha, alpha)."""
    values = betaincinv(alpha, alpha, torch.linspace(0, 1, _STEPS + 1, dtype=torch.float64).numpy())
    return torch.from_numpy(values).to(torch.float32)


def beta(key: Key, quantiles: Tensor) -> Tensor:
    """Draw from a beta distribution for each element of the key: float32 in 0..1.

    By a table of its quantiles, from `beta_quantiles`: rejection sampling would make the device wait.
    """
    place = key.uniform() * _STEPS
    below = place.floor()
    low, high = quantiles[below.to(torch.int64)], quantiles[below.to(torch.int64) + 1]
    return low + (place - below) * (high - low)


def mixup(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """Blend float [n, C, H, W] or [n, D] with as many others; `share` [n] of the first (Zhang et al. 2018)."""
    share = share.view(-1, *[1] * (images.ndim - 1))
    return share * images + (1 - share) * others


def cutmix(images: Tensor, others: Tensor, key: Key, share: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of the other image at its own place (Yun et al. 2019).

    Args:
        images, others: [n, C, H, W] of any type.
        key: one element an image, int64 [n].
        share: [n], wanted of the first image.

    Returns:
        The mixed images, and the share [n] of the first that is left: rectangles are cut at the border.
    """
    height, width = images.shape[2:]
    y, x = key.uniforms(2)
    half = (1 - share).sqrt() / 2
    rows = _between(height, ((y - half) * height).round(), ((y + half) * height).round())
    columns = _between(width, ((x - half) * width).round(), ((x + half) * width).round())
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, others, images), 1 - inside.flatten(1).to(torch.float32).mean(1)


def resize_mix(
    images: Tensor,
    others: Tensor,
    key: Key,
    scale: tuple[float, float] = (0.1, 0.8),
    quantiles: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Paste the whole other image, made smaller, at a random place (Qin et al. 2020).

    Args:
        images, others: uint8 or float [n, C, H, W].
        key: one element an image, int64 [n].
        scale: least and largest side of the pasted image as a part of the side.
        quantiles: between these it is the root of a draw of `beta` from this table; None draws it evenly.

    Returns:
        The mixed images, and the share [n] of the first.

    Raises:
        UserError: they are vectors.
    """
    if images.ndim == 2:
        raise UserError("this method pastes images into each other, which vectors cannot be; take another, as mixmatch")
    height, width = images.shape[2:]
    u, y, x = key.uniforms(3)
    if quantiles is not None:
        u = beta(key.fold("side"), quantiles).sqrt()
    part = scale[0] + (scale[1] - scale[0]) * u
    h, w = (part * height).round().clamp(min=1), (part * width).round().clamp(min=1)
    box = Box((y * (height - h + 1)).floor(), (x * (width - w + 1)).floor(), h, w)
    rows, columns = _between(height, box.top, box.top + h), _between(width, box.left, box.left + w)
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, resample(others, whole(others), box), images), 1 - h * w / (height * width)


def _between(size: int, first: Tensor, end: Tensor) -> Tensor:
    pixel = torch.arange(size, device=first.device)
    return (pixel >= first[:, None]) & (pixel < end[:, None])
