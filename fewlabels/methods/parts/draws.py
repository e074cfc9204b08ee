"""What a method draws: from the batch's key, for each row of the global batch, whoever of the processes holds it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from fewlabels.keys import Key
from fewlabels.methods.parts.across import world
from fewlabels.views.mix import beta, mixup


def first_of(rows: Tensor) -> int:
    """Give the slot in the global batch of the first of these rows, of which each process holds as many."""
    return dist.get_rank() * len(rows) if world() > 1 else 0


def of_rows(key: Key, name: str, rows: Tensor) -> Key:
    """Give a key for each of these rows [n, ...], of a stream of this name."""
    first = first_of(rows)
    return key.fold(name).each(range(first, first + len(rows)), rows.device)


def directions(key: Key, images: Tensor) -> Tensor:
    """Draw a direction for each image [n, C, H, W], all equally likely, of length 1."""
    count = images[0].numel() if len(images) else 0
    first, second = of_rows(key, "direction", images).uniforms(2 * count).view(2, count, len(images))
    normal = (-2 * (1 - first).log()).sqrt() * (2 * torch.pi * second).cos()  # Box and Muller 1958
    return unit(normal.T.reshape(images.shape).to(images.dtype))


def unit(x: Tensor) -> Tensor:
    """Divide each row [n, ...] by its length; a row of zeros stays one."""
    lengths = x.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
    return x / lengths.view(-1, *[1] * (x.ndim - 1))


def mix_rows(key: Key, images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mix each row with another one, of which it keeps less than half (Berthelot et al. 2019).

    With l ~ Beta(alpha, alpha) and l' = max(l, 1 - l): l' of the row and 1 - l' of the other, of images and targets.
    The others are of the same process.

    Args:
        key: of the batch.
        images: [n, C, H, W].
        targets: [n, K].
        alpha: the smaller, the less is mixed.
    """
    share = beta(of_rows(key, "share", images), alpha)
    share = torch.maximum(share, 1 - share).to(images.dtype)
    order = of_rows(key, "order", images).uniform().argsort()
    return mixup(images, images[order], share), share[:, None] * targets + (1 - share[:, None]) * targets[order]
