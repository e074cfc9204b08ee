"""AdaMatch (Berthelot et al. 2022): alignment to the labeled rows, and a threshold relative to them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Fraction, NotNegative, Positive
from fewlabels.inputs.batch import Batch, Views
from fewlabels.methods.base import Method, Sizes
from fewlabels.methods.parts.across import mean_rows
from fewlabels.methods.parts.draws import of_rows
from fewlabels.methods.parts.forward import learning_features, statistics_kept, target_features, target_logits
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.marginals import RecentMean
from fewlabels.methods.parts.ramps import cosine_ramp
from fewlabels.methods.parts.targets import align
from fewlabels.methods.parts.thresholds import at_least
from fewlabels.models.network import Network


class AdaMatch(Method):
    """FixMatch whose targets have the labeled rows' classes, and whose threshold follows how sure these are.

    ::

        z, z^s = logits(weak(x)), logits(strong(x))                     [B, K], interpolated (below)
        p_x, p = softmax(z), softmax(logits(weak(u)))                   [B, K], [M, K]
        p~  = normalize(p * mean p_x / mean p)                          [M, K]
        row weight = 1[max p~ >= factor * mean max p_x]                 [M]
        mu  = 1/2 - cos(min(pi, 2 pi t)) / 2                            [], t the part of the run done
        loss = mean CE([z; z^s], y) + weight * mu * mean(row weight * CE(logits(strong(u)), sg argmax p~))

    Interpolation: each labeled logit lies at random between those of two passes, one with the unlabeled rows, which
    batch norm then sees, and one without. The authors' code averages p over the last 128 batches, and p_x over steps
    (`window` is of both); a popular library has the factor .95 and no interpolation.
    """

    factor: Fraction = 0.9
    """threshold, as a part of the labeled rows' mean largest probability"""
    target: Literal["class", "aligned"] = "class"
    """the largest class of the aligned distribution, or the distribution itself"""
    interpolation: bool = True
    """random logit interpolation; without it labeled and unlabeled rows have passes of their own"""
    window: Positive = 1.0
    """batches over which mean p_x and mean p are taken, in a run of the paper's length; 1: this one alone"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    takes_propagated = True

    def setup(self, sizes: Sizes) -> None:
        """Make the averages that predictions are aligned by."""
        window = horizon(self.window, sizes.steps)
        self.average_x, self.average = RecentMean(sizes.classes, window), RecentMean(sizes.classes, window)

    def views(self) -> Views:
        """Ask for a weak and a strong view of every row."""
        return Views(labeled=("weak", "strong"), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factors), `kept` and `threshold`."""
        z, z_w, z_s = self._logits(net, batch)
        p_x, p = z[: len(batch.labels)].detach().softmax(1), z_w.softmax(1)
        aligned = align(p, self.average_x(p_x), self.average(p))
        threshold = self.factor * mean_rows(p_x.amax(1))
        row_weight = at_least(aligned, threshold)
        target = aligned if self.target == "aligned" else aligned.argmax(1)

        labeled_loss = self.supervise(z, batch.labels.repeat(2))
        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_loss + self.weight * cosine_ramp(batch.progress) * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "threshold": threshold,
            **seen(z_s, target, row_weight),
        }

    def _logits(self, net: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Give logits of labeled rows, weak then strong [2B, K], and of weak and strong unlabeled ones [M, K]."""
        labeled, (weak, strong) = torch.cat(batch.labeled), batch.unlabeled
        if not self.interpolation or not len(weak):
            z_w = target_logits(net, target_features(net, weak), batch.propagated)
            z = net.logits(net.features(labeled))
            return z, z_w, net.unlabeled_logits(learning_features(net, strong)[0])
        together, of_weak, of_strong = net.joint_features([labeled, weak, strong])
        with statistics_kept(net):
            alone = net.logits(net.features(labeled))
        draws = of_rows(batch.key, "interpolation", *batch.labeled).uniforms(alone.shape[1]).T.to(alone.dtype)
        z = draws * net.logits(together) + (1 - draws) * alone
        return z, target_logits(net, of_weak, batch.propagated), net.unlabeled_logits(of_strong)
