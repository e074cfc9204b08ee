"""FlexMatch (Zhang et al. 2021): each class has a threshold, lower until it is learned."""

from __future__ import annotations

from torch import Tensor

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.thresholds import CurriculumThreshold, Mapping
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class FlexMatch(WeakStrong):
    """FixMatch with a threshold for each class, lower for classes that are not yet learned.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = softmax(logits(weak(u))), c = max p, y^ = argmax p         [M, K], [M], [M]
        z_s = logits(strong(u))                                         [M, K]
        s_k = rows whose last sure prediction (c >= threshold), before this batch, was k   [K], one memory a row
        b   = s / max(max_k s_k, rows without one)                      [K]
        row weight = 1[c >= threshold * b_y^ / (2 - b_y^)]              [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^))
    """

    threshold: Fraction = 0.95
    """a prediction is sure from this probability on, and it is the highest threshold of a class"""
    mapping: Mapping = "convex"
    """from b to the part of the threshold: convex b / (2 - b), linear b, concave ln(b + 1) / ln 2"""
    threshold_warm_up: bool = True
    """whether rows without a sure prediction keep the thresholds low"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def setup(self, sizes: Sizes) -> None:
        """Make the memory of sure predictions."""
        self.row_weight = CurriculumThreshold(
            sizes.classes, sizes.rows, sizes.unlabeled, self.threshold, self.mapping, self.threshold_warm_up
        )

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor) and `kept`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), self.row_weight(p, batch.rows)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_s, target, row_weight),
        }
