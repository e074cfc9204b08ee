"""The Pi model (Laine and Aila 2017): two views of an image get the same prediction."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import learning_features
from fewlabels.methods.parts.losses import mean_loss, seen, squared_error
from fewlabels.methods.parts.ramps import Rise, ramp
from fewlabels.models.network import Network


class PiModel(Method):
    """Predictions on two weak views of an unlabeled image are drawn together.

    ::

        z        = logits(weak(x))                                      [B, K]
        p_1, p_2 = softmax(logits(weak(u))) of two views                [M, K]
        loss = mean CE(z, y) + weight * ramp * mean over rows and classes (p_1 - p_2)^2

    Weight and ramp are those of popular libraries, which also stop the gradient of p_1 (`gradient=one`). The paper's
    weight is 100 times the labeled share of the images, and rises as `exp`.
    """

    weight: NotNegative = 10.0
    """factor on the unlabeled loss"""
    ramp: Fraction = 0.4
    """part of the run over which this factor grows"""
    rise: Rise = "linear"
    """how: x, the part of the growth that is done (linear), or exp(-5 (1 - x)^2) as in the paper"""
    gradient: Literal["both", "one"] = "both"
    """which of the two views learn: both, as in the paper, or the second from the first"""

    def views(self) -> Views:
        """Ask for two weak views of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "weak"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factors) and `kept`, which is 1."""
        (labeled,) = batch.labeled
        z = net.logits(net.features(labeled))
        first, second = (net.unlabeled_logits(f) for f in learning_features(net, *batch.unlabeled))
        target = first.softmax(1)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = mean_loss(squared_error(second, target if self.gradient == "both" else target.detach()))
        return {
            "loss": labeled_loss + self.weight * ramp(batch.progress, self.ramp, self.rise) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(second, target.detach(), second.new_ones(len(second))),
        }
