"""Memories of embeddings: of the last batches, and of the labeled rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.averaging.memory import Memory
from fewlabels.methods.parts.across import gather_rows
from fewlabels.methods.parts.memory import last_of
from fewlabels.methods.parts.targets import one_hot


class RecentBank(Memory):
    """Embeddings of the last rows, each with a distribution over classes.

    Args:
        rows: how many are kept.
        embedding: E.
        classes: K.
    """

    def __init__(self, rows: int, embedding: int, classes: int) -> None:
        super().__init__()
        self.embeddings = self.remember("embeddings", torch.zeros(rows, embedding), "first")
        self.targets = self.remember("targets", torch.zeros(rows, classes), "first")
        self.count = self.remember("count", torch.zeros((), dtype=torch.int64), "first")

    def take_in(self, embeddings: Tensor, targets: Tensor) -> None:
        """Put rows [n, E] with their distributions [n, K] in the place of the oldest."""
        every = gather_rows(embeddings)
        places = (self.count + torch.arange(len(every), device=every.device)) % len(self.embeddings)
        self.embeddings.index_copy_(0, places, every)
        self.targets.index_copy_(0, places, gather_rows(targets))
        self.count.add_(len(every))

    def targets_near(self, embeddings: Tensor, temperature: float) -> Tensor:
        """Average the distributions by their rows' likeness to these embeddings [n, E]: [n, K]."""
        filled = torch.arange(len(self.embeddings), device=embeddings.device) < self.count
        return likeness(embeddings, self.embeddings, filled, temperature).softmax(1) @ self.targets


class LabeledBank(Memory):
    """The last embedding of each labeled row, and its label.

    Args:
        rows: L, the labeled rows.
        embedding: E.
    """

    def __init__(self, rows: int, embedding: int) -> None:
        super().__init__()
        self.embeddings = self.remember("embeddings", torch.zeros(rows, embedding), "rows")
        self.labels = self.remember("labels", torch.full((rows,), -1), "rows")

    def take_in(self, embeddings: Tensor, labels: Tensor, places: Tensor, momentum: float = 0.0) -> None:
        """Remember embeddings [B, E] and labels [B] of these labeled rows [B]; of several of a row the last.

        With a momentum that much of a row's older embedding stays, and the sum is brought to length 1.
        """
        everywhere = gather_rows(places)
        last = last_of(everywhere, torch.ones_like(everywhere, dtype=torch.bool))
        new = gather_rows(embeddings)[last]
        if momentum:
            mixed = F.normalize(momentum * self.embeddings[everywhere] + (1 - momentum) * new, dim=1)
            new = torch.where(self.labels[everywhere, None] >= 0, mixed, new)
        self.embeddings[everywhere] = new
        self.labels[everywhere] = gather_rows(labels)[last]

    def similarity(self, embeddings: Tensor, temperature: float) -> Tensor:
        """Give logits [n, L] of the labeled rows by likeness to these embeddings [n, E]; -inf where none was seen."""
        return likeness(embeddings, self.embeddings, self.labels >= 0, temperature)

    def classes(self, count: int) -> Tensor:
        """Give the labels as rows [L, count] of 0 and 1; zeros where none was seen."""
        return one_hot(self.labels, count, like=self.embeddings)


def likeness(embeddings: Tensor, bank: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Give inner products [n, rows] with a bank [rows, E], over the temperature; -inf where it is not known [rows]."""
    return (embeddings @ bank.T / temperature).masked_fill(~known, -torch.inf)
