"""References of the methods that mix images or align within the batch: MixMatch, ReMixMatch, AdaMatch, RegMixMatch.

Shapes: B labeled rows, M unlabeled rows, K classes, D features, images [n, C, H, W]. Slots: where labeled and unlabeled
rows stand in one list, the labeled ones come first, so slot B + i is unlabeled row i. Targets, row weights, memories
and thresholds come from `still`; the logits that learn come from `moving` (network.py). What is drawn at random is
in `batch.draws`. With M = 0 every loss of the unlabeled rows is 0 and memories stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .basics import Floats, Ints, cross_entropy, log_softmax, ramp, softmax
from .network import Batch, Model
from .threshold_methods import FreeMatch, confidence_and_target, fairness_part, unlabeled_part

Result = dict[str, Any]
# (image [C, H, W], other [C, H, W], "sure" or "unsure", place) -> (mixed image, share of the first)
Paste = Callable[[Floats, Floats, str, int], tuple[Floats, float]]


def one_hot(classes: Ints | Sequence[int], count: int) -> Floats:
    """Return a row per class, 1 at the class and 0 elsewhere, [n, count]."""
    rows = np.zeros((len(classes), count), dtype=np.float64)
    for i, k in enumerate(classes):
        rows[i, k] = 1.0
    return rows


def normalize(x: Floats) -> Floats:
    """Return each row of x [n, K] divided by its sum."""
    return np.array([row / row.sum() for row in x], dtype=np.float64).reshape(x.shape)


def sharpen(p: Floats, temperature: float) -> Floats:
    """Return normalize(p^(1 / temperature)) for each row of p [n, K]."""
    return normalize(np.power(p, 1.0 / temperature))


def align(p: Floats, wished: Floats, average: Floats) -> Floats:
    """Return normalize(p * wished / average) for each row of p [n, K]; wished and average [K]."""
    return normalize(p * wished / average)


def soft_cross_entropy(z: Floats, q: Floats) -> Floats:
    """Return -sum_k q_k log softmax(z)_k for each row: logits z [n, K], distributions q [n, K] -> [n]."""
    log_p = log_softmax(z)
    return np.array([-sum(q[i, k] * log_p[i, k] for k in range(z.shape[1])) for i in range(len(z))], dtype=np.float64)


def squared_error(z: Floats, q: Floats) -> Floats:
    """Return the mean over classes of (softmax(z) - q)^2 for each row: z [n, K], q [n, K] -> [n]."""
    return np.array([((a - b) ** 2).sum() / len(a) for a, b in zip(softmax(z), q, strict=True)], dtype=np.float64)


def mean_or_zero(values: Floats) -> float:
    """Return the mean, and 0 where there are no values."""
    return float(values.mean()) if len(values) else 0.0


def mix_rows(rows: Floats, share: Floats, order: Ints) -> Floats:
    """Return rows [n, ...] each mixed with row order[i]: l' rows_i + (1 - l') rows_order[i].

    l' = max(l, 1 - l), where l = share[i] is each row's own.
    """
    if not len(rows) == len(share) == len(order) == len(set(map(int, order))):
        raise ValueError("share and order need a number a row, and order must be a permutation")
    mixed = np.zeros(rows.shape, dtype=np.float64)
    for i, other in enumerate(order):
        own = max(float(share[i]), 1.0 - float(share[i]))
        mixed[i] = own * rows[i] + (1.0 - own) * rows[other]
    return mixed


def mix_batch(batch: Batch, views: Sequence[Floats], q: Floats) -> tuple[Floats, Floats]:
    """Return the mixed images and targets of [labeled, view, view, ...]; the views [M, ...] have targets q [M, K].

    The first B rows of both are those of the labeled part. draws: "share" and "order", [B + len(views) * M].
    """
    images = np.concatenate([batch.labeled[0], *views])
    targets = np.concatenate([one_hot(batch.labels, q.shape[1]), *[q for _ in views]])
    share, order = batch.draws["share"], batch.draws["order"]
    return mix_rows(images, share, order), mix_rows(targets, share, order)


class RecentMean:
    """The mean over the last `window` steps of the mean row of each step, this step's included."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.means: list[Floats] = []

    def take(self, rows: Floats) -> None:
        """Take in the rows [n, K] of a step, n > 0."""
        self.means.append(rows.mean(axis=0))
        self.means = self.means[-self.window :]

    def value(self) -> Floats:
        """Return the mean over the steps there are, [K]."""
        if not self.means:
            raise ValueError("no step with unlabeled rows so far")
        return sum(self.means, start=np.zeros_like(self.means[0])) / len(self.means)


class MixMatch:
    """Berthelot et al. 2019 (1905.02249): guessed targets, sharpened, and all rows mixed with all rows.

    q = sharpen((softmax z_1 + softmax z_2) / 2, temperature). Rows [labeled, view 1, view 2] with targets [one-hot, q,
    q]; row i is mixed with row order[i] with l' = max(l, 1 - l), l a row's own. labeled_loss = mean CE over the first B
    mixed rows, unlabeled_loss = mean over the other 2M and the classes of (softmax z - q')^2,
    L = labeled_loss + lambda * ramp(t / steps, ramp_share) * unlabeled_loss.

    Needs labeled[0] weak, unlabeled[0] and [1] weak, draws "share" and "order" [B + 2M]. Read: google-research/mixmatch
    mixmatch.py and libml/layers.py (MixMode "xxy.yxy": a share of its own for each row; labeled and unlabeled rows
    mixed in one heap; the ramp is clip(images seen / 2^20, 0, 1) of 2^26, which is 1/64);
    microsoft/Semi-supervised-learning mixmatch.py and ops.py (one share for the whole batch).
    """

    def __init__(self, lambda_: float = 75.0, temperature: float = 0.5, ramp_share: float = 1 / 64) -> None:
        self.lambda_ = lambda_
        self.temperature = temperature
        self.ramp_share = ramp_share

    def guess(self, first: Floats, second: Floats, still: Model) -> Floats:
        """Return q [M, K] of two views [M, C, H, W]."""
        return sharpen((softmax(still.logits(first)) + softmax(still.logits(second))) / 2, self.temperature)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of a step, `target` q [M, K]."""
        first, second = batch.unlabeled[0], batch.unlabeled[1]
        rows, labeled_rows = len(first), len(batch.labels)
        q = self.guess(first, second, still)
        images, targets = mix_batch(batch, (first, second), q)
        logits = moving.logits(images)
        labeled_loss = float(soft_cross_entropy(logits[:labeled_rows], targets[:labeled_rows]).mean())
        unlabeled_loss = mean_or_zero(squared_error(logits[labeled_rows:], targets[labeled_rows:]))
        factor = self.lambda_ * ramp(batch.t / batch.steps, self.ramp_share)
        return {
            "loss": labeled_loss + factor * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "row_weight": np.ones(rows, dtype=np.float64),
            "target": q,
            "kept": 1.0 if rows else 0.0,
        }


class ReMixMatch:
    """Berthelot et al. 2020 (1911.09785): MixMatch with aligned targets, strong views and rotation.

    q = sharpen(align(p, prior, average), temperature), p = softmax(weak logits), average = mean over the last `window`
    steps of mean p, this one's included. Rows [labeled, strong 1, strong 2, weak] with targets [one-hot, q, q, q],
    mixed as in MixMatch. labeled_loss = mean CE over the first B mixed rows, unlabeled_loss = mean CE over the other
    3M, strong_loss = mean CE(z of strong 1 as it is, q), rotation_loss = mean CE(rotation head of strong 1 of row i
    turned counter-clockwise by turns[i] quarters, turns[i]).
    L = labeled_loss + ramp * (lambda * unlabeled_loss + strong_weight * strong_loss) + rotation_weight * rotation_loss.

    Needs labeled[0] strong, unlabeled weak, strong 1, strong 2, draws "share" and "order" [B + 3M] and "turns" [M],
    moving.own "rotation.weight" [4, D] and "rotation.bias" [4]. Read: google-research/remixmatch remixmatch_no_cta.py
    (`model`: w_match and w_kl are ramped, w_rot is not; the running mean is used before it takes in the step, and
    starts full of uniform rows), google-research/fixmatch cta/cta_remixmatch.py,
    microsoft/Semi-supervised-learning remixmatch.py.
    """

    def __init__(
        self,
        prior: Floats,
        window: int,
        lambda_: float = 1.5,
        strong_weight: float = 0.5,
        rotation_weight: float = 0.5,
        temperature: float = 0.5,
        ramp_share: float = 1 / 64,
    ) -> None:
        self.prior: Floats = np.array(prior, dtype=np.float64)
        self.recent = RecentMean(window)
        self.lambda_ = lambda_
        self.strong_weight = strong_weight
        self.rotation_weight = rotation_weight
        self.temperature = temperature
        self.ramp_share = ramp_share

    def average(self) -> Floats:
        """Return the recent mean of p as used last, [K]."""
        return self.recent.value()

    def guess(self, weak: Floats, still: Model) -> Floats:
        """Take in the weak views [M, C, H, W] and return q [M, K]."""
        p = softmax(still.logits(weak))
        if len(p) == 0:
            return p
        self.recent.take(p)
        return sharpen(align(p, self.prior, self.average()), self.temperature)

    def rotation_losses(self, images: Floats, draws: Mapping[str, Any], moving: Model) -> Floats:
        """Return the CE [M] of the rotation head with draws["turns"], for images [M, C, H, W] not yet turned."""
        losses = np.zeros(len(images), dtype=np.float64)
        for i, image in enumerate(images):
            turn = int(draws["turns"][i])
            turned = np.rot90(image, turn, axes=(1, 2))
            feature = moving.features(turned[None])[0]
            logits = moving.own["rotation.weight"] @ feature + moving.own["rotation.bias"]
            losses[i] = cross_entropy(logits[None], np.array([turn]))[0]
        return losses

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of a step, with `strong_loss` and `rotation_loss` before their weights."""
        weak, strong1, strong2 = batch.unlabeled
        rows, labeled_rows = len(weak), len(batch.labels)
        q = self.guess(weak, still)
        images, targets = mix_batch(batch, (strong1, strong2, weak), q)
        losses = soft_cross_entropy(moving.logits(images), targets)
        labeled_loss = float(losses[:labeled_rows].mean())
        unlabeled_loss = mean_or_zero(losses[labeled_rows:])
        strong_loss = mean_or_zero(soft_cross_entropy(moving.logits(strong1), q))
        rotation_loss = mean_or_zero(self.rotation_losses(strong1, batch.draws, moving))
        ramped = self.lambda_ * unlabeled_loss + self.strong_weight * strong_loss
        loss = labeled_loss + ramp(batch.t / batch.steps, self.ramp_share) * ramped
        return {
            "loss": loss + self.rotation_weight * rotation_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "strong_loss": strong_loss,
            "rotation_loss": rotation_loss,
            "row_weight": np.ones(rows, dtype=np.float64),
            "target": q,
            "kept": 1.0 if rows else 0.0,
        }


class AdaMatch:
    """Berthelot et al. 2022: alignment to the labeled rows and a threshold relative to them.

    p_l, p_u softmax of the weak logits of labeled and unlabeled rows, p~ = normalize(p_u * mean p_l / mean p_u), means
    over the rows of this batch, or with `window` > 0 the mean over the last `window` batches' means, this one's
    included (over those there are, while they are fewer; batches without unlabeled rows do not count).
    threshold = factor * mean_i max p_l_i of this batch alone, row_weight = 1[max p~ >= threshold].
    labeled_loss = (mean CE(weak) + mean CE(strong)) / 2, unlabeled_loss = mean row_weight * CE(z_s, target), target p~
    or its argmax. L = labeled_loss + lambda * mu * unlabeled_loss, mu = 1/2 - cos(min(pi, 2 pi t / steps)) / 2.

    Needs labeled weak, strong; unlabeled weak, strong. `interpolation` (of the labeled logits between two batch norms)
    changes nothing in a network without batch statistics. Read: google-research/adamatch semi_supervised/adamatch.py
    and shared/train.py (target always the class; mean p_u over 128 batches, of which those before the first are 1/K,
    mean p_l a running one from 1/K, 1e-6 added to both), objax's class MovingAverage,
    microsoft/Semi-supervised-learning adamatch.py, utils.py and dist_align.py.
    """

    def __init__(
        self,
        lambda_: float = 1.0,
        factor: float = 0.9,
        target: Literal["aligned", "class"] = "aligned",
        interpolation: bool = False,
        window: int = 0,
    ) -> None:
        if target not in ("aligned", "class"):
            raise ValueError(f"target must be 'aligned' or 'class', not {target!r}")
        self.lambda_ = lambda_
        self.factor = factor
        self.target = target
        self.interpolation = interpolation
        self.window = window
        self.labeled_mean = RecentMean(window)
        self.unlabeled_mean = RecentMean(window)

    def align(self, p_unlabeled: Floats, p_labeled: Floats) -> Floats:
        """Take in p_u [M, K] (M > 0) and p_l [B, K], return p~ [M, K]."""
        if self.window == 0:
            return align(p_unlabeled, p_labeled.mean(axis=0), p_unlabeled.mean(axis=0))
        self.labeled_mean.take(p_labeled)
        self.unlabeled_mean.take(p_unlabeled)
        return align(p_unlabeled, self.labeled_mean.value(), self.unlabeled_mean.value())

    def mu(self, t: int, steps: int) -> float:
        """Return the warm-up, 0 at the start and 1 from half of the run on."""
        return 0.5 - math.cos(min(math.pi, 2 * math.pi * t / steps)) / 2

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of a step, with its `threshold`; `target` is [M, K] or [M]."""
        p_labeled = softmax(still.logits(batch.labeled[0]))
        aligned = softmax(still.logits(batch.unlabeled[0]))
        if len(aligned):
            aligned = self.align(aligned, p_labeled)
        threshold = self.factor * float(confidence_and_target(p_labeled)[0].mean())
        c, classes = confidence_and_target(aligned)
        row_weight = np.array([1.0 if value >= threshold else 0.0 for value in c], dtype=np.float64)

        of_weak = cross_entropy(moving.logits(batch.labeled[0]), batch.labels).mean()
        of_strong = cross_entropy(moving.logits(batch.labeled[1]), batch.labels).mean()
        labeled_loss = float(of_weak + of_strong) / 2
        wished = aligned if self.target == "aligned" else one_hot(classes, aligned.shape[1])
        losses = soft_cross_entropy(moving.logits(batch.unlabeled[1]), wished)
        unlabeled_loss = mean_or_zero(row_weight * losses)
        factor = self.lambda_ * self.mu(batch.t, batch.steps)
        return {
            "loss": labeled_loss + factor * unlabeled_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "row_weight": row_weight,
            "target": aligned if self.target == "aligned" else classes,
            "threshold": threshold,
            "kept": mean_or_zero(row_weight),
        }


class RegMixMatch:
    """Han et al. 2025: FreeMatch, and two losses of mixed images.

    p, c, y^ from the weak view; a row is sure if c >= sure; images are strong views, of labeled rows the weak ones.
    mix_loss: p_0, p_1, ... the sure rows (with `labeled_joins` the labeled ones before them) in the order of their
    slots and o_0, o_1, ... the same rows in ascending order of their draws["order"]; o_r is pasted on p_r and the
    target is share * onehot(p_r) + (1 - share) * onehot(o_r). mix_loss = sum of CE / M.
    unsure_loss: each other row with the labeled or sure row, of its most (or, where draws["second"], second most)
    probable class, that has the largest draws["partner"]; target share * p + (1 - share) * onehot(class); if there is
    no such row the image and p as they are. unsure_loss = mean over these rows of c^3 * mean_k (softmax(z) - target)^2.
    L = labeled_loss + lambda * (unlabeled_loss + mix_loss) + fairness * fairness_loss + unsure * unsure_loss.

    Needs labeled[0] weak, unlabeled weak, strong, draws "order" [B + M], "second" [M], "partner" [M, B + M] and "paste"
    (see Paste; its place is the slot of p_r for "sure" and the unlabeled row's number for "unsure"). Memories `tau`,
    `p_tilde`, `h_tilde` as in FreeMatch. Read: hhrd9/regmixmatch models/freematch_entropy/freematch.py (`train`),
    freematch_utils.py (`resizemix`, `resizemix_cam`, `resizemix_l`), usb/freematch.py.
    """

    def __init__(
        self,
        classes: int,
        momentum: float,
        lambda_: float = 1.0,
        fairness: float = 0.01,
        sure: float = 0.999,
        labeled_joins: bool = False,
        unsure: float = 1.0,
    ) -> None:
        self.classes = classes
        self.lambda_ = lambda_
        self.fairness = fairness
        self.sure = sure
        self.unsure = unsure
        self.labeled_joins = labeled_joins
        self.memory = FreeMatch(classes, momentum=momentum)

    @property
    def tau(self) -> float:
        """The running mean of c."""
        return self.memory.tau

    @property
    def p_tilde(self) -> Floats:
        """The running mean of p, [K]."""
        return self.memory.p_tilde

    @property
    def h_tilde(self) -> Floats:
        """The running mean of the histogram of y^, [K]."""
        return self.memory.h_tilde

    def pool_loss(self, batch: Batch, target: Ints, is_sure: Sequence[bool], moving: Model) -> float:
        """Return mix_loss, given y^ [M] and which rows are sure [M]; 0 with M = 0 or an empty pool."""
        count = len(batch.labels)
        images = [*batch.labeled[0], *batch.unlabeled[1]]
        classes = [*batch.labels, *target]
        pool = list(range(count)) if self.labeled_joins else []
        pool += [count + i for i, is_in in enumerate(is_sure) if is_in]
        if not len(target) or not pool:
            return 0.0
        paste: Paste = batch.draws["paste"]
        total = 0.0
        for slot, other in zip(pool, sorted(pool, key=lambda s: float(batch.draws["order"][s])), strict=True):
            mixed, share = paste(images[slot], images[other], "sure", slot)
            wished = one_hot([classes[slot], classes[other]], self.classes)
            wished = share * wished[:1] + (1 - share) * wished[1:]
            total += float(soft_cross_entropy(moving.logits(mixed[None]), wished)[0])
        return total / len(target)

    def partner(self, batch: Batch, i: int, k: int, target: Ints, is_sure: Sequence[bool]) -> int | None:
        """Return the slot of the row that unlabeled row i is mixed with if class k is wished; None if there is none."""
        count = len(batch.labels)
        best: int | None = None
        for slot in range(count + len(target)):
            fits = batch.labels[slot] == k if slot < count else is_sure[slot - count] and target[slot - count] == k
            if fits and (best is None or batch.draws["partner"][i, slot] > batch.draws["partner"][i, best]):
                best = slot
        return best

    def unsure_loss(self, batch: Batch, p: Floats, is_sure: Sequence[bool], moving: Model) -> float:
        """Return the loss of the rows that are not sure, given p [M, K] and which rows are sure [M]."""
        c, target = confidence_and_target(p)
        images = [*batch.labeled[0], *batch.unlabeled[1]]
        total, number = 0.0, 0
        for i, is_in in enumerate(is_sure):
            if is_in:
                continue
            number += 1
            best_first = sorted(range(self.classes), key=lambda k: (-p[i, k], k))
            k = best_first[1] if batch.draws["second"][i] else best_first[0]
            image, wished = batch.unlabeled[1][i], p[i]
            slot = self.partner(batch, i, k, target, is_sure)
            if slot is not None:
                paste: Paste = batch.draws["paste"]
                image, share = paste(image, images[slot], "unsure", i)
                wished = share * p[i] + (1 - share) * one_hot([k], self.classes)[0]
            total += float(c[i] ** 3 * squared_error(moving.logits(image[None]), wished[None])[0])
        return total / max(number, 1)

    def step(self, batch: Batch, still: Model, moving: Model) -> Result:
        """Return the losses of a step, with `mix_loss`, `unsure_loss` and `fairness_loss` before their weights."""
        p = softmax(still.logits(batch.unlabeled[0]))
        c, target = confidence_and_target(p)
        row_weight = self.memory.update(p, target, batch.t)
        is_sure = [bool(value >= self.sure) for value in c]

        labeled_loss = float(cross_entropy(moving.logits(batch.labeled[0]), batch.labels).mean())
        strong_logits = moving.logits(batch.unlabeled[1])
        unlabeled_loss, _ = unlabeled_part(strong_logits, target, row_weight)
        fairness_loss, _ = fairness_part(strong_logits, row_weight, self.p_tilde, self.h_tilde)
        mix_loss = self.pool_loss(batch, target, is_sure, moving)
        unsure_loss = self.unsure_loss(batch, p, is_sure, moving)
        loss = labeled_loss + self.lambda_ * (unlabeled_loss + mix_loss)
        return {
            "loss": loss + self.fairness * fairness_loss + self.unsure * unsure_loss,
            "labeled_loss": labeled_loss,
            "unlabeled_loss": unlabeled_loss,
            "mix_loss": mix_loss,
            "unsure_loss": unsure_loss,
            "fairness_loss": fairness_loss,
            "row_weight": row_weight,
            "target": target,
            "kept": mean_or_zero(row_weight),
        }
