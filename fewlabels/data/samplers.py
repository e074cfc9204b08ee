"""Which rows a step sees: a function of the step, so a sampler keeps no state."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from fewlabels.data.table import Labels
from fewlabels.keys import Key


class Sampler(Protocol):
    """Chooses rows as a function of the step and the branch alone.

    Attributes:
        rows: row numbers of the table that it chooses from [n].
        batch: rows a step, of all processes together.
    """

    rows: Labels
    batch: int

    def step(self, step: int, branch: int = 0) -> Labels:
        """Return the rows [batch] of this step; none where there are none to choose from."""
        ...


class Epochs(Sampler):
    """Goes through `rows` again and again, each time in a new random order.

    Args:
        rows: row numbers of the table [n].
        batch: rows a step, of all processes together.
        key: where the orders are drawn from.
        stream: a name, so that two samplers with one key draw different orders.
    """

    def __init__(self, rows: Labels, batch: int, key: Key, stream: str) -> None:
        self.rows, self.batch, self.key, self.stream = rows, batch, key, stream
        # A batch larger than the set runs through several orders in one step.
        self._order = lru_cache(maxsize=batch // max(len(rows), 1) + 2)(self._draw_order)

    def _draw_order(self, branch: int, epoch: int) -> Labels:
        key = self.key.fold(branch, "sampler").fold(self.stream).fold("epoch", epoch)
        return self.rows[torch.argsort(key.fold(torch.arange(len(self.rows))).uniform(), stable=True).numpy()]

    def step(self, step: int, branch: int = 0) -> Labels:
        """Return the rows [batch] of this step; none where the set is empty."""
        count = len(self.rows)
        if count == 0:
            return self.rows
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = places // count
        out = np.empty(self.batch, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._order(branch, int(epoch))[places[here] % count]
        return out
