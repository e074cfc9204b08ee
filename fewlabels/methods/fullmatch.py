"""FullMatch (Chen et al. 2023): rows also learn which classes they are not."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.averaging.horizon import delay
from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.across import gather_rows
from fewlabels.methods.parts.losses import consistency, mean_loss, mean_over, seen
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network

TINY = 1e-10  # within logarithms, as in the authors' code


class FullMatch(WeakStrong):
    """FixMatch, with two losses for the classes that are not the target.

    ::

        p   = softmax(logits(weak(u))), y^ = argmax p                    [M, K], [M]
        z_s = logits(strong(u)), s = softmax(z_s)                       [M, K]
        row weight = 1[max p >= threshold]                              [M]
        k   = least number >= 2 with y^ among the k largest of s, for all rows of the batch   []
        L_n = mean sum_j -log(1 - s_j)             over classes j of rank > k in p (negative)
        t   = (1 - s_y^ - sum s of rank > k) / (k - 1)                  [M], no gradient
        L_e = mean binary CE(s_j, t)               over kept rows' other classes of rank <= k in p (entropy)
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^)) + negative * L_n + entropy * L_e

    L_n and L_e leave out classes with s_j > threshold^2, and begin after `start_steps`; in the authors' published
    commands they do not wait (0), and in their code t has a gradient (`target_learns`).
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the loss of the targets"""
    negative: NotNegative = 1.0
    """factor on the loss that pushes unlikely classes down"""
    entropy: NotNegative = 1.0
    """factor on the loss that evens out the classes between"""
    start_steps: NotNegative = 5120.0
    """steps before these two begin, in a run of the paper's length"""
    target_learns: bool = False
    """whether t, what is left for the classes between, gets a gradient"""

    def setup(self, sizes: Sizes) -> None:
        """Scale the start to the run."""
        self.begins = delay(self.start_steps, sizes.steps)

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        negative_loss, entropy_loss = (
            loss * (batch.step >= self.begins) for loss in self._losses_of_others(p, z_s.softmax(1), row_weight)
        )
        own = self.negative * negative_loss + self.entropy * entropy_loss
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss + own,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "negative_loss": negative_loss,
            "entropy_loss": entropy_loss,
            **seen(z_s, target, row_weight),
        }

    def _losses_of_others(self, p: Tensor, s: Tensor, row_weight: Tensor) -> tuple[Tensor, Tensor]:
        rank = _ranks(p)
        k = _most(_ranks(s.detach()).gather(1, p.argmax(1, keepdim=True)) + 1).clamp(min=2)
        fair = (s.detach() <= self.threshold**2).to(s.dtype)
        unlikely, between = (rank >= k).to(s.dtype), ((rank > 0) & (rank < k)).to(s.dtype)

        negative_loss = mean_loss((-(1 - s + TINY).log() * unlikely * fair).sum(1))
        wished = (1 - (s * (1 - between)).sum(1, keepdim=True) + 1e-7) / (k - 1)
        wished = wished if self.target_learns else wished.detach()
        losses = -(wished * (s + TINY).log() + (1 - wished) * (1 - s + TINY).log())
        counts = between * fair * row_weight[:, None]
        return negative_loss, mean_over(losses, counts)


def _ranks(p: Tensor) -> Tensor:
    """Give the place of each class in its row [M, K], 0 for the largest; of equals the first comes first."""
    return p.argsort(dim=1, descending=True, stable=True).argsort(1)


def _most(counts: Tensor) -> Tensor:
    """Give the largest of [M, 1], over all processes."""
    every = gather_rows(counts)
    return every.amax() if len(every) else torch.ones((), dtype=counts.dtype, device=counts.device)
