"""What a method draws: from the batch's key, for each row of the global batch, whoever of the processes holds it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fewlabels.inputs.mix import beta, mixup
from fewlabels.keys import Key
from fewlabels.processes import this_process


def first_of(rows: Tensor) -> int:
    """Give the slot in the global batch of the first of these rows, of which each process holds as many."""
    return this_process().rank * len(rows)


def of_rows(key: Key, name: str, *blocks: Tensor) -> Key:
    """Give a key for each row of these blocks [n, ...], under each other, of a stream of this name.

    Each block is this process's part of as many rows of the global batch: labeled ones, a view of the unlabeled ones.
    """
    states: list[Tensor] = []
    for number, rows in enumerate(blocks):
        first = first_of(rows)
        states.append(key.fold(name, number).each(range(first, first + len(rows)), rows.device).tensor)
    return Key(torch.cat(states))


def directions(key: Key, images: Tensor) -> Tensor:
    """Draw a direction for each image [n, C, H, W], all equally likely, of length 1."""
    count = images[0].numel() if len(images) else 0
    uniform = of_rows(key, "direction", images).uniforms(count).T.clamp(min=2.0**-25)  # of 0 it would be infinite
    return unit(torch.special.ndtri(uniform).reshape(images.shape).to(images.dtype))


def unit(x: Tensor) -> Tensor:
    """Divide each row [n, ...] by its length; a row of zeros stays one."""
    lengths = x.flatten(1).norm(dim=1).clamp(min=torch.finfo(x.dtype).tiny)
    return x / lengths.view(-1, *[1] * (x.ndim - 1))


def mix_rows(key: Key, images: Sequence[Tensor], targets: Sequence[Tensor], quantiles: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each row with one of all, of which it takes the smaller part (Berthelot et al. 2019).

    With l ~ Beta(alpha, alpha) and l' = max(l, 1 - l): l' of the row and 1 - l' of the other, of images and targets.
    The smaller alpha, the less is mixed. The others are of the same process.

    Args:
        key: of the batch.
        images: blocks of rows, [n, C, H, W] each.
        targets: of each block, [n, K].
        quantiles: of Beta(alpha, alpha), from `beta_quantiles`.

    Returns:
        Images and targets of all blocks under each other.
    """
    share = beta(of_rows(key, "share", *images), quantiles)
    order = of_rows(key, "order", *images).uniform().argsort()
    x, y = torch.cat(list(images)), torch.cat(list(targets))
    share = torch.maximum(share, 1 - share).to(x.dtype)
    return mixup(x, x[order], share), share[:, None] * y + (1 - share[:, None]) * y[order]
