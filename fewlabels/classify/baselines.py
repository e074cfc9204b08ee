"""Training-free baselines: classifiers on given features, each as strong as we could make it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.training_free.knn import nearest_neighbors
from fewlabels.classify.training_free.linear import logistic, ridge
from fewlabels.classify.training_free.mixture import gaussian_em, sinkhorn_prototypes
from fewlabels.classify.training_free.poisson import poisson
from fewlabels.classify.training_free.problem import Prediction, Problem
from fewlabels.classify.training_free.propagation import propagation
from fewlabels.classify.training_free.space import Features as Features
from fewlabels.classify.training_free.space import lifted, unit_centered
from fewlabels.classify.training_free.whitening import whitened
from fewlabels.data.table import UNLABELED, Labels, spread
from fewlabels.errors import UserError

MOST_TRAIN = 20_000  # training rows that a graph has; the time of exact neighbors grows with their square


@dataclass(frozen=True)
class BaselineRecipe:
    """How a training-free baseline is made.

    Attributes:
        words: how the table names it.
        fit: learns and predicts.
        is_whitened: whether in the space of `whitened`.
        takes_unlabeled: whether it learns from rows without labels.
    """

    words: str
    fit: Callable[[Problem], Prediction]
    is_whitened: bool = False
    takes_unlabeled: bool = False


BASELINES: dict[str, BaselineRecipe] = {
    "knn": BaselineRecipe("kNN", nearest_neighbors),
    "linear": BaselineRecipe("linear probe", logistic),
    "ridge": BaselineRecipe("ridge", ridge),
    "label_propagation": BaselineRecipe("label propagation", propagation, takes_unlabeled=True),
    "label_propagation_whitened": BaselineRecipe("whitened propagation", propagation, True, True),
    "prototypes": BaselineRecipe("Sinkhorn prototypes", sinkhorn_prototypes, True, True),
    "gaussian_em": BaselineRecipe("Gaussian EM", gaussian_em, True, True),
    "poisson": BaselineRecipe("Poisson learning", poisson, True, True),
}


@dataclass(frozen=True)
class Baseline:
    """What a training-free baseline predicts."""

    name: str
    predicted: Labels
    seconds: float


def training_free_baselines(
    features: Features, labels: Labels, train: Labels, asked: Labels, *, lengths_count: bool = False
) -> list[Baseline]:
    """Fit each baseline and let it predict.

    Args:
        features: [N, D].
        labels: int64 [N], -1 unlabeled; two classes or more.
        train: rows to learn from, with and without labels; no others are in a graph or in a mean.
        asked: rows to predict.
        lengths_count: whether the lengths of features say something, and not only their directions.

    Raises:
        UserError: features that are not finite.
    """
    centered = _centered(features, train, lengths_count)
    labeled, unlabeled, pool = _pool(labels, train)
    out: list[Baseline] = []
    spaces: dict[bool, _Space] = {}
    for name, recipe in BASELINES.items():
        if len(unlabeled) or not recipe.takes_unlabeled:
            start = time.perf_counter()
            if recipe.is_whitened not in spaces:
                x = unit_centered(whitened(centered, train), train) if recipe.is_whitened else centered
                spaces[recipe.is_whitened] = _Space(x, labels, labeled, pool, asked)
            predicted = spaces[recipe.is_whitened].predicted(recipe)
            out.append(Baseline(name, predicted, time.perf_counter() - start))
    return out


def propagated(
    features: Features, labels: Labels, train: Labels, classes: int, *, lengths_count: bool = False
) -> NDArray[np.float32]:
    """Return the distributions [N, K] that whitened label propagation gives the training rows; others have zeros.

    A labeled row has its label.

    Args:
        features: [N, D].
        labels: int64 [N], -1 unlabeled.
        train: rows to learn from, with and without labels; no others are in the graph.
        classes: K.
        lengths_count: whether the lengths of features say something, and not only their directions.

    Raises:
        UserError: features that are not finite.
    """
    x = unit_centered(whitened(_centered(features, train, lengths_count), train), train)
    labeled, _, pool = _pool(labels, train)
    space = _Space(x, labels, labeled, pool, np.setdiff1d(train, pool))
    found = propagation(space.with_pool)
    out = np.zeros((len(labels), classes), np.float32)
    for rows, scores in ((pool, found.train), (space.others, found.asked)):
        out[np.ix_(rows, space.classes)] = scores
    out[labeled] = np.eye(classes, dtype=np.float32)[labels[labeled]]
    return out


def _centered(features: Features, train: Labels, lengths_count: bool) -> Features:
    if not np.isfinite(features).all():
        row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
        raise UserError(f"the features of row {row} are not finite: are the backbone's parameters whole?")
    return (lifted if lengths_count else unit_centered)(features, train)


def _pool(labels: Labels, train: Labels) -> tuple[Labels, Labels, Labels]:
    """Return the rows with labels, those without, and those of both that a graph has."""
    labeled, unlabeled = train[labels[train] != UNLABELED], train[labels[train] == UNLABELED]
    by_class = labeled[np.argsort(labels[labeled], kind="stable")]
    _, firsts = np.unique(labels[by_class], return_index=True)
    few = np.union1d(by_class[firsts], spread(by_class, MOST_TRAIN // 2))  # none of the classes is lost
    return labeled, unlabeled, np.concatenate([few, spread(unlabeled, MOST_TRAIN - len(few))])


class _Space:
    """Rows in one space, as problems that several baselines share."""

    def __init__(self, x: Features, labels: Labels, labeled: Labels, pool: Labels, asked: Labels) -> None:
        self.asked, self.pool = asked, pool
        self.others = np.setdiff1d(asked, pool)
        self.classes, codes = np.unique(labels[labeled], return_inverse=True)
        count = len(self.classes)
        given = np.full(len(labels), UNLABELED)
        given[labeled] = codes
        self.of_labels = Problem(x[labeled], x[asked], codes, count)
        self.with_pool = Problem(x[pool], x[self.others], given[pool], count)

    def predicted(self, recipe: BaselineRecipe) -> Labels:
        """Return the classes of the rows that are asked for."""
        if not recipe.takes_unlabeled:
            return self.classes[recipe.fit(self.of_labels).asked.argmax(1)]
        found = recipe.fit(self.with_pool)
        rows = np.concatenate([self.pool, self.others])
        classes = self.classes[np.concatenate([found.train.argmax(1), found.asked.argmax(1)])]
        order = np.argsort(rows)
        return classes[order[np.searchsorted(rows, self.asked, sorter=order)]]
