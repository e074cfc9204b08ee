"""What is remembered from step to step, and how the memories of copies combine."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

Combine: TypeAlias = Literal["mean", "rows", "first"]


class Memory(nn.Module):
    """A module with buffers that say how those of copies of it combine, when the copies' parameters are averaged.

    "mean": average them. "rows": one entry a row, taken from the last copy in which it is another than before the
    copies parted; one that is nowhere another stays. "first": keep the first copy's.
    """

    def __init__(self) -> None:
        super().__init__()
        self.combine: dict[str, Combine] = {}

    def remember(self, name: str, start: Tensor, combine: Combine) -> Tensor:
        """Keep a tensor under `name`: saved with the run, moved with the module.

        Raises:
            ValueError: whole numbers have no mean, and one number has no rows.
        """
        if (combine == "mean" and not start.is_floating_point()) or (combine == "rows" and start.ndim == 0):
            raise ValueError(f"{name}: {start.dtype} of shape {list(start.shape)} does not combine by {combine!r}")
        self.register_buffer(name, start)
        self.combine[name] = combine
        return start
