"""The space in which similar rows differ alike in all directions."""

from __future__ import annotations

import numpy as np

from fewlabels.classify.training_free.neighbors import nearest
from fewlabels.classify.training_free.space import Features, Scores
from fewlabels.data.table import Labels, spread

COMPONENTS = 128
NEIGHBORS = 5
SHRINK = 0.1  # part of the mean variance that is added to each direction
MOST_ROWS = 20_000  # that the map is fitted on


def whitened(x: Features, train: Labels) -> Features:
    """Return rows divided by the spread of the nearest neighbors, most of which are of one class.

    With the centered principal components a of x: S = 1/2 mean of (a_i - a_j)(a_i - a_j)' over rows i and the
    `NEIGHBORS` nearest rows j of each, S += `SHRINK` tr(S) / p I, and a S^-1/2. It is what linear discriminant analysis
    (Fisher 1936) does by labels.

    Args:
        x: [N, D] of all rows.
        train: rows that it is fitted on.

    Returns:
        [N, p], p at most `COMPONENTS`; x itself where the rows are too few or all equal.
    """
    from sklearn.decomposition import PCA  # a second to import, which other commands need not wait for

    fitted = spread(train, MOST_ROWS)
    p = min(COMPONENTS, x.shape[1], len(fitted) - 1)
    if len(fitted) <= NEIGHBORS or not np.ptp(x[fitted], axis=0).any():
        return x
    pca = PCA(p, svd_solver="covariance_eigh" if len(fitted) > x.shape[1] else "full").fit(x[fitted])
    a = np.asarray(pca.transform(x), np.float32)
    near = nearest(a[fitted], NEIGHBORS)
    scatter = np.zeros((p, p))
    for place in range(NEIGHBORS):
        difference = (a[fitted] - a[fitted][near[:, place]]).astype(np.float64)
        scatter += difference.T @ difference / (2 * NEIGHBORS * len(fitted))
    return divided(a, scatter)


def divided(a: Features, scatter: Scores) -> Features:
    """Return a S^-1/2, with S the scatter [p, p] plus `SHRINK` of its mean variance in each direction."""
    p = len(scatter)
    values, vectors = np.linalg.eigh(scatter + SHRINK * max(np.trace(scatter), 1e-12) / p * np.eye(p))
    return np.asarray(a @ ((vectors / np.sqrt(values)) @ vectors.T), np.float32)
