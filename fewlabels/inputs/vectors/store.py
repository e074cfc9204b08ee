"""The vectors of a run, in the memory of the training device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.table import Labels, spread
from fewlabels.inputs.base import MOST_TEST, MOST_TRAIN, NearCopies, Provider, chunks

ROUNDING = 1e-8  # of the mean: a deviation below that of float32 is none
SMALLEST = 1e-30  # deviation whose inverse float32 holds


class Vectors:
    """Vectors that lie whole on the training device.

    Args:
        vectors: float32 [N, D], finite.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors
        self.device = vectors.device
        n, d = vectors.shape
        self.shape = (n, d)

    def take(self, rows: Labels) -> Tensor:
        """Give the vectors of these rows, [n, D]."""
        return self.vectors[torch.from_numpy(rows).to(self.device, non_blocking=True)]

    def expect(self, *coming: Labels) -> None:
        """Do nothing: all is there."""


def vector_statistics(vectors: Provider, rows: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and deviation of each dimension over these rows; the deviation is 0 where all are the same."""
    total, squares = np.zeros((2, vectors.shape[1]))
    for part in chunks(rows):
        total += _part(vectors, part).sum(0)
    mean = total / len(rows)
    for part in chunks(rows):
        squares += ((_part(vectors, part) - mean) ** 2).sum(0)
    std = np.sqrt(squares / len(rows))
    std[std <= np.maximum(ROUNDING * np.abs(mean), SMALLEST)] = 0
    return tuple(mean.tolist()), tuple(std.tolist())


def _part(vectors: Provider, rows: Labels) -> NDArray[np.float64]:
    return vectors.take(rows).cpu().numpy().astype(np.float64)


def equal_vectors(vectors: Provider, test: Labels, train: Labels) -> NearCopies:
    """Find test vectors that are equal to a training vector, number for number; as `near_copies`."""
    test, train = spread(test, MOST_TEST), spread(train, MOST_TRAIN)
    first: dict[bytes, int] = {}
    for part in chunks(train):
        for row, vector in zip(part.tolist(), vectors.take(part).cpu().numpy(), strict=True):
            first.setdefault(vector.tobytes(), row)
    found = [first.get(vector.tobytes(), -1) for part in chunks(test) for vector in vectors.take(part).cpu().numpy()]
    equal = np.array(found, np.int64)
    return NearCopies(test[equal >= 0], equal[equal >= 0], len(test))
