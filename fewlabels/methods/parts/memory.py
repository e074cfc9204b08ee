"""What a method remembers from step to step."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Combine: TypeAlias = Literal["mean", "rows", "labeled rows", "first", "reset"]


class Memory(nn.Module):
    """A module with buffers that say how copies of them combine, over processes and over averaged networks.

    "mean": average the copies; "rows", "labeled rows": one entry a row of the table, or of its labeled rows, taken from
    the copy that saw the row last; "first": keep the first copy's; "reset": start anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.combine: dict[str, Combine] = {}

    def remember(self, name: str, start: Tensor, combine: Combine) -> Tensor:
        """Keep a tensor under `name`: saved with the run, moved with the module."""
        self.register_buffer(name, start)
        self.combine[name] = combine
        return start


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
