"""What to label next: the greedy choice by brute force, and what it should and should not prefer."""

import numpy as np
import pytest

from fewlabels.classify import choose_next as next_labels
from fewlabels.classify.choose_next import uncertainty

CLASSES = 3


def some(n, seed=0, features=5):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(CLASSES), n).astype(np.float32)
    return rng.standard_normal((n, features)).astype(np.float32), p


def choose_next(features, p, labeled, n):
    """Choose among all that have no label."""
    return next_labels.choose_next(features, p, labeled, np.setdiff1d(np.arange(len(p)), labeled), n)


def by_brute_force(features, probabilities, labeled, n):
    """Compute each gain anew from the formula, in float64."""
    x = features.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    top = np.sort(probabilities.astype(np.float64), axis=1)
    u = 1 - (top[:, -1] - top[:, -2])
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    nearest = [min(distance[i, j] for j in labeled if j != i) for i in labeled] if len(labeled) > 1 else [1.0]
    width = np.median(nearest)
    k = np.exp(-((distance / width) ** 2))
    free = [row for row in range(len(x)) if row not in set(labeled)]
    chosen = []
    for _ in range(n):
        known = [*labeled, *chosen]
        covered = k[np.ix_(free, known)].max(1) if known else np.zeros(len(free))
        gain = {row: u[free] @ np.maximum(k[free, row], covered) for row in free if row not in chosen}
        chosen.append(max(gain, key=gain.get))
    return chosen


@pytest.mark.parametrize("labeled", [[], [3], [0, 7, 20, 21]], ids=len)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_the_greedy_choice(labeled, seed):
    features, p = some(60, seed)
    found = choose_next(features, p, np.array(labeled, int), 8)
    assert found.tolist() == by_brute_force(features, p, labeled, 8)


def blobs(*sizes):
    rng = np.random.default_rng(0)
    centers = np.eye(len(sizes))[np.repeat(np.arange(len(sizes)), sizes)]
    return (centers + 0.05 * rng.standard_normal(centers.shape)).astype(np.float32)


def test_a_group_that_no_label_speaks_for_comes_first_and_the_larger_before_the_smaller():
    features = blobs(30, 20, 40)
    p = np.full((90, CLASSES), 1 / CLASSES, np.float32)
    first, second = choose_next(features, p, np.array([0]), 2)
    assert 50 <= first < 90 and 30 <= second < 50


def test_where_all_is_alike_doubtful_images_come_before_sure_ones():
    features = blobs(30, 30)
    p = np.full((60, 2), [0.99, 0.01], np.float32)
    p[30:] = [0.5, 0.5]
    assert all(row >= 30 for row in choose_next(features, p, np.array([0, 31]), 5))


def test_copies_are_not_chosen_one_after_the_other():
    features = np.repeat(np.eye(4, dtype=np.float32), [10, 8, 6, 4], axis=0)
    p = np.full((28, CLASSES), 1 / CLASSES, np.float32)
    found = choose_next(features, p, np.array([], int), 4)
    assert sorted(np.digitize(found, [10, 18, 24])) == [0, 1, 2, 3]


def test_labeled_rows_are_never_chosen_and_all_others_may_be():
    features, p = some(12)
    labeled = np.array([2, 5])
    found = choose_next(features, p, labeled, 100)
    assert sorted([*found, *labeled]) == list(range(12))
    assert not len(choose_next(features, p, np.arange(12), 3))


def test_rows_that_are_not_free_count_for_nothing():
    """Those of the test split: they are not chosen, and do not say what is typical."""
    features = blobs(30, 20, 40)
    p = np.full((90, CLASSES), 1 / CLASSES, np.float32)
    found = next_labels.choose_next(features, p, np.array([0]), np.arange(1, 50), 2)
    assert 30 <= found[0] < 50 and found[1] < 50
    p[50:] = np.nan
    assert np.array_equal(found, next_labels.choose_next(features, p, np.array([0]), np.arange(1, 50), 2))


def test_of_many_rows_a_part_stands_for_all(monkeypatch):
    features, p = blobs(3000, 3000, 100), np.full((6100, CLASSES), 1 / CLASSES, np.float32)
    for name, most in (("CANDIDATES", 500), ("SPOKEN_FOR", 300)):
        monkeypatch.setattr(f"fewlabels.classify.choose_next.{name}", most)
    found = choose_next(features, p, np.array([0]), 2)
    assert 3000 <= found[0] < 6000 <= found[1]


def test_uncertainty_is_largest_where_two_classes_are_equal():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.4, 0.3, 0.3]], np.float32)
    assert np.allclose(uncertainty(p), [1.0, 0.0, 0.9])


def test_one_near_copy_among_the_labeled_rows_changes_little():
    """Twenty groups, of which each of twenty choices should be another; the smallest distance would see no group."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 16))
    of = np.repeat(np.arange(20), 20)
    x = (centers[of] + 0.1 * rng.normal(size=(400, 16))).astype(np.float32)
    p = np.full((400, 3), 1 / 3, np.float32)
    copied = np.concatenate([x, x[:1] + 0.01]).astype(np.float32)
    known = np.array([0, 20, 40])
    plain = of[choose_next(x, p, known, 17)]
    more = choose_next(copied, np.concatenate([p, p[:1]]), np.append(known, 400), 17)
    assert len({*plain}) == 17 and len({*of[more]}) >= 16
