"""The free baselines: far above chance, and blind to what they must not see."""

import numpy as np
import pytest
import torch

from fewlabels.classify.baselines import training_free_baselines
from fewlabels.classify.metrics import accuracy
from fewlabels.inputs.images.components import pixel_features
from fewlabels.inputs.images.store import ResidentImages

WITH_UNLABELED = ["knn", "linear", "label_spreading"]


@pytest.fixture(scope="module")
def digits(digits_rows):
    """Give the rows of digits with 4 labels a class, and their features."""
    train = np.concatenate([digits_rows.labeled, digits_rows.unlabeled])
    return digits_rows, train, pixel_features(digits_rows.images, train)


@pytest.fixture(scope="module")
def found(digits):
    rows, train, features = digits
    return predictions(features, rows.labels, train, rows.test)


def predictions(features, labels, train, asked):
    return {free.name: free.predicted for free in training_free_baselines(features, labels, train, asked)}


def assert_same_predictions(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert np.array_equal(first[name], second[name]), name


def test_all_are_far_above_chance(digits, found):
    rows, _, _ = digits
    assert list(found) == WITH_UNLABELED
    for name, predicted in found.items():
        assert predicted.dtype == np.int64
        assert predicted.shape == rows.test.shape
        assert accuracy(predicted, rows.labels[rows.test]) > 0.65, name  # chance is .1


def test_unlabeled_rows_help_label_spreading_and_only_it(digits, found):
    rows, _, features = digits
    alone = predictions(features, rows.labels, rows.labeled, rows.test)
    assert list(alone) == ["knn", "linear"]
    assert np.array_equal(alone["knn"], found["knn"])
    truth = rows.labels[rows.test]
    assert accuracy(found["label_spreading"], truth) > accuracy(found["knn"], truth)


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
    for name in WITH_UNLABELED:
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
    assert not np.array_equal(predictions(features, rows.labels, train, rows.test)["linear"], found["linear"])


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
    features = np.array([[0.0], [10.0], [1.0], [9.0]], np.float32)
    found = predictions(features, np.array([0, 1, -1, -1]), np.arange(3), np.array([2, 3]))
    assert list(found) == WITH_UNLABELED
    assert found["knn"].tolist() == [0, 1]
    assert found["linear"].tolist() == [0, 1]


def test_labels_need_not_begin_at_0():
    features = np.concatenate([np.arange(12), np.arange(100, 112)])[:, None].astype(np.float32)
    labels = np.full(24, -1)
    labels[[0, 12]] = 3, 7
    found = predictions(features, labels, np.arange(24), np.arange(24))
    assert list(found) == WITH_UNLABELED
    for name, predicted in found.items():
        assert predicted.tolist() == [3] * 12 + [7] * 12, name


def test_knn_asks_five_neighbors_where_each_class_has_them():
    place = np.array([0, 1, 2, 3, 4, 4.4, 5, 6, 7, 8.0])
    labels = np.array([1, 1, 1, 1, 3, 1, 3, 3, 3, 3])  # row 4 lies among the others; class 2 has no row at all
    features = place[:, None].astype(np.float32)
    five = predictions(features, labels, np.arange(10), np.array([4]))["knn"]
    one = predictions(features, labels, np.delete(np.arange(10), 9), np.array([4]))["knn"]
    assert (five.tolist(), one.tolist()) == ([1], [3])
