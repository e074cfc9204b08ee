"""Virtual Adversarial Training (Miyato et al. 2018): a prediction stands the worst small change of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fewlabels.config import Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.keys import Key
from fewlabels.methods.base import Method
from fewlabels.methods.parts.draws import directions, unit
from fewlabels.methods.parts.forward import learning_features, statistics_kept, whole_precision
from fewlabels.methods.parts.losses import divergence, mean_loss, seen
from fewlabels.methods.parts.ramps import Rise, ramp
from fewlabels.models.network import Network

VALUES = 3072  # of an image of 32x32x3, for which the length of the change is given


class VAT(Method):
    """Predictions do not change along the direction in which they would change most, found by one power iteration.

    ::

        z = logits(weak(x)), p = softmax(logits(weak(u)))               [B, K], [M, K]
        d = a random direction of length 1                              [M, C, H, W]
        s = sqrt(values of an image / 3072)                             []
        g = gradient by r of sum KL(p || softmax(logits(weak(u) + r))) at r = trial * s * d   [M, C, H, W]
        r = size * s * g / |g|                                          [M, C, H, W]
        loss = mean CE(z, y) + weight * ramp * mean KL(sg p || softmax(logits(weak(u) + r))) + entropy * mean H(p)

    The factors are those of Oliver et al. (2018), who take the entropy on the changed image, and whose ramp is `exp`;
    in a popular library the weight is 1, and the ramp linear. The first paper has no ramp.
    """

    weight: NotNegative = 0.3
    """factor on the unlabeled loss"""
    entropy: NotNegative = 0.06
    """factor on the entropy of the predictions, from the start on"""
    size: NotNegative = 6.0
    """length of the change for an image of 32x32x3 normalized values"""
    trial: Positive = 1e-2
    """likewise, the length at which the gradient is taken (in widespread code 1e-6, which float32 loses by rounding)"""
    ramp: Fraction = 0.4
    """part of the run over which the weight grows"""
    rise: Rise = "linear"
    """how: x, the part of the growth that is done (linear), or exp(-5 (1 - x)^2)"""

    def views(self) -> Views:
        """Ask for a weak view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak",))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `kept`, which is 1."""
        (labeled,), (weak,) = batch.labeled, batch.unlabeled
        z = net.logits(net.features(labeled))
        z_u = net.unlabeled_logits(learning_features(net, weak)[0])
        p = z_u.detach().softmax(1)
        z_r = net.unlabeled_logits(learning_features(net, weak + self._worst_change(net, weak, batch.key))[0])

        labeled_loss = self.supervise(z, batch.labels)
        entropy_loss = mean_loss(-(z_u.softmax(1) * z_u.log_softmax(1)).sum(1))
        unlabeled_loss = mean_loss(divergence(z_r, p))
        weight = self.weight * ramp(batch.progress, self.ramp, self.rise)
        return {
            "loss": labeled_loss + weight * unlabeled_loss + self.entropy * entropy_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "entropy_loss": entropy_loss,
            **seen(z_r, p, z_r.new_ones(len(z_r))),
        }

    @torch.no_grad()
    def _worst_change(self, net: Network, images: Tensor, key: Key) -> Tensor:
        if not len(images):
            return images
        direction, scale = directions(key, images), math.sqrt(images[0].numel() / VALUES)

        def logits(x: Tensor) -> Tensor:
            return net.unlabeled_logits(net.unlabeled_features(x))

        def change_of(r: Tensor) -> Tensor:
            return divergence(logits(images + r), p).sum()

        with statistics_kept(net), whole_precision(net):  # less leaves rounding alone of so small a change
            p = logits(images).softmax(1)
            gradient = torch.func.grad(change_of)(self.trial * scale * direction)
        return self.size * scale * unit(gradient)
