"""What classes are predicted on average, remembered over steps."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.averaging.horizon import momentum
from fewlabels.methods.parts.across import mean_rows
from fewlabels.methods.parts.memory import Memory


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
    """The moving average of the mean prediction, from 1/K: q <- m q + (1 - m) mean p.

    Args:
        classes: K.
        memory: steps that it remembers.
    """

    def __init__(self, classes: int, memory: float) -> None:
        super().__init__()
        self.memory = memory
        self.value = self.remember("value", torch.full((classes,), 1 / classes), "mean")

    def forward(self, p: Tensor, step: Tensor) -> Tensor:
        """Take in probabilities [M, K] at `step` (0-dim), and give the average [K]."""
        if len(p):
            self.value.lerp_(mean_rows(p), (1 - momentum(self.memory, step)).to(p.dtype))
        return self.value.clone()  # so that what is computed from it outlives the next update
