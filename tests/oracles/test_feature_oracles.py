"""Checks of the oracles on frozen features: small cases worked out by hand, exact identities, other solvers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from . import feature_oracles as oracle
from .basics import Floats, Ints


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def ints(*values: int) -> Ints:
    return np.array(values, dtype=np.int64)


def blobs(seed: int = 0, per_class: int = 8, classes: int = 3, width: int = 4, known: int = 2) -> tuple[Floats, Ints]:
    """Return rows and labels in random order, `known` labels per class, the others -1."""
    rng = np.random.default_rng(seed)
    true = np.repeat(np.arange(classes), per_class)
    x = 1.2 * rng.standard_normal((classes, width))[true] + 0.8 * rng.standard_normal((len(true), width))
    labels = np.where(np.arange(len(true)) % per_class < known, true, -1)
    order = rng.permutation(len(true))
    return x[order], labels[order]


def scrambled(labels: Ints) -> tuple[Ints, Ints]:
    """Return the labeled rows, and the labels with wrong ones where a function must not look."""
    return np.flatnonzero(labels >= 0), np.where(labels < 0, 2 - np.arange(len(labels)) % 3, labels)


# ---------------------------------------------------------------------------------------------------------------------
# What the others share


def test_normalized_by_hand() -> None:
    # unit: (.6, .8), (0, 1), (0, 0); mean of the first two (.3, .9)
    x = np.array([[3.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    a, b = math.sqrt(0.1), math.sqrt(0.9)
    close(oracle.normalized(x, ints(0, 1)), [[0.3 / a, -0.1 / a], [-0.3 / a, 0.1 / a], [-0.3 / b, -0.9 / b]])


def test_normalized_keeps_row_at_mean_zero_and_ignores_length() -> None:
    x = np.array([[2.0, 0.0], [5.0, 0.0], [1.0, 1.0]])
    out = oracle.normalized(x, ints(0, 1))
    close(out[:2], 0.0)
    close(out, oracle.normalized(np.array([[0.1], [3.0], [7.0]]) * x, ints(0, 1)))


def test_balanced_accuracy_by_hand() -> None:
    # class 0: 2 of 3, class 2: 1 of 1; class 1 has no row, the last row has no label
    close(oracle.balanced_accuracy(ints(0, 0, 2, 2, 1), ints(0, 0, 0, 2, -1)), (2 / 3 + 1) / 2)


def test_estimated_shares() -> None:
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    uniform = np.array([0.5, 0.5])
    close(oracle.estimated_shares(p, uniform, 0), uniform)
    close(oracle.estimated_shares(p, uniform, 1), [0.6, 0.4])
    # (.8 * .6, .2 * .4) = (.48, .08) and (.4 * .6, .6 * .4): the means of (6, 1) / 7 and (1, 1) / 2
    close(oracle.estimated_shares(p, uniform, 2), [(6 / 7 + 1 / 2) / 2, (1 / 7 + 1 / 2) / 2])
    # where training had (.75, .25): p times (.6, .4) / (.75, .25), the means of p, is (.64, .32) and (.32, .96)
    skewed = np.array([0.75, 0.25])
    close(oracle.estimated_shares(p, skewed, 1), [0.6, 0.4])
    close(oracle.estimated_shares(p, skewed, 2), [(2 / 3 + 1 / 4) / 2, (1 / 3 + 3 / 4) / 2])
    # sure rows are counted, whatever the shares of training
    sure = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    close(oracle.estimated_shares(sure, np.array([0.2, 0.8, 0.0])), [0.75, 0.25, 0.0])


def test_shrunk_shares() -> None:
    close(oracle.shrunk_shares(np.array([0.9, 0.1, 0.0, 0.0])), [0.575, 0.175, 0.125, 0.125])


# ---------------------------------------------------------------------------------------------------------------------
# Nearest neighbors

AROUND = np.array([[math.cos(t), math.sin(t)] for t in np.radians([0, 10, 30, 50, 200])])


def test_knn_votes_then_similarity() -> None:
    labels, labeled, asked = ints(0, 1, 1, 0, 2), ints(0, 2, 3, 4), ints(1)
    c = {t: math.cos(math.radians(t)) for t in (10, 20, 40)}
    # at 10 degrees the order is 0 (class 0), 30 (1), 50 (0), 200 (2)
    close(oracle.knn_scores(AROUND, labels, labeled, asked, 1), [[1 + c[10] / 3, 0, 0]])
    close(oracle.knn_scores(AROUND, labels, labeled, asked, 2), [[1 + c[10] / 5, 1 + c[20] / 5, 0]])
    close(oracle.knn_scores(AROUND, labels, labeled, asked, 3), [[2 + (c[10] + c[40]) / 7, 1 + c[20] / 7, 0]])
    everyone = oracle.knn_scores(AROUND, labels, labeled, asked, 4)
    assert everyone.argmax() == 0
    assert everyone[0, 2] > 0.5  # the far one votes, though its cosine is negative
    assert oracle.knn_scores(AROUND, labels, labeled, asked, 9).argmax() == 0  # 9 are all 4


def test_knn_two_far_votes_beat_a_near_one() -> None:
    x = np.array([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.1], [-1.0, -0.1]])
    scores = oracle.knn_scores(x, ints(-1, 0, 1, 1), ints(1, 2, 3), ints(0), 3)
    assert scores[0, 1] > scores[0, 0]


def test_knn_ties_go_to_rows_that_come_first() -> None:
    x = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    assert oracle.knn_scores(x, ints(-1, 1, 0), ints(1, 2), ints(0), 1).argmax() == 1
    assert oracle.knn_scores(x, ints(-1, 1, 0), ints(2, 1), ints(0), 1).argmax() == 0
    assert oracle.knn_scores(x, ints(-1, 1, 0), ints(1, 2), ints(0), 2).argmax() == 0  # equal votes and sums


def test_knn_leave_one_out_and_best_k() -> None:
    labels, labeled = ints(0, 0, 1, 1, -1), ints(0, 1, 2, 3)
    # neighbors in order, 0: 10, 30, 50; 10: 0, 30, 50; 30: 10 and 50 (equally near), 0; 50: 30, 10, 0
    close(oracle.knn_leave_one_out(AROUND, labels, labeled, 1), [0, 0, 0, 1])
    close(oracle.knn_leave_one_out(AROUND, labels, labeled, 3), [1, 1, 0, 0])
    assert oracle.best_k(AROUND, labels, labeled, [3, 1]) == 1
    assert oracle.best_k(AROUND, labels, labeled, [9, 3]) == 3  # the same, as there are 3 others
    close(oracle.knn_leave_one_out(AROUND, labels, ints(2), 1), [0])


def test_leave_one_out_never_sees_the_row() -> None:
    x, labels = blobs()
    labeled, wrong = scrambled(labels)
    out = oracle.knn_leave_one_out(x, wrong, labeled, 3)
    for place, row in enumerate(labeled):
        others = ints(*(j for j in labeled if j != row))
        assert out[place] == oracle.knn_scores(x, wrong, others, ints(row), 3, 3).argmax()


# ---------------------------------------------------------------------------------------------------------------------
# Ridge regression


def test_ridge_by_hand() -> None:
    x = np.array([[1.0], [2.0], [3.0]])
    # weights: x'y / (x'x + 5) = 1 / 10 and 2 / 10
    close(oracle.ridge(x, ints(0, 1, -1), ints(0, 1), ints(2, 0), 5.0), [[0.3, 0.6], [0.1, 0.2]])
    # each alone: 2 / (4 + 5) at x = 1 and 1 / (1 + 5) at x = 2
    close(oracle.ridge_leave_one_out(x, ints(0, 1, -1), ints(0, 1), 5.0), [[0, 2 / 9], [2 / 6, 0]])
    expected = (1 + 4 / 81 + 1 + 4 / 36) / 2
    close(oracle.ridge_error(x, ints(0, 1, -1), ints(0, 1), 5.0), expected)


@pytest.mark.parametrize("lam", [1e-2, 1.0, 30.0])
def test_ridge_is_its_primal_and_leave_one_out_its_closed_form(lam: float) -> None:
    x, labels = blobs(1, width=5)
    labeled, wrong = scrambled(labels)
    y, seen = np.eye(3)[labels[labeled]], x[labeled]
    weights = np.linalg.solve(seen.T @ seen + lam * np.eye(5), seen.T @ y)
    close(oracle.ridge(x, wrong, labeled, np.arange(len(x)), lam), x @ weights, 1e-9)
    values, vectors = np.linalg.eigh(seen @ seen.T)
    hat = vectors @ np.diag(values / (values + lam)) @ vectors.T
    errors = (y - hat @ y) / (1 - np.diag(hat))[:, None]
    close(y - oracle.ridge_leave_one_out(x, wrong, labeled, lam), errors, 1e-9)
    squares = (errors**2).sum(axis=1)
    close(oracle.ridge_error(x, wrong, labeled, lam), np.mean([squares[y[:, k] == 1].mean() for k in range(3)]), 1e-9)


def test_ridge_best_is_the_least_error() -> None:
    x, labels = blobs(2)
    labeled = np.flatnonzero(labels >= 0)
    lambdas = [1e-4, 1e-1, 1.0, 10.0, 1e5]
    errors = [oracle.ridge_error(x, labels, labeled, lam) for lam in lambdas]
    best = oracle.ridge_best(x, labels, labeled, lambdas)
    assert errors[lambdas.index(best)] == min(errors)
    assert best not in (1e-4, 1e5)


def test_ridge_error_weighs_classes_equally() -> None:
    # three equal rows of class 0, one of class 1, all orthogonal to each other's class
    x = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    error = oracle.ridge_error(x, ints(0, 0, 0, 1), ints(0, 1, 2, 3), 1.0)
    # without one, class 0 has weight 2 / (2 + 1), error 1/9 each; without its only row class 1 has error 1
    close(error, (1 / 9 + 1) / 2)


# ---------------------------------------------------------------------------------------------------------------------
# Logistic regression


def test_logistic_of_nothing_gives_shares() -> None:
    x = np.zeros((5, 2))
    close(oracle.logistic(x, ints(0, 0, 0, 2, -1), ints(0, 1, 2, 3), ints(4), 10.0), [[0.75, 0, 0.25]], 1e-9)


def test_logistic_of_two_rows_by_one_equation() -> None:
    # by symmetry weights (-w, w), no intercept: least 2 c log(1 + exp(-2 w)) + w^2, so w = 2 c sigmoid(-2 w)
    c = 0.7
    p = oracle.logistic(np.array([[-1.0], [1.0]]), ints(0, 1), ints(0, 1), ints(1), c)[0, 1]
    w = math.log(p / (1 - p)) / 2
    close(w, 2 * c * sigmoid(-2 * w), 1e-8)


@pytest.mark.parametrize("c", [0.1, 10.0, 100.0])
def test_logistic_is_stationary_and_equals_scikit_learn(c: float) -> None:
    x, labels = blobs(3)
    labeled, wrong = scrambled(labels)
    everyone = np.arange(len(x))
    p = oracle.logistic(x, wrong, labeled, everyone, c)
    close(p.sum(axis=1), 1.0)
    # the intercepts' gradient
    close(p[labeled].mean(axis=0), np.bincount(labels[labeled]) / len(labeled), 1e-8)
    model = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x[labeled], labels[labeled])
    close(p, model.predict_proba(x), 1e-5)
    # weights' gradient: W = c X'(Y - P) gives the same odds
    weights = c * x[labeled].T @ (np.eye(3)[labels[labeled]] - p[labeled])
    odds = np.log(p) - x @ weights
    odds -= odds.mean(axis=1, keepdims=True)
    close(odds, np.broadcast_to(odds[0], odds.shape), 1e-6)


def test_logistic_of_two_classes_is_scikit_learn_with_twice_c() -> None:
    x, labels = blobs(4, classes=2)
    labeled = np.flatnonzero(labels >= 0)
    model = LogisticRegression(C=6.0, tol=1e-10, max_iter=10_000).fit(x[labeled], labels[labeled])
    close(oracle.logistic(x, labels, labeled, np.arange(len(x)), 3.0), model.predict_proba(x), 1e-5)


def test_logistic_leave_one_out_refits() -> None:
    x, labels = blobs(5)
    labels[np.flatnonzero(labels == 1)[0]] = -1  # one label of class 1 is left
    labeled, wrong = scrambled(labels)
    out = oracle.logistic_leave_one_out(x, wrong, labeled, 10.0)
    alone = int(np.flatnonzero(labels[labeled] == 1)[0])
    assert out[alone, 1] == 0
    close(out.sum(axis=1), 1.0)
    others = np.delete(labeled, 0)
    close(out[0], oracle.logistic(x, wrong, others, labeled[:1], 10.0, 3)[0])


# ---------------------------------------------------------------------------------------------------------------------
# Label propagation


def test_knn_graph_by_hand() -> None:
    x = np.array([[math.cos(t), math.sin(t)] for t in np.radians([0, 60, 90, 270])])
    # nearest: 0 -> 60, 60 -> 90, 90 -> 60, 270 -> 0, whose cosine is 0
    side, both = 0.5**3, 2 * math.cos(math.radians(30)) ** 3
    expected = [[0, side, 0, 0], [side, 0, both, 0], [0, both, 0, 0], [0, 0, 0, 0]]
    close(oracle.knn_graph(x, 1), expected)
    close(oracle.knn_graph(3 * x, 1, 1.0)[0, 1], 0.5)
    everyone = oracle.knn_graph(x, 9)
    close(everyone, 2 * np.maximum(x @ x.T, 0) ** 3 - 2 * np.eye(4))


def test_propagation_between_two_rows() -> None:
    w = np.array([[0.0, 0.3, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 0.0]])
    m = 1 / (1 - 0.64)
    labels = ints(1, -1, 0)
    close(oracle.propagate(w, labels, 0.8, 2), [[0, m], [0, 0.8 * m], [1, 0]])  # the last row is alone
    close(oracle.propagate_leave_one_out(w, labels, 0.8, 2), np.zeros((2, 2)))
    both = oracle.propagate_leave_one_out(w, ints(1, 0, -1), 0.8, 2)
    close(both, [[0.8 * m, 0], [0, 0.8 * m]])


def test_propagation_is_its_series() -> None:
    x, labels = blobs(6)
    w = oracle.knn_graph(x, 4)
    half = np.diag(w.sum(axis=1) ** -0.5)
    y = np.where(labels[:, None] == np.arange(3), 1.0, 0.0)
    f = np.zeros_like(y)
    for _ in range(200):
        f = 0.8 * half @ w @ half @ f + y
    close(oracle.propagate(w, labels, 0.8, 3), f, 1e-10)


@pytest.mark.parametrize(("seed", "known"), [(0, 1), (1, 2), (2, 3)])
def test_propagation_leave_one_out_has_closed_form(seed: int, known: int) -> None:
    x, labels = blobs(seed, known=known)
    w = oracle.knn_graph(x, 4)
    refitted = oracle.propagate_leave_one_out(w, labels, 0.8, 3)
    close(refitted, oracle.propagate_leave_one_out_closed(w, labels, 0.8, 3), 1e-10)
    assert (refitted > 1e-6).any()
    if known == 1:  # nobody else speaks for a row's own class
        close(refitted[np.arange(3), labels[labels >= 0]], 0.0)


def test_new_rows_by_hand() -> None:
    x = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    f = np.array([[4.0, 0.0], [1.0, 3.0], [0.0, 0.0], [0.0, 5.0]])
    # neighbors of (1, 0): cosines 1, .6, 0, -1
    new = np.array([[2.0, 0.0]])
    close(oracle.new_rows(new, x, f, 1), [[1, 0]])
    close(oracle.new_rows(new, x, f, 2), [[(1 + 0.216 / 4) / 1.216, 0.216 * 0.75 / 1.216]])
    close(oracle.new_rows(new, x, f, 4), oracle.new_rows(new, x, f, 2))  # weights below 0 are 0
    # (.6, .8) itself, .8 to a row that nothing reached
    close(oracle.new_rows(x[1:2], x, f, 2, 1.0), [[0.25 / 1.8, 0.75 / 1.8]])
    close(oracle.new_rows(np.array([[0.0, -1.0]]), x, f, 1), [[0, 0]])


# ---------------------------------------------------------------------------------------------------------------------
# Whitening and the Gaussian mixture


def test_whitening_by_hand() -> None:
    # nearest: 0 -> 2, 2 -> 0, 5 -> 2: squares 4, 4, 9
    a = np.array([[0.0], [2.0], [5.0]])
    close(oracle.whitening(a, 1), [[(1.1 * 17 / 6) ** -0.5]])
    # two features, one apart by 2, the other by 0: S = diag(2, 0) + .1 * 2 / 2
    close(oracle.whitening(np.array([[0.0, 1.0], [2.0, 1.0]])), np.diag([2.1**-0.5, 0.1**-0.5]))


def test_whitening_by_all_pairs_whitens_the_covariance() -> None:
    a = np.random.default_rng(7).standard_normal((9, 3)) @ np.array([[3.0, 1.0, 0.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.2]])
    out = a @ oracle.whitening(a, 8, 0.0)
    close(np.cov(out.T), np.eye(3), 1e-10)


def test_whitening_follows_rotations() -> None:
    rng = np.random.default_rng(8)
    a = rng.standard_normal((12, 3)) * np.array([1.0, 3.0, 0.5])
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    close(oracle.whitening(a @ turn, 3), turn.T @ oracle.whitening(a, 3) @ turn, 1e-10)


def test_whitened_is_learned_from_the_training_rows() -> None:
    rng = np.random.default_rng(9)
    x = rng.standard_normal((14, 5)) * np.array([3.0, 2.0, 1.5, 0.1, 0.1])
    train = np.arange(10)
    out = oracle.whitened(x, train, 3, 2)
    assert out.shape == (14, 3)
    close(out[:10].mean(axis=0), 0.0)
    moved = x.copy()
    moved[12] += 5.0
    again = oracle.whitened(moved, train, 3, 2)
    close(np.delete(again, 12, axis=0), np.delete(out, 12, axis=0))
    # any turn of the features leaves all distances
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    turned = oracle.whitened(x @ turn + 1.0, train, 3, 2)
    close(turned @ turned.T, out @ out.T, 1e-9)
    # with all components and all pairs the training rows have the identity as covariance
    close(np.cov(oracle.whitened(x, train, 5, 9, 0.0)[:10].T), np.eye(5), 1e-9)


def test_principal_components_are_ordered() -> None:
    x = np.array([[0.0, 1.0], [4.0, 1.0], [2.0, 2.0], [2.0, 0.0]])
    mean, directions = oracle.principal_components(x, 2)
    close(mean, [2, 1])
    close(np.abs(directions), np.eye(2))


def test_gaussian_em_by_hand() -> None:
    a, labels = np.array([[-1.0], [1.0], [3.0]]), ints(0, 1, -1)
    # L is (-a, a), the median of |L| 1
    start = np.column_stack([sigmoid(6 * -a[:, 0]), sigmoid(6 * a[:, 0])])
    close(oracle.gaussian_em(a, labels, 2, steps=0), start)
    # the pool's row moves the means
    q = start[2]
    low, high = (-1 + 0.1 * q[0] * 3) / (1 + 0.1 * q[0]), (1 + 0.1 * q[1] * 3) / (1 + 0.1 * q[1])
    half = (a[:, 0] * (high - low) - (high**2 - low**2) / 2) / 2
    close(oracle.gaussian_em(a, labels, 2, steps=1)[:, 1], sigmoid(2 * half * 3 / np.median(np.abs(half))))


def test_gaussian_em_in_matrix_form() -> None:
    x, labels = blobs(10)
    pool, y = labels < 0, np.where(labels[:, None] == np.arange(3), 1.0, 0.0)
    mu = (y.T @ x) / y.sum(axis=0)[:, None]
    for step in range(4):
        distances = ((x[:, None] - mu) ** 2).sum(axis=2)
        logits = -distances / 2 + (distances / 2).mean(axis=1, keepdims=True)  # the same, once rows are centered
        q = np.exp(3 * logits / np.median(np.abs(logits)))
        q /= q.sum(axis=1, keepdims=True)
        close(oracle.gaussian_em(x, labels, 3, steps=step), q, 1e-9)
        close(oracle.gaussian_em(x + 7.0, labels, 3, steps=step), q, 1e-8)
        mu = (y.T @ x + 0.1 * q[pool].T @ x[pool]) / (y.sum(axis=0) + 0.1 * q[pool].sum(axis=0))[:, None]
    without = oracle.gaussian_em(x, labels, 3, weight=0.0)
    close(without, oracle.gaussian_em(x, labels, 3, steps=0))


def test_gaussian_em_leaves_out_classes_without_labels() -> None:
    x, labels = blobs(11)
    kept = np.where(labels == 1, -1, labels)
    out = oracle.gaussian_em(x, kept, 3)
    close(out[:, 1], 0.0)
    close(out[:, [0, 2]], oracle.gaussian_em(x, np.where(kept == 2, 1, kept), 2))
    close(oracle.gaussian_em(x, np.where(labels == 0, 0, -1), 3), np.tile([1.0, 0.0, 0.0], (len(x), 1)))


# ---------------------------------------------------------------------------------------------------------------------
# Anchored Sinkhorn prototypes


def test_label_shares_by_hand() -> None:
    # 3/4, 1/4 and a quarter of 1/4, over their sum 17/16
    close(oracle.label_shares(ints(0, 0, 0, 1, -1), 3), [12 / 17, 4 / 17, 1 / 17])


def test_sinkhorn_without_rounds_is_nearest_mean() -> None:
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    p = oracle.sinkhorn_prototypes(x, ints(0, 1, -1), 2, 0.05, 0)
    close(p[2, 1], sigmoid((0.8 - 0.6) / 0.05))


def test_sinkhorn_of_one_round_by_hand() -> None:
    # two pool rows, mirror images: Q is balanced as it stands, q = sigmoid(.2 / tau) for the nearer class
    x = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    tau = 0.5
    q = sigmoid(0.2 / tau)
    # n_k / 2 / (n tau) = 1 / (4 tau) and 1 / (2 tau): in units of 1 / (4 tau) the labels count 1, the pool 2
    w = np.array([1 + 2 * (q * 0.8 + (1 - q) * 0.6), 2 * (q * 0.6 + (1 - q) * 0.8)])
    w /= np.linalg.norm(w)
    p = oracle.sinkhorn_prototypes(x, ints(0, 1, -1, -1), 2, tau, 1)
    close(p[0, 0], sigmoid((w[0] - w[1]) / tau))
    close(p[3, 0], sigmoid((x[3] @ w - x[3] @ w[::-1]) / tau))


@pytest.mark.parametrize("shares", [None, (0.2, 0.5, 0.3)])
def test_sinkhorn_in_matrix_form(shares: tuple[float, ...] | None) -> None:
    x, labels = blobs(12)
    labels[labels == 2] = -1  # a class without a label
    labels[np.flatnonzero(labels < 0)[0]] = 0
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y, pool = np.where(labels[:, None] == np.arange(3), 1.0, 0.0), x[labels < 0]
    counts = y.sum(axis=0)
    r = np.array([3, 2, 0.5]) / 5.5 if shares is None else np.array(shares)
    w = (y.T @ x) / np.maximum(counts, 1)[:, None]
    for _ in range(3):
        q = np.exp(pool @ (w / np.maximum(np.linalg.norm(w, axis=1, keepdims=True), 1e-300)).T / 0.05)
        for _ in range(10):
            q = q / q.sum(axis=0) * r
            q = q / q.sum(axis=1, keepdims=True) / len(pool)
        w = (counts / 2 / (counts.sum() * 0.05))[:, None] * (y.T @ x) + q.T @ pool / 0.05
    p = np.exp(x @ (w / np.linalg.norm(w, axis=1, keepdims=True)).T / 0.05)
    given = None if shares is None else np.array(shares)
    out = oracle.sinkhorn_prototypes(x, labels, 3, shares=given)
    close(out, p / p.sum(axis=1, keepdims=True), 1e-9)


def test_sinkhorn_without_pool_is_nearest_mean() -> None:
    x, labels = blobs(13, per_class=2)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    close(oracle.sinkhorn_prototypes(x, labels, 3), oracle.sinkhorn_prototypes(x, labels, 3, rounds=0))


# ---------------------------------------------------------------------------------------------------------------------
# Poisson learning


def test_poisson_on_two_and_three_rows() -> None:
    pair = np.array([[0.0, 2.0], [2.0, 0.0]])
    # 2 (u_0 - u_1) = 1/2 and u_0 = -u_1
    close(oracle.poisson_learning(pair, ints(0, 1), 2), [[0.125, -0.125], [-0.125, 0.125]])
    path = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 3.0], [0.0, 3.0, 0.0]])
    u = oracle.poisson_learning(path, ints(0, -1, 1), 2)
    # u_0 - u_1 = 1/2, 3 (u_1 - u_2) = 1/2, u_0 + 4 u_1 + 3 u_2 = 0: 8 u_1 = 0
    close(u[:, 0], [1 / 2, 0, -1 / 6])
    close(u.sum(axis=1), 0.0)


def test_poisson_solves_the_bordered_system() -> None:
    x, labels = blobs(14, known=3)
    w = oracle.knn_graph(x + 1.0, 12)
    d = w.sum(axis=1)
    assert np.linalg.eigvalsh(np.diag(d) - w)[1] > 0.1  # in one piece
    size = len(w)
    system = np.zeros((size + 1, size + 1))
    system[:size, :size] = np.diag(d) - w
    system[size, :size] = system[:size, size] = d
    rows = labels >= 0
    source = np.zeros((size + 1, 3))
    source[:size][rows] = np.eye(3)[labels[rows]] - np.eye(3)[labels[rows]].mean(axis=0)
    u = oracle.poisson_learning(w, labels, 3)
    close(u, np.linalg.solve(system, source)[:size], 1e-9)
    close(d @ u, 0.0)


def test_class_sizes_by_hand() -> None:
    close(oracle.class_sizes(10, np.array([0.25, 0.5, 0.25])), [3, 5, 2])  # 2.5 and 2.5: the lower class
    close(oracle.class_sizes(10, np.ones(3) / 3), [4, 3, 3])
    close(oracle.class_sizes(100, np.array([0.29, 0.71])), [29, 71])  # 28.999999999999996
    close(oracle.class_sizes(7, np.array([0.0, 0.45, 0.55])), [0, 3, 4])


def best_by_trying(u: Floats, sizes: Ints) -> Ints:
    """Return the best assignment of all."""
    seats = np.repeat(np.arange(len(sizes)), sizes)
    tries = sorted(set(itertools.permutations(seats.tolist())))
    return np.array(max(tries, key=lambda z: sum(u[i, k] for i, k in enumerate(z))))


def best_by_shortest_paths(u: Floats, sizes: Ints) -> Ints:
    """Return the assignment by the recipe that the docstring of `classes_of_sizes` gives to others."""
    classes, z = len(sizes), u.argmax(axis=1)
    while (np.bincount(z, minlength=classes) != sizes).any():
        has = np.bincount(z, minlength=classes)
        cost = np.full((classes, classes), np.inf)
        mover = np.zeros((classes, classes), dtype=np.int64)
        for k, j in itertools.permutations(range(classes), 2):
            rows = np.flatnonzero(z == k)
            if len(rows):
                loss = u[rows, k] - u[rows, j]
                cost[k, j], mover[k, j] = loss.min(), rows[loss.argmin()]
        distance = np.where(has > sizes, 0.0, np.inf)
        before = np.full(classes, -1)
        for _ in range(classes):
            for k, j in itertools.permutations(range(classes), 2):
                if distance[k] + cost[k, j] < distance[j] - 1e-12:
                    distance[j], before[j] = distance[k] + cost[k, j], k
        end = min(np.flatnonzero(has < sizes), key=lambda j: distance[j])
        while before[end] >= 0:
            z[mover[before[end], end]] = end
            end = before[end]
    return z


def test_classes_of_sizes_are_the_best_assignment() -> None:
    rng = np.random.default_rng(15)
    for _ in range(5):
        u = rng.standard_normal((7, 3))
        sizes = ints(*np.bincount(rng.integers(0, 3, 7), minlength=3))
        z = oracle.classes_of_sizes(u, sizes)
        close(np.bincount(z, minlength=3), sizes)
        close(z, best_by_trying(u, sizes))
        close(z, best_by_shortest_paths(u, sizes))


def test_classes_of_sizes_by_shortest_paths_and_by_weights() -> None:
    rng = np.random.default_rng(16)
    for _ in range(5):
        u = rng.standard_normal((40, 5))
        sizes = oracle.class_sizes(40, rng.dirichlet(np.ones(5)))
        close(oracle.classes_of_sizes(u, sizes), best_by_shortest_paths(u, sizes))
        # who wins with some weights is the best assignment of the sizes that come of it
        z = (u + rng.standard_normal(5)).argmax(axis=1)
        close(oracle.classes_of_sizes(u, np.bincount(z, minlength=5)), z)


def test_poisson_in_two_pieces_moves_the_source_to_mean_zero_in_each() -> None:
    # pairs, with a label of class 0 in one and of class 1 in the other: b is (1/2, 0) and (-1/2, 0), moved to
    # (1, -1) / 4 and (-1, 1) / 4
    w = np.kron(np.eye(2), np.array([[0.0, 1.0], [1.0, 0.0]]))
    u = oracle.poisson_learning(w, ints(0, -1, 1, -1), 2)
    close(u[:, 0], [1 / 8, -1 / 8, -1 / 8, 1 / 8])


def test_mbo_by_hand() -> None:
    # a path of four rows, the first and the third labeled: u_0 - u_1 = u_1 - u_2 = 1/2, u_2 = u_3 and
    # u_0 + 2 u_1 + 2 u_2 + u_3 = 0 give class 0 (2/3, 1/6, -1/3, -1/3)
    w = np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1)
    labels, few, many = ints(0, -1, 1, -1), np.array([0.25, 0.75]), np.array([0.75, 0.25])
    close(oracle.poisson_mbo(w, labels, 2, many, rounds=0)[:, 0], [1, 1, 0, 0])
    # a step of 1/2 from there: class 0 is (1.25, .5, .25, 0), and 1 minus these is class 1
    close(oracle.poisson_mbo(w, labels, 2, few, 1, 1)[:, 0], [1, 0, 0, 0])
    close(oracle.poisson_mbo(w, labels, 2, many, 1, 1)[:, 0], [1, 1, 1, 0])  # the label of the third does not hold it
    # a step more: (1.125, .75, 0, .125); or a second round: (1.25, 1, .25, .5)
    close(oracle.poisson_mbo(w, labels, 2, many, 2, 1)[:, 0], [1, 1, 0, 1])
    close(oracle.poisson_mbo(w, labels, 2, many, 1, 2)[:, 0], [1, 1, 0, 1])


def test_mbo_finds_cliques_of_unequal_size() -> None:
    true = np.repeat(np.arange(3), [9, 5, 3])
    w = np.where(true[:, None] == true, 1.0, 0.02)
    np.fill_diagonal(w, 0.0)
    labels = np.full(17, -1)
    labels[[0, 9, 14]] = [0, 1, 2]
    shares = np.array([9, 5, 3]) / 17
    close(oracle.poisson_mbo(w, labels, 3, shares).argmax(axis=1), true)
    x, labels = blobs(17)
    u = oracle.poisson_mbo(oracle.knn_graph(x + 1.0, 6), labels, 3, np.array([0.5, 0.25, 0.25]))
    close(u.sum(axis=0), [12, 6, 6])
    close(u.sum(axis=1), 1.0)


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_mbo_in_matrix_form(steps: int) -> None:
    x, labels = blobs(18, known=3)
    w = oracle.knn_graph(x + 1.0, 8)
    degrees, rows = w.sum(axis=1), labels >= 0
    source = np.zeros((24, 3))
    source[rows] = np.eye(3)[labels[rows]] - 1 / 3
    heat = np.eye(24) - (np.diag(degrees) - w) / max(degrees)
    z = oracle.poisson_learning(w, labels, 3).argmax(axis=1)
    for rounds in range(4):
        out = oracle.poisson_mbo(w, labels, 3, np.array([0.5, 0.3, 0.2]), steps, rounds)
        close(out, np.eye(3)[z])
        u = np.linalg.matrix_power(heat, steps) @ np.eye(3)[z]
        u += sum(np.linalg.matrix_power(heat, t) for t in range(steps)) @ source / max(degrees)
        z = best_by_shortest_paths(u, ints(12, 7, 5))
