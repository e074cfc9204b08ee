"""The layer probe: how far the gradient of pseudo-labels agrees with that of true labels, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from fewlabels.errors import UserError
from fewlabels.inputs.batch import Batch
from fewlabels.inputs.feed import RowFeed
from fewlabels.methods.base import Method
from fewlabels.methods.parts.forward import statistics_kept
from fewlabels.methods.parts.losses import consistency
from fewlabels.models.layers import layers_of
from fewlabels.models.network import Network

ROWS = 400  # unlabeled rows at least, in batches of the training's size
COST = 1.6  # steps that a batch costs, about (benchmarks/probe.py)

Against: TypeAlias = Literal["hidden", "test"]
"""whose true labels: the hidden ones of the same images, or those of test images"""

Gradients: TypeAlias = dict[str, Tensor]


@dataclass(frozen=True)
class Agreement:
    """What the probe found in one layer; None where it was not compared, or a gradient is zero.

    A cosine is that of the angle between two gradients, -1 to 1. Above 0 a small step down the pseudo-labels' gradient
    lowers the other loss, below 0 it raises it.

    Attributes:
        layer: its name, as policies name it.
        cosine_kept: with true labels on the kept rows, by the same row weights: what the wrong ones among them do.
        cosine_all: with true labels on all rows: what is gained by learning from pseudo-labels. Where these rows are
            others than the unlabeled ones, chance alone keeps it below 1.
        ratio: norm of the pseudo-labels' gradient over that of true labels on all rows.
    """

    layer: str
    cosine_kept: float | None
    cosine_all: float | None
    ratio: float | None


@dataclass(frozen=True)
class Probed:
    """What the probe found at one moment.

    Attributes:
        step: updates done.
        against: whose true labels.
        kept: mean row weight of the pseudo-labels; None where it is no number.
        wrong: share of them that are wrong, by their row weights; None where the truth is not known or none is kept.
        layers: from the input to the head.
    """

    step: int
    against: Against
    kept: float | None
    wrong: float | None
    layers: tuple[Agreement, ...]


class Probe:
    """Compares gradients in each layer, on the same rows and views each time.

    They are of the method's `unlabeled_loss`, for every layer as if no policy kept it from there, and of the
    cross-entropy of the same logits with true labels. Each is a mean over the same batches. All is done on copies, so
    the training does not notice.

    Args:
        feed: gives the batches that the method sees.
        truth: int64 [N], the true class of each row of `feed`, where they are known; else None.
        held_out: where they are not, gives labeled batches of other rows.
        batches: how many.
    """

    def __init__(self, feed: RowFeed, truth: Tensor | None, held_out: RowFeed | None, batches: int) -> None:
        assert (truth is None) != (held_out is None)
        self.feed, self.truth, self.held_out, self.batches = feed, truth, held_out, batches

    def __call__(self, network: Network, method: Method, step: Tensor) -> Probed:
        """Probe a network as it is after `step` (0-dim) updates.

        Raises:
            UserError: the method does not give what is compared, or the network cannot be copied.
        """
        kind = step.device.type
        devices = [] if kind == "cpu" else [step.device.index or 0]
        with torch.random.fork_rng(devices, device_type="cuda" if kind == "cpu" else kind):
            torch.manual_seed(0)  # dropout draws the same each time
            sums = _Sums(_copied(network))
            for number in range(self.batches):
                self._add(sums, method, number, step)
        known = self.truth is not None and sums.kept > 0
        return Probed(
            step=int(step),
            against="test" if self.truth is None else "hidden",
            kept=sums.kept / sums.rows if math.isfinite(sums.kept) else None,
            wrong=1 - sums.right / sums.kept if known else None,
            layers=tuple(sums.compared()),
        )

    def _add(self, sums: _Sums, method: Method, number: int, step: Tensor) -> None:
        # The batches are the same each time, and the method is told how far the run is.
        batch = self.feed.batch(number, torch.full_like(step, number))
        progress = step.to(torch.float32) / self.feed.steps
        batch = replace(batch, step=step, progress=progress, propagated=self.feed.propagated_of(batch.rows, progress))
        # A copy each time: what the method remembers is as the next step of the training would find it.
        found: dict[str, Tensor] = deepcopy(method).forward(sums.network, batch)
        if missing := [name for name in _READ if name not in found]:
            raise UserError(f"{type(method).__name__} cannot be probed: it does not give {', '.join(missing)}")
        logits, weight = found["unlabeled_logits"], found["row_weight"].detach()
        sums.add("pseudo", found["unlabeled_loss"])
        if self.truth is not None:
            truth = self.truth[batch.rows]
            sums.add("kept", consistency(logits, truth, weight))
            sums.add("all", F.cross_entropy(logits, truth))
            sums.count(weight, found["target"], truth)
        else:
            sums.add("all", self._held_out_loss(sums.network, number, step))
            sums.count(weight, found["target"], None)

    def _held_out_loss(self, network: Network, number: int, step: Tensor) -> Tensor:
        assert self.held_out is not None
        batch: Batch = self.held_out.batch(number, torch.full_like(step, number))
        with statistics_kept(network):
            features = network.unlabeled_features(batch.labeled[0])
        return F.cross_entropy(network.unlabeled_logits(features), batch.labels)


_READ = ("unlabeled_loss", "unlabeled_logits", "target", "row_weight")


def _copied(network: Network) -> Network:
    try:
        return network.unscaled().train()
    except RuntimeError as error:  # a module that keeps what it computed
        raise UserError(f"the layer probe works on a copy of the network, and none can be made: {error}") from error


class _Sums:
    """Gradients of a network summed over batches, and rows counted."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.learned = {name: p for name, p in network.classifier.named_parameters() if p.requires_grad}
        self.of: dict[str, Gradients] = {}
        self.kept = self.right = 0.0
        self.rows = 0

    def add(self, name: str, loss: Tensor) -> None:
        """Add the gradient of a loss to the sum of this name; a loss that reaches nothing has none."""
        sums = self.of.setdefault(name, {of: torch.zeros_like(p) for of, p in self.learned.items()})
        if loss.requires_grad:
            found = torch.autograd.grad(loss, [*self.learned.values()], retain_graph=True, materialize_grads=True)
            for of, gradient in zip(self.learned, found, strict=True):
                sums[of] += gradient

    def count(self, weight: Tensor, target: Tensor, truth: Tensor | None) -> None:
        """Count rows, the kept ones by their weights, and of these the right ones."""
        classes = target.argmax(1) if target.ndim == 2 else target
        self.rows += len(weight)
        self.kept += float(weight.sum())
        self.right += 0.0 if truth is None else float((weight * (classes == truth)).sum())

    def compared(self) -> list[Agreement]:
        """Compare the sums, layer by layer."""
        out: list[Agreement] = []
        for layer, names in layers_of(self.network.classifier).items():
            own = [name for name in names if name in self.learned]
            if own:
                flat = {of: _flat(sums, own) for of, sums in self.of.items()}
                pseudo, true, kept = flat["pseudo"], flat["all"], flat.get("kept")
                of_kept = None if kept is None else _cosine(pseudo, kept)
                out.append(Agreement(layer, of_kept, _cosine(pseudo, true), _known(pseudo.norm() / true.norm())))
        return out


def _flat(of: Mapping[str, Tensor], names: list[str]) -> Tensor:
    return torch.cat([of[name].flatten().double() for name in names]).cpu()


def _cosine(first: Tensor, second: Tensor) -> float | None:
    return _known(first @ second / (first.norm() * second.norm()))


def _known(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
