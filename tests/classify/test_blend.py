"""The blend of training-free classifiers: against slow references, and blind to what is left out."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.datasets import load_digits
from sklearn.linear_model import Ridge

from fewlabels.classify.training_free.blend import (
    CONFIDENCE,
    MEMBERS,
    ON_FEATURES,
    PENALTY,
    PULL,
    Pool,
    _fitted,
    _logits,
    blend,
    divided_by_classes,
    head_of,
    tempered,
)
from fewlabels.classify.training_free.problem import Problem
from fewlabels.classify.training_free.space import unit_centered
from fewlabels.classify.training_free.whitening import SHRINK, whitened

K = 10


def pool_of(per_class, rows=400, seed=0, noise=0.0):
    """Digits, some of them labeled; with the true classes."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:rows].astype(np.float32), y[:rows]
    rng, labels = np.random.default_rng(seed), np.full(rows, -1)
    x += noise * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    for k in range(K):
        labels[rng.permutation(np.flatnonzero(y == k))[:per_class]] = k
    plain = unit_centered(x, np.arange(rows))
    white = unit_centered(whitened(plain, np.arange(rows)), np.arange(rows))
    return Pool(Problem(plain, plain[:0], labels, K), Problem(white, white[:0], labels, K)), y


def parts_of(pool, count):
    given = pool.plain.given
    place = np.zeros(len(given), int)
    for k in range(K):
        place[given == k] = np.arange((given == k).sum())
    return [np.flatnonzero(place % count == part) for part in range(count)]


@pytest.fixture(scope="module")
def four():
    pool, truth = pool_of(4)
    return pool, truth, blend([pool], ON_FEATURES, parts_of(pool, 4))


def test_it_is_far_above_the_linear_probe_and_its_head_follows_it(four):
    pool, truth, found = four
    hidden = pool.plain.labels < 0
    linear = MEMBERS["linear"].fit(pool.plain).train
    right = {
        name: (scores.argmax(1) == truth)[hidden].mean()
        for name, scores in {"linear": linear, "blend": found.scores, "head": found.head(pool.plain.train)}.items()
    }
    assert right["blend"] > right["linear"] + 0.03 and right["head"] > right["linear"]
    left_out = (found.left_out.argmax(1) == pool.plain.given).mean()
    assert abs(left_out - right["head"]) < 0.2


def test_weights_are_fitted_where_labels_can_tell_and_are_the_prior_where_not(four):
    assert four[2].weights[0] != {name: ON_FEATURES.get(name, 0.0) for name in MEMBERS}
    assert all(weight >= 0 for weight in four[2].weights[0].values())
    pool, _ = pool_of(2)
    found = blend([pool], ON_FEATURES, parts_of(pool, 2))
    assert found.weights[0] == {name: ON_FEATURES.get(name, 0.0) for name in MEMBERS}
    assert found.left_out is not None
    alone, _ = pool_of(1)
    assert blend([alone], ON_FEATURES, []).left_out is None


def test_a_label_that_is_left_out_changes_nothing_of_what_is_said_of_its_row():
    """Where the weights are the prior; else they know it a little, by what it did to others that were left out."""
    pool, _ = pool_of(2)
    parts = parts_of(pool, 2)
    found, rows = blend([pool], ON_FEATURES, parts), pool.plain.labeled[parts[0]]
    labels = pool.plain.labels.copy()
    labels[rows] = (labels[rows] + 1) % K  # each class keeps its number of labels
    turned = Pool(*(Problem(p.train, p.asked, labels, K) for p in (pool.plain, pool.whitened)))
    again = blend([turned], ON_FEATURES, parts)
    np.testing.assert_allclose(again.left_out[parts[0]], found.left_out[parts[0]], atol=1e-9)
    assert not np.allclose(again.left_out[parts[1]], found.left_out[parts[1]])


def test_the_head_is_ridge_regression_of_the_targets_with_true_labels_where_there_are_some(four):
    pool, _, found = four
    targets = softmax(found.scores / 2, axis=1)
    head = head_of(pool.plain, targets)
    expected = targets.copy()
    expected[pool.plain.labeled] = np.eye(K)[pool.plain.given]
    ridge = Ridge(PENALTY).fit(pool.plain.train.astype(np.float64), expected)
    said, raw = head(pool.plain.train), ridge.predict(pool.plain.train)
    scale = (said * raw).sum() / (raw * raw).sum()
    np.testing.assert_allclose(said, scale * raw, atol=1e-4)
    assert softmax(said, axis=1).max(1).mean() == pytest.approx(expected.max(1).mean(), abs=1e-6)


@pytest.mark.parametrize("are_logits", [True, False])
def test_all_members_are_brought_to_the_same_confidence(are_logits):
    scores = np.random.default_rng(0).normal(size=(50, 4))
    scores = scores if are_logits else softmax(3 * scores, axis=1)
    found = tempered(scores, 40, are_logits=are_logits)
    assert softmax(found[:40], axis=1).max(1).mean() == pytest.approx(CONFIDENCE, abs=1e-6)
    assert np.array_equal(found.argmax(1), scores.argmax(1))
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-9)


def test_scores_that_are_all_alike_stay_so():
    assert np.array_equal(tempered(np.full((5, 3), 1 / 3), 5, are_logits=False), np.zeros((5, 3)))


def test_rows_are_divided_by_the_spread_within_classes():
    rng = np.random.default_rng(0)
    x = unit_centered(rng.normal(size=(60, 4)).astype(np.float32), np.arange(60))
    classes = rng.integers(0, 3, 60)
    scatter = np.zeros((4, 4))
    for k in range(3):
        for row in x[classes == k].astype(np.float64):
            apart = row - x[classes == k].astype(np.float64).mean(0)
            scatter += np.outer(apart, apart) / 60
    scatter += SHRINK * np.trace(scatter) / 4 * np.eye(4)
    values, vectors = np.linalg.eigh(scatter)
    expected = x @ (vectors / np.sqrt(values) @ vectors.T)
    found = divided_by_classes(Problem(x, x[:5], np.full(60, -1), 3), classes)
    np.testing.assert_allclose(found.train, unit_centered(expected.astype(np.float32), np.arange(60)), atol=1e-5)
    np.testing.assert_allclose(found.asked, found.train[:5], atol=1e-6)


@pytest.fixture(scope="module")
def spaces():
    """The same digits as they are, and beside them noise in which little can be told."""
    pools = [pool_of(4, rows=250)[0], pool_of(4, rows=250, noise=12.0)[0]]
    return pools[::-1], blend(pools[::-1], ON_FEATURES, parts_of(pools[0], 4))


def test_the_weights_of_spaces_are_those_of_least_loss(spaces):
    """Against a search of all pairs of weights, in steps of .02."""
    pools, found = spaces
    parts, given = parts_of(pools[0], 4), pools[0].plain.given
    logits = np.zeros((2, len(given), K))
    for place, pool in enumerate(pools):
        for part in parts:
            alone = blend([pool.without(part)], fitted_without(pool, part, parts), [])
            logits[place, part] = alone.scores[pool.plain.labeled[part]]
    grid = np.arange(0, 1.5, 0.02)

    def loss(a, b):
        logged = log_softmax(a * logits[0] + b * logits[1], axis=1)[np.arange(len(given)), given]
        return -logged.sum() + PULL * ((a - 0.5) ** 2 + (b - 0.5) ** 2)  # each class has as many labels

    best = min((loss(a, b), a, b) for a in grid for b in grid)[1:]
    np.testing.assert_allclose(found.space_weights, best, atol=0.021)


def fitted_without(pool, part, parts):
    """Return the weights of members that were fitted without a part: with 3 labels left they are fitted too."""
    others = np.setdiff1d(np.arange(len(pool.plain.given)), part)
    logits = np.zeros((len(MEMBERS), len(pool.plain.given), K))
    for of in parts:
        for place, scores in enumerate(_logits(pool.without(of))):
            logits[place, of] = scores[pool.plain.labeled[of]]
    weights = _fitted(logits[:, others], pool.plain.given[others], np.array([ON_FEATURES.get(m, 0.0) for m in MEMBERS]))
    return dict(zip(MEMBERS, weights.tolist(), strict=True))


def test_the_head_of_several_spaces_follows_the_blend_and_so_does_what_is_left_out(spaces):
    pools, found = spaces
    truth, hidden = pool_of(4, rows=250)[1], pools[0].plain.labels < 0
    right = {
        name: (scores.argmax(1) == truth)[hidden].mean()
        for name, scores in {"blend": found.scores, "head": found.head(pools[1].plain.train)}.items()
    }
    assert right["blend"] > 0.85 and abs(right["head"] - right["blend"]) < 0.05
    assert abs((found.left_out.argmax(1) == pools[0].plain.given).mean() - right["head"]) < 0.15


def test_what_is_left_out_is_by_a_head_like_that_which_is_handed_over(spaces):
    """A head learned in a space of noise is poor, and what is left out says so."""
    pools, _ = spaces
    found = blend(pools[::-1], ON_FEATURES, parts_of(pools[0], 4))
    hidden, truth = pools[0].plain.labels < 0, pool_of(4, rows=250)[1]
    head = (found.head(pools[0].plain.train).argmax(1) == truth)[hidden].mean()
    assert head < (found.scores.argmax(1) == truth)[hidden].mean() - 0.1
    assert (found.left_out.argmax(1) == pools[0].plain.given).mean() < head + 0.1


@pytest.mark.parametrize("labels", [1, 2])
def test_with_few_labels_spaces_have_equal_weights(labels):
    pools = [pool_of(labels)[0], pool_of(labels, noise=12.0)[0]]
    assert blend(pools, ON_FEATURES, parts_of(pools[0], labels) if labels > 1 else []).space_weights == (0.5, 0.5)
