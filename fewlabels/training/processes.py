"""One run in several processes: the network stays plain, and the loop sums its gradients."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fewlabels.data.feed import WHOLE, Share
from fewlabels.methods.parts.across import world


def share() -> Share:
    """Tell which of the run's processes this is."""
    return Share(dist.get_rank(), dist.get_world_size()) if world() > 1 else WHOLE


def any_of(flag: bool) -> bool:
    """Tell whether any of the run's processes says yes; all must ask at the same point."""
    if world() == 1:
        return flag
    answers: list[bool | None] = [None] * world()
    dist.all_gather_object(answers, flag)
    return any(answers)


@contextmanager
def joined(device: torch.device) -> Generator[Share]:
    """Join the other processes where `torchrun` started several; leave them in the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or world() > 1:
        yield share()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield share()
    finally:
        dist.destroy_process_group()


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes by one exchange; each process holds an equal share of the batch."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world()
    parts: tuple[Tensor, ...] = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])
