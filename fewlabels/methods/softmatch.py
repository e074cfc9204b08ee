"""SoftMatch (Chen et al. 2023): every row counts, the more the surer it is."""

from __future__ import annotations

from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.marginals import RunningMean, uniform
from fewlabels.methods.parts.targets import align
from fewlabels.methods.parts.thresholds import SoftWeight
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class SoftMatch(WeakStrong):
    """FixMatch with a truncated Gaussian of the confidence in the place of a threshold.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = softmax(logits(weak(u))), y^ = argmax p                    [M, K], [M]
        z_s = logits(strong(u))                                         [M, K]
        p~  = normalize(p / running mean of p), c~ = max p~              [M, K], [M]
        m, v = running mean and variance of c~                          [], []
        row weight = exp(-min(c~ - m, 0)^2 * sigmas^2 / (2 v))          [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^))
    """

    sigmas: NotNegative = 2.0
    """how narrow the Gaussian is"""
    align: bool = True
    """whether confidence is taken after alignment to equally frequent classes"""
    memory: NotNegative = 1000.0
    """steps that the running means remember in a run of the paper's length (.999)"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def setup(self, sizes: Sizes) -> None:
        """Start the running means."""
        memory = horizon(self.memory, sizes.steps)
        self.average = RunningMean(uniform(sizes.classes), memory)
        self.row_weight = SoftWeight(sizes.classes, memory, self.sigmas)

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`, the mean row weight."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        aligned = align(p, 1.0, self.average(p, batch.step)) if self.align else p
        target, row_weight = p.argmax(1), self.row_weight(aligned, batch.step)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }
