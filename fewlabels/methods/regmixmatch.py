"""RegMixMatch (Han et al. 2025): FreeMatch, with images pasted into each other, by how sure they are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.averaging.horizon import horizon
from fewlabels.config import NotNegative, Share
from fewlabels.methods.base import Method, Task
from fewlabels.methods.parts.draws import of_rows
from fewlabels.methods.parts.forward import logits_of, statistics_kept
from fewlabels.methods.parts.losses import consistency, fairness, seen
from fewlabels.methods.parts.pairs import of_class, shuffled
from fewlabels.methods.parts.targets import one_hot
from fewlabels.methods.parts.thresholds import SelfAdaptiveThreshold
from fewlabels.models.network import Network
from fewlabels.views.batch import Batch, Views
from fewlabels.views.mix import resize_mix

MANY = 100  # labels a class, from which labeled images are mixed with sure ones


class RegMixMatch(Method):
    """Sure images are mixed with each other, and unsure ones with a sure one of a class that they may have.

    ::

        p, c, y^, row weight, L_f = those of FreeMatch                  [M, K], [M], [M], [M], []
        sure = c >= `sure`                                              [M]
        L_m = sum CE(logits(paste(strong(u), strong(u'))), share y^ + (1 - share) y^') / M   u, u' sure
        L_c = mean c^3 mean_k (softmax(logits(paste(strong(u), v))) - (share p + (1 - share) k))^2   u unsure,
              v labeled or sure, of class k, which is the first or second of p; where there is none, u itself and p
        loss = mean CE(z, y) + weight * (mean(row weight * CE(z_s, sg y^)) + L_m) + fairness * L_f + L_c

    Paste: the whole of the other image, made smaller, at a random place; its side is .1 to .8 of the image's, by a draw
    from Beta(1, 1) for sure and Beta(16, 16) for unsure ones. The authors' code first cuts off its border, has one
    place for a batch, and v of the first class or of any.
    """

    sure: Share = 0.999
    """an image is sure from this probability of its target on"""
    weight: NotNegative = 1.0
    """factor on the losses of targets"""
    fairness: NotNegative = 0.01
    """factor on the loss that keeps classes apart"""
    memory: NotNegative = 1000.0
    """steps that the running means remember in a run of the paper's length (.999)"""

    def setup(self, task: Task) -> None:
        """Start the running means."""
        self.threshold = SelfAdaptiveThreshold(task.classes, horizon(self.memory, task.steps))
        self.labeled_joins = task.labeled >= MANY * task.classes

    def views(self) -> Views:
        """Ask for a weak and a strong view of each unlabeled row."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, its parts (without their factors), `kept` and `tau`."""
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        z, z_w, z_s = logits_of(net, labeled, weak, strong)
        p = z_w.softmax(1)
        target, row_weight = p.argmax(1), self.threshold(p, batch.step)

        labeled_loss = F.cross_entropy(z, batch.labels)
        unlabeled_loss = consistency(z_s, target, row_weight)
        fairness_loss = fairness(self.threshold.p_mean, self.threshold.histogram, z_s, row_weight)
        mix_loss, unsure_loss = self._losses_of_mixed(net, batch, p) if len(p) else (p.sum(), p.sum())
        targets = self.weight * (unlabeled_loss + mix_loss)
        return {
            "loss": labeled_loss + targets + self.fairness * fairness_loss + unsure_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "fairness_loss": fairness_loss,
            "mix_loss": mix_loss,
            "unsure_loss": unsure_loss,
            "tau": self.threshold.tau.clone(),
            **seen(z_s, target, row_weight),
        }

    def _losses_of_mixed(self, net: Network, batch: Batch, p: Tensor) -> tuple[Tensor, Tensor]:
        """Give L_m and L_c; every row is pasted into, and those that are not meant get no weight."""
        own, count = len(batch.labels), len(p)
        images = torch.cat([batch.labeled[0], batch.unlabeled[1]])
        classes = torch.cat([batch.labels, p.argmax(1)])
        sure = torch.cat([torch.ones_like(batch.labels, dtype=torch.bool), p.amax(1) >= self.sure])
        y = one_hot(classes, p.shape[1], like=p)

        pool = sure.clone()
        if not self.labeled_joins:
            pool[:own] = False
        other = shuffled(pool, of_rows(batch.key, "order", images).uniform())
        joined, share = resize_mix(images, images[other], of_rows(batch.key, "sure", images), alpha=1.0)
        share = share[:, None].to(p.dtype)
        sure_target = share * y + (1 - share) * y[other]

        second = of_rows(batch.key, "second", p).uniform() < 0.5
        wished = torch.where(second, p.topk(2, 1).indices[:, 1], p.argmax(1))
        partner, found = of_class(wished, classes, sure, of_rows(batch.key, "partner", p).uniforms(own + count).T)
        mixed, share = resize_mix(images[own:], images[partner], of_rows(batch.key, "unsure", p), alpha=16.0)
        mixed = torch.where(found[:, None, None, None], mixed, images[own:])
        share = torch.where(found, share, 1.0)[:, None].to(p.dtype)
        unsure_target = share * p + (1 - share) * y[partner]

        with statistics_kept(net):
            z = net.logits(net.mixed_features(torch.cat([joined, mixed])))
        mix_losses = F.cross_entropy(z[: own + count], sure_target, reduction="none") * pool
        errors = (z[own + count :].softmax(1) - unsure_target).square().mean(1) * p.amax(1) ** 3
        unsure = (~sure[own:]).to(p.dtype)
        return mix_losses.sum() / count, (errors * unsure).sum() / unsure.sum().clamp(min=1)
