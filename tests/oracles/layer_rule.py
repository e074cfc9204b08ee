"""References of LayerMatch (Liang et al. 2024; DESIGN.md): the head rule and what is averaged.

Shapes: B labeled, M unlabeled rows, K classes, D features, N rows in the table. The head is W [K,
D], b [K]. Unlabeled views use W_u = sg(V) + s (W - sg W) with V = W or its average, so the value is
V's and the gradient to W is scaled by s: s = 0 is Grad-ReLU, s = 1 the usual. The bias follows the
same rule.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .basics import Floats, Ints, debiased, softmax
from .threshold_methods import (
    Result,
    SelfAdaptiveThreshold,
    confidence_and_target,
    fixed_row_weight,
    labeled_part,
    unlabeled_part,
)

ThresholdKind = Literal["fixed", "self_adaptive", "soft"]


def head_logits(features: Floats, W: Floats, b: Floats, W_avg: Floats, b_avg: Floats, use_average: bool) -> Floats:
    """Return f V^T + c [N, K] of unlabeled features [N, D], (V, c) the average or the head."""
    V, c = (W_avg, b_avg) if use_average else (W, b)
    logits = np.zeros((len(features), len(V)), dtype=np.float64)
    for i, f in enumerate(features):
        for k, center in enumerate(V):
            logits[i, k] = float(f @ center) + c[k]
    return logits


def head_gradients(
    features: Floats, grad_logits: Floats, W: Floats, W_avg: Floats, scale: float, use_average: bool
) -> tuple[Floats, Floats, Floats]:
    """Return (dL/df [N, D], dL/dW [K, D], dL/db [K]) from dL/dz [N, K].

    dL/df = dL/dz V; dL/dW = scale * dL/dz^T f; dL/db = scale * sum of dL/dz over rows.
    """
    V = W_avg if use_average else W
    grad_features = np.zeros_like(features, dtype=np.float64)
    grad_W = np.zeros_like(W, dtype=np.float64)
    grad_b = np.zeros(len(W), dtype=np.float64)
    for i, f in enumerate(features):
        for k, g in enumerate(grad_logits[i]):
            grad_features[i] += g * V[k]
            grad_W[k] += scale * g * f
            grad_b[k] += scale * g
    return grad_features, grad_W, grad_b


class CenterAverage:
    """Avg-Clustering of LayerMatch: W_avg <- m_t W_avg + (1 - m_t) W, m_t = min(m, (1 + t) / (2 + t)).

    So it is the plain mean of the heads seen (with the first) until m is reached. The bias likewise.
    It starts at the head given first. `momentum` is the already scaled m.
    """

    def __init__(self, W: Floats, b: Floats, momentum: float = 0.999) -> None:
        self.momentum = momentum
        self.W_avg: Floats = np.array(W, dtype=np.float64)
        self.b_avg: Floats = np.array(b, dtype=np.float64)

    def update(self, W: Floats, b: Floats, t: int) -> None:
        """Take in the head of step t (from 0)."""
        m = min(self.momentum, (1 + t) / (2 + t))
        self.W_avg = m * self.W_avg + (1 - m) * W
        self.b_avg = m * self.b_avg + (1 - m) * b


class OutputAverage:
    """A running mean of each row's probabilities: DESIGN.md's second reading of LayerMatch.

    p_bar [N, K] and visits [N]. At a row's first visit p_bar is p; at visit v (from 0) it is
    m p_bar + (1 - m) p with m = debiased(momentum, v).
    """

    def __init__(self, rows: int, classes: int, momentum: float = 0.999) -> None:
        self.momentum = momentum
        self.p_bar: Floats = np.zeros((rows, classes), dtype=np.float64)
        self.visits: Ints = np.zeros(rows, dtype=np.int64)

    def update(self, row_numbers: Ints, probabilities: Floats) -> Floats:
        """Take in probabilities [M, K] of rows [M]; return their averages [M, K], summing to 1.

        A row that appears several times counts as one visit with the mean of its probabilities.
        """
        for row in sorted({int(r) for r in row_numbers}):
            places = [i for i, r in enumerate(row_numbers) if r == row]
            p = probabilities[places].mean(axis=0)
            m = 0.0 if self.visits[row] == 0 else debiased(self.momentum, int(self.visits[row]))
            self.p_bar[row] = m * self.p_bar[row] + (1 - m) * p
            self.visits[row] += 1
        averaged = self.p_bar[row_numbers]
        return averaged / averaged.sum(axis=1, keepdims=True)


class SoftWeight:
    """SoftMatch's row weight (Chen et al. 2023) without distribution alignment.

    weight = exp(-min(c - mean, 0)^2 / (2 variance / n_sigma^2)); mean and variance are running ones
    of c, start at 1/K and 1, and take in the step before use. The step's variance is unbiased (M -
    1), as in microsoft/Semi-supervised-learning; for a single row, where that is 0/0, it is read as
    0.
    """

    def __init__(self, classes: int, momentum: float = 0.999, n_sigma: float = 2.0) -> None:
        self.momentum = momentum
        self.n_sigma = n_sigma
        self.mean = 1.0 / classes
        self.variance = 1.0

    def row_weight(self, probabilities: Floats, t: int) -> Floats:
        """Take in probabilities [M, K] of step t (M > 0); return the rows' weights [M], 0 to 1."""
        c, _ = confidence_and_target(probabilities)
        mean = sum(c) / len(c)
        variance = sum((value - mean) ** 2 for value in c) / max(len(c) - 1, 1)
        m = debiased(self.momentum, t)
        self.mean = float(m * self.mean + (1 - m) * mean)
        self.variance = float(m * self.variance + (1 - m) * variance)
        width = 2 * self.variance / self.n_sigma**2
        return np.array([math.exp(-(min(value - self.mean, 0.0) ** 2) / width) for value in c], dtype=np.float64)


class FixedThreshold:
    """FixMatch's row weight 1[c >= threshold] (Sohn et al. 2020); it remembers nothing."""

    def __init__(self, threshold: float = 0.95) -> None:
        self.threshold = threshold

    def row_weight(self, probabilities: Floats, t: int) -> Floats:
        """Return the rows' weights [M], 0 or 1, of probabilities [M, K]."""
        return fixed_row_weight(probabilities, self.threshold)


class LayerMatch:
    """A threshold method's rule with the head rule (Liang et al. 2024; DESIGN.md, LayerMatch).

    L = CE(labeled) + lambda * (1/M) sum_i row_weight_i CE(strong logits_i, target_i); labeled rows
    use (W, b), both unlabeled views use (V, c). Targets and row weights come from the weak view,
    without gradient. With `use_average` the average takes in the current head at the start of each
    step after the first. `momentum` belongs to the threshold's memories, `center_momentum` to the
    head's average; both already scaled.
    """

    def __init__(
        self,
        classes: int,
        threshold_kind: ThresholdKind = "fixed",
        scale: float = 0.0,
        use_average: bool = False,
        lambda_: float = 1.0,
        threshold: float = 0.95,
        momentum: float = 0.999,
        center_momentum: float = 0.999,
        clip: tuple[float, float] | None = None,
        n_sigma: float = 2.0,
    ) -> None:
        rules: dict[str, FixedThreshold | SelfAdaptiveThreshold | SoftWeight] = {
            "fixed": FixedThreshold(threshold),
            "self_adaptive": SelfAdaptiveThreshold(classes, momentum, clip),
            "soft": SoftWeight(classes, momentum, n_sigma),
        }
        self.rule = rules[threshold_kind]
        self.scale = scale
        self.use_average = use_average
        self.lambda_ = lambda_
        self.center_momentum = center_momentum
        self.centers: CenterAverage | None = None

    def current_centers(self, W: Floats, b: Floats, t: int) -> CenterAverage:
        """Return the head's average, started at the first head, with that of step t taken in."""
        if self.centers is None:
            self.centers = CenterAverage(W, b, self.center_momentum)
        else:
            self.centers.update(W, b, t - 1)  # W came out of update t - 1, counted from 0
        return self.centers

    def step(
        self,
        f_labeled: Floats,
        labels: Ints,
        f_weak: Floats,
        f_strong: Floats,
        W: Floats,
        b: Floats,
        t: int,
        steps: int,
    ) -> Result:
        """Return losses and gradients of the total loss of one step.

        Features [B, D], [M, D], [M, D], labels [B], head W [K, D], b [K]. `grad_W` and `grad_b` are
        whole, `grad_W_unlabeled` and `grad_b_unlabeled` the part of the unlabeled loss (with lambda
        and scale).
        """
        centers = self.current_centers(W, b, t)
        head = (W, b, centers.W_avg, centers.b_avg, self.use_average)
        strong_logits = head_logits(f_strong, *head)
        p = softmax(head_logits(f_weak, *head))
        _, target = confidence_and_target(p)
        row_weight = self.rule.row_weight(p, t) if len(p) else np.zeros(0, dtype=np.float64)

        labeled_logits = head_logits(f_labeled, W, b, W, b, use_average=False)
        labeled_loss, to_labeled = labeled_part(labeled_logits, labels)
        unlabeled_loss, to_strong = unlabeled_part(strong_logits, target, row_weight)
        f_grad_labeled, W_labeled, b_labeled = head_gradients(f_labeled, to_labeled, W, W, 1.0, use_average=False)
        f_grad_strong, W_unlabeled, b_unlabeled = head_gradients(
            f_strong, self.lambda_ * to_strong, W, centers.W_avg, self.scale, self.use_average
        )
        return {
            "loss": labeled_loss + self.lambda_ * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "kept": float(row_weight.mean()) if len(row_weight) else 0.0,
            "row_weight": row_weight,
            "target": target,
            "grad_W": W_labeled + W_unlabeled,
            "grad_b": b_labeled + b_unlabeled,
            "grad_W_unlabeled": W_unlabeled,
            "grad_b_unlabeled": b_unlabeled,
            "grad_f_labeled": f_grad_labeled,
            "grad_f_strong": f_grad_strong,
        }
