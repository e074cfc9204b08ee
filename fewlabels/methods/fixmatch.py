"""FixMatch (Sohn et al. 2020): sure classes of weak views are targets of strong views."""

from __future__ import annotations

from torch import Tensor

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class FixMatch(WeakStrong):
    """The class that the network is sure of on a weak view is the target of a strong view.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = softmax(logits(weak(u))), y^ = argmax p                    [M, K], [M]
        z_s = logits(strong(u))                                         [M, K]
        row weight = 1[max p >= threshold]                              [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^))
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }
