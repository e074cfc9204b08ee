"""How long an average remembers: the one rule by which a paper's time constants fit a shorter run."""

from __future__ import annotations

import torch
from torch import Tensor

PAPER_STEPS = 2**20  # the length of the runs for which the papers give their constants
SHARE = 1 / 20  # of a shorter run, the longest memory that an average gets


def horizon(paper_steps: float, steps: int) -> float:
    """Give the memory, in steps, that a paper's `paper_steps` of 2**20 become in a run of `steps`.

    A paper's .999 means 1,000 steps of its million. At the paper's length it stays so; a shorter run gets at
    most a twentieth of its own steps (or the paper's own share, where that is larger): at 600 steps an average
    of .999 would still be 55 % its start.
    """
    return max(1.0, min(paper_steps, steps * max(SHARE, paper_steps / PAPER_STEPS)))


def delay(paper_steps: float, steps: int) -> float:
    """Give the length, in steps, of a warm-up of a paper's `paper_steps`: its `horizon`, and none of none."""
    return horizon(paper_steps, steps) if paper_steps else 0.0


def momentum(memory: float, step: Tensor, start: float = 10.0) -> Tensor:
    """Give the debiased momentum at `step` (any shape; `step` from 0): min(1 - 1 / memory, (1 + t) / (start + t)).

    With a start of 10 the average remembers at most a ninth of the steps so far, whatever its memory; with 2 it is the
    plain mean of all, until their number reaches the memory.
    """
    t = step.to(torch.get_default_dtype())
    return ((1 + t) / (start + t)).clamp(max=1 - 1 / memory)
