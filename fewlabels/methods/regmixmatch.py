"""RegMixMatch (Han et al. 2025): FreeMatch, with images pasted into each other, by how sure they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.averaging.horizon import horizon
from fewlabels.config import Fraction, NotNegative
from fewlabels.inputs.batch import Batch
from fewlabels.inputs.mix import beta_quantiles, resize_mix
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.draws import of_rows
from fewlabels.methods.parts.forward import statistics_kept
from fewlabels.methods.parts.losses import consistency, fairness, mean_over, seen
from fewlabels.methods.parts.pairs import of_class, shuffled
from fewlabels.methods.parts.targets import one_hot
from fewlabels.methods.parts.thresholds import SelfAdaptiveThreshold
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network

MANY = 100  # labels a class, from which labeled images are mixed with sure ones


class RegMixMatch(WeakStrong):
    """Sure images are mixed with each other, and unsure ones with a sure one of a class that they may have.

    ::

        p, c, y^, row weight, L_f = those of FreeMatch                  [M, K], [M], [M], [M], []
        sure = c >= `sure`                                              [M]
        L_m = mean 1[sure] CE(logits(paste(strong(u), strong(u'))), share y^ + (1 - share) y^')   u' sure too
        L_c = mean over unsure u of c^3 * mean_k (softmax(logits(paste(strong(u), v))) - (share p + (1 - share) k))^2
              v labeled or sure, of the class k that is first or second in p; where there is none, u itself and p
        loss = mean CE(z, y) + weight * (mean(row weight * CE(z_s, sg y^)) + L_m) + fairness * L_f + unsure * L_c

    From 100 labels a class on L_m has the labeled images among the sure ones. Paste: the whole of the other image, made
    smaller, at a random place; its side is .1 + .7 sqrt(b) of the image's, b from Beta(1, 1) for sure and Beta(16, 16)
    for unsure ones. The authors' code first cuts off its border, has one place and one coin for a batch, and v of the
    first class or of any; it multiplies the mean error by the mean c^3, and L_m by no weight.
    """

    sure: Fraction = 0.999
    """an image is sure from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the losses of targets"""
    fairness: NotNegative = 0.01
    """factor on the loss that keeps classes apart"""
    unsure: NotNegative = 1.0
    """factor on the loss of images that are not sure"""
    memory: NotNegative = 1000.0
    """steps that the running means remember in a run of the paper's length (.999)"""

    mixes = True

    def setup(self, sizes: Sizes) -> None:
        """Start the running means, and make the tables that sides of pasted images are drawn from."""
        self.sure_sides, self.unsure_sides = (nn.Buffer(beta_quantiles(a), persistent=False) for a in (1.0, 16.0))
        self.threshold = SelfAdaptiveThreshold(sizes.classes, horizon(self.memory, sizes.steps))
        self.labeled_joins = sizes.labeled >= MANY * sizes.classes

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors), `kept` and `tau`."""
        z, z_w, z_s = self.logits(net, batch)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), self.threshold(p, batch.step)

        labeled_loss = self.supervise(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        fairness_loss = fairness(self.threshold.p_mean, self.threshold.histogram, z_s, row_weight)
        mix_loss, unsure_loss = self._losses_of_mixed(net, batch, p) if len(p) else (p.sum(), p.sum())
        targets = self.weight * (unlabeled_loss + mix_loss)
        return {
            "loss": labeled_loss + targets + self.fairness * fairness_loss + self.unsure * unsure_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "fairness_loss": fairness_loss,
            "mix_loss": mix_loss,
            "unsure_loss": unsure_loss,
            "tau": self.threshold.tau.clone(),
            **seen(z_s, target, row_weight),
        }

    def _losses_of_mixed(self, net: Network, batch: Batch, p: Tensor) -> tuple[Tensor, Tensor]:
        """Give L_m and L_c; every row goes through the network, and those that are not mixed as they are."""
        (labeled,), (_, strong) = batch.labeled, batch.unlabeled
        images, classes = torch.cat([labeled, strong]), torch.cat([batch.labels, p.argmax(1)])
        own, y = len(labeled), one_hot(classes, p.shape[1], like=p)
        known, sure = torch.ones_like(batch.labels, dtype=torch.bool), p.amax(1) >= self.sure

        pool = torch.cat([known & self.labeled_joins, sure])
        other = shuffled(pool, of_rows(batch.key, "order", labeled, strong).uniform())
        pasted, share = resize_mix(
            images, images[other], of_rows(batch.key, "sure", labeled, strong), quantiles=self.sure_sides
        )
        joined, joined_target = _where(pool, pasted, images, share, y[other], y)

        second = of_rows(batch.key, "second", p).uniform() < 0.5
        wished = torch.where(second, p.topk(2, 1).indices[:, 1], p.argmax(1))
        draws = of_rows(batch.key, "partner", p).uniforms(len(images)).T
        partner, found = of_class(wished, classes, torch.cat([known, sure]), draws)
        pasted, share = resize_mix(
            strong, images[partner], of_rows(batch.key, "unsure", p), quantiles=self.unsure_sides
        )
        mixed, mixed_target = _where(found & ~sure, pasted, strong, share, y[partner], p)

        with statistics_kept(net):
            z = net.logits(net.mixed_features(torch.cat([joined, mixed])))
        mix_losses = F.cross_entropy(z[: len(images)], joined_target, reduction="none") * pool
        errors = (z[len(images) :].softmax(1) - mixed_target).square().mean(1) * p.amax(1) ** 3
        return mix_losses.sum() / (len(images) - own), mean_over(errors, (~sure).to(p.dtype))


def _where(
    mixed: Tensor, pasted: Tensor, images: Tensor, share: Tensor, other: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    """Give images [n, C, H, W] and targets [n, K]: mixed ones where asked for [n], with `share` of their own target."""
    share = torch.where(mixed, share, 1.0)[:, None].to(own.dtype)
    return torch.where(mixed[:, None, None, None], pasted, images), share * own + (1 - share) * other
