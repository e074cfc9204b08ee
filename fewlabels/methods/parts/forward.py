"""Several views through one network: which pass they share, and which pass moves the batch statistics."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from fewlabels.models.network import Network

TargetPass: TypeAlias = Literal["own", "joint"]


def logits_of(
    net: Network, labeled: Tensor, weak: Tensor, strong: Tensor, target_pass: TargetPass
) -> tuple[Tensor, Tensor, Tensor]:
    """Give logits of labeled [B, K], weak [M, K] (without gradient) and strong views [M, K].

    Labeled and strong views share a pass, whose batch statistics are remembered. Weak views make targets alone:
    in a pass of their own ("own"; no gradient is computed and no statistics move), or in the shared one ("joint").
    """
    if target_pass == "joint":
        features = net.features(torch.cat([labeled, weak, strong]))
        own, of_weak, of_strong = features.split([len(labeled), len(weak), len(strong)])
        with torch.no_grad():
            weak_logits = net.unlabeled_logits(of_weak)
    else:
        weak_logits = target_logits(net, weak)
        own, of_strong = net.features(torch.cat([labeled, strong])).split([len(labeled), len(strong)])
    return net.logits(own), weak_logits, net.unlabeled_logits(of_strong)


def target_logits(net: Network, weak: Tensor) -> Tensor:
    """Give logits [M, K] of views that only make targets: no gradient, and no batch statistics move."""
    with torch.no_grad(), statistics_kept(net):
        # Batch norm refuses an empty batch; the head does not.
        features = net.features(weak) if len(weak) else weak.new_zeros(0, net.classifier.head.in_features)
        return net.unlabeled_logits(features)


@contextmanager
def statistics_kept(net: nn.Module) -> Generator[None]:
    """Normalize by the batch as in training, without moving the running statistics."""
    norms = [
        m
        for m in net.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    saved = [(norm.running_mean, norm.running_var) for norm in norms]
    for norm in norms:
        norm.running_mean = norm.running_var = None
    try:
        yield
    finally:
        for norm, (mean, var) in zip(norms, saved, strict=True):
            norm.running_mean, norm.running_var, norm.track_running_stats = mean, var, True
