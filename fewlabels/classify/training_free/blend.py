"""Several classifiers weighed by the labels, then in a space that their classes give, and a linear head of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from fewlabels.classify.training_free.problem import Prediction, Problem
from fewlabels.classify.training_free.recipes import BASELINES, Recipe
from fewlabels.classify.training_free.space import Features, Scores, unit_centered
from fewlabels.classify.training_free.whitening import divided
from fewlabels.data.table import Labels

# Measured on development seeds (docs/LOG.md).
LEAST = 1e-4  # of a probability, before its logarithm is taken
CONFIDENCE = 0.7  # that each member's logits are scaled to
FEW = 2  # labels of a class, up to which labels cannot tell which members are right
PULL = 3.0  # of the prior weights
PENALTY = 1.0  # of the head


MEMBERS: dict[str, Recipe] = {
    name: BASELINES[name]
    for name in ("gaussian_em", "label_propagation", "label_propagation_whitened", "poisson", "linear")
}
Weights = Mapping[str, float]
ON_FEATURES: Weights = {"gaussian_em": 1 / 3, "label_propagation_whitened": 1 / 3, "poisson": 1 / 3}
"""of a pretrained backbone, where a class is about one blob"""


@dataclass(frozen=True, eq=False)
class Pool:
    """The same rows in two spaces.

    Attributes:
        plain: rows of length 1.
        whitened: the same by `whitened`, of length 1.
    """

    plain: Problem
    whitened: Problem

    def of(self, member: Recipe) -> Problem:
        """Return the rows as a member sees them."""
        return self.whitened if member.is_whitened else self.plain

    def without(self, part: Labels) -> Pool:
        """Return the rows without the labels of some of the labeled ones, by their places among these."""
        return Pool(self.plain.without(part), self.whitened.without(part))


@dataclass(frozen=True, eq=False)
class Blend:
    """What a blend returns.

    Attributes:
        weights: of the members in each space.
        space_weights: of the spaces.
        scores: logits of the training rows [N, K], then of the other rows [A, K].
        left_out: logits of the labeled rows [n, K] by a head that was learned without their part; None where there were
            no parts. The weights without a part were fitted to the other parts, whose logits knew its labels.
        head: learned from the scores.
    """

    weights: tuple[dict[str, float], ...]
    space_weights: tuple[float, ...]
    scores: Scores
    left_out: Scores | None
    head: Head


@dataclass(frozen=True, eq=False)
class Head:
    """A linear layer: weight [D, K], bias [K]."""

    weight: Scores
    bias: Scores

    def __call__(self, x: Features) -> Scores:
        """Return the logits [n, K] of rows in the plain space [n, D]."""
        return x.astype(np.float64) @ self.weight + self.bias


def blend(pools: Sequence[Pool], prior: Weights, parts: Sequence[Labels]) -> Blend:
    """Weigh the members by cross-validation, in each of one or more spaces, and learn a linear head from all of it.

    With logits Z_m of each member (`tempered`), L = sum of w_m Z_m; the same members again in the space of
    `divided_by_classes` of argmax L, with the same weights: W; and L + W. The weights minimize the cross-entropy of L
    on the labeled rows, each without its own label, and each class alike, plus `PULL` |w - prior|^2; with up to `FEW`
    labels of a class they are the prior. Spaces are weighed in the same way, with (L + W) / 2 of each in the place of
    Z_m and equal weights as the prior. The head is that of `head_of` the softmax of the weighted sum, in the last
    space.

    Args:
        pools: the same rows in each space.
        prior: of the weights of members; one that is not named has 0.
        parts: places among the labeled rows that are left out together. None: the weights are the prior, and there is
            no estimate.
    """
    last, given, labeled = pools[-1], pools[0].plain.given, pools[0].plain.labeled
    spaces = [_in_space(pool, prior, parts) for pool in pools]
    equal = np.full(len(pools), 1 / len(pools))
    fits = len(pools) > 1 and len(parts) > 0 and not _has_few(pools[0])
    left_out = np.stack([_left_out(space.without, parts, labeled) for space in spaces])
    weights = _fitted(left_out, given, equal) if fits else equal
    scores = np.tensordot(weights, np.stack([space.scores for space in spaces]), 1)
    by_head = np.zeros_like(left_out[0])
    for place, part in enumerate(parts):
        rest = np.setdiff1d(np.arange(len(given)), part)
        without = _fitted(left_out[:, rest], given[rest], equal) if fits else equal
        targets = softmax(np.tensordot(without, np.stack([space.without[place] for space in spaces]), 1), axis=1)
        by_head[part] = head_of(last.without(part).plain, targets)(last.plain.train[labeled[part]])
    return Blend(
        tuple(space.weights for space in spaces),
        tuple(weights.tolist()),
        scores,
        by_head if len(parts) else None,
        head_of(last.plain, softmax(scores, axis=1)),
    )


class _Space(NamedTuple):
    """A blend in one space: weights of members, (L + W) / 2 of all labels, and without each part of them."""

    weights: dict[str, float]
    scores: Scores
    without: list[Scores]


def _in_space(pool: Pool, prior: Weights, parts: Sequence[Labels]) -> _Space:
    start = np.array([prior.get(name, 0.0) for name in MEMBERS])
    given, fits = pool.plain.given, len(parts) > 0 and not _has_few(pool)
    rests = [pool.without(part) for part in parts]
    logits = [_logits(rest) for rest in rests]
    left_out = np.stack([_left_out([of[m] for of in logits], parts, pool.plain.labeled) for m in range(len(MEMBERS))])
    weights, without = _fitted(left_out, given, start) if fits else start, list[Scores]()
    for part, rest, of_members in zip(parts, rests, logits, strict=True):
        others = np.setdiff1d(np.arange(len(given)), part)
        fitted = _fitted(left_out[:, others], given[others], start) if fits else start
        without.append(_twice(rest, of_members, fitted) / 2)
    whole = _twice(pool, _logits(pool), weights) / 2
    return _Space(dict(zip(MEMBERS, weights.tolist(), strict=True)), whole, without)


def _has_few(pool: Pool) -> bool:
    return bool(pool.plain.counts.min() <= FEW)


def _left_out(scores: Sequence[Scores], parts: Sequence[Labels], labeled: Labels) -> Scores:
    """Return the scores [n, K] of labeled rows, each of what was learned without its part; zeros without parts."""
    out = np.zeros((len(labeled), scores[0].shape[1] if scores else 0))
    for part, without in zip(parts, scores, strict=True):
        out[part] = without[labeled[part]]
    return out


def head_of(problem: Problem, targets: Scores) -> Head:
    """Learn a linear layer from soft targets [N, K] of the training rows, and the true labels of the labeled ones.

    Ridge regression with the penalty `PENALTY` on the squares of the weights; its outputs are scaled to be as
    confident as the targets.
    """
    targets = targets[: len(problem.train)].copy()
    targets[problem.labeled] = problem.targets
    x = problem.train.astype(np.float64)
    center, mean = x.mean(0), targets.mean(0)
    x -= center
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += PENALTY
    weight = np.linalg.solve(gram, x.T @ (targets - mean))
    scale = _scale_to(x @ weight + mean, float(targets.max(1).mean()))
    return Head(scale * weight, scale * (mean - center @ weight))


def tempered(scores: Scores, rows: int, *, are_logits: bool) -> Scores:
    """Return logits, their mean over classes 0, scaled so that the mean largest probability is `CONFIDENCE`.

    Args:
        scores: probabilities or logits [n, K].
        rows: how many of them, from the first on, the scale is taken from.
        are_logits: which they are.
    """
    logits = scores if are_logits else np.log(np.maximum(scores, LEAST))
    logits = logits - logits.mean(1, keepdims=True)
    return _scale_to(logits[:rows], CONFIDENCE) * logits


def divided_by_classes(problem: Problem, classes: Labels) -> Problem:
    """Return rows divided by their spread within classes [N] of the training rows (linear discriminant analysis)."""
    kinds, codes = np.unique(classes, return_inverse=True)
    x = problem.train.astype(np.float64)
    sums = np.zeros((len(kinds), x.shape[1]))
    np.add.at(sums, codes, x)
    apart = x - (sums / np.bincount(codes)[:, None])[codes]
    both = np.concatenate([problem.train, problem.asked])
    train = np.arange(len(x))
    moved = unit_centered(divided(both, apart.T @ apart / len(x)), train)
    return Problem(moved[: len(x)], moved[len(x) :], problem.labels, problem.classes)


def _logits(pool: Pool) -> Scores:
    """Return the logits [M, N + A, K] of all members."""
    return np.stack([_of_member(member, pool.of(member)) for member in MEMBERS.values()])


def _of_member(member: Recipe, problem: Problem) -> Scores:
    found = member.fit(problem)
    both = np.concatenate([found.train, found.asked])
    return tempered(both, len(problem.train), are_logits=member.gives_logits)


def _twice(pool: Pool, logits: Scores, weights: Scores) -> Scores:
    """Return L + W; see `blend`."""
    once, problem = np.tensordot(weights, logits, 1), pool.whitened
    classes = once[: len(problem.train)].argmax(1)
    classes[problem.labeled] = problem.given
    again = divided_by_classes(problem, classes)
    seen: dict[Callable[[Problem], Prediction], Scores] = {}  # two members may be one classifier in two spaces
    total = once.copy()
    for weight, member, before in zip(weights, MEMBERS.values(), logits, strict=True):
        if not weight:
            continue
        if member.takes_unlabeled and member.fit not in seen:
            seen[member.fit] = _of_member(member, again)
        total += weight * seen.get(member.fit, before)  # what learns from labels alone stays as it was
    return total


def _fitted(logits: Scores, labels: Labels, prior: Scores) -> Scores:
    counts = np.bincount(labels, minlength=logits.shape[2])
    of_row = 1 / counts[labels]
    of_row /= of_row.mean()
    rows = np.arange(len(labels))

    def loss(weights: Scores) -> tuple[float, Scores]:
        logged = log_softmax(np.tensordot(weights, logits, 1), axis=1)
        error = np.exp(logged)
        error[rows, labels] -= 1
        gradient = np.einsum("n,nk,mnk->m", of_row, error, logits) + 2 * PULL * (weights - prior)
        return float(-(of_row @ logged[rows, labels]) + PULL * ((weights - prior) ** 2).sum()), gradient

    return minimize(loss, prior, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(prior)).x


def _scale_to(logits: Scores, confidence: float) -> float:
    """Find the scale at which the mean largest probability is `confidence`, by bisection of its logarithm."""
    low, high = -10.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        if softmax(np.exp(middle) * logits, axis=1).max(1).mean() < confidence:
            low = middle
        else:
            high = middle
    return float(np.exp(low))
