"""Several views through one network: which pass they share, and which pass moves the batch statistics."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fewlabels.models.network import Network

Passes: TypeAlias = Literal["one", "two", "three"]


def logits_of(
    net: Network, labeled: Tensor, weak: Tensor, strong: Tensor, passes: Passes
) -> tuple[Tensor, Tensor, Tensor]:
    """Give logits of labeled [B, K], weak [M, K] (without gradient) and strong views [M, K].

    What shares a pass is normalized by the same batch statistics, and these are remembered for evaluation:

    - "one": of all views together;
    - "two": of labeled and strong views; weak views make targets in a pass of their own, without gradients;
    - "three": of labeled views alone, as evaluation will see images; strong views have a pass of their own too.
    """
    if passes == "one":
        own, of_weak, of_strong = net.joint_features([labeled, weak, strong])
        with torch.no_grad():
            weak_logits = net.unlabeled_logits(of_weak)
        return net.logits(own), weak_logits, net.unlabeled_logits(of_strong)
    weak_logits = target_logits(net, weak)
    if passes == "two":
        own, of_strong = net.joint_features([labeled, strong])
    else:
        own = net.features(labeled)
        with statistics_kept(net):
            of_strong = net.unlabeled_features(strong)
    return net.logits(own), weak_logits, net.unlabeled_logits(of_strong)


def target_logits(net: Network, weak: Tensor) -> Tensor:
    """Give logits [M, K] of views that only make targets: no gradient, and no batch statistics move."""
    with torch.no_grad(), statistics_kept(net):
        return net.unlabeled_logits(net.unlabeled_features(weak))


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
