"""Factors that grow over the run."""

from __future__ import annotations

import math

from torch import Tensor


def ramp(share: Tensor, length: float) -> Tensor:
    """Rise linearly from 0 to 1 over the first `length` of the run; both are shares of it, `share` is 0-dim."""
    return (share / max(length, 1e-12)).clamp(max=1) if length else share.new_ones(())


def cosine_ramp(share: Tensor) -> Tensor:
    """Rise from 0 to 1 over the first half of the run, slowly at both ends (Berthelot et al. 2022)."""
    return (1 - (2 * math.pi * share).clamp(max=math.pi).cos()) / 2
