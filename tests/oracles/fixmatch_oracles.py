"""References of four methods that add a term to FixMatch (Sohn et al. 2020): what the rows are for that it leaves out.

DeFixMatch (Schmutz et al. 2023), ReFixMatch (Nguyen & Yang 2023), ShrinkMatch (Yang et al. 2023), FullMatch (Chen et
al. 2023).

Shapes: B labeled rows, M unlabeled rows, K classes, D features, h hidden units. z_w and z_s are the logits of the weak
and of the strong view. p = softmax z_w and all else through which no gradient flows comes from `still`, z_s in the
losses from `moving` (network.py). Every mean over the unlabeled rows is over all M. With M = 0 the unlabeled loss and
each further term are 0 and the memories stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .basics import Floats, Ints, debiased, log_softmax, softmax
from .network import Batch, Model
from .threshold_methods import confidence_and_target, fixed_row_weight, labeled_part, unlabeled_part

Result = dict[str, Any]
SLOPE = 0.1  # of the leaky ReLU of ShrinkMatch's auxiliary head
BATCH_NORM_EPSILON = 1e-5
# FullMatch, as in megvii-research/FullMatch: inside its logarithms and its count; above the line of the wished value
LOG_EPSILON = 1e-10
SHARE_EPSILON = 1e-7


def fixmatch_term(weak: Floats, strong: Floats, threshold: float) -> tuple[float, Floats, Ints]:
    """Return (mean 1[c >= threshold] CE(strong, argmax weak), row weights [n], targets [n]) of logits [n, K]."""
    p = softmax(weak)
    _, target = confidence_and_target(p)
    row_weight = fixed_row_weight(p, threshold)
    loss, _ = unlabeled_part(strong, target, row_weight)
    return loss, row_weight, target


def assemble(
    labeled_loss: float,
    unlabeled_loss: float,
    lambda_: float,
    row_weight: Floats,
    target: Floats | Ints,
) -> Result:
    """Return what every `step` returns; `loss` is labeled + lambda * unlabeled, to which a method may add."""
    return {
        "loss": labeled_loss + lambda_ * unlabeled_loss,
        "labeled_loss": labeled_loss,
        "unlabeled_loss": unlabeled_loss,
        "row_weight": row_weight,
        "target": target,
        "kept": float(row_weight.mean()) if len(row_weight) else 0.0,
    }


def ranking(row: Floats) -> list[int]:
    """Return the classes by `row` [K] descending; of equals the lower class first."""
    return sorted(range(len(row)), key=lambda k: (-row[k], k))


def sharpen(p: Floats, temperature: float) -> Floats:
    """Return p_k^(1/temperature) / sum_j p_j^(1/temperature) of each row [n, K]."""
    out = np.zeros_like(p)
    for i, row in enumerate(p):
        powers = row ** (1 / temperature)
        out[i] = powers / powers.sum()
    return out


def divergence(q: Floats, logits: Floats) -> Floats:
    """Return KL(q || softmax logits) = sum_k q_k (log q_k - log softmax_k) of each row [n]; 0 log 0 = 0."""
    log_p = log_softmax(logits)
    out = np.zeros(len(q), dtype=np.float64)
    for i, row in enumerate(q):
        for k, value in enumerate(row):
            if value > 0:
                out[i] += value * (np.log(value) - log_p[i, k])
    return out


class DeFixMatch:
    """Schmutz et al. 2023 (arXiv:2203.07512): FixMatch's loss, less the same loss on the labeled rows.

    l(z_w, z_s) = mean over rows of 1[max softmax z_w >= threshold] CE(z_s, argmax z_w).
    L = (CE(weak) + CE(strong)) / 2 of the labeled rows + lambda * (l(unlabeled) - l(labeled)), l without their labels.
    With M = 0 there is nothing to counter and l(labeled) is left out.

    Read: HugoSchmutz/DeFixmatch, models/fixmatch/fixmatch.py and README.md; microsoft/Semi-supervised-learning,
    semilearn/algorithms/defixmatch/defixmatch.py.
    """

    def __init__(self, lambda_: float = 0.5, threshold: float = 0.95) -> None:
        self.lambda_ = lambda_
        self.threshold = threshold

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, with `counter_loss` before its factor; views weak, strong of either kind."""
        labeled_weak, labeled_strong = batch.labeled
        weak, strong = batch.unlabeled
        both = [labeled_part(moving.logits(view), batch.labels)[0] for view in (labeled_weak, labeled_strong)]
        labeled_loss = (both[0] + both[1]) / 2
        loss, row_weight, target = fixmatch_term(still.logits(weak), moving.logits(strong), self.threshold)
        counter = 0.0
        if len(weak) > 0:
            counter, _, _ = fixmatch_term(still.logits(labeled_weak), moving.logits(labeled_strong), self.threshold)
        out = assemble(labeled_loss, loss, self.lambda_, row_weight, target)
        out["loss"] -= self.lambda_ * counter
        out["counter_loss"] = counter
        return out


class ReFixMatch:
    """Nguyen & Yang 2023 (arXiv:2308.07509): the rows that FixMatch leaves out pull to their sharpened probabilities.

    L_u = FixMatch's + mean over M of (1 - row_weight) KL(sharpen(p, temperature) || softmax z_s). L = L_x + lambda L_u.

    Read: beandkay/EPASS (the paper's first author), semilearn/algorithms/refixmatch/refixmatch.py and
    semilearn/algorithms/utils/loss.py (`refixmatch`), which is what ours is; microsoft/Semi-supervised-learning,
    semilearn/algorithms/refixmatch/refixmatch.py and semilearn/core/criterions/consistency.py ("kl"), which sharpens
    by a second softmax, of p / .5, and divides z_s by .5 too.
    """

    def __init__(self, lambda_: float = 1.0, threshold: float = 0.95, temperature: float = 0.5) -> None:
        self.lambda_ = lambda_
        self.threshold = threshold
        self.temperature = temperature

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, with `rest_loss` (a part of the unlabeled loss); views weak; weak, strong."""
        weak, strong = batch.unlabeled
        labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
        weak_logits, strong_logits = still.logits(weak), moving.logits(strong)
        loss, row_weight, target = fixmatch_term(weak_logits, strong_logits, self.threshold)
        rest = 0.0
        if len(weak) > 0:
            q = sharpen(softmax(weak_logits), self.temperature)
            rest = float(((1 - row_weight) * divergence(q, strong_logits)).mean())
        out = assemble(labeled_loss, loss + rest, self.lambda_, row_weight, target)
        out["rest_loss"] = rest
        return out


def linear(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Return weight x + bias of each row of `x` [n, in]; weight [out, in], bias [out]."""
    out = np.zeros((len(x), len(weight)), dtype=np.float64)
    for i, row in enumerate(x):
        out[i] = weight @ row + bias
    return out


def batch_norm(x: Floats, weight: Floats, bias: Floats) -> Floats:
    """Return the columns of `x` [n, h] normalized over the n rows (variance over n, not n - 1), scaled and shifted."""
    out = np.zeros_like(x)
    for k in range(x.shape[1]):
        mean = x[:, k].sum() / len(x)
        variance = ((x[:, k] - mean) ** 2).sum() / len(x)
        out[:, k] = weight[k] * (x[:, k] - mean) / np.sqrt(variance + BATCH_NORM_EPSILON) + bias[k]
    return out


def leaky_relu(x: Floats) -> Floats:
    """Return x where it is above 0, SLOPE * x elsewhere."""
    return np.where(x > 0, x, SLOPE * x)


def auxiliary_logits(model: Model, features: Floats) -> Floats:
    """Return the logits [n, K] of ShrinkMatch's auxiliary head on features [n, D]; n > 0.

    Two times linear (0, 3), batch norm over the n rows (1, 4), leaky ReLU; then linear (6). The numbers are those of
    `model.own["auxiliary.<number>.weight"]` and "...bias".
    """

    def own(number: int) -> tuple[Floats, Floats]:
        return model.own[f"auxiliary.{number}.weight"], model.own[f"auxiliary.{number}.bias"]

    hidden = leaky_relu(batch_norm(linear(features, *own(0)), *own(1)))
    hidden = leaky_relu(batch_norm(linear(hidden, *own(3)), *own(4)))
    return linear(hidden, *own(6))


def shrunk_to(row: Floats, threshold: float) -> int:
    """Return the rank up to which classes must go so that the first of `row` [K] is sure; 0 if none does.

    The smallest k in 2..K-1 with p_(1) / (p_(1) + sum_{j > k} p_(j)) >= threshold.
    """
    ordered = [float(row[j]) for j in ranking(row)]
    for k in range(2, len(row)):
        if ordered[0] / (ordered[0] + sum(ordered[k:])) >= threshold:
            return k
    return 0


def shrunk_cross_entropy(logits: Floats, row: Floats, k: int) -> float:
    """Return the cross-entropy of `logits` [K] with the first class of `row` [K], without the classes of ranks 2..k."""
    order = ranking(row)
    left = [order[0], *order[k:]]
    return -float(log_softmax(logits[left][None])[0, 0])


class ShrinkMatch:
    """Yang et al. 2023 (arXiv:2308.06777): an unsure row is sure among fewer classes, and learns among those.

    p = align(softmax z_w, uniform, mean of the last `window` steps' batch means, this one's included), or softmax z_w;
    c = max p, y^ = argmax p. L_u = mean 1[c >= threshold] CE(z_s, p), the target soft.
    A row with c < threshold: smallest k in 2..K-1 with p_(1) / (p_(1) + sum_{j > k} p_(j)) >= threshold; without the
    classes of ranks 2..k, c times the cross-entropy of the strong view's auxiliary logits with y^. No such k: out.
    shrink_loss = (sum of these / M) * confident, `confident` the running mean (from 0) of the share of sure rows.
    L = CE(labeled) + lambda * L_u + shrink * shrink_loss. `dropped` is each row's k, 0 where it takes no part.

    `means` holds the last batch means, `confident` is a number; with M = 0 both stay.

    Read: LiheYoung/ShrinkMatch, CIFAR/shrinkmatch.py (`shrink_loss`, `train`), CIFAR/network/shrinkmatch.py (the head,
    `distribution_alignment`), STL10-SVHN/models/shrinkmatch/shrinkmatch.py and shrinkmatch_utils.py. There `confident`
    starts at its first value and, on CIFAR, afresh in each epoch.
    """

    def __init__(
        self,
        classes: int,
        momentum: float,
        window: int,
        lambda_: float = 1.0,
        shrink: float = 1.0,
        threshold: float = 0.95,
        align: bool = True,
    ) -> None:
        self.classes = classes
        self.momentum = momentum
        self.window = window
        self.lambda_ = lambda_
        self.shrink = shrink
        self.threshold = threshold
        self.align = align
        self.confident = 0.0
        self.means: list[Floats] = []

    def aligned(self, p: Floats) -> Floats:
        """Take in probabilities [M, K] (M > 0) and return them aligned to the uniform marginal."""
        self.means = [*self.means, p.mean(axis=0)][-self.window :]
        average = sum(self.means) / len(self.means)
        out = np.zeros_like(p)
        for i, row in enumerate(p):
            shifted = row * (1 / self.classes) / average
            out[i] = shifted / shifted.sum()
        return out

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, with `shrink_loss` and `dropped`; views weak; weak, strong."""
        weak, strong = batch.unlabeled
        rows = len(weak)
        labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
        p = softmax(still.logits(weak))
        if self.align and rows > 0:
            p = self.aligned(p)
        row_weight = fixed_row_weight(p, self.threshold)
        loss, shrink_loss = 0.0, 0.0
        dropped = np.zeros(rows, dtype=np.int64)
        if rows > 0:
            m = debiased(self.momentum, batch.t)
            self.confident = m * self.confident + (1 - m) * float(row_weight.mean())
            log_q = log_softmax(moving.logits(strong))
            loss = float(-(row_weight[:, None] * p * log_q).sum() / rows)
            auxiliary = auxiliary_logits(moving, moving.features(strong))
            for i, row in enumerate(p):
                dropped[i] = shrunk_to(row, self.threshold) if row_weight[i] == 0 else 0
                if dropped[i] > 0:
                    shrink_loss += float(row.max()) * shrunk_cross_entropy(auxiliary[i], row, int(dropped[i])) / rows
            shrink_loss *= self.confident
        out = assemble(labeled_loss, loss, self.lambda_, row_weight, p)
        out["loss"] += self.shrink * shrink_loss
        out["shrink_loss"] = shrink_loss
        out["dropped"] = dropped
        return out


def smallest_k(s: Floats, target: Ints) -> int:
    """Return the smallest k in 2..K so that in every row `target` is among the k largest of `s` [M, K]; M > 0."""
    return max(2, *(1 + ranking(row).index(int(y)) for row, y in zip(s, target, strict=True)))


def negative_part(p: Floats, s: Floats, s_moving: Floats, k: int, limit: float) -> float:
    """Return the mean over rows of -log(1 - s_j), summed over classes j ranked below k in p, without s_j > limit."""
    total = 0.0
    for i in range(len(p)):
        for j in ranking(p[i])[k:]:
            if s[i, j] <= limit:
                total -= float(np.log(1 - s_moving[i, j] + LOG_EPSILON))
    return total / len(p)


def meaning_part(
    p: Floats, s: Floats, s_moving: Floats, row_weight: Floats, k: int, limit: float, wish_learns: bool = False
) -> float:
    """Return the mean binary cross-entropy of the kept rows' classes of ranks 2..k in p with what is left for them.

    Left for each: (1 - s of rank 1 - sum of s over the ranks below k + 1e-7) / (k - 1), of `s_moving` with
    `wish_learns`. Without classes of s_j > limit.
    """
    s_wish = s_moving if wish_learns else s
    total, number = 0.0, 0
    for i in range(len(p)):
        if row_weight[i] == 0:
            continue
        order = ranking(p[i])
        wished = (1 - s_wish[i, order[0]] - sum(s_wish[i, j] for j in order[k:]) + SHARE_EPSILON) / (k - 1)
        for j in order[1:k]:
            if s[i, j] <= limit:
                yes, no = np.log(s_moving[i, j] + LOG_EPSILON), np.log(1 - s_moving[i, j] + LOG_EPSILON)
                total -= float(wished * yes + (1 - wished) * no)
                number += 1
    return total / (number + LOG_EPSILON)


class FullMatch:
    """Chen et al. 2023 (arXiv:2303.11066): FixMatch, adaptive negative learning and entropy meaning loss.

    s = softmax z_s, p = softmax z_w, y^ = argmax p; FixMatch's row weight and unlabeled loss. From step `start` on:
    k, the smallest in 2..K with y^ among the k largest of s in all M rows; negative_loss, the mean over the M rows of
    the sum over the classes j ranked below k in p of -log(1 - s_j); entropy_loss, over the kept rows and their classes
    of ranks 2..k, the mean binary cross-entropy of s_j with t = (1 - s_{y^} - sum of s below rank k) / (k - 1), which
    is constant, unless `wish_learns`. Both leave out classes with s_j > threshold^2.
    L = CE(labeled) + lambda * L_u + negative * negative_loss + entropy * entropy_loss.

    Before `start`, and with M = 0, both losses and k are reported as 0.

    Read: megvii-research/FullMatch, models/fullmatch/fullmatch_utils.py (`nl_em_loss`, `cal_topK`), fullmatch.py of
    the same folder and of the root. There t is not constant (`nl_em_loss` gets the strong logits undetached and makes t
    from them, as with `wish_learns`), and the wait for five epochs is an option left off.
    """

    def __init__(
        self,
        classes: int,
        start: int,
        lambda_: float = 1.0,
        negative: float = 1.0,
        entropy: float = 1.0,
        threshold: float = 0.95,
        wish_learns: bool = False,
    ) -> None:
        self.wish_learns = wish_learns
        self.classes = classes
        self.start = start
        self.lambda_ = lambda_
        self.negative = negative
        self.entropy = entropy
        self.threshold = threshold

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of one step, with `negative_loss`, `entropy_loss` and `k`; views weak; weak, strong."""
        weak, strong = batch.unlabeled
        labeled_loss, _ = labeled_part(moving.logits(batch.labeled[0]), batch.labels)
        weak_logits, strong_logits = still.logits(weak), moving.logits(strong)
        loss, row_weight, target = fixmatch_term(weak_logits, strong_logits, self.threshold)
        k, negative_loss, entropy_loss = 0, 0.0, 0.0
        if len(weak) > 0 and batch.t >= self.start:
            p, s, s_moving = softmax(weak_logits), softmax(still.logits(strong)), softmax(strong_logits)
            limit = self.threshold**2
            k = smallest_k(s, target)
            negative_loss = negative_part(p, s, s_moving, k, limit)
            entropy_loss = meaning_part(p, s, s_moving, row_weight, k, limit, self.wish_learns)
        out = assemble(labeled_loss, loss, self.lambda_, row_weight, target)
        out["loss"] += self.negative * negative_loss + self.entropy * entropy_loss
        out.update(negative_loss=negative_loss, entropy_loss=entropy_loss, k=k)
        return out
