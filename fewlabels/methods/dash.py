"""Dash (Xu et al. 2021): rows count whose loss is below a threshold that falls."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.averaging.horizon import delay
from fewlabels.config import NotNegative, Positive
from fewlabels.inputs.batch import Batch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.across import mean_rows
from fewlabels.methods.parts.losses import consistency, seen
from fewlabels.methods.parts.memory import ValueAt
from fewlabels.methods.parts.targets import one_hot
from fewlabels.methods.parts.weak_strong import WeakStrong
from fewlabels.models.network import Network


class Dash(WeakStrong):
    """FixMatch with a threshold on the loss of the weak view, measured on labeled rows and then shrunk.

    ::

        z   = logits(weak(x))                                           [B, K]
        z_w = logits(weak(u)), z_s = logits(strong(u))                  [M, K]
        warm-up: labeled rows alone; after it rho_0 = mean CE(z, y) of one batch   []
        rho = max(floor, factor * decay^-n * rho_0), n = whole periods since   []
        q   = softmax(z_w / temperature), and argmax z_w once rho is at its floor   [M, K]
        row weight = 1[CE(z_w, q) <= rho]                               [M]
        loss = mean CE(z, y) + weight * mean(row weight * CE(z_s, sg q))

    The paper's rho_0 is the mean loss of all labeled images. In a popular library it is the test loss.
    """

    factor: Positive = 1.0001
    """of the first threshold, on the labeled loss after the warm-up"""
    decay: Positive = 1.27
    """the threshold is divided by this once a period"""
    floor: NotNegative = 0.05
    """lowest threshold"""
    period: Positive = 10 / 1024
    """part of the run from one shrinking to the next"""
    warm_up_steps: NotNegative = 2048.0
    """steps with labeled rows alone, in a run of the paper's length"""
    temperature: Positive = 0.5
    """of the targets before the threshold is at its floor"""
    soft: bool = True
    """whether targets are distributions until the threshold is at its floor, or always classes"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def setup(self, sizes: Sizes) -> None:
        """Make the memory of the first threshold."""
        self.start = int(delay(self.warm_up_steps, sizes.steps))
        self.period_steps = max(1.0, self.period * sizes.steps)
        self.rho_0 = ValueAt(self.start)

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss`, `labeled_loss`, `unlabeled_loss` (without its factor), `kept` and `rho`."""
        z, z_w, z_s = self.logits(net, batch)
        labeled_losses = self.supervise(z, batch.labels, reduction="none")
        rho = self._threshold(labeled_losses.detach(), batch.step)
        target = one_hot(z_w.argmax(1), z_w.shape[1], like=z_w)
        if self.soft:
            target = torch.where(rho > self.floor, (z_w / self.temperature).softmax(1), target)
        row_weight = (F.cross_entropy(z_w, target, reduction="none") <= rho).to(z.dtype) * (batch.step >= self.start)

        unlabeled_loss = consistency(z_s, target, row_weight)
        return {
            "loss": labeled_losses.mean() + self.weight * unlabeled_loss,
            "labeled_loss": labeled_losses.mean(),
            "unlabeled_loss": unlabeled_loss,
            "rho": rho * (batch.step >= self.start),
            **seen(z_s, target, row_weight),
        }

    def _threshold(self, labeled_losses: Tensor, step: Tensor) -> Tensor:
        rho_0 = self.rho_0(mean_rows(labeled_losses), step)
        periods = ((step - self.start) / self.period_steps).floor()
        return (self.factor * self.decay**-periods * rho_0).clamp(min=self.floor)
