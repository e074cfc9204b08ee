"""One run in several processes: the network stays plain, and the loop sums its gradients."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewlabels.data.feed import Share


def share() -> Share:
    """Tell which of the run's processes this is."""
    return Share(dist.get_rank(), dist.get_world_size()) if _initialized() else Share()


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def joined(device: torch.device) -> Generator[Share]:
    """Join the other processes where `torchrun` started several; leave them in the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _initialized():
        yield share()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield share()
    finally:
        dist.destroy_process_group()


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes by one exchange; each process holds an equal share of the batch."""
    if not _initialized() or dist.get_world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts: tuple[Tensor, ...] = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])
