"""FreeMatch (Wang et al. 2023): thresholds that follow the predictions, and a loss that keeps classes apart."""

from __future__ import annotations

from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Fraction, NotNegative
from fewlabels.errors import UserError
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.losses import consistency, fairness, seen
from fewlabels.methods.parts.thresholds import SelfAdaptiveThreshold
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class FreeMatch(WeakStrong):
    """FixMatch with a threshold for each class that follows the predictions, and a loss that keeps classes apart.

    ::

        z   = logits(weak(x))                                           [B, K]
        p   = softmax(logits(weak(u))), c = max p, y^ = argmax p         [M, K], [M], [M]
        z_s = logits(strong(u))                                         [M, K]
        tau, p~, h~ = running means of c, p and the histogram of y^      [], [K], [K]
        row weight = 1[c >= tau * p~_y^ / max_k p~_k]                   [M]
        a, b = normalize(p~ / h~), the same of softmax(z_s) on kept rows [K], [K]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg y^)) + fairness * sum_k a_k log b_k

    The means start at 1/K and take in this batch first. `clip` is of the tau that is remembered; a popular library
    has it from 0 to .95 on SVHN.
    """

    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""
    fairness: NotNegative = 0.01
    """factor on the loss that keeps classes apart (the paper: .001 to .01)"""
    memory: NotNegative = 1000.0
    """steps that the running means remember in a run of the paper's length (.999)"""
    clip: tuple[Fraction, Fraction] | None = None
    """lowest and highest tau (the paper, on SVHN: (.9, .95))"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None and self.clip[0] > self.clip[1]:
            raise UserError(f"FreeMatch: clip is {self.clip}; give the lowest tau first, as (.9, .95)")

    def setup(self, sizes: Sizes) -> None:
        """Start the running means."""
        self.threshold = SelfAdaptiveThreshold(sizes.classes, horizon(self.memory, sizes.steps), self.clip)

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its three parts (without their factors), `kept` and `tau`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), self.threshold(p, batch.step)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        fairness_loss = fairness(self.threshold.p_mean, self.threshold.histogram, z_s, row_weight)
        return {
            "loss": labeled_loss + self.weight * unlabeled_loss + self.fairness * fairness_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "fairness_loss": fairness_loss,
            "tau": self.threshold.tau.clone(),
            **seen(z_s, target, row_weight),
        }
