"""The exponential moving average of a module: what gets evaluated."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from fewlabels.averaging.batch_norm import batch_norms
from fewlabels.averaging.horizon import momentum


def averaged_tensors(module: nn.Module) -> list[Tensor]:
    """Give what an average of a module averages: parameters, and the running statistics of batch norm."""
    statistics = [
        buffer for norm in batch_norms(module) for buffer in (norm.running_mean, norm.running_var) if buffer is not None
    ]
    return [*module.parameters(), *statistics]


class Ema(nn.Module):
    """An average of `source`, debiased at the start: e <- m e + (1 - m) w, with `horizon.momentum`.

    torch's own `AveragedModel` reads its counter on the host in each update, which stops the device, and
    averages all buffers or none; a method's memories must not be averaged over time.

    Args:
        source: the module to follow; copied, never changed.
        memory: steps that the average remembers.
        start: how slowly it forgets its first steps; see `momentum`.
    """

    def __init__(self, source: nn.Module, memory: float, start: float = 10.0) -> None:
        super().__init__()
        self.module = deepcopy(source).requires_grad_(False)
        self.memory, self.start = memory, start
        averaged = {id(tensor) for tensor in averaged_tensors(self.module)}
        saved = self.module.state_dict().keys()  # without constants
        self.copied = [name for name, t in self.module.named_buffers() if name in saved and id(t) not in averaged]

    @torch.no_grad()
    def update(self, source: nn.Module, step: Tensor) -> None:
        """Take in the parameters of `source` after update number `step` (0-dim int64, from 0)."""
        weight = 1 - momentum(self.memory, step, self.start)
        averages, values = averaged_tensors(self.module), averaged_tensors(source)
        differences = torch._foreach_sub(values, averages)  # pyright: ignore[reportPrivateUsage]
        torch._foreach_mul_(differences, weight)  # pyright: ignore[reportPrivateUsage]
        torch._foreach_add_(averages, differences)  # pyright: ignore[reportPrivateUsage]
        for name in self.copied:  # counters, memories, statistics of other norms: as they are now
            self.module.get_buffer(name).copy_(source.get_buffer(name))
