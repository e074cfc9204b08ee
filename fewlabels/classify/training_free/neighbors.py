"""The most similar rows."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from fewlabels.classify.training_free.space import Features, Scores
from fewlabels.data.table import Labels

CELLS = 1 << 23  # similarities that are held at once


def most_similar(x: Features, among: Features, k: int, *, without_self: bool = False) -> tuple[Labels, Features]:
    """Find the k rows of the largest products, which of rows of length 1 are cosines; the largest first.

    Args:
        x: [N, D].
        among: [M, D].
        k: at most M, or M - 1 without the row itself.
        without_self: `x` is `among`, and no row is its own neighbor.

    Returns:
        Their places among the M, int64 [N, k], and their similarities [N, k].
    """
    places = np.empty((len(x), k), np.int64)
    found = np.empty((len(x), k), np.float32)
    size = max(1, CELLS // len(among))
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        similarity = x[part] @ among.T
        if without_self:
            rows = np.arange(start, start + len(similarity))
            similarity[rows - start, rows] = -np.inf
        near = np.argpartition(similarity, -k, axis=1)[:, -k:]
        values = np.take_along_axis(similarity, near, 1)
        order = np.lexsort((near, -values), axis=1)
        places[part] = np.take_along_axis(near, order, 1)
        found[part] = np.take_along_axis(values, order, 1)
    return places, found


def nearest(x: Features, k: int) -> Labels:
    """Return the k nearest other rows of each row [N, D] by the Euclidean distance, int64 [N, k]."""
    # |x - y|^2 is least where x y - |y|^2 / 2 is largest.
    ones, half = np.ones((len(x), 1), np.float32), (x**2).sum(1, keepdims=True) / 2
    return most_similar(np.hstack([x, ones]), np.hstack([x, -half]), k, without_self=True)[0]


def summed(places: Labels, weights: Features, values: Scores) -> Scores:
    """Return for each row the weighted sum [N, K] of the values [M, K] at its places [N, k]."""
    count, k = places.shape
    rows = (weights.astype(np.float64).ravel(), places.ravel(), np.arange(0, count * k + 1, k))
    return np.asarray(csr_matrix(rows, (count, len(values))) @ values)
