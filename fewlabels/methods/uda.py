"""UDA, Unsupervised Data Augmentation (Xie et al. 2020): a sharpened prediction is the target of a strong view."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewlabels.config import Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch
from fewlabels.methods.parts.losses import consistency, mean_over, seen
from fewlabels.methods.parts.targets import one_hot
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class UDA(WeakStrong):
    """FixMatch with sharpened distributions instead of classes as targets.

    ::

        z   = logits(weak(x))                                           [B, K]
        z_w = logits(weak(u)), p = softmax(z_w), q = softmax(z_w / temperature)   [M, K]
        z_s = logits(strong(u))                                         [M, K]
        row weight = 1[max p >= threshold]                              [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg q))

    The paper has KL for CE, which differs by what has no gradient. Annealing leaves out labeled rows that the network
    is already sure of: those with p_y > eta = a (1 - 1/K) + 1/K, where a grows from 0 to 1.
    """

    threshold: Fraction = 0.8
    """a row counts from this largest probability on"""
    temperature: Positive = 0.4
    """of the targets; the smaller, the sharper"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""
    annealing: Literal["none", "linear", "log", "exp"] = "none"
    """how fast labeled rows that are already known come back: a = t, 1 - exp(-5 t) or exp(5 (t - 1)), t of the run"""

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        target = (z_w / self.temperature).softmax(1)
        row_weight = at_least(z_w.softmax(1), self.threshold)

        labeled_loss = self._labeled_loss(z, batch)
        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }

    def _labeled_loss(self, z: Tensor, batch: Batch) -> Tensor:
        losses = self.supervise(z, batch.labels, reduction="none")
        if self.annealing == "none":
            return losses.mean()
        classes, t = z.shape[1], batch.progress
        a = {"linear": t, "log": 1 - (-5 * t).exp(), "exp": (5 * (t - 1)).exp()}[self.annealing]
        right = (z.detach().softmax(1) * one_hot(batch.labels, classes, like=z)).sum(1)
        counts = (right <= a * (1 - 1 / classes) + 1 / classes).to(z.dtype)
        return mean_over(losses, counts)
