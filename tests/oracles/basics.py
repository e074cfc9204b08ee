"""Softmax, cross-entropy, time constants, schedules and the optimizer, slow and in float64.

Shapes: N rows, K classes. `t` is the number of a step, counted from 0; `steps` is the length of the
run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PAPER_LENGTH = 2**20  # steps of a run in FixMatch (Sohn et al. 2020) and those who compare with it


def log_softmax(z: Floats) -> Floats:
    """Return the log of the softmax of each row of `z` [N, K]."""
    out = np.zeros_like(z, dtype=np.float64)
    for i, row in enumerate(z):
        top = row.max()  # so that no exp overflows
        out[i] = row - (top + math.log(np.exp(row - top).sum()))
    return out


def softmax(z: Floats) -> Floats:
    """Return the softmax of each row of `z` [N, K]."""
    return np.exp(log_softmax(z))


def cross_entropy(z: Floats, y: Ints) -> Floats:
    """Return -log softmax(z)_y for each row: logits `z` [N, K], classes `y` [N] -> [N]."""
    log_p = log_softmax(z)
    return np.array([-log_p[i, k] for i, k in enumerate(y)], dtype=np.float64)


def cross_entropy_gradient(z: Floats, y: Ints) -> Floats:
    """Return each row's gradient of the cross-entropy, softmax(z) - onehot(y) [N, K]."""
    gradient = softmax(z)
    for i, k in enumerate(y):
        gradient[i, k] -= 1.0
    return gradient


def horizon(paper_steps: float, steps: int, paper_length: int = PAPER_LENGTH, share: float = 1 / 20) -> float:
    """Return how many steps an average or a warm-up of `paper_steps` lasts in a run of `steps`.

    The paper's own number at the paper's length, at most `share` of a shorter run (DESIGN.md, time
    constants). Where the paper itself spends more than `share`, the paper's share is kept.
    """
    return min(float(paper_steps), steps * max(share, paper_steps / paper_length))


def horizon_to_momentum(h: float) -> float:
    """Return 1 - 1/h, the momentum of an average over `h` steps; 0 where h is below 1."""
    return max(0.0, 1.0 - 1.0 / h)


def debiased(m: float, t: int) -> float:
    """Return min(m, (1 + t) / (10 + t)), the momentum of an average at update `t` (from 0)."""
    return min(m, (1 + t) / (10 + t))


def ramp(share_done: float, length: float) -> float:
    """Return 0 to 1, linear over the first `length` of the run (both shares); 1 if length is 0."""
    if share_done >= length:
        return 1.0
    return max(0.0, share_done / length)


def cosine_lr(base: float, t: int, steps: int) -> float:
    """Return base * cos(7 pi t / (16 steps)), the schedule of FixMatch (Sohn et al. 2020)."""
    return base * math.cos(7 * math.pi * t / (16 * steps))


def sgd_nesterov(
    parameters: Sequence[Floats],
    gradients: Sequence[Sequence[Floats]],
    lr: float | Sequence[float],
    momentum: float = 0.9,
    weight_decay: float | Sequence[float] = 0.0,
    nesterov: bool = True,
) -> list[list[Floats]]:
    """Return the parameters after each step of SGD as `torch.optim.SGD` defines it (no dampening).

    `gradients[t][i]` is the gradient of the loss to parameter i at step t, without weight decay.
    `lr` is one number or one a step, `weight_decay` one number or one a parameter.
    g = gradient + weight_decay * p; v = g at the first step, momentum * v + g after;
    p <- p - lr * (g + momentum * v), or p - lr * v without Nesterov.
    """
    current = [np.array(p, dtype=np.float64) for p in parameters]
    rates = [lr] * len(gradients) if isinstance(lr, (int, float)) else list(lr)
    decays = [weight_decay] * len(current) if isinstance(weight_decay, (int, float)) else list(weight_decay)
    velocity: list[Floats | None] = [None] * len(current)
    history: list[list[Floats]] = []
    for rate, step_gradients in zip(rates, gradients, strict=True):
        for i, (p, gradient, decay) in enumerate(zip(current, step_gradients, decays, strict=True)):
            g = gradient + decay * p
            before = velocity[i]
            v = g.copy() if before is None else momentum * before + g
            velocity[i] = v
            current[i] = p - rate * (g + momentum * v if nesterov else v)
        history.append([p.copy() for p in current])
    return history


def ema_series(start: Floats, values: Sequence[Floats], momentum: float, debias: bool = True) -> list[Floats]:
    """Return the average after each value: a <- m a + (1 - m) value, from a = `start`.

    m at update t (from 0) is debiased(momentum, t), or `momentum` itself without `debias`.
    """
    average = np.array(start, dtype=np.float64)
    series: list[Floats] = []
    for t, value in enumerate(values):
        m = debiased(momentum, t) if debias else momentum
        average = m * average + (1 - m) * np.asarray(value, dtype=np.float64)
        series.append(average.copy())
    return series
