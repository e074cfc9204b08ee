"""DebiasPL (Wang et al. 2022): predictions are freed of what classes are predicted too often."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.marginals import RunningMean, uniform
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class DebiasPL(WeakStrong):
    """FixMatch with targets of which the mean prediction is taken off, and a margin by as much.

    ::

        z   = logits(weak(x))                                           [B, K]
        z_w, z_s = logits(weak(u)), logits(strong(u))                   [M, K]
        q   = running mean of softmax(z_w)                              [K]
        p   = softmax(z_w - strength * log q), y^ = argmax p             [M, K], [M]
        row weight = 1[max p >= threshold]                              [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s + strength * log q, sg y^))

    In the authors' code the targets are made before q takes in the batch (`bias_of_targets=before`), and the margin
    after.
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on (the paper: .8 on ImageNet)"""
    strength: NotNegative = 0.5
    """how much of the mean prediction is taken off (the paper: .4 on ImageNet)"""
    bias_of_targets: Literal["after", "before"] = "after"
    """whether targets are freed of the running mean after it takes in the batch, or before"""
    memory: NotNegative = 1000.0
    """steps that the running mean remembers in a run of the paper's length (.999)"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def setup(self, sizes: Sizes) -> None:
        """Start the running mean."""
        self.average = RunningMean(uniform(sizes.classes), horizon(self.memory, sizes.steps))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        before = self._bias(self.average.value) if self.bias_of_targets == "before" else None
        bias = self._bias(self.average(z_w.softmax(1), batch.step))
        p = (z_w - (bias if before is None else before)).softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s + bias, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }

    def _bias(self, q: Tensor) -> Tensor:
        return self.strength * q.clamp(min=torch.finfo(q.dtype).tiny).log()
