"""Statistics of the global batch, whatever the number of processes that share it."""

from __future__ import annotations

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx

from fewlabels.processes import world_size


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is that of its gradient."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _Sum.forward(ctx, gradient)


def sum_rows(x: Tensor) -> Tensor:
    """Sum [n, ...] over the rows of all processes; the gradient reaches each process's own rows."""
    total = x.sum(0)
    return cast(Tensor, _Sum.apply(total)) if world_size() > 1 else total


def mean_rows(x: Tensor) -> Tensor:
    """Average [n, ...] over the rows of all processes, which hold n each; zero where there are none."""
    return sum_rows(x) / max(len(x) * world_size(), 1)


class _Gather(torch.autograd.Function):
    """The rows of all processes; the gradient of a row is the sum of what all of them have for it."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        del ctx
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        own = len(gradient) // world_size()
        return _Sum.forward(ctx, gradient)[dist.get_rank() * own :][:own]


def gather_rows(x: Tensor) -> Tensor:
    """Put the rows [n, ...] of all processes under each other; the gradient reaches each process's own rows."""
    return cast(Tensor, _Gather.apply(x)) if world_size() > 1 else x
