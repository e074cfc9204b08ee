"""References of the methods whose memory of the classes decides how sure a row must be, or what its target is.

FlexMatch (Zhang et al. 2021), SoftMatch (Chen et al. 2023), SequenceMatch (Nguyen 2024), DebiasPL (Wang et al. 2022).

Shapes: B labeled rows, M unlabeled rows, K classes, N rows in the table. Views: one weak labeled view; of the unlabeled
rows a weak and a strong one (SequenceMatch: weak, medium, strong). z are logits, p = softmax(weak logits), c = max p,
y^ = argmax p (the first of equals). L = CE(labeled) + lambda * L_u, the mean in L_u over all M rows, kept or not.
Targets, weights and memories come from the network that stands still, the cross-entropies and divergences from the one
that moves. With no unlabeled rows L_u is 0 and the memories stay as they are.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from .basics import Floats, Ints, debiased, log_softmax, softmax
from .network import Batch, Model
from .threshold_methods import Result, confidence_and_target, fixed_row_weight, labeled_part, unlabeled_part

Mapping = Literal["convex", "linear", "concave"]
Margin = Literal["same", "after"]


def result(
    batch: Batch, moving: Model, lambda_: float, unlabeled_loss: float, row_weight: Floats, target: Ints
) -> Result:
    """Return what every `step` returns; the labeled loss is that of the first labeled view."""
    labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
    return {
        "loss": labeled_loss + lambda_ * unlabeled_loss,
        "labeled_loss": labeled_loss,
        "unlabeled_loss": unlabeled_loss,
        "kept": sum(row_weight) / len(row_weight) if len(row_weight) else 0.0,
        "row_weight": row_weight,
        "target": target,
    }


def uniformly_aligned(probabilities: Floats, average: Floats) -> Floats:
    """Return normalize(p * (1/K) / average) of each row of `probabilities` [M, K]."""
    out = np.zeros_like(probabilities)
    for i, p in enumerate(probabilities):
        scaled = p * (1.0 / len(average)) / average
        out[i] = scaled / sum(scaled)
    return out


def sharpen(probabilities: Floats, temperature: float) -> Floats:
    """Return p_k^(1/T) / sum_j p_j^(1/T) of each row of `probabilities` [M, K]."""
    out = np.zeros_like(probabilities)
    for i, p in enumerate(probabilities):
        powers = p ** (1.0 / temperature)
        out[i] = powers / sum(powers)
    return out


def divergence(q: Floats, z: Floats) -> Floats:
    """Return KL(q || softmax(z)) [M] of distributions q [M, K] and logits z [M, K], with 0 log 0 = 0."""
    log_p = log_softmax(z)
    out = np.zeros(len(q), dtype=np.float64)
    for i, row in enumerate(q):
        out[i] = sum(value * (math.log(value) - log_p[i, k]) for k, value in enumerate(row) if value > 0)
    return out


class FlexMatch:
    """Zhang et al. 2021 (FlexMatch: Boosting SSL with Curriculum Pseudo Labeling): a threshold for each class.

    `selected` [N] holds the class with which a row was last sure (c >= threshold), -1 for none. At the start of a step
    s_k is the number of rows that hold k, none = U - sum s, and

        b_k = s_k / max(max s, none) with `warm_up`, else s_k / max s (0 where that is 0/0);
        tau_k = threshold * M(b_k), M(b) = b / (2 - b) convex, b linear, ln(b + 1) / ln 2 concave.

    L_u = mean 1[c >= tau_{y^}] CE(z_strong, y^). After that each sure row is remembered with y^; of a row that stands
    in the batch several times the last sure slot counts.

    Read in TorchSSL/TorchSSL (models/flexmatch/flexmatch.py, flexmatch_utils.py) and microsoft/Semi-supervised-learning
    (semilearn/algorithms/flexmatch/): both use the memory as the step before left it, then take in the batch. Both know
    the convex mapping alone; linear and concave stand there in comments, with other formulas.
    """

    def __init__(
        self,
        classes: int,
        unlabeled_count: int,
        table_rows: int,
        lambda_: float = 1.0,
        threshold: float = 0.95,
        mapping: Mapping = "convex",
        warm_up: bool = True,
    ) -> None:
        self.classes = classes
        self.unlabeled_count = unlabeled_count
        self.lambda_ = lambda_
        self.threshold = threshold
        self.mapping = mapping
        self.warm_up = warm_up
        self.selected: Ints = np.full(table_rows, -1, dtype=np.int64)

    def progress(self) -> Floats:
        """Return b [K], how far each class is learned, of the memory as it is."""
        count = [0] * self.classes
        for k in self.selected:
            if k >= 0:
                count[k] += 1
        most = max(count)
        if self.warm_up:
            most = max(most, self.unlabeled_count - sum(count))
        return np.array([0.0 if most == 0 else s / most for s in count], dtype=np.float64)

    def thresholds(self) -> Floats:
        """Return tau [K] of the memory as it is."""
        out = np.zeros(self.classes, dtype=np.float64)
        for k, b in enumerate(self.progress()):
            if self.mapping == "convex":
                out[k] = self.threshold * b / (2 - b)
            elif self.mapping == "linear":
                out[k] = self.threshold * b
            else:
                out[k] = self.threshold * math.log(b + 1) / math.log(2)
        return out

    def remember(self, rows: Ints, c: Floats, target: Ints) -> None:
        """Take in the sure slots of a batch, in their order: rows, c and classes [M]."""
        for row, confidence, k in zip(rows, c, target, strict=True):
            if confidence >= self.threshold:
                self.selected[row] = k

    def select(self, batch: Batch, probabilities: Floats) -> tuple[Floats, Ints, Floats]:
        """Return row weights [M], targets [M], thresholds [K]; then take in probabilities [M, K]."""
        c, target = confidence_and_target(probabilities)
        tau = self.thresholds()
        row_weight = np.array([1.0 if c[i] >= tau[k] else 0.0 for i, k in enumerate(target)], dtype=np.float64)
        if len(target):
            assert batch.rows is not None
            self.remember(batch.rows, c, target)
        return row_weight, target, tau

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses, weights and targets of one step, with the `thresholds` [K] that it used."""
        weak, strong = batch.unlabeled
        row_weight, target, tau = self.select(batch, softmax(still.logits(weak)))
        loss, _ = unlabeled_part(moving.logits(strong), target, row_weight)
        out = result(batch, moving, self.lambda_, loss, row_weight, target)
        out["thresholds"] = tau
        return out


class SequenceMatch(FlexMatch):
    """Nguyen 2024 (SequenceMatch: Revisiting the Design of Weak-Strong Augmentations): a medium view between the two.

    FlexMatch's row weights r, targets and memory, from the weak view. With q_w = sharpen(p_weak, T) and
    q_m = sharpen(p_medium, T), both without gradient,

        L_u = mean r * [CE(z_strong, y^) + KL(q_w || z_medium) + KL(q_m || z_strong) + KL(q_w || z_strong)].

    Read in microsoft/Semi-supervised-learning (semilearn/algorithms/sequencematch/sequencematch.py), which has
    softmax(p / T), a softmax of probabilities, where we sharpen; in beandkay/SequenceMatch
    (models/sequencematch/sequencematch.py), of the same author, the divergences have a row weight of their own.
    """

    def __init__(
        self,
        classes: int,
        unlabeled_count: int,
        table_rows: int,
        lambda_: float = 1.0,
        threshold: float = 0.95,
        mapping: Mapping = "convex",
        warm_up: bool = True,
        temperature: float = 0.5,
    ) -> None:
        super().__init__(classes, unlabeled_count, table_rows, lambda_, threshold, mapping, warm_up)
        self.temperature = temperature

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses, weights and targets of one step, with the `thresholds` [K] that it used."""
        weak, medium, strong = batch.unlabeled
        p_weak, p_medium = softmax(still.logits(weak)), softmax(still.logits(medium))
        row_weight, target, tau = self.select(batch, p_weak)
        q_weak, q_medium = sharpen(p_weak, self.temperature), sharpen(p_medium, self.temperature)
        z_medium, z_strong = moving.logits(medium), moving.logits(strong)
        loss, _ = unlabeled_part(z_strong, target, row_weight)
        for q, z in ((q_weak, z_medium), (q_medium, z_strong), (q_weak, z_strong)):
            loss += float(sum(row_weight * divergence(q, z))) / max(len(target), 1)
        out = result(batch, moving, self.lambda_, loss, row_weight, target)
        out["thresholds"] = tau
        return out


class SoftMatch:
    """Chen et al. 2023 (SoftMatch: Addressing the Quantity-Quality Trade-off): a truncated Gaussian for a threshold.

    p~ = normalize(p / p_average) with `align` (p_average [K] the running mean of p, from 1/K), else p; c~ = max p~.
    `mean` (from 1/K) and `variance` (from 1) are running ones of the batch's c~, the latter with divisor M - 1; a batch
    of one row changes neither. All three take in the batch before they are used.

        row weight = exp(-min(c~ - mean, 0)^2 * sigmas^2 / (2 * variance)),  L_u = mean weight * CE(z_strong, argmax p).

    Should the variance be 0 (it can be with momentum 0 only), a row at or above the mean has weight 1, others 0.

    Read in microsoft/Semi-supervised-learning (semilearn/algorithms/softmatch/, hooks/dist_align.py): the same order;
    there p_average starts at the first batch's mean. In TorchSSL/TorchSSL (models/softmatch/softmatch.py) it starts at
    1/K, but p is aligned to the running mean of the labeled rows' p, and mean and variance are those of c, not of c~.
    """

    def __init__(
        self, classes: int, momentum: float, lambda_: float = 1.0, sigmas: float = 2.0, align: bool = True
    ) -> None:
        self.momentum = momentum
        self.lambda_ = lambda_
        self.sigmas = sigmas
        self.align = align
        self.mean = 1.0 / classes
        self.variance = 1.0
        self.p_average: Floats = np.full(classes, 1.0 / classes)

    def weight(self, c: float) -> float:
        """Return the weight of a row of confidence `c` by the memories as they are."""
        below = min(c - self.mean, 0.0)
        if self.variance == 0:
            return 1.0 if below == 0 else 0.0
        return math.exp(-(below**2) * self.sigmas**2 / (2 * self.variance))

    def take_in(self, c: Floats, m: float) -> None:
        """Move mean and variance by the confidences [M] of a batch, with momentum `m`."""
        rows = len(c)
        if rows < 2:
            return
        mean = sum(c) / rows
        variance = sum((value - mean) ** 2 for value in c) / (rows - 1)
        self.mean = float(m * self.mean + (1 - m) * mean)
        self.variance = float(m * self.variance + (1 - m) * variance)

    def row_weight(self, probabilities: Floats, t: int) -> Floats:
        """Take in probabilities [M, K] of step t; return the rows' weights [M]."""
        if len(probabilities) == 0:
            return np.zeros(0, dtype=np.float64)
        m = debiased(self.momentum, t)
        self.p_average = m * self.p_average + (1 - m) * probabilities.mean(axis=0)
        shown = uniformly_aligned(probabilities, self.p_average) if self.align else probabilities
        c, _ = confidence_and_target(shown)
        self.take_in(c, m)
        return np.array([self.weight(value) for value in c], dtype=np.float64)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses, weights and targets of one step."""
        weak, strong = batch.unlabeled
        p = softmax(still.logits(weak))
        row_weight = self.row_weight(p, batch.t)
        _, target = confidence_and_target(p)
        loss, _ = unlabeled_part(moving.logits(strong), target, row_weight)
        return result(batch, moving, self.lambda_, loss, row_weight, target)


class DebiasPL:
    """Wang et al. 2022 (Debiased Learning from Naturally Imbalanced Pseudo-Labels): targets freed of the mean answer.

    `q` [K] is the running mean of softmax(z_weak), from 1/K. d and e are strength * log q, constants;
    p = softmax(z_weak - d), target = argmax p, and

        L_u = mean 1[max p >= threshold] CE(z_strong + e, target).

    With margin "same" q takes in the batch before it is used, so d = e. With "after" d has q as the step before left
    it (1/K at the first), e the q that has taken in the batch.

    Read in frank-xwang/debiased-pseudo-labeling (main_DebiasPL.py: `train`, `causal_inference`, `update_qhat`,
    `initial_qhat`): "after", with a momentum of .999 from the first step on.
    """

    def __init__(
        self,
        classes: int,
        momentum: float,
        lambda_: float = 1.0,
        strength: float = 0.5,
        threshold: float = 0.95,
        margin: Margin = "same",
    ) -> None:
        if margin not in ("same", "after"):
            raise ValueError(margin)
        self.margin = margin
        self.momentum = momentum
        self.lambda_ = lambda_
        self.strength = strength
        self.threshold = threshold
        self.q: Floats = np.full(classes, 1.0 / classes)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses, weights and targets of one step, with `q` [K] after it."""
        weak, strong = batch.unlabeled
        z_weak = still.logits(weak)
        before = self.strength * np.log(self.q)
        if len(z_weak):
            m = debiased(self.momentum, batch.t)
            self.q = m * self.q + (1 - m) * softmax(z_weak).mean(axis=0)
        after = self.strength * np.log(self.q)
        p = softmax(z_weak - (after if self.margin == "same" else before))
        _, target = confidence_and_target(p)
        row_weight = fixed_row_weight(p, self.threshold)
        loss, _ = unlabeled_part(moving.logits(strong) + after, target, row_weight)
        out = result(batch, moving, self.lambda_, loss, row_weight, target)
        out["q"] = self.q.copy()
        return out
