"""Training-free baselines: classifiers on given features, each as strong as its best user would make it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fewlabels.classify.training_free.linear import logistic, ridge
from fewlabels.classify.training_free.mixture import gaussian_em, sinkhorn_prototypes
from fewlabels.classify.training_free.neighbors import nearest_neighbors
from fewlabels.classify.training_free.poisson import poisson
from fewlabels.classify.training_free.problem import Features as Features
from fewlabels.classify.training_free.problem import Prediction, Problem, unit_centered
from fewlabels.classify.training_free.propagation import propagation
from fewlabels.classify.training_free.whitening import whitened
from fewlabels.data.table import UNLABELED, Labels, spread

MOST_TRAIN = 20_000  # training rows that a graph has; the time of exact neighbors grows with their square

Fit = Callable[[Problem], Prediction]


@dataclass(frozen=True)
class Kind:
    """A training-free baseline.

    Attributes:
        words: how the table names it.
        fit: learns and predicts.
        is_whitened: whether in the space of `whitened`.
        takes_unlabeled: whether it learns from rows without labels.
    """

    words: str
    fit: Fit
    is_whitened: bool = False
    takes_unlabeled: bool = False


KINDS: dict[str, Kind] = {
    "knn": Kind("kNN", nearest_neighbors),
    "linear": Kind("linear probe", logistic),
    "ridge": Kind("ridge", ridge),
    "label_propagation": Kind("label propagation", propagation, takes_unlabeled=True),
    "label_propagation_whitened": Kind("whitened propagation", propagation, True, True),
    "prototypes": Kind("Sinkhorn prototypes", sinkhorn_prototypes, True, True),
    "gaussian_em": Kind("Gaussian EM", gaussian_em, True, True),
    "poisson": Kind("Poisson learning", poisson, True, True),
}


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
        train: rows to learn from, with and without labels; no others are in a graph or in a mean.
        asked: rows to predict.
    """
    start = time.perf_counter()
    labeled, unlabeled = train[labels[train] != UNLABELED], train[labels[train] == UNLABELED]
    kept = np.concatenate([labeled, spread(unlabeled, MOST_TRAIN - len(labeled))])
    others = np.setdiff1d(asked, kept)
    there, codes = np.unique(labels[labeled], return_inverse=True)
    given = np.concatenate([codes, np.full(len(kept) - len(labeled), UNLABELED)])
    centered = unit_centered(features, train)
    plain = Problem(centered[kept], centered[others], given, len(there))
    before = time.perf_counter() - start
    start = time.perf_counter()
    even = unit_centered(whitened(centered, train), train)
    in_whitened = Problem(even[kept], even[others], given, len(there))
    whitening = time.perf_counter() - start
    out: list[Baseline] = []
    for name, kind in KINDS.items():
        if len(unlabeled) or not kind.takes_unlabeled:
            start = time.perf_counter()
            found = kind.fit(in_whitened if kind.is_whitened else plain)
            scores = np.zeros((len(features), len(there)))
            scores[kept], scores[others] = found.train, found.asked
            seconds = before + kind.is_whitened * whitening + time.perf_counter() - start
            out.append(Baseline(name, there[scores[asked].argmax(1)], seconds))
    return out
