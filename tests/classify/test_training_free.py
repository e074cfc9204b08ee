"""The training-free classifiers against slow references, and what all of them must hold to."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from fewlabels.classify.training_free import linear
from fewlabels.classify.training_free.graph import conjugate_gradients, graph_of
from fewlabels.classify.training_free.knn import CANDIDATES, nearest_neighbors
from fewlabels.classify.training_free.linear import PENALTIES, logistic, ridge
from fewlabels.classify.training_free.mixture import gaussian_em, sinkhorn_prototypes
from fewlabels.classify.training_free.neighbors import most_similar
from fewlabels.classify.training_free.poisson import poisson
from fewlabels.classify.training_free.problem import Problem, balanced_accuracy
from fewlabels.classify.training_free.propagation import propagation
from fewlabels.classify.training_free.space import lifted, unit_centered
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


def test_lifted_rows_are_the_more_alike_the_nearer_they_are():
    x = np.array([[0.0], [1.0], [3.0], [-2.0]], np.float32)
    cosines = lifted(x, np.arange(4)) @ lifted(x, np.arange(4)).T
    assert cosines[0].argsort()[::-1].tolist() == [0, 1, 3, 2]
    assert np.allclose(np.linalg.norm(lifted(x, np.arange(4)), axis=1), 1)


def test_two_classes_have_the_strength_of_several():
    problem, _ = problem_of()
    two = problem.labels != 2
    problem = Problem(problem.train[two], problem.asked, problem.labels[two], 2)
    x, labels = whole(problem)
    found = logistic(problem)
    wanted = [oracle.logistic(x, labels, problem.labeled, np.arange(len(x)), c, 2) for c in (1.0, 10.0, 100.0)]
    both = np.concatenate([found.train, found.asked])
    assert any(np.allclose(both, each, atol=2e-3) for each in wanted)


def test_a_class_with_one_label_leaves_the_choice_to_the_others():
    problem, _ = problem_of(3, per_class=12, spread=2.5)
    labels = problem.labels.copy()
    labels[np.flatnonzero(labels == 2)[1:]] = -1
    votes = nearest_neighbors(Problem(problem.train, problem.asked, labels, K)).train
    assert len({*votes.round(6).max(1)}) > 3  # of several neighbors, not of one


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


@pytest.mark.parametrize("seed", SEEDS)
def test_ridge(seed):
    problem, _ = problem_of(seed)
    x, labels = whole(problem)
    penalty = oracle.ridge_best(x, labels, problem.labeled, PENALTIES)
    found = ridge(problem)
    wanted = oracle.ridge(x, labels, problem.labeled, np.arange(len(x)), penalty)
    assert np.allclose(np.concatenate([found.train, found.asked]), wanted, atol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_logistic_regression_in_the_span_of_the_labeled_rows(seed, monkeypatch):
    monkeypatch.setattr("fewlabels.classify.training_free.linear.STRENGTHS", (10.0,))
    monkeypatch.setattr("fewlabels.classify.training_free.linear.GROUPS", 100)  # each is left out alone
    problem, _ = problem_of(seed, per_class=2)  # fewer rows than dimensions
    x, labels = whole(problem)
    found = logistic(problem)
    wanted = oracle.logistic(x, labels, problem.labeled, np.arange(len(x)), 10.0)
    assert np.allclose(np.concatenate([found.train, found.asked]), wanted, atol=2e-3)
    left_out = oracle.logistic_leave_one_out(x, labels, problem.labeled, 10.0)
    rows = problem.train[problem.labeled].astype(np.float64)
    assert np.allclose(linear._left_out(rows, problem.given, 10.0, K), left_out, atol=2e-3)


def without_each(fit, problem):
    """Return the scores [n, K] of the labeled rows, each by a classifier that was fitted without its label."""
    return np.stack([fit(problem.without(np.array([i]))).train[row] for i, row in enumerate(problem.labeled)])


@pytest.fixture
def few_neighbors(monkeypatch):
    monkeypatch.setattr(graph_of, "__defaults__", (5,))


@pytest.mark.parametrize("seed", SEEDS)
def test_propagation(seed, few_neighbors):
    problem, _ = problem_of(seed)
    weights = oracle.knn_graph(problem.train.astype(np.float64), 5)
    assert np.allclose(problem.graph.weights.toarray(), weights, atol=1e-6)
    found = propagation(problem, 0.8)
    wanted = oracle.propagate(weights, problem.labels, 0.8, K)
    assert problem.graph.reached(problem.labeled).all()
    assert np.allclose(found.train, oracle.rows_to_sum_one(wanted), atol=1e-6)
    left_out = oracle.rows_to_sum_one(oracle.propagate_leave_one_out(weights, problem.labels, 0.8, K))
    assert np.allclose(without_each(lambda rest: propagation(rest, 0.8), problem), left_out, atol=1e-6)
    asked = oracle.new_rows(problem.asked.astype(np.float64), problem.train.astype(np.float64), wanted, 5)
    assert np.allclose(found.asked, asked, atol=1e-6)


@pytest.mark.parametrize("fit", [propagation, poisson], ids=lambda fit: fit.__name__)
def test_rows_that_no_label_reaches_have_the_class_of_the_most_similar_labeled_row(fit):
    """As bursts of near copies, each more alike among themselves than to any other."""
    rng = np.random.default_rng(0)
    centers, of_class = rng.standard_normal((60, 20)) * 0.3, np.arange(60) % K
    centers += 3 * np.eye(20)[of_class]
    x = np.repeat(centers, 12, axis=0) + 1e-3 * rng.standard_normal((720, 20))
    x, truth = unit_centered(x.astype(np.float32), np.arange(720)), np.repeat(of_class, 12)
    labels = np.full(720, -1)
    labels[: 12 * K : 12] = truth[: 12 * K : 12]
    found = fit(Problem(x, x[:0], labels, K))
    assert balanced_accuracy(found.train, truth) > 0.95


def test_labels_travel_far_along_a_thin_graph():
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    x = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    labels = np.full(2000, -1)
    labels[[500, 1500]] = 0, 1
    truth = (angle >= np.pi).astype(int)
    for fit in (propagation, poisson):
        assert balanced_accuracy(fit(Problem(x, x[:0], labels, 2)).train, truth) > 0.97, fit.__name__


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
    weights = problem.graph.weights.toarray()
    found = poisson(problem)
    wanted = oracle.poisson_learning(weights, problem.labels, K)
    close = {"rtol": 2e-3, "atol": 2e-3 * np.abs(wanted).max()}
    np.testing.assert_allclose(found.train, wanted, **close)
    np.testing.assert_allclose(found.asked, carried_of(problem, wanted), **close)
    left_out = without_each(poisson, problem)
    for place, i in enumerate(problem.labeled):
        hidden = problem.labels.copy()
        hidden[i] = -1
        np.testing.assert_allclose(left_out[place], oracle.poisson_learning(weights, hidden, K)[i], **close)


def carried_of(problem, scores):
    """Return the mean scores of the nearest training rows of the rows that are asked for, weighted by cosine^3."""
    cosines = oracle.cosines(problem.asked.astype(np.float64), problem.train.astype(np.float64))
    out = np.zeros((len(cosines), K))
    for i, row in enumerate(cosines):
        near = oracle.nearest(row, 10)
        weights = np.maximum(row[near], 0) ** 3
        out[i] = weights @ scores[near] / weights.sum()
    return out


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
    found = gaussian_em(problem)
    assert np.allclose(found.train, wanted, atol=1e-6)
    left_out = without_each(gaussian_em, problem)
    for place, i in enumerate(problem.labeled):
        hidden = problem.labels.copy()
        hidden[i] = -1
        alone = oracle.gaussian_em(problem.train.astype(np.float64), hidden, K)[i]
        assert np.allclose(left_out[place], alone, atol=1e-6)


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
        assert balanced_accuracy(without_each(fit, problem), problem.given) > 0.75

    def test_rows_that_are_asked_for_change_nothing(self, fit):
        problem, _ = problem_of()
        alone = fit(Problem(problem.train, problem.asked[:0], problem.labels, K))
        found = fit(problem)
        assert np.array_equal(found.train, alone.train)
        assert alone.asked.shape == (0, K)

    def test_the_score_of_a_row_that_is_left_out_knows_nothing_of_its_label(self, fit):
        problem, _ = problem_of(spread=0.3)
        labels = problem.labels.copy()
        i = problem.labeled[0]
        labels[i] = (labels[i] + 1) % K  # wrong
        found = fit(Problem(problem.train, problem.asked, labels, K).without(np.array([0])))
        assert found.train[i].argmax() == problem.labels[i]

    def test_one_label_of_a_class_stops_nothing(self, fit):
        problem, _ = problem_of(per_class=1)
        found = fit(problem)
        assert all(np.isfinite(scores).all() for scores in (found.train, found.asked))

    def test_a_pool_smaller_than_the_neighbors_and_rows_all_equal_stop_nothing(self, fit):
        few = np.eye(4, dtype=np.float32)
        found = fit(Problem(few, few, np.array([0, 1, 2, -1]), K))
        assert np.isfinite(found.train).all()
        equal = np.zeros((10, 4), np.float32)
        found = fit(Problem(equal, equal, np.array([0, 0, 1, 1, 2, 2, -1, -1, -1, -1]), K))
        assert all(np.isfinite(scores).all() for scores in (found.train, found.asked))
