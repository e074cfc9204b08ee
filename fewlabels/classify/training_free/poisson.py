"""Poisson learning: labels as sources and sinks on a graph (Calder et al. 2020)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, diags_array

from fewlabels.classify.training_free.graph import carried, conjugate_gradients
from fewlabels.classify.training_free.problem import Prediction, Problem

ANCHOR = 1e-4  # of the degree of each row


def poisson(problem: Problem) -> Prediction:
    """Solve L u = sum over labeled rows of (y_i - mean y) delta_i, with sum_i d_i u_i = 0 (Calder et al. 2020).

    L = D - W, d the degrees. `ANCHOR` D is added to L: where the graph falls into parts, each then takes the classes of
    its own labels. A new row has the mean u of its neighbors, weighted by similarity. A row that no label
    reaches has the class of the most similar labeled row.
    """
    graph = problem.graph
    degree = graph.degree
    degree[degree == 0] = 1  # a row without neighbors keeps its own label, where it has one
    anchored = csr_matrix(diags_array((1 + ANCHOR) * degree) - graph.weights)
    labeled, targets = problem.labeled, problem.targets
    source = np.zeros((len(problem.train), problem.classes))
    source[labeled] = targets - targets.mean(0)
    found = conjugate_gradients(anchored, source, degree)
    lost = np.flatnonzero(~graph.reached(labeled))
    found[lost] = np.abs(found).max() * problem.of_nearest_label(lost)

    return Prediction(found, carried(graph, found, problem.asked))
