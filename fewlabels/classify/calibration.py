"""Calibration: probabilities that are as often right as they say, and how far they are from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.model_selection import StratifiedKFold

from fewlabels.data.table import Labels

Floats = NDArray[np.floating]

PROMISED_FROM = 100  # rows: with fewer the temperature is known to no better than a sixth
VECTOR_FROM = 50  # rows a class, from which on each class may have a scale and an offset of its own
PRIOR = 1.0  # deviation of the logarithm of a scale, and of an offset, before any row was seen
BINS = 15
RESAMPLES = 1000
LEVEL = 0.95
_FOLDS = 5
_AT_ONCE = 100_000  # rows of draws in memory


@dataclass(frozen=True)
class Calibration:
    """Turns logits z [n, K] into probabilities softmax(scale * z + bias) (Guo et al. 2017).

    Attributes:
        kind: none; temperature (one scale for all classes, no bias); vector (both for each class).
        scale, bias: [K] each.
        rows: labeled rows, none of which the network was trained on, that it was fitted to.
    """

    kind: Literal["none", "temperature", "vector"]
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    rows: int

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.scale)

    @property
    def temperature(self) -> float:
        """What logits are divided by, in the mean over the classes."""
        return float(1 / np.mean(self.scale))

    @property
    def promised(self) -> bool:
        """Whether it was fitted to rows enough to rely on."""
        return self.rows >= PROMISED_FROM

    def __call__(self, logits: Floats) -> NDArray[np.float32]:
        """Give probabilities [n, K]."""
        moved = np.asarray(self.scale) * logits.astype(np.float64) + np.asarray(self.bias)
        return softmax(moved, axis=1).astype(np.float32)


def uncalibrated(classes: int) -> Calibration:
    """Give what leaves probabilities as the network has them."""
    return Calibration("none", (1.0,) * classes, (0.0,) * classes, 0)


def calibrate(logits: Floats, labels: Labels) -> Calibration:
    """Fit a calibration to rows that the network was not trained on.

    One temperature; where there are `VECTOR_FROM` rows of each class, a scale and an offset for each class, if in
    cross-validation they predict the labels better. Scales and offsets have a prior of deviation `PRIOR` around 1 and
    0, so that a handful of rows, all of them right, does not say that the network is never wrong.

    Args:
        logits: [n, K].
        labels: int64 [n]; n may be 0.
    """
    n, classes = logits.shape
    if not n:
        return uncalibrated(classes)
    z = logits.astype(np.float64)
    counts = np.bincount(labels, minlength=classes)
    one = _fit(z, labels, each=False)
    if counts.min() < VECTOR_FROM or not _vector_is_better(z, labels):
        return Calibration("temperature", *one, n)
    return Calibration("vector", *_fit(z, labels, each=True), n)


def _fit(z: Floats, labels: Labels, each: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give scale and bias at the largest posterior; of `each` class, or one scale and no bias."""
    n, k = z.shape
    truth = np.eye(k)[labels]

    def parts(x: Floats) -> tuple[Floats, Floats]:
        return (np.exp(x[:k]), x[k:]) if each else (np.exp(np.repeat(x, k)), np.zeros(k))

    def loss(x: Floats) -> tuple[float, Floats]:
        scale, bias = parts(x)
        logged = log_softmax(scale * z + bias, axis=1)
        error = np.exp(logged) - truth
        of_scale, of_bias = (error * z).sum(0) * scale, error.sum(0)
        gradient = np.concatenate([of_scale, of_bias]) if each else np.array([of_scale.sum()])
        return float(-logged[np.arange(n), labels].sum() + (x**2).sum() / (2 * PRIOR**2)), gradient + x / PRIOR**2

    found = minimize(loss, np.zeros(2 * k if each else 1), jac=True, method="L-BFGS-B")
    scale, bias = parts(found.x)
    return tuple(map(float, scale)), tuple(map(float, bias))


def _vector_is_better(z: Floats, labels: Labels) -> bool:
    """Cross-validate: whether a scale and an offset a class predict labels better, by more than a standard error."""
    better: list[float] = []
    for train, held in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(z, labels):
        one, each = (
            _log_likelihood(z[held], labels[held], *_fit(z[train], labels[train], each=e)) for e in (False, True)
        )
        better += (each - one).tolist()
    return float(np.mean(better)) > float(np.std(better)) / len(better) ** 0.5


def _log_likelihood(z: Floats, labels: Labels, scale: tuple[float, ...], bias: tuple[float, ...]) -> Floats:
    logged = log_softmax(np.asarray(scale) * z + np.asarray(bias), axis=1)
    return logged[np.arange(len(labels)), labels]


@dataclass(frozen=True)
class Reliability:
    """How far confidence and accuracy are apart (Naeini et al. 2015, Guo et al. 2017).

    Attributes:
        confidence, accuracy: the means of each bin of equal width that has rows.
        counts: its rows.
        ece: expected calibration error: the mean over rows of the difference of the two in their bin, a fraction.
        low, high: the ends of its bootstrap interval (`LEVEL`, `RESAMPLES` draws of the rows). Few rows make the error
            look larger than it is, and draws of them once more so; hence the basic interval, that takes this off.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    counts: tuple[int, ...]
    ece: float
    low: float
    high: float


def reliability(probabilities: Floats, labels: Labels, seed: int = 0) -> Reliability | None:
    """Compare confidence, the largest probability of a row, with accuracy; None without rows.

    Args:
        probabilities: [n, K].
        labels: int64 [n].
        seed: of the bootstrap.
    """
    from scipy.stats import bootstrap  # takes a third of a second, which other commands need not wait for

    n = len(labels)
    if not n:
        return None
    confidence = probabilities.max(1).astype(np.float64)
    right = (probabilities.argmax(1) == labels).astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)

    def errors(rows: Labels, axis: int = -1) -> Floats:
        """Give the expected calibration error of draws of rows [..., n]."""
        del axis
        draws = np.arange(rows.size // n).reshape(*rows.shape[:-1], 1)
        totals = np.bincount((draws * BINS + bins[rows]).ravel(), (confidence - right)[rows].ravel(), draws.size * BINS)
        return np.abs(totals).reshape(*rows.shape[:-1], BINS).sum(-1) / n

    every = np.arange(n)
    ece = float(errors(every))
    low = high = ece
    if n > 1:
        drawn = bootstrap(
            (every,), errors, method="basic", n_resamples=RESAMPLES, confidence_level=LEVEL, vectorized=True,
            batch=max(1, _AT_ONCE // n), rng=np.random.default_rng(seed),
        )  # fmt: skip
        low, high = drawn.confidence_interval
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0
    return Reliability(
        confidence=tuple(map(float, np.bincount(bins, confidence, BINS)[filled] / counts[filled])),
        accuracy=tuple(map(float, np.bincount(bins, right, BINS)[filled] / counts[filled])),
        counts=tuple(map(int, counts[filled])),
        ece=ece,
        low=min(max(0.0, float(low)), ece),
        high=max(float(high), ece),
    )
