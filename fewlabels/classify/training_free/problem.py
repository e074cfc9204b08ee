"""What a training-free classifier is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import UNLABELED, Labels

Features: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows to learn from, and rows to predict that nothing is learned from.

    Attributes:
        train: features [N, D] of the training rows, labeled and unlabeled.
        asked: features [A, D] of other rows, such as the test split.
        labels: int64 [N], classes 0..K-1, or -1.
        classes: K; each has at least one labeled row.
    """

    train: Features
    asked: Features
    labels: Labels
    classes: int

    @property
    def labeled(self) -> Labels:
        """Places of the labeled rows [n] among the training rows."""
        return np.flatnonzero(self.labels != UNLABELED)

    @property
    def given(self) -> Labels:
        """Their labels [n]."""
        return self.labels[self.labeled]

    @property
    def targets(self) -> Scores:
        """One-hot labels [n, K]."""
        return np.eye(self.classes)[self.given]

    @property
    def counts(self) -> Labels:
        """Labels per class [K]."""
        return np.bincount(self.given, minlength=self.classes)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says of all rows; the class of a row is that of its largest score.

    Attributes:
        train: scores [N, K] of the training rows.
        asked: scores [A, K].
        leave_one_out: makes scores [n, K] of the labeled rows, each by a classifier that was fitted without its label.
    """

    train: Scores
    asked: Scores
    leave_one_out: Callable[[], Scores]


def balanced_accuracy(scores: Scores, labels: Labels) -> float:
    """Return the mean over classes of the fraction of rows [n] whose largest score is at their label."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))


def unit(x: Features) -> Features:
    """Scale rows [N, D] to length 1; a row of zeros stays one."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def unit_centered(features: Features, train: Labels) -> Features:
    """Scale rows to length 1, subtract the mean of the training rows, and scale again (SimpleShot, Wang et al. 2019).

    Args:
        features: [N, D] of all rows.
        train: the rows whose mean is subtracted; test rows are not among them.
    """
    scaled = unit(features)
    return unit(scaled - scaled[train].mean(0, dtype=np.float64).astype(np.float32))
