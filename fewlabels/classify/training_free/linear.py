"""Linear classifiers: ridge regression, and logistic regression."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from fewlabels.classify.training_free.problem import Prediction, Problem, balanced_accuracy
from fewlabels.classify.training_free.space import Features, Scores
from fewlabels.data.table import Labels, spread

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

PENALTIES = tuple(10 ** (half / 2) for half in range(-8, 6))  # of ridge regression: 1e-4 to 10^2.5 by half decades
STRENGTHS = (1.0, 10.0, 100.0)  # C of logistic regression
USUAL = 10.0  # where no class has a second label, and none can be left out
GROUPS = 5  # that labeled rows are left out in
MOST_LEFT_OUT = 1000  # labeled rows by which the strength is chosen


def ridge(problem: Problem) -> Prediction:
    """Fit one-hot targets by ridge regression, with the penalty of the least leave-one-out error.

    f(x) = x (X'X + penalty I)^-1 X'Y over the labeled rows X; the error of a row that is left out is
    (y_i - (HY)_i) / (1 - H_ii), H = X (X'X + penalty I)^-1 X' (Allen 1974). Each class counts alike in the choice.
    """
    targets, given = problem.targets, problem.given
    left, sizes, right = np.linalg.svd(problem.train[problem.labeled].astype(np.float64), full_matrices=False)
    weight_of_row = 1 / problem.counts[given] / problem.classes
    best: tuple[float, float] | None = None
    for penalty in PENALTIES:
        kept = sizes**2 / (sizes**2 + penalty)
        fitted, own = (left * kept) @ (left.T @ targets), (left**2) @ kept
        error = (targets - fitted) / (1 - own)[:, None]
        loss = float(weight_of_row @ (error**2).sum(1))
        if best is None or loss < best[0]:
            best = loss, penalty
    assert best is not None
    _, penalty = best
    weight = right.T @ ((sizes / (sizes**2 + penalty))[:, None] * (left.T @ targets))
    return Prediction(problem.train @ weight, problem.asked @ weight)


def logistic(problem: Problem) -> Prediction:
    """Fit a multinomial logistic regression, with the strength of the best balanced accuracy on rows left out.

    The weights are a combination of the labeled rows, so it is fitted in the space that these span: n numbers a row.
    """
    labeled = problem.train[problem.labeled].astype(np.float64)
    _, sizes, basis = np.linalg.svd(labeled, full_matrices=False)
    basis = basis[sizes > sizes[0] * 1e-6] if sizes[0] > 0 else basis
    x, given = labeled @ basis.T, problem.given
    strength = USUAL
    if len(problem.comparable):
        asked = spread(problem.comparable[np.argsort(given[problem.comparable], kind="stable")], MOST_LEFT_OUT)
        found = {c: _left_out(x[asked], given[asked], c, problem.classes) for c in STRENGTHS}
        strength = max(found, key=lambda c: (balanced_accuracy(found[c], given[asked]), -c))
    model = _fitted(x, given, strength)

    def scores(rows: Features) -> Scores:
        return _probabilities(model, rows.astype(np.float64) @ basis.T, problem.classes)

    return Prediction(scores(problem.train), scores(problem.asked))


def _left_out_groups(labels: Labels, most: int) -> list[Labels]:
    """Divide n labeled rows into up to `most` groups that are left out in turn, with classes spread over them."""
    order, count = np.argsort(labels, kind="stable"), min(most, len(labels))
    return [np.sort(order[first::count]) for first in range(count)]


def _left_out(x: Scores, labels: Labels, c: float, classes: int) -> Scores:
    out = np.full((len(labels), classes), 1 / classes)
    for group in _left_out_groups(labels, GROUPS):
        kept = np.setdiff1d(np.arange(len(labels)), group)
        if len(np.unique(labels[kept])) > 1:
            out[group] = _probabilities(_fitted(x[kept], labels[kept], c), x[group], classes)
    return out


def _fitted(x: Scores, labels: Labels, c: float) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning  # a second to import, which other commands need not wait for
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # with a weak penalty, weights of separable rows grow long
        # Of two classes scikit-learn fits the difference of their weights, whose square is twice theirs.
        strength = 2 * c if len(np.unique(labels)) == 2 else c
        return LogisticRegression(C=strength, max_iter=1000).fit(x, labels)


def _probabilities(model: LogisticRegression, x: Scores, classes: int) -> Scores:
    out = np.zeros((len(x), classes))
    if len(x):
        out[:, model.classes_] = model.predict_proba(x)
    return out
