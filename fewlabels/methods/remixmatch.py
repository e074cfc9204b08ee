"""ReMixMatch (Berthelot et al. 2020): MixMatch with aligned guesses, strong views and a task of rotations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.averaging.horizon import delay, horizon
from fewlabels.averaging.memory import Memory
from fewlabels.config import NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.inputs.mix import beta_quantiles
from fewlabels.methods.base import Method, Sizes
from fewlabels.methods.parts.across import mean_rows
from fewlabels.methods.parts.draws import mix_rows
from fewlabels.methods.parts.forward import learning_features, target_features, target_logits
from fewlabels.methods.parts.losses import mean_loss
from fewlabels.methods.parts.marginals import RecentMean
from fewlabels.methods.parts.ramps import ramp
from fewlabels.methods.parts.rotation import turned
from fewlabels.methods.parts.targets import align, one_hot, sharpen
from fewlabels.models.network import Network


class ReMixMatch(Method):
    """The guess on a weak view, aligned to the labeled rows' classes, is the target of strong views too.

    ::

        p = softmax(logits(weak(u))), p_avg = mean p of the last batches   [M, K], [K]
        q = sharpen(align(p, labeled marginal, p_avg), temperature)     [M, K]
        X, Q = mix([strong(x); strong_1(u); strong_2(u); weak(u)], [y; q; q; q])   [B + 3M, ...]
        Z = logits(X), in one pass                                      [B + 3M, K]
        L_u = mean CE(Z, Q) of all but the first B
        L_s = mean CE(logits(strong_1(u)), q)
        L_r = mean CE(rotation head(features(strong_1(u) turned by r)), r)  r in 0..3 quarter turns
        loss = mean CE(Z, Q) of the first B + ramp * (weight * L_u + strong * L_s) + rotation * L_r

    In the authors' code p_avg takes in the batch after its targets are made, and starts as 128 uniform batches.
    """

    weight: NotNegative = 1.5
    """factor on the loss of mixed unlabeled rows"""
    strong: NotNegative = 0.5
    """factor on the loss of a strong view that is not mixed"""
    rotation: NotNegative = 0.5
    """factor on the loss of the rotations; 0 leaves them out"""
    temperature: Positive = 0.5
    """of the guesses; the smaller, the sharper"""
    alpha: Positive = 0.75
    """of the Beta distribution of the shares; the smaller, the less is mixed"""
    window: Positive = 128.0
    """batches over which predictions are averaged for the alignment, in a run of the paper's length"""
    ramp_steps: NotNegative = 16384.0
    """steps, in a run of the paper's length, over which the factors on guessed labels grow from 0"""

    mixes = True
    takes_propagated = True

    def setup(self, sizes: Sizes) -> None:
        """Make the rotation head, the average for the alignment, and the table that shares are drawn from."""
        self.quantiles = nn.Buffer(beta_quantiles(self.alpha), persistent=False)
        self.turn_head = nn.Linear(sizes.features, 4)
        self.average = RecentMean(sizes.classes, horizon(self.window, sizes.steps))
        self.rises = delay(self.ramp_steps, sizes.steps) / sizes.steps
        self.prior = Memory()
        self.prior.remember("value", torch.tensor(sizes.labels) / max(sizes.labeled, 1), "first")

    def views(self) -> Views:
        """Ask for a strong view of labeled rows, and a weak and two strong ones of unlabeled rows."""
        return Views(labeled=("strong",), unlabeled=("weak", "strong", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors) and `confidence`, the mean of max q."""
        (labeled,), (weak, first, second) = batch.labeled, batch.unlabeled
        p = target_logits(net, target_features(net, weak), batch.propagated).softmax(1)
        q = sharpen(align(p, self.prior.get_buffer("value"), self.average(p)), self.temperature)
        y = one_hot(batch.labels, q.shape[1], like=q)
        images, targets = mix_rows(batch.key, [labeled, first, second, weak], [y, q, q, q], self.quantiles)
        z, count = net.logits(net.mixed_features(images)), len(labeled)
        labeled_loss = self.supervise(z[:count], targets[:count])
        unlabeled_loss = mean_loss(F.cross_entropy(z[count:], targets[count:], reduction="none"))
        strong_loss, rotation_loss = self._losses_of_strong(net, batch, first, q)
        guessed = self.weight * unlabeled_loss + self.strong * strong_loss
        return {
            "loss": labeled_loss + ramp(batch.progress, self.rises) * guessed + self.rotation * rotation_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "strong_loss": strong_loss,
            "rotation_loss": rotation_loss,
            "confidence": mean_rows(q.amax(1)),
        }

    def _losses_of_strong(self, net: Network, batch: Batch, strong: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        images, turns = turned(batch.key, strong) if self.rotation else (strong[:0], batch.rows[:0])
        features, of_turned = learning_features(net, strong, images)
        strong_loss = F.cross_entropy(net.unlabeled_logits(features), q, reduction="none")
        rotation_loss = F.cross_entropy(self.turn_head(of_turned), turns, reduction="none")
        return mean_loss(strong_loss), mean_loss(rotation_loss)
