"""Averaging what the network says of each row over the times it was seen."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.averaging.horizon import momentum
from fewlabels.averaging.memory import Memory
from fewlabels.methods.parts.across import gather_rows


class OutputAverage(Memory):
    """One running mean of probabilities for each row of the table.

    q_i <- m q_i + (1 - m) p_i with the momentum debiased by the row's own number of visits; the first visit is p_i.
    A row that stands several times in a batch counts once, with its mean.

    Args:
        rows: N.
        classes: K.
        memory: visits that a mean remembers.
    """

    def __init__(self, rows: int, classes: int, memory: float) -> None:
        super().__init__()
        self.memory = memory
        self.average = self.remember("average", torch.zeros(rows, classes), "rows")
        self.visits = self.remember("visits", torch.zeros(rows, dtype=torch.int64), "rows")

    def forward(self, p: Tensor, rows: Tensor) -> Tensor:
        """Take in probabilities [M, K] of these rows [M] and give their averages [M, K], each summing to 1."""
        every, everywhere = gather_rows(p), gather_rows(rows)
        same = (everywhere[:, None] == everywhere[None, :]).to(p.dtype)
        seen = same @ every / same.sum(1, keepdim=True)
        visits = self.visits[everywhere]
        kept = momentum(self.memory, visits).where(visits > 0, 0.0).to(p.dtype)[:, None]
        # All copies of a row write the same value, so their order does not matter.
        self.average[everywhere] = kept * self.average[everywhere] + (1 - kept) * seen
        self.visits[everywhere] = visits + 1
        q = self.average[rows]
        return q / q.sum(1, keepdim=True)
