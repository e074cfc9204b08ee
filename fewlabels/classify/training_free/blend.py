"""Several classifiers weighed by the labels, then in a space that their classes give, and a linear head of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from fewlabels.classify.training_free.linear import logistic
from fewlabels.classify.training_free.mixture import gaussian_em
from fewlabels.classify.training_free.poisson import poisson
from fewlabels.classify.training_free.problem import Prediction, Problem
from fewlabels.classify.training_free.propagation import propagation
from fewlabels.classify.training_free.space import Features, Scores, unit_centered
from fewlabels.classify.training_free.whitening import divided
from fewlabels.data.table import Labels

# Measured on development seeds (docs/LOG.md).
LEAST = 1e-4  # of a probability, before its logarithm is taken
CONFIDENCE = 0.7  # that each member's logits are scaled to
FEW = 2  # labels of a class, up to which labels cannot tell which members are right
PULL = 3.0  # of the prior weights
PENALTY = 1.0  # of the head


class Member(NamedTuple):
    """A classifier of the blend.

    Attributes:
        fit: learns and predicts.
        is_whitened: whether in the whitened space.
        gives_logits: whether its scores are logits and not probabilities.
        again: whether it is fitted again in the space that the blend's classes give.
    """

    fit: Callable[[Problem], Prediction]
    is_whitened: bool = True
    gives_logits: bool = False
    again: bool = True


MEMBERS: dict[str, Member] = {
    "gaussian_em": Member(gaussian_em),
    "label_propagation": Member(propagation, is_whitened=False),
    "label_propagation_whitened": Member(propagation),
    "poisson": Member(poisson, gives_logits=True),
    "linear": Member(logistic, is_whitened=False, again=False),
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

    def of(self, member: Member) -> Problem:
        """Return the rows as a member sees them."""
        return self.whitened if member.is_whitened else self.plain

    def without(self, part: Labels) -> Pool:
        """Return the rows without the labels of some of the labeled ones, by their places among these."""
        return Pool(self.plain.without(part), self.whitened.without(part))


@dataclass(frozen=True, eq=False)
class Blend:
    """What a blend returns.

    Attributes:
        weights: of the members.
        scores: logits of the training rows [N, K], then of the other rows [A, K].
        left_out: logits of the labeled rows [n, K] by a head that was learned without their part; None where there were
            no parts. Its weights were fitted to the other parts alone, whose logits knew the labels of this one.
        head: learned from the scores.
    """

    weights: dict[str, float]
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


def blend(pool: Pool, prior: Weights, parts: Sequence[Labels]) -> Blend:
    """Weigh the members by labels that they did not have, and learn a linear head from what they say together.

    With logits Z_m of each member (`tempered`), L = sum of w_m Z_m; the same members again in the space of
    `divided_by_classes` of argmax L, weighed alike: W; and L + W. The weights minimize the cross-entropy of L on the
    labeled rows, each without its own label, and each class alike, plus `PULL` |w - prior|^2; with up to `FEW` labels
    of a class they are the prior. The head is that of `head_of` softmax((L + W) / 2).

    Args:
        pool: the rows.
        prior: of the weights; a member that is not named has 0.
        parts: places among the labeled rows that are left out together; none for no weights and no estimate.
    """
    names = [*MEMBERS]
    start = np.array([prior.get(name, 0.0) for name in names])
    given, few = pool.plain.given, pool.plain.counts.min() <= FEW
    found = [(part, _logits(rest), rest) for part in parts for rest in [pool.without(part)]]
    labeled = pool.plain.labeled
    out_of_fold = np.zeros((len(names), len(given), pool.plain.classes))
    for part, logits, _ in found:
        out_of_fold[:, part] = logits[:, labeled[part]]

    def weights_without(part: Labels) -> Scores:
        rows = np.setdiff1d(np.arange(len(given)), part)
        return start if few or not found else _fitted(out_of_fold[:, rows], given[rows], start)

    weights = weights_without(np.empty(0, np.int64))
    scores = _twice(pool, _logits(pool), weights)
    left_out = np.zeros((len(given), pool.plain.classes))
    for part, logits, rest in found:
        head = head_of(rest.plain, softmax(_twice(rest, logits, weights_without(part)) / 2, axis=1))
        left_out[part] = head(pool.plain.train[labeled[part]])
    head = head_of(pool.plain, softmax(scores / 2, axis=1))
    return Blend(dict(zip(names, weights.tolist(), strict=True)), scores, left_out if found else None, head)


def blend_of_spaces(pools: Sequence[Pool], prior: Weights, parts: Sequence[Labels]) -> Blend:
    """Blend in each of several spaces, weigh the blends by labels that they did not have, and learn a linear head.

    The weights minimize what those of `blend` do, with the logits of the blends' heads; their prior is equal weights.
    The head is that of `head_of` the softmax of half of the weighed sum, in the last space.

    Args:
        pools: the same rows in each space.
        prior: of the weights within each blend.
        parts: places among the labeled rows that are left out together; not needed for one space.
    """
    blends = [blend(pool, prior, parts) for pool in pools]
    if len(blends) == 1:
        return blends[0]
    given, out_of_fold = pools[0].plain.given, np.stack([_known(each.left_out) for each in blends])
    equal = np.full(len(blends), 1 / len(blends))
    weights = _fitted(out_of_fold, given, equal)
    left_out = np.zeros_like(out_of_fold[0])
    for part in parts:
        rest = np.setdiff1d(np.arange(len(given)), part)
        without = _fitted(out_of_fold[:, rest], given[rest], equal)
        left_out[part] = np.tensordot(without, out_of_fold[:, part], 1)
    scores = np.tensordot(weights, np.stack([each.scores for each in blends]), 1)
    head = head_of(pools[-1].plain, softmax(scores / 2, axis=1))
    of_members = {
        f"{name} in space {place}": float(weight * within)
        for place, (weight, each) in enumerate(zip(weights, blends, strict=True))
        for name, within in each.weights.items()
    }
    return Blend(of_members, scores, left_out, head)


def _known(left_out: Scores | None) -> Scores:
    assert left_out is not None, "spaces are weighed by labels that are left out"
    return left_out


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


def _of_member(member: Member, problem: Problem) -> Scores:
    found = member.fit(problem)
    both = np.concatenate([found.train, found.asked])
    return tempered(both, len(problem.train), are_logits=member.gives_logits)


def _twice(pool: Pool, logits: Scores, weights: Scores) -> Scores:
    """Return L + W; see `blend`."""
    once, problem = np.tensordot(weights, logits, 1), pool.whitened
    classes = once[: len(problem.train)].argmax(1)
    classes[problem.labeled] = problem.given
    again = divided_by_classes(problem, classes)
    shared: dict[Callable[[Problem], Prediction], Scores] = {}
    total = once.copy()
    for weight, member, of_member in zip(weights, MEMBERS.values(), logits, strict=True):
        if member.again and weight > 0 and member.fit not in shared:
            shared[member.fit] = _of_member(member, again)
        total += weight * (shared[member.fit] if member.again and weight > 0 else 0 if member.again else of_member)
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
