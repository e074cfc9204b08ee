"""What a training-free classifier is given, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fewlabels.classify.training_free.graph import Graph, graph_of
from fewlabels.classify.training_free.neighbors import most_similar
from fewlabels.classify.training_free.space import Features, Scores
from fewlabels.data.table import UNLABELED, Labels


@dataclass(frozen=True, eq=False)
class Problem:
    """Training rows, and other rows that are only predicted.

    Attributes:
        train: features [N, D] of the training rows, of length 1.
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

    @property
    def comparable(self) -> Labels:
        """Places among the labeled rows of those whose class has a second label: they can be left out."""
        return np.flatnonzero(self.counts[self.given] > 1)

    @cached_property
    def graph(self) -> Graph:
        """Of the training rows."""
        return graph_of(self.train)

    def without(self, part: Labels) -> Problem:
        """Return the same rows without the labels of some of the labeled ones, by their places among these."""
        labels = self.labels.copy()
        labels[self.labeled[part]] = UNLABELED
        return replace(self, labels=labels).on_graph_of(self)

    def on_graph_of(self, other: Problem) -> Problem:
        """Take the graph of a problem with the same training rows, since it does not depend on labels."""
        vars(self)["graph"] = other.graph
        return self

    def of_nearest_label(self, rows: Labels) -> Scores:
        """Return the one-hot label [m, K] of the most similar labeled row of each of these training rows [m]."""
        places, _ = most_similar(self.train[rows], self.train[self.labeled], 1)
        return self.targets[places[:, 0]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier returns for all rows; the class of a row is that of its largest score.

    Attributes:
        train: scores [N, K] of the training rows.
        asked: scores [A, K].
    """

    train: Scores
    asked: Scores


def balanced_accuracy(scores: Scores, labels: Labels) -> float:
    """Return the mean over classes of the fraction of rows [n] whose largest score is at their label."""
    right = scores.argmax(1) == labels
    return float(np.mean([right[labels == k].mean() for k in np.unique(labels)]))
