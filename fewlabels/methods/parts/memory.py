"""What a method remembers from step to step."""

from __future__ import annotations

from typing import Literal, TypeAlias

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
