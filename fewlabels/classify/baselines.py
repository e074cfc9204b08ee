"""Training-free baselines: classifiers on given features, each as strong as we could make it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fewlabels.classify.training_free.blend import Pool
from fewlabels.classify.training_free.problem import Problem
from fewlabels.classify.training_free.recipes import BASELINES, Recipe
from fewlabels.classify.training_free.space import Features as Features
from fewlabels.classify.training_free.space import Scores, lifted, unit_centered
from fewlabels.classify.training_free.whitening import whitened
from fewlabels.data.table import UNLABELED, Labels, spread
from fewlabels.errors import UserError

MOST_TRAIN = 20_000  # training rows that a graph has; the time of exact neighbors grows with their square


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
    rows = PooledRows(features, labels, train, lengths_count=lengths_count)
    return [
        Baseline(name, *_timed(rows, recipe, asked))
        for name, recipe in BASELINES.items()
        if rows.has_unlabeled or not recipe.takes_unlabeled
    ]


def _timed(rows: PooledRows, recipe: Recipe, asked: Labels) -> tuple[Labels, float]:
    start = time.perf_counter()
    predicted = rows.classes[rows.scores(recipe, asked).argmax(1)]
    return predicted, time.perf_counter() - start


def propagated_labels(
    features: Features, labels: Labels, train: Labels, classes: int, *, lengths_count: bool = False
) -> Features:
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
    rows = PooledRows(features, labels, train, lengths_count=lengths_count)
    out = np.zeros((len(labels), classes), np.float32)
    out[np.ix_(train, rows.classes)] = rows.scores(BASELINES["label_propagation_whitened"], train)
    out[rows.labeled] = np.eye(classes, dtype=np.float32)[labels[rows.labeled]]
    return out


class PooledRows:
    """Rows in the spaces of training-free classifiers, with those to learn from.

    Args:
        features, labels, train, lengths_count: as of `training_free_baselines`.
        widths: as of `unit_centered`.

    Attributes:
        x: all rows in the plain space [N, D].
        rows: those that are in graphs, at most `MOST_TRAIN`: each class is among them.
        has_unlabeled: whether there are rows without labels to learn from.
    """

    def __init__(
        self,
        features: Features,
        labels: Labels,
        train: Labels,
        *,
        lengths_count: bool = False,
        widths: Sequence[int] = (),
    ) -> None:
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
            raise UserError(f"the features of row {row} are not finite: are the backbone's parameters whole?")
        self.train = train
        self.x = lifted(features, train) if lengths_count else unit_centered(features, train, widths)
        self.labeled, unlabeled = train[labels[train] != UNLABELED], train[labels[train] == UNLABELED]
        by_class = self.labeled[np.argsort(labels[self.labeled], kind="stable")]
        _, firsts = np.unique(labels[by_class], return_index=True)
        few = np.union1d(by_class[firsts], spread(by_class, MOST_TRAIN // 2))  # none of the classes is lost
        self.rows = np.concatenate([few, spread(unlabeled, MOST_TRAIN - len(few))])
        self.has_unlabeled = len(unlabeled) > 0
        self.classes, codes = np.unique(labels[self.labeled], return_inverse=True)
        self.given = np.full(len(labels), UNLABELED)
        self.given[self.labeled] = codes

    @cached_property
    def whitened(self) -> Features:
        """All rows in the whitened space [N, p]."""
        return unit_centered(whitened(self.x, self.train), self.train)

    @cached_property
    def pool(self) -> Pool:
        """The rows that are in graphs, and no others."""
        x, w = self.x[self.rows], self.whitened[self.rows]
        labels, count = self.given[self.rows], len(self.classes)
        return Pool(Problem(x, x[:0], labels, count), Problem(w, w[:0], labels, count))

    def scores(self, recipe: Recipe, asked: Labels) -> Scores:
        """Return the scores [n, K] of the rows that are asked for, of the classes that have labels."""
        x = self.whitened if recipe.is_whitened else self.x
        rows = self.rows if recipe.takes_unlabeled else self.labeled
        others = np.setdiff1d(asked, rows)
        problem = Problem(x[rows], x[others], self.given[rows], len(self.classes))
        if recipe.takes_unlabeled:
            problem = problem.on_graph_of(self.pool.whitened if recipe.is_whitened else self.pool.plain)
        found = recipe.fit(problem)
        places = np.concatenate([rows, others])
        order = np.argsort(places)
        return np.concatenate([found.train, found.asked])[order[np.searchsorted(places, asked, sorter=order)]]
