"""Checks of curriculum_oracles.py: numbers worked out by hand, and a network that squares probabilities.

`network(K)` gives as logits the logs of the probabilities that `views` was asked for. `network(K, 2)` gives twice these
logits, so its probabilities are the normalized squares: as `moving` it shows where it is used, and where `still` is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .basics import Floats, softmax
from .curriculum_oracles import DebiasPL, FlexMatch, Mapping, Margin, SequenceMatch, SoftMatch, divergence, sharpen
from .layer_rule import SoftWeight
from .network import Batch, Model

SCALE = 10.0
METHODS: list[Callable[[], Any]] = [
    lambda: FlexMatch(3, 6, 6, lambda_=2),
    lambda: SequenceMatch(3, 6, 6, lambda_=2),
    lambda: SoftMatch(3, 0.999, lambda_=2),
    lambda: DebiasPL(3, 0.999, lambda_=2),
    lambda: DebiasPL(3, 0.999, lambda_=2, margin="after"),
]
MEMORIES = ["selected", "mean", "variance", "p_average", "q"]


def close(actual: Any, expected: Any, tolerance: float = 1e-11) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def network(classes: int, factor: float = 1.0) -> Model:
    return Model(np.eye(classes), factor * SCALE * np.eye(classes), np.zeros(classes))


def views(*rows: tuple[float, ...]) -> Floats:
    """Return images [n, 1, 1, K] to which `network` gives these probabilities."""
    return np.arctanh(np.log(np.array(rows)) / SCALE)[:, None, None, :]


def one_batch(t: int, rows: list[int], *unlabeled: Floats) -> Batch:
    """Return a batch with one labeled row of class 0, to which `network` gives probability 1/2 (K = 2) or 1/4 (3)."""
    labeled = (0.25, 0.5, 0.25) if unlabeled[0].shape[-1] == 3 else (0.5, 0.5)
    return Batch((views(labeled),), np.array([0]), unlabeled, t, 10, np.array(rows, dtype=np.int64))


def test_network_gives_what_it_is_asked_for() -> None:
    close(softmax(network(3).logits(views((0.7, 0.1, 0.2)))), [[0.7, 0.1, 0.2]])
    close(softmax(network(3, 2).logits(views((0.7, 0.1, 0.2)))), [[49 / 54, 1 / 54, 4 / 54]])


def test_sharpen_and_divergence_by_hand() -> None:
    close(sharpen(np.array([[0.8, 0.2], [0.6, 0.4]]), 0.5), [[16 / 17, 1 / 17], [9 / 13, 4 / 13]])
    z = np.log(np.array([[0.25, 0.75], [0.25, 0.75], [0.25, 0.75]]))
    q = np.array([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]])
    close(divergence(q, z), [math.log(4), 0, (math.log(2) + math.log(2 / 3)) / 2])


# FlexMatch


def flexmatch_after_one_step(**options: Any) -> tuple[FlexMatch, dict[str, Any]]:
    """Rows 0 and 2 are remembered with class 0, row 4 with class 1, rows 1 and 3 with none."""
    method = FlexMatch(3, table_rows=5, **options)
    weak = views(
        (0.96, 0.02, 0.02),  # row 0
        (0.01, 0.01, 0.98),  # row 2, later overwritten
        (0.97, 0.01, 0.02),  # row 2, its last sure slot
        (0.2, 0.2, 0.6),  # row 2, not sure
        (0.01, 0.98, 0.01),  # row 4
        (0.02, 0.94, 0.04),  # row 1, not sure
    )
    strong = views(*[(0.5, 0.25, 0.25)] * 6)
    return method, method.step(one_batch(0, [0, 2, 2, 2, 4, 1], weak, strong), network(3), network(3))


@pytest.mark.parametrize("warm_up", [True, False])
def test_flexmatch_first_step(warm_up: bool) -> None:
    """Nothing is remembered: all thresholds are 0, all rows are kept."""
    method, out = flexmatch_after_one_step(unlabeled_count=5, warm_up=warm_up, lambda_=3)
    close(out["thresholds"], [0, 0, 0])
    close(out["row_weight"], np.ones(6))
    assert out["target"].tolist() == [0, 2, 0, 2, 1, 1] and out["kept"] == 1
    close(out["labeled_loss"], math.log(4))
    close(out["unlabeled_loss"], (2 * math.log(2) + 4 * math.log(4)) / 6)
    close(out["loss"], math.log(4) + 5 * math.log(2))
    assert method.selected.tolist() == [0, -1, 0, -1, 1]


@pytest.mark.parametrize(
    ("count", "warm_up", "mapping", "expected"),
    [
        (5, True, "convex", [0.95, 0.95 / 3, 0]),  # s = 2, 1, 0, none 2: b = 1, 1/2, 0
        (5, True, "linear", [0.95, 0.475, 0]),
        (5, True, "concave", [0.95, 0.95 * (math.log2(3) - 1), 0]),
        (8, True, "convex", [0.2375, 0.95 / 9, 0]),  # none 5: b = 2/5, 1/5, 0
        (8, True, "linear", [0.38, 0.19, 0]),
        (8, False, "convex", [0.95, 0.95 / 3, 0]),
        (8, False, "linear", [0.95, 0.475, 0]),
    ],
)
def test_flexmatch_thresholds(count: int, warm_up: bool, mapping: Mapping, expected: list[float]) -> None:
    method, _ = flexmatch_after_one_step(unlabeled_count=count, warm_up=warm_up, mapping=mapping)
    close(method.thresholds(), expected)


def test_flexmatch_second_step() -> None:
    """Thresholds .95, .95/3, 0 hold for the step, though it fills the table; what is not sure keeps its class."""
    method, _ = flexmatch_after_one_step(unlabeled_count=5)
    weak = views((0.9, 0.05, 0.05), (0.3, 0.4, 0.3), (0.33, 0.33, 0.34), (0.96, 0.02, 0.02), (0.02, 0.02, 0.96))
    strong = views(*[(0.5, 0.25, 0.25)] * 5)
    out = method.step(one_batch(1, [1, 2, 4, 3, 0], weak, strong), network(3), network(3))
    close(out["thresholds"], [0.95, 0.95 / 3, 0])
    assert out["row_weight"].tolist() == [0, 1, 1, 1, 1] and out["target"].tolist() == [0, 1, 2, 0, 2]
    close(out["kept"], 0.8)
    close(out["unlabeled_loss"], (3 * math.log(4) + math.log(2)) / 5)
    assert method.selected.tolist() == [2, -1, 0, 0, 1]
    close(method.thresholds(), [0.95, 0.95 / 3, 0.95 / 3])


# SequenceMatch


def test_sequencematch_by_hand() -> None:
    """Sharpened by 1/2, (.8, .2) is (16, 1)/17 and (.6, .4) is (9, 4)/13. The second row is not kept."""
    method = SequenceMatch(2, 3, 3, lambda_=2)
    method.selected[:] = [0, 0, 1]  # b = 1, 1/2: thresholds .95, .95 / 3
    weak, medium, strong = views((0.2, 0.8), (0.9, 0.1)), views((0.4, 0.6), (0.5, 0.5)), views((0.7, 0.3), (0.5, 0.5))
    out = method.step(one_batch(3, [0, 1], weak, medium, strong), network(2), network(2))
    close(out["thresholds"], [0.95, 0.95 / 3])
    assert out["row_weight"].tolist() == [1, 0] and out["target"].tolist() == [1, 0]
    medium_to_weak = 1 / 17 * math.log(1 / 17 / 0.4) + 16 / 17 * math.log(16 / 17 / 0.6)
    strong_to_medium = 4 / 13 * math.log(4 / 13 / 0.7) + 9 / 13 * math.log(9 / 13 / 0.3)
    strong_to_weak = 1 / 17 * math.log(1 / 17 / 0.7) + 16 / 17 * math.log(16 / 17 / 0.3)
    expected = (-math.log(0.3) + medium_to_weak + strong_to_medium + strong_to_weak) / 2
    close(out["unlabeled_loss"], expected)
    close(out["loss"], math.log(2) + 2 * expected)
    assert method.selected.tolist() == [0, 0, 1]


def test_sequencematch_pulls_to_the_sharpened_still_one() -> None:
    """Where the moving network squares and all views are one, each divergence is 0: FlexMatch is left."""
    view = views((0.7, 0.1, 0.2), (0.2, 0.3, 0.5))
    out = SequenceMatch(3, 4, 4).step(one_batch(0, [0, 1], view, view, view), network(3), network(3, 2))
    plain = FlexMatch(3, 4, 4).step(one_batch(0, [0, 1], view, view), network(3), network(3, 2))
    close(out["unlabeled_loss"], plain["unlabeled_loss"])
    close(out["unlabeled_loss"], -(math.log(49 / 54) + math.log(25 / 38)) / 2)


# SoftMatch


def test_softmatch_by_hand() -> None:
    """The second row's target is 0, though its aligned probabilities have their top at 1."""
    method = SoftMatch(2, 0.999, lambda_=3)
    weak, strong = views((0.8, 0.2), (0.52, 0.48)), views((0.5, 0.5), (0.25, 0.75))
    out = method.step(one_batch(0, [0, 1], weak, strong), network(2), network(2))
    close(method.p_average, [0.644, 0.356])  # .1 / 2 + .9 * (.66, .34)
    high, low = 0.2848 / 0.4136, 0.30912 / 0.49424  # .8 * .356 of that + .2 * .644; .48 * .644 of .52 * .356 + that
    close(method.mean, 0.05 + 0.45 * (high + low))
    close(method.variance, 0.1 + 0.45 * (high - low) ** 2)  # variance of two with divisor 1: (high - low)^2 / 2
    below = 0.05 + 0.45 * (high + low) - low
    assert below > 0 and method.mean < high
    weight = math.exp(-2 * below**2 / method.variance)
    close(out["row_weight"], [1, weight])
    assert weight < 1 and out["target"].tolist() == [0, 0]
    close(out["kept"], (1 + weight) / 2)
    close(out["unlabeled_loss"], (math.log(2) + weight * math.log(4)) / 2)
    close(out["loss"], math.log(2) + 1.5 * (math.log(2) + weight * math.log(4)))


def test_softmatch_single_row_leaves_mean_and_variance() -> None:
    method = SoftMatch(2, 0.999)
    one = views((0.8, 0.2))
    out = method.step(one_batch(1, [0], one, one), network(2), network(2))
    assert method.mean == 0.5 and method.variance == 1.0
    close(method.p_average, [8.2 / 11, 2.8 / 11])  # 2/11 * .5 + 9/11 * (.8, .2)
    close(out["row_weight"], [1])  # weight 1: .8 / 8.2 against .2 / 2.8 is above a half


def test_softmatch_without_alignment_is_soft_weight() -> None:
    method, other = SoftMatch(4, 0.9, sigmas=1.5, align=False), SoftWeight(4, 0.9, 1.5)
    rng = np.random.default_rng(3)
    for t in range(4):
        p = softmax(2 * rng.standard_normal((6, 4)))
        close(method.row_weight(p, t), other.row_weight(p, t))
        close([method.mean, method.variance], [other.mean, other.variance])


# DebiasPL


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_debiaspl_by_hand(strength: float) -> None:
    """q = .1 / 2 + .9 * (.795, .205); p = normalize(p_weak / q^strength), the loss normalize(p_strong q^strength)."""
    method = DebiasPL(2, 0.999, lambda_=2, strength=strength, threshold=0.68)
    weak, strong = views((0.99, 0.01), (0.6, 0.4)), views((0.5, 0.5), (0.2, 0.8))
    out = method.step(one_batch(0, [0, 1], weak, strong), network(2), network(2))
    close(out["q"], [0.7655, 0.2345])
    close(method.q, out["q"])
    a, b = 0.7655**strength, 0.2345**strength
    # top p of row 1: .3062 / (.3062 + .1407) = .685 at strength 1; at 1/2, .547, below the threshold
    assert out["target"].tolist() == [0, 1] and out["row_weight"].tolist() == [1, float(strength == 1)]
    first, second = -math.log(a / (a + b)), -math.log(0.8 * b / (0.2 * a + 0.8 * b))
    close(out["unlabeled_loss"], (first + out["row_weight"][1] * second) / 2)
    close(out["loss"], math.log(2) + first + out["row_weight"][1] * second)


def test_debiaspl_second_step() -> None:
    """At step 1 the old q weighs 2/11; with strength 0 it is FixMatch."""
    method = DebiasPL(2, 0.999, strength=0)
    method.q = np.array([0.7, 0.3])
    weak = views((0.96, 0.04), (0.94, 0.06))
    out = method.step(one_batch(1, [0, 1], weak, weak), network(2), network(2))
    close(out["q"], [(1.4 + 9 * 0.95) / 11, (0.6 + 9 * 0.05) / 11])
    assert out["row_weight"].tolist() == [1, 0]
    close(out["unlabeled_loss"], -math.log(0.96) / 2)


def test_debiaspl_targets_before_and_margin_after() -> None:
    """Weak (3/5, 2/5) and (24/25, 1/25); q was (.7, .3) and is (.7655, .2345) = (1.4 + 9 * .78, .6 + 9 * .22) / 11."""
    weak, strong = views((0.6, 0.4), (0.96, 0.04)), views((0.2, 0.8), (0.5, 0.5))
    q = [8.42 / 11, 2.58 / 11]
    # by the old q p is (18, 28) / 46 and (288, 28) / 316 = .911; by the new one its tops are .685 and .880
    for threshold, after, same in ((0.9, [0, 1], [0, 0]), (0.65, [0, 1], [1, 1]), (0.6, [1, 1], [1, 1])):
        margins: dict[Margin, list[int]] = {"after": after, "same": same}
        for margin, row_weight in margins.items():
            method = DebiasPL(2, 0.999, strength=1.0, threshold=threshold, margin=margin)
            method.q = np.array([0.7, 0.3])
            out = method.step(one_batch(1, [0, 1], weak, strong), network(2), network(2))
            close(out["q"], q)
            assert out["target"].tolist() == [1, 0]
            assert out["row_weight"].tolist() == row_weight, (threshold, margin)
            losses = [-math.log(0.8 * q[1] / (0.2 * q[0] + 0.8 * q[1])), -math.log(q[0])]
            close(out["unlabeled_loss"], np.dot(row_weight, losses) / 2)


def test_debiaspl_after_starts_with_bare_targets() -> None:
    """Before the first batch q is uniform, so p is the weak prediction; the margin has .1 / 2 + .9 * (.795, .205)."""
    method = DebiasPL(2, 0.999, strength=1.0, threshold=0.59, margin="after")
    weak, strong = views((0.99, 0.01), (0.6, 0.4)), views((0.5, 0.5), (0.5, 0.5))
    out = method.step(one_batch(0, [0, 1], weak, strong), network(2), network(2))
    assert out["target"].tolist() == [0, 0] and out["row_weight"].tolist() == [1, 1]
    close(out["unlabeled_loss"], -math.log(0.7655))
    with pytest.raises(ValueError, match="before"):
        DebiasPL(2, 0.9, margin="before")  # type: ignore[arg-type]


# all


def some_views(make: Callable[[], Any]) -> list[Floats]:
    weak = views((0.97, 0.01, 0.02), (0.3, 0.4, 0.3), (0.01, 0.98, 0.01), (0.6, 0.2, 0.2))
    strong = views((0.5, 0.25, 0.25), (0.3, 0.3, 0.4), (0.3, 0.6, 0.1), (0.1, 0.1, 0.8))
    return [weak, (weak + strong) / 2, strong] if isinstance(make(), SequenceMatch) else [weak, strong]


@pytest.mark.parametrize("make", METHODS)
def test_no_unlabeled_rows(make: Callable[[], Any]) -> None:
    method = make()
    seen = some_views(make)
    method.step(one_batch(0, [0, 1, 2, 3], *seen), network(3), network(3))
    before = {name: np.copy(getattr(method, name)) for name in MEMORIES if hasattr(method, name)}
    assert before
    out = method.step(one_batch(1, [], *[view[:0] for view in seen]), network(3), network(3))
    assert out["unlabeled_loss"] == 0 and out["kept"] == 0 and len(out["row_weight"]) == len(out["target"]) == 0
    close(out["loss"], math.log(4))
    for name, value in before.items():
        assert (getattr(method, name) == value).all()


@pytest.mark.parametrize("make", METHODS)
def test_moving_network_touches_the_losses_alone(make: Callable[[], Any]) -> None:
    one, other = make(), make()
    for t in range(2):
        this = one_batch(t, [0, 1, 2, 3], *some_views(make))
        a, b = one.step(this, network(3), network(3)), other.step(this, network(3), network(3, 2))
        close(b["labeled_loss"], math.log(6))  # 1/4, 1/2, 1/4 squared
        for name in ("row_weight", "target", "kept"):
            assert np.all(a[name] == b[name])
        assert a["unlabeled_loss"] != b["unlabeled_loss"]
        close(b["loss"], b["labeled_loss"] + 2 * b["unlabeled_loss"])
    for name in MEMORIES:
        assert np.all(getattr(one, name, 0) == getattr(other, name, 0))
