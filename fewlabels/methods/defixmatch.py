"""DeFixMatch (Schmutz et al. 2023): FixMatch without the bias that pseudo-labels bring."""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import learning_features, target_features, target_logits
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.models.network import Network


class DeFixMatch(Method):
    """The same loss of pseudo-labels is taken off on the labeled rows, so that what is left is right on average.

    ::

        z = logits(weak(x)), z^s = logits(strong(x))                    [B, K]
        z_w, z_s = logits(weak(u)), logits(strong(u))                   [M, K]
        l(a, b) = mean 1[max softmax(a) >= threshold] CE(b, sg argmax a)
        loss = mean CE([z; z^s], y) + weight * (l(z_w, z_s) - l(z, z^s))

    With no unlabeled rows nothing is taken off.
    """

    threshold: Fraction = 0.95
    """a row counts from this probability of its target on"""
    weight: NotNegative = 0.5
    """factor on the loss of pseudo-labels, unlabeled and labeled"""

    takes_propagated = True

    def views(self) -> Views:
        """Ask for a weak and a strong view of every row."""
        return Views(labeled=("weak", "strong"), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` and `counter_loss` (without their factor) and `kept`."""
        (weak, strong), labeled = batch.unlabeled, batch.labeled
        # One pass for both, or what is taken off would not be what was put on: it has no lower bound of its own.
        f, f_s = net.joint_features(labeled)
        z_w = target_logits(net, target_features(net, weak), batch.propagated)
        z_s = net.unlabeled_logits(learning_features(net, strong)[0])
        z, own = net.logits(torch.cat([f, f_s])), net.unlabeled_logits(f_s if len(strong) else f_s[:0])
        p, p_x = z_w.softmax(1), z[: len(own)].detach().softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(z, batch.labels.repeat(2))
        unlabeled_loss = consistency(z_s, target, row_weight)
        counter_loss = consistency(own, p_x.argmax(1), at_least(p_x, self.threshold))
        return {
            "loss": labeled_loss + self.weight * (unlabeled_loss - counter_loss),
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "counter_loss": counter_loss,
            **seen(z_s, target, row_weight),
        }
