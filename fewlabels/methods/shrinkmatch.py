"""ShrinkMatch (Yang et al. 2023): where a row is not sure, classes are left out until it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.forward import target_logits
from fewlabels.methods.parts.heads import auxiliary_head
from fewlabels.methods.parts.losses import consistency, mean_loss, seen
from fewlabels.methods.parts.marginals import RecentMean, RunningMean
from fewlabels.methods.parts.targets import align
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class ShrinkMatch(WeakStrong):
    """FixMatch; an unsure row learns its first class against those that it is not confused with.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = align(softmax(logits(weak(u))), uniform, mean p of the last batches)   [M, K]
        z_s = logits(strong(u)), a_s = auxiliary head(features(strong(u)))   [M, K]
        row weight = 1[max p >= threshold], r = its running mean        [M], []
        k   = least of 2..K-1 with p_(1) / (p_(1) + sum_{j > k} p_(j)) >= threshold   [M], by rank
        L_shrink = mean(1[unsure, has a k] * max p * CE(a_s without the classes of rank 2..k, first class))
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg p)) + shrink * r * L_shrink

    Of two classes none can be left out: what remains is FixMatch. The authors' code aligns on CIFAR-100 and not on
    CIFAR-10.
    """

    threshold: Fraction = 0.95
    """a row is sure from this probability on"""
    weight: NotNegative = 1.0
    """factor on the loss of sure rows"""
    shrink: NotNegative = 1.0
    """factor on the loss of the others"""
    align: bool = True
    """whether targets are aligned to equally frequent classes"""
    window: Positive = 32.0
    """batches over which predictions are averaged for the alignment, in a run of the paper's length"""
    memory: NotNegative = 1000.0
    """steps that the mean share of sure rows remembers in a run of the paper's length (.999)"""

    def setup(self, sizes: Sizes) -> None:
        """Make the auxiliary head and the averages."""
        self.auxiliary = auxiliary_head(sizes.features, sizes.classes)
        self.average = RecentMean(sizes.classes, horizon(self.window, sizes.steps))
        self.confident = RunningMean(torch.zeros(()), horizon(self.memory, sizes.steps))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `kept`."""
        f, f_w, (f_s,) = self.features(net, batch)
        p, z_s = target_logits(net, f_w, batch.propagated).softmax(1), net.unlabeled_logits(f_s)
        p = align(p, 1.0, self.average(p)) if self.align else p
        row_weight = at_least(p, self.threshold)

        labeled_loss = self.supervise(net.logits(f), batch.labels)
        unlabeled_loss = consistency(z_s, p, row_weight)
        shrink_loss = self._shrink_loss(f_s, p, row_weight, batch.step)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss + self.shrink * shrink_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "shrink_loss": shrink_loss,
            **seen(z_s, p, row_weight),
        }

    def _shrink_loss(self, strong: Tensor, p: Tensor, row_weight: Tensor, step: Tensor) -> Tensor:
        if len(p) < 2 or p.shape[1] < 3:
            return p.new_zeros(())  # batch norm needs two rows, and of two classes none can be left out
        left, found = _classes_left(p, self.threshold)
        logits = self.auxiliary(strong).masked_fill(~left, -torch.inf)
        losses = F.cross_entropy(logits, p.argmax(1), reduction="none")
        return self.confident(row_weight, step) * mean_loss(losses * p.amax(1) * found * (1 - row_weight))


def _classes_left(p: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Tell which classes of each row are left [M, K], and for which rows [M] that makes the first one sure."""
    falling, order = p.sort(dim=1, descending=True, stable=True)
    below = falling.flip(1).cumsum(1).flip(1)[:, 2:]  # [M, K - 2]: what is left below rank 2, 3, .. K - 1
    sure = falling[:, :1] / (falling[:, :1] + below) >= threshold
    dropped = torch.where(sure.any(1), sure.int().argmax(1) + 2, 1)  # k; the first of the largest
    rank = order.argsort(1)
    return (rank == 0) | (rank >= dropped[:, None]), sure.any(1).to(p.dtype)
