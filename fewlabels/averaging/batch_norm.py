"""The batch norms of a network, whose running statistics are averages over steps."""

from __future__ import annotations

from typing import TypeAlias

from torch import nn

# Their common base class has a private name.
BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm


def batch_norms(module: nn.Module) -> list[BatchNorm]:
    """Return the batch norms within a module, in its order."""
    return [part for part in module.modules() if isinstance(part, BatchNorm)]


def set_batch_norm_memory(module: nn.Module, memory: float) -> None:
    """Let running statistics remember this many steps; a paper's momentum of 0.001 is made for a million."""
    for norm in batch_norms(module):
        norm.momentum = 1 / memory
