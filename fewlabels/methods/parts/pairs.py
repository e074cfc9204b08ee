"""Which image is mixed with which, in shapes that do not depend on how many there are."""

from __future__ import annotations

import torch
from torch import Tensor


def shuffled(chosen: Tensor, draws: Tensor) -> Tensor:
    """Give each chosen slot (bool [n]) a chosen one: in their order they get them in the order of the draws [n].

    What the slots that are not chosen get has no meaning.
    """
    others = (~chosen).to(draws.dtype)
    in_order, drawn = others.argsort(stable=True), (2 * others + draws).argsort(stable=True)
    return torch.empty_like(in_order).index_copy_(0, in_order, drawn)


def of_class(wished: Tensor, classes: Tensor, allowed: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Choose for each row [M] the allowed candidate of its wished class that has the largest draw.

    Args:
        wished: int64 [M].
        classes: int64 [n], of the candidates.
        allowed: bool [n].
        draws: [M, n], in [0, 1).

    Returns:
        The candidates [M], and whether there was one [M].
    """
    fit = (wished[:, None] == classes[None, :]) & allowed[None, :]
    return torch.where(fit, draws, -1.0).argmax(1), fit.any(1)
