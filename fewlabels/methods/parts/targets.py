"""What is made of predictions before they become targets."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(classes: Tensor, count: int, like: Tensor) -> Tensor:
    """Write classes [n] as rows [n, count] of 0 and 1, of the type of `like`.

    torch's own `one_hot` checks the classes on the host, which stops the device.
    """
    return (classes[:, None] == torch.arange(count, device=classes.device)).to(like.dtype)


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """Give p_k^(1/temperature), normalized, of each row [n, K]; below 1 the largest grows (Berthelot et al. 2019)."""
    return (p.clamp(min=torch.finfo(p.dtype).tiny).log() / temperature).softmax(1)


def with_propagated(logits: Tensor, propagated: Tensor | None) -> Tensor:
    """Return logits [n, K] of (1 - a) softmax(logits) + propagated, where a is the sum of a row of propagated [n, K].

    Their softmax is that distribution, so whatever is made of logits can be made of these. None changes nothing.
    """
    if propagated is None:
        return logits
    propagated = propagated.to(logits.dtype)
    p = (1 - propagated.sum(1, keepdim=True)) * logits.softmax(1) + propagated
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()


def align(p: Tensor, wished: Tensor | float, average: Tensor) -> Tensor:
    """Give p * wished / average, normalized, of each row [n, K] (Berthelot et al. 2020).

    Args:
        p: [n, K].
        wished: the marginal [K] that predictions should have, or a number for the uniform one.
        average: the one that they have, [K].
    """
    p = p * wished / average.clamp(min=torch.finfo(p.dtype).tiny)
    return p / p.sum(1, keepdim=True)
