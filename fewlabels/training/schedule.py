"""Learning rates as functions of the step."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

Schedule: TypeAlias = Literal["cosine", "cosine_to_zero", "linear", "constant"]


def lr_factor(step: Tensor, steps: int, schedule: Schedule = "cosine", warm_up: int = 0, start: int = 0) -> Tensor:
    """Return the factor on the learning rate, 0-dim.

    With t the step and T the steps: "cosine" is cos(7 pi t / (16 T)) (Sohn et al. 2020), which ends at 0.2;
    "cosine_to_zero" (1 + cos(pi t / T)) / 2 (Loshchilov and Hutter 2017); "linear" 1 - t / T; "constant" 1.

    Args:
        step: t, 0-dim, from 0.
        steps: T, length of the run.
        schedule: which of these.
        warm_up: steps over which the factor also rises from 1 / warm_up to 1.
        start: the step from which it rises.
    """
    t = step.to(torch.get_default_dtype())
    match schedule:
        case "cosine":
            found = torch.cos(7 * math.pi / 16 * t / steps)
        case "cosine_to_zero":
            found = (1 + torch.cos(math.pi * t / steps)) / 2
        case "linear":
            found = 1 - t / steps
        case "constant":
            found = torch.ones_like(t)
    return found * ((t + (1 - start)) / warm_up).clamp(max=1) if warm_up else found
