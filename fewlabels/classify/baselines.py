"""Training-free baselines: nearest neighbors, a linear classifier and label spreading on given features."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from fewlabels.data.table import UNLABELED, Labels, spread

Features: TypeAlias = NDArray[np.float32]

MOST_UNLABELED = 10_000  # rows that label spreading sees; its graph grows with them


@dataclass(frozen=True)
class Baseline:
    """What a training-free baseline predicts."""

    name: str
    predicted: Labels
    seconds: float


def training_free_baselines(features: Features, labels: Labels, train: Labels, asked: Labels) -> list[Baseline]:
    """Fit each baseline and let it predict.

    Args:
        features: [N, D].
        labels: int64 [N], -1 unlabeled.
        train: rows to learn from, with and without labels.
        asked: rows to predict.
    """
    scaled = np.asarray(StandardScaler().fit(features[train]).transform(features), np.float32)
    labeled = train[labels[train] != UNLABELED]
    unlabeled = spread(train[labels[train] == UNLABELED], MOST_UNLABELED)
    fewest = int(np.bincount(labels[labeled])[np.unique(labels[labeled])].min())
    models: list[tuple[str, Callable[[], Any], Features, Labels]] = [
        ("knn", lambda: KNeighborsClassifier(5 if fewest >= 5 else 1), features, labeled),
        ("linear", lambda: LogisticRegression(max_iter=1000), scaled, labeled),
    ]
    if len(unlabeled):
        both = np.concatenate([labeled, unlabeled])
        neighbors = min(10, len(both) - 1)
        models.append(
            ("label_spreading", lambda: LabelSpreading("knn", n_neighbors=neighbors, max_iter=100), features, both)
        )
    return [_timed(name, make, x, labels, rows, asked) for name, make, x, rows in models]


def _timed(name: str, make: Callable[[], Any], x: Features, labels: Labels, rows: Labels, asked: Labels) -> Baseline:
    start = time.perf_counter()
    with warnings.catch_warnings():
        # Label spreading stops at its limit of rounds, and divides by zero where a row is far from every label.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        predicted = make().fit(x[rows], labels[rows]).predict(x[asked])
    return Baseline(name, predicted.astype(np.int64), time.perf_counter() - start)
