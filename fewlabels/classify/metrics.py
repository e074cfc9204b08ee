"""Accuracy, and whether a difference of two is more than noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import Labels

SUPERVISED = "supervised"  # the baseline's row, and the folder of its training


def accuracy(predicted: Labels, truth: Labels) -> float | None:
    """Give the share of right predictions [n]; None without rows."""
    return float((predicted == truth).mean()) if len(truth) else None


def metrics_of(predicted: Labels, truth: Labels) -> dict[str, float] | None:
    """Return accuracy, balanced accuracy and macro F1 of predictions [n], as fractions; None without rows.

    A class without a row has no part in the balanced accuracy; one that is neither there nor predicted none in F1.
    """
    if not len(truth):
        return None
    classes, places = np.unique([truth, predicted], return_inverse=True)
    true, said = places.reshape(2, -1)
    rows, given, right = (np.bincount(of, minlength=len(classes)) for of in (true, said, true[true == said]))
    return {
        "accuracy": float((predicted == truth).mean()),
        "balanced_accuracy": float((right[rows > 0] / rows[rows > 0]).mean()),
        "macro_f1": float((2 * right / (rows + given)).mean()),
    }


def accuracy_interval(value: float, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Give the ends of the interval of an accuracy that so many rows, at least one, were counted for (Wilson 1927)."""
    from scipy.stats import binomtest  # takes a third of a second, which other commands need not wait for

    found = binomtest(round(value * rows), rows).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Gain:
    """A difference of two accuracies on the same rows.

    Attributes:
        value: the difference, as a fraction.
        error: its standard error where the two are equally good: the root of the count of rows on which one alone
            is right, over all rows (McNemar 1947).
        opponents: how many there are, of which the best on these rows is compared with.
    """

    value: float
    error: float
    opponents: int = 1

    @property
    def clear(self) -> bool:
        """Whether it is more than two standard errors; more of them for the best of several opponents (Bonferroni)."""
        from scipy.stats import norm  # takes a third of a second, which other commands need not wait for

        return abs(self.value) > float(norm.isf(norm.sf(2) / self.opponents)) * self.error


def gain(predicted: Labels, baseline: Labels, truth: Labels) -> Gain | None:
    """Compare two predictions [n] of the same rows; None without rows."""
    if not len(truth):
        return None
    difference: NDArray[np.float64] = (predicted == truth).astype(float) - (baseline == truth).astype(float)
    return Gain(float(difference.mean()), float(np.sqrt(np.abs(difference).sum()) / len(truth)))


def confusions(predicted: Labels, truth: Labels, classes: int) -> Labels:
    """Count what is taken for what, int64 [n, 3]: true class, predicted class, how often; those that occur."""
    codes, counts = np.unique(truth * classes + predicted, return_counts=True)
    return np.stack([codes // classes, codes % classes, counts], 1).astype(np.int64)
