"""Accuracy and gain against counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from fewlabels.classify.metrics import Gain, accuracy, accuracy_interval, confusions, gain, metrics_of

FEW = settings(deadline=None, max_examples=40)
NONE = np.zeros(0, np.int64)
classes = st.integers(0, 3)
predictions = st.lists(st.tuples(classes, classes, classes), min_size=1, max_size=30).map(
    lambda rows: tuple(np.array(rows).T)
)


@FEW
@given(predictions)
def test_accuracy_counts_right_predictions(rows):
    predicted, _, truth = rows
    right = sum(int(p) == int(t) for p, t in zip(predicted, truth, strict=True))
    assert accuracy(predicted, truth) == pytest.approx(right / len(truth))
    assert isinstance(accuracy(predicted, truth), float)


@FEW
@given(predictions)
def test_metrics_are_those_of_scikit_learn(rows):
    predicted, _, truth = rows
    _, recall, f1, count = precision_recall_fscore_support(truth, predicted, zero_division=0)
    assert metrics_of(predicted, truth) == {
        "accuracy": accuracy(predicted, truth),
        "balanced_accuracy": recall[count > 0].mean(),
        "macro_f1": f1.mean(),
    }


def test_without_rows_there_is_no_accuracy_and_no_gain():
    assert accuracy(NONE, NONE) is metrics_of(NONE, NONE) is None
    assert gain(NONE, NONE, NONE) is None


def better_worse(rows, better, worse):
    """Make predictions of which so many are right where the baseline is wrong, and the other way round."""
    truth = np.zeros(rows, np.int64)
    predicted, baseline = truth.copy(), truth.copy()
    baseline[:better] = 1
    predicted[better : better + worse] = 1
    return gain(predicted, baseline, truth)


def test_a_gain_worked_out_by_hand():
    # Of 10 rows 3 got better and 1 worse: mean .2; 4 rows differ, and their signs are a coin's where nothing changed.
    found = better_worse(10, 3, 1)
    assert found.value == pytest.approx(0.2)
    assert found.error == pytest.approx(4**0.5 / 10)
    assert not found.clear


@FEW
@given(predictions)
def test_a_gain_is_the_difference_of_the_accuracies_and_turns_its_sign(rows):
    predicted, baseline, truth = rows
    there, back = gain(predicted, baseline, truth), gain(baseline, predicted, truth)
    assert there.value == pytest.approx(accuracy(predicted, truth) - accuracy(baseline, truth))
    assert back.value == pytest.approx(-there.value)
    assert back.error == pytest.approx(there.error)
    assert back.clear == there.clear


@FEW
@given(predictions)
def test_predictions_that_are_equally_right_have_no_gain(rows):
    predicted, _, truth = rows
    assert gain(predicted, predicted, truth) == Gain(0.0, 0.0)
    assert not gain(predicted, predicted, truth).clear


def test_a_gain_is_clear_above_two_standard_errors_in_either_direction():
    assert better_worse(100, 20, 4).clear
    assert better_worse(100, 4, 20).clear
    assert not better_worse(100, 14, 10).clear
    assert not Gain(0.2, 0.1).clear
    assert Gain(-0.21, 0.1).clear


def test_the_error_shrinks_with_the_root_of_the_rows():
    assert better_worse(400, 40, 20).error == pytest.approx(better_worse(100, 10, 5).error / 2)


@pytest.mark.parametrize(("rows", "better"), [(1, 1), (100, 4)])
def test_a_handful_of_rows_is_never_clear(rows, better):
    assert not better_worse(rows, better, 0).clear


def test_confusions_counted_by_hand():
    truth = np.array([0, 0, 0, 1, 2, 2])
    predicted = np.array([0, 1, 1, 1, 0, 2])
    found = confusions(predicted, truth, 3).tolist()
    assert found == [[0, 0, 1], [0, 1, 2], [1, 1, 1], [2, 0, 1], [2, 2, 1]]
    assert confusions(NONE, NONE, 3).shape == (0, 3)


@FEW
@given(predictions)
def test_the_sums_of_confusions_are_the_counts_and_their_diagonal_the_right_ones(rows):
    predicted, _, truth = rows
    true, taken, times = confusions(predicted, truth, 4).T
    assert np.bincount(true, times, 4).tolist() == np.bincount(truth, minlength=4).tolist()
    assert np.bincount(taken, times, 4).tolist() == np.bincount(predicted, minlength=4).tolist()
    assert times[true == taken].sum() == pytest.approx(accuracy(predicted, truth) * len(truth))


def test_the_interval_of_an_accuracy_is_wilsons():
    """Worked out by hand: (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), z = 1.96."""
    assert accuracy_interval(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert accuracy_interval(1.0, 10)[1] == 1 and accuracy_interval(0.0, 10)[0] == 0
