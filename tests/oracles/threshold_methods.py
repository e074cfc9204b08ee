"""References of the methods that keep an unlabeled row when its top probability is high enough.

Supervised, PseudoLabel (Lee 2013), FixMatch (Sohn et al. 2020), FreeMatch (Wang et al. 2023).

Shapes: B labeled rows, M unlabeled rows, K classes. p = softmax(weak logits) without gradient, c =
max p, target = argmax p (the first of equals). L = CE(labeled) + lambda * L_u; the mean in L_u is
over all M rows, kept or not. `step` returns the losses, the row weights and the gradients of the
total loss to the three arrays of logits, derived by hand; nothing flows through targets,
thresholds, memories or histograms. With no unlabeled rows each method is Supervised and its
memories stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .basics import (
    Floats,
    Ints,
    cross_entropy,
    cross_entropy_gradient,
    debiased,
    ramp,
    softmax,
)

Result = dict[str, Any]
# Inside the log of FreeMatch's fairness, as in microsoft/Semi-supervised-learning and TorchSSL.
EPSILON = 1e-12


def labeled_part(logits: Floats, labels: Ints) -> tuple[float, Floats]:
    """Return the mean cross-entropy of logits [B, K] with labels [B], and its gradient [B, K]."""
    loss = float(cross_entropy(logits, labels).mean())
    return loss, cross_entropy_gradient(logits, labels) / len(labels)


def unlabeled_part(logits: Floats, target: Ints, row_weight: Floats) -> tuple[float, Floats]:
    """Return (1/M) sum_i row_weight_i CE(logits_i, target_i) and its gradient [M, K]."""
    rows = len(target)
    if rows == 0:
        return 0.0, np.zeros_like(logits, dtype=np.float64)
    loss = sum(row_weight * cross_entropy(logits, target)) / rows
    return float(loss), row_weight[:, None] * cross_entropy_gradient(logits, target) / rows


def confidence_and_target(probabilities: Floats) -> tuple[Floats, Ints]:
    """Return c = max p [M] and argmax p [M], the first of equals, of probabilities [M, K]."""
    target = np.array([int(np.argmax(row)) for row in probabilities], dtype=np.int64)
    c = np.array([max(row) for row in probabilities], dtype=np.float64)
    return c, target


def class_histogram(classes: Ints, count: int) -> Floats:
    """Return the share of each of `count` classes among `classes` [M], [count]; M must not be 0."""
    histogram = np.zeros(count, dtype=np.float64)
    for k in classes:
        histogram[k] += 1.0
    return histogram / len(classes)


def inverse_or_zero(values: Floats) -> Floats:
    """Return 1 / value, and 0 where the value is 0."""
    return np.array([0.0 if value == 0 else 1.0 / value for value in values], dtype=np.float64)


def fixed_row_weight(probabilities: Floats, threshold: float) -> Floats:
    """Return 1[c >= threshold] [M] of probabilities [M, K] (FixMatch, Sohn et al. 2020)."""
    c, _ = confidence_and_target(probabilities)
    return np.array([1.0 if value >= threshold else 0.0 for value in c], dtype=np.float64)


class SelfAdaptiveThreshold:
    """FreeMatch's threshold (Wang et al. 2023): keep c >= tau * p_tilde[target] / max p_tilde.

    tau and p_tilde [K] are running means of c and of p and start at 1/K. `momentum` is the already
    scaled m. `clip` (low, high) bounds tau; with `clip_memory` the bounded value is what is
    remembered, as in microsoft/Semi-supervised-learning (there with bounds 0 and .95), else only
    the value used is bounded.
    """

    def __init__(
        self,
        classes: int,
        momentum: float = 0.999,
        clip: tuple[float, float] | None = None,
        clip_memory: bool = True,
    ) -> None:
        self.momentum = momentum
        self.clip = clip
        self.clip_memory = clip_memory
        self.tau = 1.0 / classes
        self.p_tilde: Floats = np.full(classes, 1.0 / classes)

    def bounded(self, tau: float) -> float:
        """Return tau within `clip`."""
        return tau if self.clip is None else min(max(tau, self.clip[0]), self.clip[1])

    def row_weight(self, probabilities: Floats, t: int) -> Floats:
        """Take in probabilities [M, K] of step t (M > 0); return the rows' weights [M], 0 or 1."""
        c, target = confidence_and_target(probabilities)
        m = debiased(self.momentum, t)
        tau = m * self.tau + (1 - m) * float(c.mean())
        self.tau = self.bounded(tau) if self.clip_memory else tau
        self.p_tilde = m * self.p_tilde + (1 - m) * probabilities.mean(axis=0)
        weight = np.zeros(len(c), dtype=np.float64)
        for i, k in enumerate(target):
            weight[i] = float(c[i] >= self.bounded(self.tau) * self.p_tilde[k] / self.p_tilde.max())
        return weight


def fairness_part(
    strong_logits: Floats,
    row_weight: Floats,
    p_tilde: Floats,
    h_tilde: Floats,
    epsilon: float = EPSILON,
) -> tuple[float, Floats]:
    """Return FreeMatch's fairness loss and its gradient to strong_logits [M, K] (Wang et al. 2023).

    L_f = sum_k a_k log(b_k + epsilon), a = normalize(p_tilde / h_tilde), b = normalize(mean q / h)
    with q the softmax of the kept strong rows and h the histogram of their argmax; 1/0 is read as
    0; 0 if no row is kept. A class that no kept row predicts has b_k = 0 and adds a_k log(epsilon),
    a constant without gradient; with epsilon = 0 such classes are left out of the sum. The gradient
    flows through mean q alone.
    """
    gradient = np.zeros_like(strong_logits, dtype=np.float64)
    kept = [i for i, weight in enumerate(row_weight) if weight > 0]
    if not kept:
        return 0.0, gradient
    q = softmax(strong_logits[kept])
    _, predicted = confidence_and_target(q)
    a = p_tilde * inverse_or_zero(h_tilde)
    a = a / a.sum()
    scale = inverse_or_zero(class_histogram(predicted, q.shape[1]))
    u = q.mean(axis=0) * scale
    b = u / u.sum()
    present = [k for k in range(len(b)) if b[k] > 0 or epsilon > 0]
    loss = sum(a[k] * np.log(b[k] + epsilon) for k in present)

    to_b = np.zeros_like(b)  # dL/db
    for k in present:
        to_b[k] = a[k] / (b[k] + epsilon)
    to_u = (to_b - float(to_b @ b)) / u.sum()  # db_k/du_j = (1[j = k] - b_k) / sum u
    to_q = to_u * scale / len(kept)  # the same for each kept row
    for place, i in enumerate(kept):
        gradient[i] = q[place] * (to_q - float(q[place] @ to_q))
    return float(loss), gradient


def assemble(
    labeled: tuple[float, Floats],
    unlabeled_loss: float,
    weight: float,
    row_weight: Floats,
    target: Ints,
    grad_weak: Floats,
    grad_strong: Floats,
) -> Result:
    """Return what every `step` returns; `weight` multiplies the unlabeled loss in `loss`."""
    return {
        "loss": labeled[0] + weight * unlabeled_loss,
        "labeled_loss": labeled[0],
        "unlabeled_loss": unlabeled_loss,
        "kept": float(row_weight.mean()) if len(row_weight) else 0.0,
        "row_weight": row_weight,
        "target": target,
        "grad_labeled": labeled[1],
        "grad_weak": grad_weak,
        "grad_strong": grad_strong,
    }


class Supervised:
    """Cross-entropy on the labeled rows; the unlabeled ones count 0."""

    def step(
        self,
        labeled_logits: Floats,
        labels: Ints,
        weak_logits: Floats,
        strong_logits: Floats,
        t: int,
        steps: int,
    ) -> Result:
        """Return losses and gradients of one step; logits [B, K], [M, K], [M, K], labels [B]."""
        _, target = confidence_and_target(weak_logits)
        none = np.zeros(len(weak_logits), dtype=np.float64)
        grad_weak = np.zeros_like(weak_logits, dtype=np.float64)
        grad_strong = np.zeros_like(strong_logits, dtype=np.float64)
        return assemble(labeled_part(labeled_logits, labels), 0.0, 0.0, none, target, grad_weak, grad_strong)


class PseudoLabel:
    """Lee 2013 with later libraries' threshold: L_u = mean 1[c >= threshold] CE(z_w, target).

    The gradient flows through the weak logits of the cross-entropy; the strong ones are not used.
    L = CE(labeled) + lambda * ramp(t / steps, ramp_share) * L_u.
    """

    def __init__(self, lambda_: float = 1.0, threshold: float = 0.95, ramp_share: float = 0.4) -> None:
        self.lambda_ = lambda_
        self.threshold = threshold
        self.ramp_share = ramp_share

    def step(
        self,
        labeled_logits: Floats,
        labels: Ints,
        weak_logits: Floats,
        strong_logits: Floats,
        t: int,
        steps: int,
    ) -> Result:
        """Return losses and gradients of one step; `unlabeled_loss` is before lambda and ramp."""
        p = softmax(weak_logits)
        _, target = confidence_and_target(p)
        row_weight = fixed_row_weight(p, self.threshold)
        loss, gradient = unlabeled_part(weak_logits, target, row_weight)
        weight = self.lambda_ * ramp(t / steps, self.ramp_share)
        grad_strong = np.zeros_like(strong_logits, dtype=np.float64)
        labeled = labeled_part(labeled_logits, labels)
        return assemble(labeled, loss, weight, row_weight, target, weight * gradient, grad_strong)


class FixMatch:
    """Sohn et al. 2020: L_u = mean 1[c >= threshold] CE(strong logits, target)."""

    def __init__(self, lambda_: float = 1.0, threshold: float = 0.95) -> None:
        self.lambda_ = lambda_
        self.threshold = threshold

    def step(
        self,
        labeled_logits: Floats,
        labels: Ints,
        weak_logits: Floats,
        strong_logits: Floats,
        t: int,
        steps: int,
    ) -> Result:
        """Return losses and gradients of one step; logits [B, K], [M, K], [M, K], labels [B]."""
        p = softmax(weak_logits)
        _, target = confidence_and_target(p)
        row_weight = fixed_row_weight(p, self.threshold)
        loss, gradient = unlabeled_part(strong_logits, target, row_weight)
        grad_weak = np.zeros_like(weak_logits, dtype=np.float64)
        labeled = labeled_part(labeled_logits, labels)
        return assemble(labeled, loss, self.lambda_, row_weight, target, grad_weak, self.lambda_ * gradient)


class FreeMatch:
    """Wang et al. 2023: self-adaptive threshold and class fairness.

    L = CE(labeled) + lambda * L_u + fairness * L_f (lambda does not scale the fairness). tau,
    p_tilde, h_tilde start at 1/K and take in the weak views at the start of a step, before use.
    """

    def __init__(
        self,
        classes: int,
        lambda_: float = 1.0,
        momentum: float = 0.999,
        fairness: float = 0.01,
        clip: tuple[float, float] | None = None,
        clip_memory: bool = True,
        epsilon: float = EPSILON,
    ) -> None:
        self.classes = classes
        self.lambda_ = lambda_
        self.momentum = momentum
        self.fairness = fairness
        self.epsilon = epsilon
        self.threshold = SelfAdaptiveThreshold(classes, momentum, clip, clip_memory)
        self.h_tilde: Floats = np.full(classes, 1.0 / classes)

    @property
    def tau(self) -> float:
        """The running mean of c."""
        return self.threshold.tau

    @property
    def p_tilde(self) -> Floats:
        """The running mean of p, [K]."""
        return self.threshold.p_tilde

    def update(self, probabilities: Floats, target: Ints, t: int) -> Floats:
        """Take in the weak views of step t and return the row weights [M]."""
        if len(target) == 0:
            return np.zeros(0, dtype=np.float64)
        m = debiased(self.momentum, t)
        self.h_tilde = m * self.h_tilde + (1 - m) * class_histogram(target, self.classes)
        return self.threshold.row_weight(probabilities, t)

    def step(
        self,
        labeled_logits: Floats,
        labels: Ints,
        weak_logits: Floats,
        strong_logits: Floats,
        t: int,
        steps: int,
    ) -> Result:
        """Return losses and gradients of one step, with `fairness_loss` before its weight."""
        p = softmax(weak_logits)
        _, target = confidence_and_target(p)
        row_weight = self.update(p, target, t)
        loss, gradient = unlabeled_part(strong_logits, target, row_weight)
        fair, fair_gradient = fairness_part(strong_logits, row_weight, self.p_tilde, self.h_tilde, self.epsilon)
        grad_weak = np.zeros_like(weak_logits, dtype=np.float64)
        grad_strong = self.lambda_ * gradient + self.fairness * fair_gradient
        labeled = labeled_part(labeled_logits, labels)
        out = assemble(labeled, loss, self.lambda_, row_weight, target, grad_weak, grad_strong)
        out["loss"] += self.fairness * fair
        out["fairness_loss"] = fair
        return out
