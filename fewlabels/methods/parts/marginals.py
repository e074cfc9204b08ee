"""Means over rows, remembered over steps."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.averaging.horizon import momentum
from fewlabels.averaging.memory import Memory
from fewlabels.methods.parts.across import mean_rows


class RecentMean(Memory):
    """The mean prediction of the last batches, this one included.

    Args:
        classes: K.
        window: how many batches.
    """

    def __init__(self, classes: int, window: float) -> None:
        super().__init__()
        self.means = self.remember("means", torch.zeros(int(window), classes), "mean")
        self.count = self.remember("count", torch.zeros((), dtype=torch.int64), "first")

    def forward(self, p: Tensor) -> Tensor:
        """Take in probabilities [M, K], and give their mean over the window [K]."""
        window = len(self.means)
        if len(p):
            self.means.index_copy_(0, self.count[None] % window, mean_rows(p)[None])
            self.count.add_(1)
        return self.means.sum(0) / self.count.clamp(1, window)


class RunningMean(Memory):
    """The moving average of a mean over rows: q <- m q + (1 - m) mean.

    Args:
        start: what it is at first.
        memory: steps that it remembers.
    """

    def __init__(self, start: Tensor, memory: float) -> None:
        super().__init__()
        self.memory = memory
        self.value = self.remember("value", start, "mean")

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """Take in rows [n, ...] at `step` (0-dim), and give the average [...]."""
        if len(x):
            self.value.lerp_(mean_rows(x), (1 - momentum(self.memory, step)).to(x.dtype))
        return self.value.clone()  # so that what is computed from it outlives the next update


def uniform(classes: int) -> Tensor:
    """Give equally frequent classes [K]."""
    return torch.full((classes,), 1 / classes)
