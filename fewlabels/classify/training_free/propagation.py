"""Label propagation on a graph of similar rows."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, eye_array

from fewlabels.classify.training_free.graph import carried, conjugate_gradients
from fewlabels.classify.training_free.problem import Prediction, Problem
from fewlabels.classify.training_free.space import Scores

ALPHA = 0.9  # how far labels go
LEAST = 1e-6  # of all that reaches a row, below which the nearest label tells more


def propagation(problem: Problem, alpha: float = ALPHA) -> Prediction:
    """Let labels spread along the graph of the training rows (Zhou et al. 2003; ZLaP, Stojnic et al. 2024).

    (I - alpha S) F = Y, with S of `Graph.normalized` and Y one-hot on the labeled rows. A row's scores are its row of F
    scaled to a sum of 1; a new row has the mean of its neighbors', weighted by similarity. A row that no
    label reaches has the class of the most similar labeled row.

    Args:
        problem: the rows.
        alpha: how far labels go, 0..1.
    """
    graph = problem.graph
    matrix = csr_matrix(eye_array(len(problem.train)) - alpha * graph.normalized)
    targets = np.zeros((len(problem.train), problem.classes))
    targets[problem.labeled] = problem.targets
    found = conjugate_gradients(matrix, targets, np.ones(len(problem.train)))
    scores = to_sum_1(found)
    lost = np.flatnonzero((found.sum(1) < LEAST) | ~graph.reached(problem.labeled))
    scores[lost] = problem.of_nearest_label(lost)

    return Prediction(scores, to_sum_1(carried(graph, scores, problem.asked)))


def to_sum_1(scores: Scores) -> Scores:
    """Scale rows [N, K] to a sum of 1; where it is 0, all classes are alike."""
    total = scores.sum(1, keepdims=True)
    return np.divide(scores, total, out=np.full_like(scores, 1 / scores.shape[1]), where=total > 0)
