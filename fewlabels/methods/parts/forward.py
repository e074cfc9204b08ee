"""Several views through one network: which pass they share, and which pass moves the batch statistics."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fewlabels.methods.parts.targets import with_propagated
from fewlabels.models.network import Network

Passes: TypeAlias = Literal["one", "two", "three"]


def features_of(
    net: Network, labeled: Tensor, weak: Tensor, strong: Sequence[Tensor], passes: Passes = "three"
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Give features of labeled [B, D], weak [M, D] (without gradient) and strong views, [M, D] each.

    What shares a pass is normalized by the same batch statistics, and these are remembered for evaluation:

    - "one": of all views together;
    - "two": of labeled and strong views; weak views make targets in a pass of their own, without gradients;
    - "three": of labeled views alone, as evaluation will see images; strong views have a pass of their own too.
    """
    if passes == "one":
        own, of_weak, *of_strong = net.joint_features([labeled, weak, *strong])
        return own, of_weak.detach(), of_strong
    of_weak = target_features(net, weak)
    if passes == "two":
        own, *of_strong = net.joint_features([labeled, *strong])
        return own, of_weak, of_strong
    own = net.features(labeled)
    return own, of_weak, learning_features(net, *strong)


def logits_of(
    net: Network,
    labeled: Tensor,
    weak: Tensor,
    strong: Tensor,
    passes: Passes = "three",
    propagated: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Give logits of labeled [B, K], weak [M, K] (see `target_logits`) and strong views [M, K]; see `features_of`."""
    own, of_weak, (of_strong,) = features_of(net, labeled, weak, [strong], passes)
    return net.logits(own), target_logits(net, of_weak, propagated), net.unlabeled_logits(of_strong)


def learning_features(net: Network, *views: Tensor) -> list[Tensor]:
    """Give features [M, D] of unlabeled views that learn, in one pass that moves no batch statistics."""
    sizes = [len(view) for view in views]
    with statistics_kept(net):
        return list(net.unlabeled_features(torch.cat(views)).split(sizes))


def target_features(net: Network, view: Tensor) -> Tensor:
    """Give features [M, D] of a view that only makes targets: no gradient, and no batch statistics move."""
    with torch.no_grad(), statistics_kept(net):
        return net.unlabeled_features(view)


def target_logits(net: Network, features: Tensor, propagated: Tensor | None = None) -> Tensor:
    """Give logits [M, K] that only make targets of features [M, D]: no gradient.

    Propagated labels of the rows [M, K] (`Batch.propagated`) are mixed in: see `parts.targets.with_propagated`.
    """
    with torch.no_grad():
        return with_propagated(net.unlabeled_logits(features), propagated)


@contextmanager
def statistics_kept(net: Network) -> Generator[None]:
    """Normalize by the batch as in training, without moving the running statistics."""
    for norm in net.norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in net.norms:
            norm.track_running_stats = True


@contextmanager
def whole_precision(net: Network) -> Generator[None]:
    """Compute in float32 what is too fine for less."""
    usual, net.precision = net.precision, "float32"
    try:
        yield
    finally:
        net.precision = usual
