"""The most similar rows, and the classifier that lets them vote (kNN)."""

from __future__ import annotations

import numpy as np

from fewlabels.classify.training_free.problem import Features, Prediction, Problem, Scores, balanced_accuracy
from fewlabels.data.table import Labels

CANDIDATES = (1, 3, 5, 9, 15)  # numbers of neighbors that are tried
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
        near = np.argpartition(similarity, -k, axis=1)[:, -k:] if k < len(among) else np.arange(len(among))[None]
        values = np.take_along_axis(similarity, near, 1)
        order = np.lexsort((np.broadcast_to(near, values.shape), -values), axis=1)
        places[part] = np.take_along_axis(np.broadcast_to(near, values.shape), order, 1)
        found[part] = np.take_along_axis(values, order, 1)
    return places, found


def nearest(x: Features, k: int) -> Labels:
    """Return the k nearest other rows of each row [N, D] by the Euclidean distance, int64 [N, k]."""
    # |x - y|^2 is least where x y - |y|^2 / 2 is largest.
    ones, half = np.ones((len(x), 1), np.float32), (x**2).sum(1, keepdims=True) / 2
    return most_similar(np.hstack([x, ones]), np.hstack([x, -half]), k, without_self=True)[0]


def nearest_neighbors(problem: Problem) -> Prediction:
    """Let the k most similar labeled rows vote, with the k of the best balanced leave-one-out accuracy.

    The smallest such k; 1 where a class has a single label, since that row has no neighbor of its class.
    """
    labeled, given = problem.train[problem.labeled], problem.given
    most = min(len(given) - 1, max(CANDIDATES)) if problem.counts.min() > 1 else 1
    k, left_out = 1, np.zeros((len(given), problem.classes))
    if len(given) > 1:
        places, similarity = most_similar(labeled, labeled, most, without_self=True)
        votes = {k: _votes(places[:, :k], similarity[:, :k], given, problem.classes) for k in CANDIDATES if k <= most}
        k = max(votes, key=lambda each: (balanced_accuracy(votes[each], given), -each))
        left_out = votes[k]

    def scores(x: Features) -> Scores:
        return _votes(*most_similar(x, labeled, k), given, problem.classes)

    return Prediction(scores(problem.train), scores(problem.asked), lambda: left_out)


def _votes(places: Labels, similarity: Features, labels: Labels, classes: int) -> Scores:
    """Count votes [N, K] of neighbors; between equal counts their similarities decide."""
    hot = np.eye(classes)[labels[places]]  # [N, k, K]
    count = places.shape[1]
    tie_break = (hot * (similarity.astype(np.float64)[:, :, None] + 1)).sum(1) / (2 * count + 1)
    return (hot.sum(1) + tie_break / (count + 1)) / (count + 1)
