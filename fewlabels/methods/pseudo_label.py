"""Pseudo-Label (Lee 2013), with the threshold of later libraries."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import learning_features
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.ramps import ramp
from fewlabels.methods.parts.targets import with_propagated
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.models.network import Network


class PseudoLabel(Method):
    """The network's own class on a weak view is the target of the same view, once it is sure of it.

    ::

        z   = logits(weak(x))                                           [B, K]
        z_w = logits(weak(u)), p = softmax(z_w), y^ = argmax p           [M, K], [M]
        row weight = 1[max p >= threshold]                              [M]
        loss = mean CE(z, y) + weight * ramp * mean(row weight * CE(z_w, sg y^))

    The ramp rises linearly from 0 to 1 over the first `ramp` of the run. In a popular library unlabeled rows have a
    pass of their own, which moves no batch statistics (`passes=two`).
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""
    ramp: Fraction = 0.4
    """part of the run over which that factor rises from 0"""
    passes: Literal["one", "two"] = "one"
    """labeled and unlabeled rows share a pass through the network (one), or have one each (two)"""

    takes_propagated = True

    def views(self) -> Views:
        """Ask for one weak view of each row."""
        return Views(labeled=("weak",), unlabeled=("weak",))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factors) and `kept`."""
        (labeled,), (weak,) = batch.labeled, batch.unlabeled
        if self.passes == "one":
            own, of_weak = net.joint_features([labeled, weak])
        else:
            own, (of_weak,) = net.features(labeled), learning_features(net, weak)
        z_w = net.unlabeled_logits(of_weak)
        p = with_propagated(z_w.detach(), batch.propagated).softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(net.logits(own), batch.labels)
        unlabeled_loss = consistency(z_w, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * ramp(batch.progress, self.ramp) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_w, target, row_weight),
        }
