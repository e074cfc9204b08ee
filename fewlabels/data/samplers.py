"""Which rows a step sees: a function of the step, so a sampler keeps no state."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from fewlabels.data.table import Labels
from fewlabels.keys import Key


class Sampler:
    """Goes through `rows` again and again, each time in a new random order.

    Args:
        rows: row numbers of the table [n].
        batch: rows a step, of all processes together.
        key: where the orders are drawn from.
    """

    def __init__(self, rows: Labels, batch: int, key: Key) -> None:
        self.rows, self.batch, self.key = rows, batch, key
        # A batch larger than the set runs through several orders in one step.
        self._order = lru_cache(maxsize=batch // max(len(rows), 1) + 2)(self._draw_order)

    def _draw_order(self, epoch: int) -> Labels:
        places = self.key.fold("epoch", epoch).fold(torch.arange(len(self.rows))).uniform()
        return self.rows[torch.argsort(places, stable=True).numpy()]

    def step(self, step: int) -> Labels:
        """Give the rows [batch] of this step; none where the set is empty."""
        count = len(self.rows)
        if count == 0:
            return self.rows
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = places // count
        out = np.empty(self.batch, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._order(int(epoch))[places[here] % count]
        return out
