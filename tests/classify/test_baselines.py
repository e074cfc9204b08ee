"""The training-free baselines: far above chance, and blind to what they must not see."""

import numpy as np
import pytest
import torch

from fewlabels.classify.baselines import training_free_baselines
from fewlabels.classify.metrics import accuracy
from fewlabels.classify.training_free.recipes import BASELINES
from fewlabels.errors import UserError
from fewlabels.inputs.images.components import pixel_features
from fewlabels.inputs.images.store import ResidentImages

ALL = [*BASELINES]
OF_LABELS = [name for name, recipe in BASELINES.items() if not recipe.takes_unlabeled]


@pytest.fixture(scope="module")
def digits(digits_rows):
    """Give the rows of digits with 4 labels per class, and their features."""
    train = np.concatenate([digits_rows.labeled, digits_rows.unlabeled])
    return digits_rows, train, pixel_features(digits_rows.images, train)


@pytest.fixture(scope="module")
def found(digits):
    rows, train, features = digits
    return predictions(features, rows.labels, train, rows.test)


def predictions(features, labels, train, asked):
    return {each.name: each.predicted for each in training_free_baselines(features, labels, train, asked)}


def assert_same_predictions(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def test_all_are_far_above_chance(digits, found):
    rows, _, _ = digits
    assert list(found) == ALL
    for name, predicted in found.items():
        assert predicted.dtype == np.int64
        assert predicted.shape == rows.test.shape
        assert accuracy(predicted, rows.labels[rows.test]) > 0.65, name  # chance is .1


def test_unlabeled_rows_help_those_that_take_them(digits, found):
    rows, _, features = digits
    alone = predictions(features, rows.labels, rows.labeled, rows.test)
    assert list(alone) == OF_LABELS
    truth = rows.labels[rows.test]
    best = max(accuracy(predicted, truth) for predicted in alone.values())
    for name in set(ALL) - set(OF_LABELS):
        assert accuracy(found[name], truth) >= best, name
    assert accuracy(found["label_propagation"], truth) > best + 0.03


def test_labels_of_test_rows_change_no_prediction(digits, found):
    rows, train, features = digits
    labels = rows.labels.copy()
    labels[rows.test] = (labels[rows.test] + 1) % 10
    assert_same_predictions(predictions(features, labels, train, rows.test), found)


def test_labels_of_training_rows_do_change_predictions(digits, found):
    rows, train, features = digits
    labels = rows.labels.copy()
    labels[rows.labeled] = (labels[rows.labeled] + 1) % 10
    turned = predictions(features, labels, train, rows.test)
    for name in ALL:
        assert (turned[name] == (found[name] + 1) % 10).mean() > 0.95, name


def test_predictions_come_in_the_order_asked_for(digits, found):
    rows, train, features = digits
    reversed_ = predictions(features, rows.labels, train, rows.test[::-1])
    assert_same_predictions({name: p[::-1] for name, p in reversed_.items()}, found)


def test_rows_that_are_not_asked_for_change_nothing(digits, found):
    rows, train, features = digits
    few = predictions(features, rows.labels, train, rows.test[:5])
    assert_same_predictions(few, {name: p[:5] for name, p in found.items()})


def test_features_of_rows_that_are_neither_learned_from_nor_asked_for_change_nothing(digits, found):
    rows, train, features = digits
    features = features.copy()
    features[rows.test[5:]] += 100
    few = predictions(features, rows.labels, train, rows.test[:5])
    assert_same_predictions(few, {name: p[:5] for name, p in found.items()})


def test_features_are_fitted_on_the_training_rows_alone(digits):
    rows, train, features = digits
    images = rows.images.images.clone()
    images[torch.from_numpy(rows.test)] = 255 - images[torch.from_numpy(rows.test)]
    other = pixel_features(ResidentImages(images), train)
    assert np.allclose(other[train], features[train], atol=1e-5)
    assert not np.allclose(other[rows.test], features[rows.test], atol=0.1)


@pytest.mark.parametrize(("train", "side", "parts"), [(100, 8, 64), (20, 8, 20), (100, 4, 16), (80, 30, 64)])
def test_features_are_as_many_as_rows_and_pixels_allow(train, side, parts):
    pixels = np.random.default_rng(0).integers(0, 256, (110, 1, side, side), np.uint8)
    images = ResidentImages(torch.from_numpy(pixels))
    features = pixel_features(images, np.arange(train))
    assert features.shape == (110, parts)
    assert features.dtype == np.float32
    assert np.array_equal(features, pixel_features(images, np.arange(train)))


def test_two_labels_and_one_unlabeled_row_are_enough():
    features = np.array([[1.0, 0.1], [-1.0, 0.2], [0.9, 0.0], [-0.9, 0.1]], np.float32)
    found = predictions(features, np.array([0, 1, -1, -1]), np.arange(3), np.array([2, 3]))
    assert list(found) == ALL
    for name, predicted in found.items():
        assert predicted.tolist() == [0, 1], name


def test_labels_need_not_begin_at_0():
    angle = np.concatenate([np.linspace(0, 0.5, 12), np.linspace(2, 2.5, 12)])
    features = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    labels = np.full(24, -1)
    labels[[0, 12]] = 3, 7
    found = predictions(features, labels, np.arange(24), np.arange(24))
    assert list(found) == ALL
    for name, predicted in found.items():
        assert predicted.tolist() == [3] * 12 + [7] * 12, name


def test_hidden_rows_are_predicted_as_members_of_the_graph(digits, found):
    rows, train, features = digits
    asked = np.concatenate([rows.test, rows.unlabeled])
    both = predictions(features, rows.labels, train, asked)
    assert_same_predictions({name: p[: len(rows.test)] for name, p in both.items()}, found)
    truth = rows.truth[rows.unlabeled]
    assert accuracy(both["label_propagation_whitened"][len(rows.test) :], truth) > 0.9


def test_more_labels_than_a_graph_takes(digits, monkeypatch):
    monkeypatch.setattr("fewlabels.classify.baselines.MOST_TRAIN", 60)
    rows, _, features = digits
    labels = np.where(rows.labels < 0, rows.truth, rows.labels)
    train = np.concatenate([rows.labeled, rows.unlabeled])
    labels[train[:5]] = -1
    labels[train[labels[train] == 9][1:]] = -1  # a single label among all these is not lost
    for name, predicted in predictions(features, labels, train, rows.test).items():
        assert accuracy(predicted, rows.labels[rows.test]) > 0.6, name
        assert len(np.unique(predicted)) > 5, name


def test_vectors_are_told_apart_by_their_lengths_too():
    """Two circles, one in the other, which have the same directions."""
    rng = np.random.default_rng(0)
    angle, truth = rng.uniform(0, 2 * np.pi, 400), np.arange(400) % 2
    x = (np.where(truth, 1.0, 0.5) * np.stack([np.cos(angle), np.sin(angle)])).T + 0.03 * rng.standard_normal((400, 2))
    labels = np.where(np.arange(400) < 20, truth, -1)
    found = training_free_baselines(
        x.astype(np.float32), labels, np.arange(300), np.arange(300, 400), lengths_count=True
    )
    assert max(accuracy(each.predicted, truth[300:]) for each in found) > 0.9


def test_features_that_are_not_finite_are_refused(digits):
    rows, train, features = digits
    features = features.copy()
    features[7, 3] = np.nan
    with pytest.raises(UserError, match="features of row 7 are not finite"):
        predictions(features, rows.labels, train, rows.test)


def test_a_larger_pool_is_thinned_and_all_rows_are_predicted(digits, monkeypatch):
    monkeypatch.setattr("fewlabels.classify.baselines.MOST_TRAIN", 300)
    rows, train, features = digits
    found = predictions(features, rows.labels, train, rows.unlabeled)
    for name, predicted in found.items():
        assert accuracy(predicted, rows.truth[rows.unlabeled]) > 0.7, name
