"""MixMatch (Berthelot et al. 2019): guessed labels, and all images mixed with each other."""

from __future__ import annotations

from torch import Tensor, nn

from fewlabels.averaging.horizon import delay
from fewlabels.config import NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.inputs.mix import beta_quantiles
from fewlabels.methods.base import Method, Sizes
from fewlabels.methods.parts.across import mean_rows
from fewlabels.methods.parts.draws import mix_rows
from fewlabels.methods.parts.forward import target_features, target_logits
from fewlabels.methods.parts.losses import mean_loss, squared_error
from fewlabels.methods.parts.ramps import ramp
from fewlabels.methods.parts.targets import one_hot, sharpen
from fewlabels.models.network import Network


class MixMatch(Method):
    """Labeled rows with their labels and unlabeled ones with guesses are mixed; the network predicts the mixture.

    ::

        p_1, p_2 = softmax(logits(weak(u))) of two views                [M, K]
        q = sharpen((p_1 + p_2) / 2, temperature)                       [M, K]
        X, Q = mix([weak(x); weak_1(u); weak_2(u)], [y; q; q])          [B + 2M, ...], each with one of them
        Z = logits(X), in one pass                                      [B + 2M, K]
        loss = mean CE(Z, Q) of the first B + weight * ramp * mean over rows and classes (softmax(Z) - Q)^2 of the rest

    In the authors' code the rest goes through the network in parts, each a mixture too ("interleaved"): one pass gives
    batch norm the same statistics. A popular library has alpha .5 and weight 100.
    """

    weight: NotNegative = 75.0
    """factor on the unlabeled loss (the paper: 75 on CIFAR-10, 150 on CIFAR-100)"""
    temperature: Positive = 0.5
    """of the guesses; the smaller, the sharper"""
    alpha: Positive = 0.75
    """of the Beta distribution of the shares; the smaller, the less is mixed"""
    ramp_steps: NotNegative = 16384.0
    """steps, in a run of the paper's length, over which the weight grows from 0"""

    mixes = True
    takes_propagated = True

    def setup(self, sizes: Sizes) -> None:
        """Scale the ramp to the run, and make the table that shares are drawn from."""
        self.quantiles = nn.Buffer(beta_quantiles(self.alpha), persistent=False)
        self.rises = delay(self.ramp_steps, sizes.steps) / sizes.steps

    def views(self) -> Views:
        """Ask for two weak views of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "weak"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factors) and `confidence`, the mean of max q."""
        (labeled,), (first, second) = batch.labeled, batch.unlabeled
        p = [target_logits(net, target_features(net, view), batch.propagated).softmax(1) for view in (first, second)]
        q = sharpen((p[0] + p[1]) / 2, self.temperature)
        y = one_hot(batch.labels, q.shape[1], like=q)
        images, targets = mix_rows(batch.key, [labeled, first, second], [y, q, q], self.quantiles)
        z, count = net.logits(net.mixed_features(images)), len(labeled)

        labeled_loss = self.supervise(z[:count], targets[:count])
        unlabeled_loss = mean_loss(squared_error(z[count:], targets[count:]))
        return {
            "loss": labeled_loss + self.weight * ramp(batch.progress, self.rises) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "confidence": mean_rows(q.amax(1)),
        }
