"""Learning rates as functions of the step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine(step: Tensor, steps: int, warm_up: int = 0) -> Tensor:
    """Give the factor on the learning rate: cos(7 pi t / (16 steps)) (Sohn et al. 2020), after a linear warm-up.

    Args:
        step: t, 0-dim, from 0.
        steps: length of the run.
        warm_up: steps over which the factor also rises from 1 / warm_up to 1.
    """
    t = step.to(torch.get_default_dtype())
    factor = torch.cos(7 * math.pi / 16 * t / steps)
    return factor * ((t + 1) / warm_up).clamp(max=1) if warm_up else factor
