"""A graph of similar rows, and equations on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csgraph, csr_matrix, diags_array

from fewlabels.classify.training_free.neighbors import most_similar, summed
from fewlabels.classify.training_free.space import Features, Scores
from fewlabels.data.table import Labels

NEIGHBORS = 10
POWER = 3  # of the cosine
MOST_ROUNDS = 2000  # of conjugate gradients
TOLERANCE = 1e-8  # of the residual, relative


@dataclass(frozen=True, eq=False)
class Graph:
    """Rows and their similarities.

    Attributes:
        x: [N, D], rows of length 1.
        weights: symmetric [N, N], 0 on the diagonal.
        neighbors: of each row.
    """

    x: Features
    weights: csr_matrix
    neighbors: int

    @property
    def degree(self) -> Scores:
        """The sum of a row's weights [N]."""
        return np.asarray(self.weights.sum(1), np.float64).ravel()

    @property
    def normalized(self) -> csr_matrix:
        """D^-1/2 W D^-1/2, with the degrees D; a row without neighbors has none here either."""
        degree = self.degree
        root = np.divide(1, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
        return csr_matrix(diags_array(root) @ self.weights @ diags_array(root))

    def reached(self, labeled: Labels) -> NDArray[np.bool_]:
        """Tell which rows [N] are connected with a labeled row."""
        _, part = csgraph.connected_components(self.weights, directed=False)
        return np.isin(part, part[labeled])


def graph_of(x: Features, neighbors: int = NEIGHBORS) -> Graph:
    """Connect each row [N, D] of length 1 with the most similar ones: w = max(cos, 0)^POWER, W + W'."""
    k = min(neighbors, len(x) - 1)
    if k < 1:
        return Graph(x, csr_matrix((len(x), len(x))), neighbors)
    places, similarity = most_similar(x, x, k, without_self=True)
    weights = np.maximum(similarity, 0).astype(np.float64) ** POWER
    one_way = csr_matrix((weights.ravel(), places.ravel(), np.arange(0, len(x) * k + 1, k)), (len(x), len(x)))
    whole = csr_matrix(one_way + one_way.T)
    whole.eliminate_zeros()
    return Graph(x, whole, neighbors)


def carried(graph: Graph, scores: Scores, x: Features) -> Scores:
    """Return the mean scores [A, K] of the most similar of the graph's rows [N, K], weighted by similarity."""
    k = min(graph.neighbors, len(graph.x))
    places, similarity = most_similar(x, graph.x, k)
    weights = np.maximum(similarity, 0) ** POWER
    total = weights.sum(1, keepdims=True)
    return summed(places, np.divide(weights, total, out=np.full_like(weights, 1 / k), where=total > 0), scores)


def conjugate_gradients(matrix: csr_matrix, right: Scores, diagonal: Scores) -> Scores:
    """Solve M u = right for all columns [N, K] at once, preconditioned by the positive diagonal of M (Jacobi)."""
    inverse = 1 / diagonal[:, None]
    out, rest = np.zeros_like(right), right.copy()
    ahead = inverse * rest
    direction, size = ahead.copy(), (rest * ahead).sum(0)
    enough = TOLERANCE**2 * (right**2).sum(0)
    for _ in range(MOST_ROUNDS):
        moved = matrix @ direction
        along = (direction * moved).sum(0)
        step = np.divide(size, along, out=np.zeros_like(size), where=along > 0)
        out += step * direction
        rest -= step * moved
        if ((rest**2).sum(0) <= enough).all():
            break
        ahead = inverse * rest
        was, size = size, (rest * ahead).sum(0)
        direction = ahead + np.divide(size, was, out=np.zeros_like(size), where=was > 0) * direction
    return out
