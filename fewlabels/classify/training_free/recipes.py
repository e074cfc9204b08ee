"""The training-free classifiers by name, and what each needs to know of its rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fewlabels.classify.training_free.knn import nearest_neighbors
from fewlabels.classify.training_free.linear import logistic, ridge
from fewlabels.classify.training_free.mixture import gaussian_em, sinkhorn_prototypes
from fewlabels.classify.training_free.poisson import poisson
from fewlabels.classify.training_free.problem import Prediction, Problem
from fewlabels.classify.training_free.propagation import propagation


class Recipe(NamedTuple):
    """How a training-free classifier is made.

    Attributes:
        words: how a table names it.
        fit: learns and predicts.
        is_whitened: whether in the space of `whitened`.
        takes_unlabeled: whether it learns from rows without labels.
        gives_logits: whether its scores are logits and not probabilities.
    """

    words: str
    fit: Callable[[Problem], Prediction]
    is_whitened: bool = False
    takes_unlabeled: bool = False
    gives_logits: bool = False


BASELINES: dict[str, Recipe] = {
    "knn": Recipe("kNN", nearest_neighbors),
    "linear": Recipe("linear probe", logistic),
    "ridge": Recipe("ridge", ridge, gives_logits=True),
    "label_propagation": Recipe("label propagation", propagation, takes_unlabeled=True),
    "label_propagation_whitened": Recipe("whitened propagation", propagation, True, True),
    "prototypes": Recipe("Sinkhorn prototypes", sinkhorn_prototypes, True, True),
    "gaussian_em": Recipe("Gaussian EM", gaussian_em, True, True),
    "poisson": Recipe("Poisson learning", poisson, True, True, gives_logits=True),
}
