"""ReFixMatch (Nguyen and Yang 2023): FixMatch that does not waste the rows below the threshold."""

from __future__ import annotations

from torch import Tensor

from fewlabels.config import Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch
from fewlabels.methods.parts.losses import consistency, divergence, mean_loss, seen
from fewlabels.methods.parts.targets import sharpen
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class ReFixMatch(WeakStrong):
    """Rows that are not kept learn from the sharpened prediction on their weak view.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = softmax(logits(weak(u))), y^ = argmax p                    [M, K], [M]
        z_s = logits(strong(u))                                         [M, K]
        row weight = 1[max p >= threshold]                              [M]
        L_u = mean(row weight * CE(z_s, sg y^) + (1 - row weight) * KL(sg sharpen(p, temperature) || softmax(z_s)))
        loss = mean CE(z, y) + weight * L_u

    The code of a popular library takes a second softmax of p as the other rows' target, which is nearly flat,
    and divides the strong views' logits by the temperature too.
    """

    threshold: Fraction = 0.95
    """a row has a class as target from this probability of it on"""
    temperature: Positive = 0.5
    """of the other rows' targets; the smaller, the sharper"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor), its part `rest_loss`, and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), at_least(p, self.threshold)

        labeled_loss = self.supervise(z, batch.labels)
        rest_loss = mean_loss((1 - row_weight) * divergence(z_s, sharpen(p, self.temperature)))
        unlabeled_loss = consistency(z_s, target, row_weight) + rest_loss
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "rest_loss": rest_loss,
            **seen(z_s, target, row_weight),
        }
