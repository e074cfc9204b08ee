"""DebiasPL (Wang et al. 2022): predictions are freed of what classes are predicted too often."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.averaging.horizon import horizon
from fewlabels.config import NotNegative, Share
from fewlabels.methods.base import Method, Task
from fewlabels.methods.parts.forward import Passes, logits_of
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.marginals import RunningMean, uniform
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.models.network import Network
from fewlabels.views.batch import Batch, Views


class DebiasPL(Method):
    """FixMatch with targets of which the mean prediction is taken off, and a margin by as much.

    ::

        z   = logits(weak(x))                                           [B, K]
        z_w, z_s = logits(weak(u)), logits(strong(u))                   [M, K]
        q   = running mean of softmax(z_w)                              [K]
        p   = softmax(z_w - strength * log q), y^ = argmax p             [M, K], [M]
        row weight = 1[max p >= threshold]                              [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s + strength * log q, sg y^))

    In the authors' code the targets are made before q takes in the batch, and the margin after.
    """

    threshold: Share = 0.95
    """a row counts from this probability of its target on (the paper: .8 on ImageNet)"""
    strength: NotNegative = 0.5
    """how much of the mean prediction is taken off (the paper: .4 on ImageNet)"""
    memory: NotNegative = 1000.0
    """steps that the running mean remembers in a run of the paper's length (.999)"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""
    passes: Passes = "three"
    """which views share a pass through the network: all (one), labeled and strong (two), none (three)"""

    def setup(self, task: Task) -> None:
        """Start the running mean."""
        self.average = RunningMean(uniform(task.classes), horizon(self.memory, task.steps))

    def views(self) -> Views:
        """Ask for a weak and a strong view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        z, z_w, z_s = logits_of(net, labeled, weak, strong, self.passes)
        q = self.average(z_w.softmax(1), batch.step)
        bias = self.strength * q.clamp(min=torch.finfo(q.dtype).tiny).log()
        p = (z_w - bias).softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = F.cross_entropy(z, batch.labels)
        unlabeled_loss = consistency(z_s + bias, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }
