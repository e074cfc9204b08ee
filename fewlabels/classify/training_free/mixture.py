"""Classes whose centers move to the unlabeled rows that they explain: a Gaussian mixture, and Sinkhorn prototypes."""

from __future__ import annotations

import numpy as np
from scipy.special import softmax

from fewlabels.classify.training_free.problem import Prediction, Problem
from fewlabels.classify.training_free.space import Scores
from fewlabels.data.table import UNLABELED

STEPS = 3  # of the mixture
UNLABELED_WEIGHT = 0.1  # of a row without a label, against one with
MEDIAN_LOGIT = 3.0
TEMPERATURE = 0.05  # of the prototypes
ROUNDS, BALANCINGS = 3, 10


def gaussian_em(problem: Problem) -> Prediction:
    """Fit one Gaussian a class, all of the same spherical covariance, to labeled and unlabeled rows (EM).

    For rows a of the space of `whitened`: L = a mu - |mu|^2 / 2 less its mean over classes, scaled to a median size of
    `MEDIAN_LOGIT`; Q = softmax L; then mu_k = (sum of labeled a + w sum_i Q_ik a_i) / (n_k + w sum_i Q_ik) over the
    unlabeled rows i, `STEPS` times, with w = `UNLABELED_WEIGHT` (Nigam et al. 2000).
    """
    return Prediction(*_gaussian(problem))


def sinkhorn_prototypes(problem: Problem) -> Prediction:
    """Let prototypes of the labels take in the unlabeled rows, balanced by class shares (SS-Text-U without text).

    Q = exp(cos(x, w) / tau) over the unlabeled rows, its columns scaled to the shares of the labels and its rows to
    1/M in turn, `BALANCINGS` times; then w_k = n_k / (2 n tau) sum of labeled x + 1 / tau mean_i Q_ik x_i, `ROUNDS`
    times (Silva-Rodriguez et al. 2025).
    """
    return Prediction(*_prototypes(problem))


def _gaussian(problem: Problem) -> tuple[Scores, Scores]:
    a = problem.train.astype(np.float64)
    pool = a[problem.labels == UNLABELED]
    sums, counts = problem.targets.T @ a[problem.labeled], problem.targets.sum(0)
    mu = sums / counts[:, None]
    for _ in range(STEPS):
        q = UNLABELED_WEIGHT * softmax(_scale(a, mu) * _logits(pool, mu), axis=1)
        mu = (sums + q.T @ pool) / (counts + q.sum(0))[:, None]
    scale = _scale(a, mu)
    asked = problem.asked.astype(np.float64)
    return softmax(scale * _logits(a, mu), axis=1), softmax(scale * _logits(asked, mu), axis=1)


def _logits(a: Scores, mu: Scores) -> Scores:
    found = a @ mu.T - (mu**2).sum(1) / 2
    return found - found.mean(1, keepdims=True)


def _scale(a: Scores, mu: Scores) -> float:
    size = float(np.median(np.abs(_logits(a, mu))))
    return MEDIAN_LOGIT / size if size > 0 else 1.0


def _prototypes(problem: Problem) -> tuple[Scores, Scores]:
    x = problem.train.astype(np.float64)
    pool, labeled, count = x[problem.labels == UNLABELED], x[problem.labeled], len(problem.given)
    sums, counts = problem.targets.T @ labeled, problem.targets.sum(0)
    w = sums / counts[:, None]
    anchor = counts[:, None] / (2 * count * TEMPERATURE) * sums
    for _ in range(ROUNDS):
        w = anchor + (_balanced(pool, w, counts / count).T @ pool / (len(pool) * TEMPERATURE) if len(pool) else 0)
    asked = problem.asked.astype(np.float64)
    return softmax(_cosines(x, w) / TEMPERATURE, axis=1), softmax(_cosines(asked, w) / TEMPERATURE, axis=1)


def _balanced(pool: Scores, w: Scores, shares: Scores) -> Scores:
    """Return Q [M, K] whose rows sum to 1 and whose columns have, nearly, these shares."""
    cosine = _cosines(pool, w) / TEMPERATURE
    q = np.exp(cosine - cosine.max())
    for _ in range(BALANCINGS):
        q *= shares / q.sum(0)
        q /= q.sum(1, keepdims=True) * len(q)
    return q * len(q)


def _cosines(x: Scores, w: Scores) -> Scores:
    length = np.linalg.norm(w, axis=1)
    return x @ np.divide(w, length[:, None], out=np.zeros_like(w), where=length[:, None] > 0).T
