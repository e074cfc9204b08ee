"""Factors that grow over the run."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from torch import Tensor

Rise: TypeAlias = Literal["linear", "exp"]


def ramp(progress: Tensor, length: float, rise: Rise = "linear") -> Tensor:
    """Rise to 1 over the first `length` of the run; both are fractions of it, `progress` is 0-dim.

    With x the part of the rise that is done: "linear" is x, and "exp" exp(-5 (1 - x)^2), of Laine and Aila (2017),
    which begins at .0067.
    """
    done = (progress / max(length, 1e-12)).clamp(max=1) if length else progress.new_ones(())
    return done if rise == "linear" else (-5 * (1 - done).square()).exp()


def cosine_ramp(progress: Tensor) -> Tensor:
    """Rise from 0 to 1 over the first half of the run, slowly at both ends (Berthelot et al. 2022)."""
    return (1 - (2 * math.pi * progress).clamp(max=math.pi).cos()) / 2
