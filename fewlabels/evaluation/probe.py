"""The layer probe: how far the gradient of pseudo-labels agrees with that of true labels, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.data.feed import ImageFeed
from fewlabels.errors import UserError
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import statistics_kept
from fewlabels.models.layers import layers_of
from fewlabels.models.network import Network
from fewlabels.views.batch import Batch

ROWS = 400  # unlabeled rows at least, in batches of the training's size


@dataclass(frozen=True)
class Agreement:
    """What the probe found in one layer; None where one of the two gradients is zero.

    Attributes:
        layer: its name, as policies name it.
        cosine: of the angle between the two gradients, -1 to 1. Above 0 a small step along the pseudo-labels'
            gradient lowers the loss on true labels; below 0 it raises it.
        ratio: norm of the pseudo-labels' gradient over that of the true labels'.
    """

    layer: str
    cosine: float | None
    ratio: float | None


@dataclass(frozen=True)
class Probed:
    """What the probe found at one moment.

    Attributes:
        step: updates done.
        kept: mean row weight of the pseudo-labels; None where the method does not say.
        wrong: share of them that are wrong, by their row weights; None where the truth is not known or none is kept.
        layers: from the input to the head.
    """

    step: int
    kept: float | None
    wrong: float | None
    layers: tuple[Agreement, ...]


class Probe:
    """Compares, on the same rows and views each time, two gradients in each layer.

    The one is of the method's `unlabeled_loss`, for every layer as if no policy kept it from there; the other of the
    cross-entropy with true labels on the view that the method learns from. Each is a mean over the same batches. All
    is done on copies, so the training does not notice.

    Args:
        feed: gives the batches that the method sees.
        truth: int64 [N], the true class of each row of `feed`, where they are known; else None.
        held_out: where they are not, gives labeled batches of other rows.
        batches: how many; their mean is compared.
    """

    def __init__(self, feed: ImageFeed, truth: Tensor | None, held_out: ImageFeed | None, batches: int) -> None:
        assert (truth is None) != (held_out is None)
        self.feed, self.truth, self.held_out, self.batches = feed, truth, held_out, batches

    def __call__(self, network: Network, method: Method, step: Tensor) -> Probed:
        """Probe a network as it is after `step` (0-dim) updates.

        Raises:
            UserError: the method gives no `unlabeled_loss`.
        """
        devices = [step.device] if step.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(0)  # dropout draws the same each time
            network = network.unscaled().train()
            pseudo, true, counts = self._gradients(network, method, step)
        kept, right_kept, rows = counts.tolist()
        return Probed(
            step=int(step),
            kept=kept / rows if rows else None,
            wrong=1 - right_kept / kept if kept and self.truth is not None else None,
            layers=tuple(_compared(network, pseudo, true)),
        )

    def _gradients(
        self, network: Network, method: Method, step: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Sum both gradients over the batches; count the kept rows, those of them that are right, and all rows."""
        learned = {name: p for name, p in network.classifier.named_parameters() if p.requires_grad}
        pseudo, true = ({name: torch.zeros_like(p) for name, p in learned.items()} for _ in range(2))
        counts = torch.zeros(3, dtype=torch.float64)
        for number in range(self.batches):
            batch = self.feed.batch(number, step)
            # A copy each time: what the method remembers is as the next step of the training would find it.
            found: dict[str, Tensor] = deepcopy(method).forward(network, batch)
            if "unlabeled_loss" not in found:
                raise UserError(f"{type(method).__name__} cannot be probed: it gives no `unlabeled_loss`")
            _add(pseudo, found["unlabeled_loss"], learned)
            _add(true, self._true_loss(network, batch, number, step), learned)
            counts += self._counts(found, batch)
        return pseudo, true, counts

    def _true_loss(self, network: Network, batch: Batch, number: int, step: Tensor) -> Tensor:
        if self.truth is not None:
            view, labels = batch.unlabeled[-1], self.truth[batch.rows]
        else:
            assert self.held_out is not None
            other = self.held_out.batch(number, step)
            (view,), labels = other.labeled, other.labels
        with statistics_kept(network):
            return F.cross_entropy(network.logits(network.features(view)), labels)

    def _counts(self, found: dict[str, Tensor], batch: Batch) -> Tensor:
        if "target" not in found or "row_weight" not in found:
            return torch.zeros(3, dtype=torch.float64)
        weight, target = found["row_weight"].detach().double().cpu(), found["target"]
        classes = (target.argmax(1) if target.ndim == 2 else target).cpu()
        right = torch.zeros_like(weight) if self.truth is None else (classes == self.truth[batch.rows].cpu()).double()
        return torch.stack([weight.sum(), (weight * right).sum(), weight.new_tensor(float(len(weight)))])


def _add(sums: dict[str, Tensor], loss: Tensor, learned: Mapping[str, Tensor]) -> None:
    """Add the gradient of a loss; a loss that reaches nothing has none."""
    if not loss.requires_grad:
        return
    found = torch.autograd.grad(loss, [*learned.values()], materialize_grads=True)
    for name, gradient in zip(learned, found, strict=True):
        sums[name] += gradient


def _compared(network: Network, pseudo: dict[str, Tensor], true: dict[str, Tensor]) -> list[Agreement]:
    out: list[Agreement] = []
    for layer, names in layers_of(network.classifier).items():
        learned = [name for name in names if name in pseudo]
        if learned:
            first, second = (torch.cat([of[n].flatten().double() for n in learned]).cpu() for of in (pseudo, true))
            of_first, of_second = float(first.norm()), float(second.norm())
            some = of_first > 0 and of_second > 0
            cosine = float(first @ second) / (of_first * of_second) if some else None
            out.append(Agreement(layer, cosine, of_first / of_second if some else None))
    return out
