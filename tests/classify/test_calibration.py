"""Calibration: what is fitted, and how far confidence and accuracy are apart, against slow references."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from fewlabels.classify.calibration import (
    BINS,
    PROMISED_FROM,
    VECTOR_FROM,
    calibrate,
    reliability,
    uncalibrated,
)


def drawn(n, scale, bias=0.0, classes=4, seed=0):
    """Draw logits whose true probabilities are softmax(scale * z + bias), and labels by these."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes)) * 3
    p = softmax(scale * z + bias, axis=1)
    return z, np.array([rng.choice(classes, p=row) for row in p]), p


def nll(calibration, z, y):
    return -np.log(calibration(z)[np.arange(len(y)), y]).mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    z, y, _ = drawn(4000, 1 / temperature)
    found = calibrate(z, y)
    assert found.temperature == pytest.approx(temperature, rel=0.08)
    assert found.promised and found.rows == 4000 and found.classes == 4


def test_the_fit_is_the_minimum_that_a_search_finds():
    z, y, _ = drawn(60, 0.4)
    found = calibrate(z, y)
    grid = np.exp(np.linspace(-3, 3, 6001))
    loss = [-np.log(softmax(s * z, axis=1)[np.arange(60), y]).sum() + np.log(s) ** 2 / 2 for s in grid]
    assert found.kind == "temperature" and len(set(found.scale)) == 1 and not any(found.bias)
    assert found.scale[0] == pytest.approx(grid[int(np.argmin(loss))], rel=2e-3)


def test_the_order_of_classes_stays_with_one_temperature():
    z, y, _ = drawn(200, 0.3)
    assert np.array_equal(calibrate(z[:50], y[:50])(z).argmax(1), z.argmax(1))


def test_classes_have_their_own_scale_where_that_is_better_and_rows_are_enough():
    z, y, p = drawn(3000, np.array([0.3, 1.0, 1.0, 2.0]), np.array([1.0, 0.0, 0.0, -1.0]))
    each, few = calibrate(z, y), calibrate(z[:120], y[:120])
    assert each.kind == "vector" and few.kind == "temperature"
    assert min(np.bincount(y[:120])) < VECTOR_FROM and few.scale[0] != each.scale[0]
    assert np.abs(each(z) - p).mean() < 0.02 < np.abs(calibrate(z[:120], y[:120])(z) - p).mean()
    assert calibrate(*drawn(3000, 0.5)[:2]).kind == "temperature"


def test_vector_scaling_ends_where_another_solver_ends():
    """It is a logistic regression on the logits that keeps each class to its own; the full one gains little."""
    z, y, _ = drawn(3000, np.array([0.3, 1.0, 2.0]), np.array([1.0, 0.0, -1.0]), classes=3)
    ours = nll(calibrate(z, y), z, y)
    full = LogisticRegression(C=1e6, max_iter=2000).fit(z, y).predict_proba(z)[np.arange(3000), y]
    assert ours == pytest.approx(-np.log(full).mean(), abs=0.01)


def test_a_handful_of_rows_all_right_does_not_say_never_wrong():
    z = 4 * np.eye(3)
    found = calibrate(z, np.arange(3))
    assert 0.3 < found.temperature < 1 and found(z).max() < 1 and not found.promised
    assert calibrate(z * 100, np.arange(3)).temperature == pytest.approx(1, abs=0.01)


def test_without_rows_nothing_changes():
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = calibrate(z[:0], np.zeros(0, int))
    assert found == uncalibrated(3) and found.temperature == 1
    np.testing.assert_allclose(found(z), softmax(z, axis=1), rtol=1e-5)
    assert found(z).dtype == np.float32


def test_a_class_without_rows_is_no_trouble():
    z, y, _ = drawn(300, 0.5)
    kept = y != 3
    assert calibrate(z[kept], y[kept]).kind == "temperature"


def slow_ece(p, y):
    total = 0.0
    for b in range(BINS):
        rows = [i for i in range(len(y)) if b / BINS <= max(p[i]) and (max(p[i]) < (b + 1) / BINS or b == BINS - 1)]
        if rows:
            confidence = sum(float(max(p[i])) for i in rows) / len(rows)
            right = sum(int(np.argmax(p[i]) == y[i]) for i in rows) / len(rows)
            total += len(rows) / len(y) * abs(confidence - right)
    return total


@pytest.mark.parametrize("scale", [0.2, 1.0, 4.0])
def test_the_error_is_that_of_the_definition(scale):
    z, y, _ = drawn(500, 1.0)
    p = softmax(scale * z, axis=1)
    found = reliability(p, y)
    assert found.ece == pytest.approx(slow_ece(p, y), abs=1e-9)
    assert found.low <= found.high and sum(found.counts) == 500
    parts = zip(found.confidence, found.accuracy, found.counts, strict=True)
    assert found.ece == pytest.approx(sum(n * abs(c - a) for c, a, n in parts) / 500)


def test_the_interval_holds_the_true_error():
    """A percentile interval holds it in 70 of 100 such draws, since few rows make the error look larger."""
    z, y, _ = drawn(40_000, 0.6, seed=999)
    true = reliability(softmax(z, axis=1), y).ece
    found = []
    for seed in range(40):
        z, y, _ = drawn(100, 0.6, seed=seed)
        found.append(reliability(softmax(z, axis=1), y, seed))
    assert np.mean([each.low <= true <= each.high for each in found]) > 0.85
    assert np.mean([each.high - each.low for each in found]) < 0.2
    assert all(0 <= each.low <= each.ece for each in found)


def test_confidence_of_one_is_in_the_last_bin_and_no_rows_say_nothing():
    found = reliability(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert (found.counts, found.ece) == ((2,), 0.5)
    assert reliability(np.zeros((0, 2)), np.zeros(0, int)) is None


@pytest.mark.parametrize("rows", [1, 10])
def test_equal_rows_have_no_spread(rows):
    found = reliability(np.tile([0.9, 0.1], (rows, 1)), np.zeros(rows, int))
    assert found.ece == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_the_interval_is_the_basic_one_of_draws_one_by_one():
    z, y, _ = drawn(50, 1.0, seed=5)
    p = softmax(2 * z, axis=1)
    found, generator = reliability(p, y, seed=3), np.random.default_rng(3)
    again = [slow_ece(p[rows], y[rows]) for rows in (generator.integers(0, 50, 50) for _ in range(1000))]
    high, low = 2 * found.ece - np.quantile(again, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(max(0, low), abs=1e-9), pytest.approx(high, abs=1e-9))


def test_the_promise_is_kept_at_its_least_number():
    """With so few rows the temperature is within about a sixth of the true one in two of three draws."""
    found = [calibrate(*drawn(PROMISED_FROM, 0.5, seed=seed)[:2]).temperature for seed in range(60)]
    assert np.mean(np.abs(np.log(np.array(found) / 2)) < np.log(7 / 6)) > 0.6
