"""Memories that several methods use."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.averaging.memory import Memory


class ValueAt(Memory):
    """A number as it was at one step; 0 before.

    Args:
        step: which.
    """

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        self.value = self.remember("value", torch.zeros(()), "mean")

    def forward(self, now: Tensor, step: Tensor) -> Tensor:
        """Take in what the number is at `step`, both 0-dim, and give it as it was at the one."""
        self.value.copy_(torch.where(step == self.step, now, self.value))
        return self.value.clone()


def last_of(rows: Tensor, chosen: Tensor) -> Tensor:
    """Give for each slot [n] the last slot of the same row that is chosen (bool [n]), or its own where none is.

    A row may stand several times in a batch; what all its slots write then is the same, whatever their order.
    """
    slots = torch.arange(len(rows), device=rows.device)
    same = (rows[:, None] == rows[None, :]) & chosen[None, :]
    last = torch.where(same, slots[None, :], -1).amax(1) if len(rows) else slots
    return torch.where(last >= 0, last, slots)
