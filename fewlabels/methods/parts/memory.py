"""What a method remembers from step to step."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Combine: TypeAlias = Literal["mean", "rows", "first", "reset"]


class Memory(nn.Module):
    """A module with buffers that say how copies of them combine, over processes and over averaged networks.

    "mean": average the copies; "rows": one entry a row of the table, taken from the copy that saw the row last;
    "first": keep the first copy's; "reset": start anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self.combine: dict[str, Combine] = {}

    def remember(self, name: str, start: Tensor, combine: Combine) -> Tensor:
        """Keep a tensor under `name`: saved with the run, moved with the module."""
        self.register_buffer(name, start)
        self.combine[name] = combine
        return start


def last_of(rows: Tensor, chosen: Tensor) -> Tensor:
    """Give for each slot [n] the last slot of the same row that is chosen (bool [n]), or its own where none is.

    A row may stand several times in a batch; what all its slots write then is the same, whatever their order.
    """
    slots = torch.arange(len(rows), device=rows.device)
    same = (rows[:, None] == rows[None, :]) & chosen[None, :]
    last = torch.where(same, slots[None, :], -1).amax(1) if len(rows) else slots
    return torch.where(last >= 0, last, slots)
