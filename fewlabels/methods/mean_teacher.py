"""Mean Teacher (Tarvainen and Valpola 2017): predictions follow those of the averaged network."""

from __future__ import annotations

from torch import Tensor

from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import learning_features, target_features, target_logits
from fewlabels.methods.parts.losses import mean_loss, seen, squared_error
from fewlabels.methods.parts.ramps import Rise, ramp
from fewlabels.models.network import Network


class MeanTeacher(Method):
    """The prediction on one weak view is drawn to that of the teacher on another.

    The teacher is the run's average of the parameters (`--averaging.ema-memory`), the same that is evaluated; in the
    paper's setting it remembers 1,000 steps.

    ::

        z   = logits(weak(x))                                           [B, K]
        p_1 = softmax(logits(weak(u)))                                  [M, K]
        p_2 = softmax(teacher's logits(another weak(u)))                [M, K]
        loss = mean CE(z, y) + weight * ramp * mean over rows and classes (p_1 - sg p_2)^2

    Weight and ramp are those of popular libraries; the paper's factor rises as `exp`.
    """

    weight: NotNegative = 50.0
    """factor on the unlabeled loss"""
    ramp: Fraction = 0.4
    """part of the run over which this factor grows"""
    rise: Rise = "linear"
    """how: x, the part of the growth that is done (linear), or exp(-5 (1 - x)^2) as in the paper"""

    takes_propagated = True

    def views(self) -> Views:
        """Ask for two weak views of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "weak"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factors) and `kept`, which is 1."""
        (labeled,), (first, second) = batch.labeled, batch.unlabeled
        z = net.logits(net.features(labeled))
        z_u = net.unlabeled_logits(learning_features(net, first)[0])
        target = target_logits(net.teacher, target_features(net.teacher, second), batch.propagated).softmax(1)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = mean_loss(squared_error(z_u, target))
        return {
            "loss": labeled_loss + self.weight * ramp(batch.progress, self.ramp, self.rise) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            **seen(z_u, target, z_u.new_ones(len(z_u))),
        }
