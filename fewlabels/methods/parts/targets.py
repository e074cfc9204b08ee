"""What is made of predictions before they become targets."""

from __future__ import annotations

import torch
from torch import Tensor


def one_hot(classes: Tensor, count: int, like: Tensor) -> Tensor:
    """Write classes [n] as rows [n, count] of 0 and 1, of the type of `like`.

    torch's own `one_hot` checks the classes on the host, which stops the device.
    """
    return (classes[:, None] == torch.arange(count, device=classes.device)).to(like.dtype)
