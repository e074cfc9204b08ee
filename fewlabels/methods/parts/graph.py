"""Graphs over the rows of a batch: which targets are alike, and which embeddings (Li et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.methods.parts.across import gather_rows
from fewlabels.methods.parts.draws import first_of
from fewlabels.methods.parts.losses import mean_loss


def target_graph(q: Tensor, edge: float) -> Tensor:
    """Join this process's rows [M, K] with those of all [G]: [M, G], rows summing to 1.

    q_i . q_j, 0 where it is below `edge`, and 1 with itself; no gradient.
    """
    q = q.detach()
    every = gather_rows(q)
    itself = torch.arange(first_of(q), first_of(q) + len(q), device=q.device)
    graph = q @ every.T
    graph = torch.where(itself[:, None] == torch.arange(len(every), device=q.device), 1.0, graph)
    graph = graph * (graph >= edge)
    return graph / graph.sum(1, keepdim=True)


def contrast(first: Tensor, second: Tensor, graph: Tensor, temperature: float) -> Tensor:
    """Give -mean_i sum_j graph_ij log softmax_j(first_i . second_j / temperature); 0 without rows.

    Args:
        first, second: embeddings of two views of this process's rows, [M, E] each.
        graph: [M, G], over the rows of all processes.
        temperature: the smaller, the more the nearest count.
    """
    likeness = first @ gather_rows(second).T / temperature
    return mean_loss(-(graph * likeness.log_softmax(1)).sum(1))
