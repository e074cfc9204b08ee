"""SequenceMatch (Nguyen 2024): a medium view between the weak and the strong one."""

from __future__ import annotations

from torch import Tensor

from fewlabels.config import Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.forward import target_logits
from fewlabels.methods.parts.losses import consistency, divergence, mean_loss, seen
from fewlabels.methods.parts.targets import sharpen
from fewlabels.methods.parts.thresholds import CurriculumThreshold
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class SequenceMatch(WeakStrong):
    """FlexMatch in which predictions are also passed on from weak to medium to strong views.

    ::

        z   = logits(weak(x))                                           [B, K]
        p, z_m, z_s = softmax(logits(weak(u))), logits(medium(u)), logits(strong(u))   [M, K]
        y^, row weight = those of FlexMatch                             [M]
        q, q_m = sharpen(p, temperature), sharpen(softmax(z_m), temperature)           [M, K]
        d   = KL(sg q || z_m) + KL(sg q_m || z_s) + KL(sg q || z_s)      [M]
        loss = mean CE(z, y) + weight * mean(row weight * (CE(z_s, sg y^) + d))

    A medium view has one RandAugment operation and no cutout. The code of a popular library takes a second softmax of
    the probabilities over the temperature, which makes targets flatter, not sharper; the author's older code keeps the
    rows of each divergence by a fixed threshold on its source.
    """

    threshold: Fraction = 0.95
    """a prediction is sure from this probability on, as in FlexMatch"""
    temperature: Positive = 0.5
    """of the predictions that are passed on; the smaller, the sharper"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def setup(self, sizes: Sizes) -> None:
        """Make the memory of sure predictions."""
        self.row_weight = CurriculumThreshold(sizes.classes, sizes.rows, sizes.unlabeled, self.threshold)

    def views(self) -> Views:
        """Ask for a weak, a medium and a strong view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "medium", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor), its part `passed_loss`, and `kept`."""
        f, f_w, (f_m, f_s) = self.features(net, batch)
        p, z_m, z_s = (
            target_logits(net, f_w, batch.propagated).softmax(1),
            net.unlabeled_logits(f_m),
            net.unlabeled_logits(f_s),
        )
        target, row_weight = p.argmax(1), self.row_weight(p, batch.rows)

        labeled_loss = self.supervise(net.logits(f), batch.labels)
        q, q_m = sharpen(p, self.temperature), sharpen(z_m.detach().softmax(1), self.temperature)
        passed = divergence(z_m, q) + divergence(z_s, q_m) + divergence(z_s, q)
        passed_loss = mean_loss(row_weight * passed)
        unlabeled_loss = consistency(z_s, target, row_weight) + passed_loss
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "passed_loss": passed_loss,
            **seen(z_s, target, row_weight),
        }
