"""The training-free classifiers against slow references, and what all of them must hold to."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fewlabels.classify.training_free.graph import conjugate_gradients, graph_of
from fewlabels.classify.training_free.linear import PENALTIES, logistic, ridge
from fewlabels.classify.training_free.mixture import gaussian_em, sinkhorn_prototypes
from fewlabels.classify.training_free.neighbors import CANDIDATES, most_similar, nearest_neighbors
from fewlabels.classify.training_free.poisson import poisson
from fewlabels.classify.training_free.problem import Problem, balanced_accuracy, unit_centered
from fewlabels.classify.training_free.propagation import propagation
from fewlabels.classify.training_free.whitening import whitened
from tests.oracles import feature_oracles as oracle

ALL = (nearest_neighbors, ridge, logistic, propagation, poisson, gaussian_em, sinkhorn_prototypes)
K, D, TRAIN, ASKED = 3, 8, 60, 15


def rows_of(seed=0, spread=1.0):
    """Make rows of three classes, unit norm and centered; the last `ASKED` are not learned from."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, K, TRAIN + ASKED)
    x = (3 * np.eye(D)[truth] + spread * rng.standard_normal((len(truth), D))).astype(np.float32)
    return unit_centered(x, np.arange(TRAIN)), truth


def problem_of(seed=0, per_class=4, spread=1.0):
    x, truth = rows_of(seed, spread)
    labels = np.full(TRAIN, -1)
    for k in range(K):
        labels[np.flatnonzero(truth[:TRAIN] == k)[:per_class]] = k
    return Problem(x[:TRAIN], x[TRAIN:], labels, K), truth


def whole(problem):
    """Give all rows in float64, and their labels, as the references take them."""
    x = np.concatenate([problem.train, problem.asked]).astype(np.float64)
    return x, np.concatenate([problem.labels, np.full(len(problem.asked), -1)])


SEEDS = range(3)


def test_unit_centered():
    x = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    x[3] = 0
    assert np.allclose(
        unit_centered(x, np.arange(12)), oracle.normalized(x.astype(np.float64), np.arange(12)), atol=1e-6
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbors(seed, monkeypatch):
    monkeypatch.setattr("fewlabels.classify.training_free.neighbors.CELLS", 100)  # a few rows at a time
    problem, _ = problem_of(seed)
    x, labels = whole(problem)
    places, similarity = most_similar(problem.asked, problem.train, 4)
    cosines = oracle.cosines(problem.asked.astype(float), problem.train.astype(float))
    assert np.allclose(similarity, -np.sort(-cosines, 1)[:, :4], atol=1e-6)
    assert np.allclose(np.take_along_axis(cosines, places, 1), similarity, atol=1e-6)
    k = oracle.best_k(x, labels, problem.labeled, [k for k in CANDIDATES if k < len(problem.labeled)])
    found = nearest_neighbors(problem)
    for scores, rows in ((found.train, np.arange(TRAIN)), (found.asked, np.arange(TRAIN, len(x)))):
        wanted = oracle.knn_scores(x, labels, problem.labeled, rows, k)
        assert np.array_equal(scores.argmax(1), wanted.argmax(1))
    left_out = oracle.knn_leave_one_out(x, labels, problem.labeled, k)
    assert np.array_equal(found.leave_one_out().argmax(1), left_out)


@pytest.mark.parametrize("seed", SEEDS)
def test_ridge(seed):
    problem, _ = problem_of(seed)
    x, labels = whole(problem)
    penalty = oracle.ridge_best(x, labels, problem.labeled, PENALTIES)
    found = ridge(problem)
    wanted = oracle.ridge(x, labels, problem.labeled, np.arange(len(x)), penalty)
    assert np.allclose(np.concatenate([found.train, found.asked]), wanted, atol=1e-6)
    assert np.allclose(
        found.leave_one_out(), oracle.ridge_leave_one_out(x, labels, problem.labeled, penalty), atol=1e-6
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_logistic_regression_in_the_span_of_the_labeled_rows(seed, monkeypatch):
    monkeypatch.setattr("fewlabels.classify.training_free.linear.STRENGTHS", (10.0,))
    monkeypatch.setattr("fewlabels.classify.training_free.linear.GROUPS", 100)  # each is left out alone
    problem, _ = problem_of(seed, per_class=2)  # fewer rows than dimensions
    x, labels = whole(problem)
    found = logistic(problem)
    wanted = oracle.logistic(x, labels, problem.labeled, np.arange(len(x)), 10.0)
    assert np.allclose(np.concatenate([found.train, found.asked]), wanted, atol=2e-3)
    assert np.allclose(
        found.leave_one_out(), oracle.logistic_leave_one_out(x, labels, problem.labeled, 10.0), atol=2e-3
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_propagation(seed):
    problem, _ = problem_of(seed)
    graph = graph_of(problem.train, 5)
    weights = oracle.knn_graph(problem.train.astype(np.float64), 5)
    assert np.allclose(graph.weights.toarray(), weights, atol=1e-6)
    found = propagation(problem, graph, 0.8)
    wanted = oracle.propagate(weights, problem.labels, 0.8, K)
    assert np.allclose(found.train, oracle.rows_to_sum_one(wanted), atol=1e-4)
    left_out = oracle.rows_to_sum_one(oracle.propagate_leave_one_out(weights, problem.labels, 0.8, K))
    assert np.allclose(found.leave_one_out(), left_out, atol=1e-4)
    asked = oracle.new_rows(problem.asked.astype(np.float64), problem.train.astype(np.float64), wanted, 5)
    assert np.allclose(found.asked, asked, atol=1e-4)


def test_conjugate_gradients_solve_each_column():
    problem, _ = problem_of()
    matrix = csr_matrix(np.eye(TRAIN) - 0.9 * graph_of(problem.train, 5).normalized.toarray())
    right = np.random.default_rng(0).standard_normal((TRAIN, 4))
    right[:, 2] = 0
    found = conjugate_gradients(matrix, right, np.ones(TRAIN))
    assert np.allclose(found, np.linalg.solve(matrix.toarray(), right), atol=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
def test_poisson(seed):
    problem, _ = problem_of(seed, spread=1.5)
    graph = graph_of(problem.train, 6)
    weights = graph.weights.toarray()
    found = poisson(problem, graph)
    close = {"rtol": 2e-3, "atol": 2e-3 * np.abs(found.train).max()}
    np.testing.assert_allclose(found.train, oracle.poisson_learning(weights, problem.labels, K), **close)
    for place, i in enumerate(problem.labeled):
        hidden = problem.labels.copy()
        hidden[i] = -1
        np.testing.assert_allclose(
            found.leave_one_out()[place], oracle.poisson_learning(weights, hidden, K)[i], **close
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_whitening(seed, monkeypatch):
    x, _ = rows_of(seed)
    for p in (4, D):
        monkeypatch.setattr("fewlabels.classify.training_free.whitening.COMPONENTS", p)
        found = whitened(x, np.arange(TRAIN)).astype(np.float64)
        wanted = oracle.whitened(x.astype(np.float64), np.arange(TRAIN), p)
        assert np.allclose(found @ found.T, wanted @ wanted.T, atol=1e-3 * np.abs(wanted @ wanted.T).max())


@pytest.mark.parametrize("seed", SEEDS)
def test_gaussian_mixture(seed):
    problem, _ = problem_of(seed)
    wanted = oracle.gaussian_em(problem.train.astype(np.float64), problem.labels, K)
    assert np.allclose(gaussian_em(problem).train, wanted, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_prototypes(seed):
    problem, _ = problem_of(seed)
    wanted = oracle.sinkhorn_prototypes(problem.train.astype(np.float64), problem.labels, K)
    assert np.allclose(sinkhorn_prototypes(problem).train, wanted, atol=1e-6)


@pytest.mark.parametrize("fit", ALL, ids=lambda fit: fit.__name__)
class TestEach:
    def test_it_is_far_above_chance(self, fit):
        problem, truth = problem_of(1)
        found = fit(problem)
        assert balanced_accuracy(found.train, truth[:TRAIN]) > 0.75
        assert balanced_accuracy(found.asked, truth[TRAIN:]) > 0.65
        assert balanced_accuracy(found.leave_one_out(), problem.given) > 0.75

    def test_rows_that_are_asked_for_change_nothing(self, fit):
        problem, _ = problem_of()
        alone = fit(Problem(problem.train, problem.asked[:0], problem.labels, K))
        found = fit(problem)
        assert np.array_equal(found.train, alone.train) and np.array_equal(found.leave_one_out(), alone.leave_one_out())
        assert alone.asked.shape == (0, K)

    def test_the_score_of_a_row_that_is_left_out_knows_nothing_of_its_label(self, fit):
        problem, _ = problem_of(spread=0.3)
        labels = problem.labels.copy()
        i = problem.labeled[0]
        labels[i] = (labels[i] + 1) % K  # wrong
        found = fit(Problem(problem.train, problem.asked, labels, K))
        assert found.leave_one_out()[0].argmax() == problem.labels[i]

    def test_one_label_of_a_class_stops_nothing(self, fit):
        problem, _ = problem_of(per_class=1)
        found = fit(problem)
        assert all(np.isfinite(scores).all() for scores in (found.train, found.asked, found.leave_one_out()))

    def test_a_pool_smaller_than_the_neighbors_and_rows_all_equal_stop_nothing(self, fit):
        few = np.eye(4, dtype=np.float32)
        found = fit(Problem(few, few, np.array([0, 1, 2, -1]), K))
        assert np.isfinite(found.train).all()
        equal = np.zeros((10, 4), np.float32)
        found = fit(Problem(equal, equal, np.array([0, 0, 1, 1, 2, 2, -1, -1, -1, -1]), K))
        assert all(np.isfinite(scores).all() for scores in (found.train, found.asked, found.leave_one_out()))
