"""Checks of the oracles in fixmatch_oracles.py: numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from .basics import Floats
from .fixmatch_oracles import (
    DeFixMatch,
    FullMatch,
    ReFixMatch,
    ShrinkMatch,
    auxiliary_logits,
    batch_norm,
    divergence,
    shrunk_to,
    smallest_k,
)
from .network import Batch, Model

SCALE = 10.0
log = math.log


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def network(classes: int, **own: Floats) -> Model:
    """Return a network that reads the probabilities off the images that `views` makes."""
    one = np.eye(classes)
    return Model(V=one, W=SCALE * one, b=np.zeros(classes), own=own)


def views(*rows: tuple[float, ...]) -> Floats:
    """Return images [n, 1, 1, K] to which `network` gives these probabilities."""
    return np.arctanh(np.log(np.array(rows)) / SCALE)[:, None, None, :]


def nothing(classes: int) -> Floats:
    return np.zeros((0, 1, 1, classes))


def constant_head(classes: int, logits: list[float]) -> dict[str, Floats]:
    """Return an auxiliary head that says the same of every row: its last bias."""
    return {
        "auxiliary.0.weight": np.ones((2, classes)),
        "auxiliary.0.bias": np.zeros(2),
        "auxiliary.1.weight": np.ones(2),
        "auxiliary.1.bias": np.zeros(2),
        "auxiliary.3.weight": np.ones((2, 2)),
        "auxiliary.3.bias": np.zeros(2),
        "auxiliary.4.weight": np.zeros(2),
        "auxiliary.4.bias": np.array([3.0, -20.0]),  # 3 and -2 behind the leaky ReLU
        "auxiliary.6.weight": np.tile([2.0, 3.0], (classes, 1)),  # 2 * 3 - 3 * 2 = 0
        "auxiliary.6.bias": np.array(logits),
    }


def test_defixmatch_counts_the_labeled_rows_loss_against_their_own_guess():
    model = network(2)
    labeled = (views((0.02, 0.98), (0.6, 0.4)), views((0.75, 0.25), (0.9, 0.1)))
    unlabeled = (views((0.96, 0.04), (0.7, 0.3)), views((0.5, 0.5), (0.1, 0.9)))
    out = DeFixMatch(lambda_=0.4).step(Batch(labeled, np.array([0, 0]), unlabeled, 0, 10), model, model)
    labeled_loss = -(log(0.02) + log(0.6) + log(0.75) + log(0.9)) / 4  # of both views
    close(out["labeled_loss"], labeled_loss)
    close(out["unlabeled_loss"], log(2) / 2)
    close(out["counter_loss"], log(4) / 2)  # the guess 1, not the label 0
    close(out["loss"], labeled_loss + 0.4 * (log(2) / 2 - log(4) / 2))
    close(out["row_weight"], [1, 0])
    close(out["target"], [0, 0])
    assert out["kept"] == 0.5


def test_defixmatch_moves_the_strong_views_only():
    still = network(2)
    moving = replace(still, b=np.array([0.0, log(3)]))  # odds of class 1 three times as high
    labeled = (views((0.02, 0.98)), views((0.75, 0.25)))
    unlabeled = (views((0.96, 0.04)), views((0.5, 0.5)))
    out = DeFixMatch().step(Batch(labeled, np.array([0]), unlabeled, 0, 10), still, moving)
    close(out["labeled_loss"], (log(1 + 3 * 49) + log(2)) / 2)
    close(out["unlabeled_loss"], log(4))
    close(out["counter_loss"], log(2))


def test_refixmatch_pulls_the_rows_left_out_to_their_sharpened_guess():
    model = network(2)
    unlabeled = (views((0.6, 0.4), (0.97, 0.03)), views((0.5, 0.5), (0.2, 0.8)))
    out = ReFixMatch(lambda_=2.0).step(Batch((views((0.5, 0.5)),), np.array([1]), unlabeled, 0, 10), model, model)
    rest = (9 / 13 * log(18 / 13) + 4 / 13 * log(8 / 13)) / 2  # .36 : .16 against a half each
    close(out["rest_loss"], rest)
    close(out["unlabeled_loss"], -log(0.2) / 2 + rest)
    close(out["loss"], log(2) + 2 * (-log(0.2) / 2 + rest))
    close(out["row_weight"], [0, 1])


def test_refixmatch_temperature_and_zeros():
    model = network(2)
    batch = Batch((views((0.5, 0.5)),), np.array([1]), (views((0.6, 0.4)), views((0.6, 0.4))), 0, 10)
    close(ReFixMatch(temperature=1.0).step(batch, model, model)["rest_loss"], 0)
    close(divergence(np.array([[1.0, 0.0]]), np.zeros((1, 2))), [log(2)])


@pytest.mark.parametrize(
    ("row", "k"),
    [
        ((0.78, 0.19, 0.02, 0.01), 2),  # .78 / .81
        ((0.02, 0.19, 0.78, 0.01), 2),
        ((0.5, 0.3, 0.19, 0.01), 3),  # .5 / .7, then .5 / .51
        ((0.4, 0.3, 0.2, 0.1), 0),  # .4 / .5 at best
        ((0.94, 0.06), 0),  # no k in 2..1
    ],
)
def test_shrunk_to(row: tuple[float, ...], k: int):
    assert shrunk_to(np.array(row), 0.95) == k


def test_shrinkmatch_by_hand():
    model = network(4, **constant_head(4, [2.0, -0.3, 0.0, 1.0]))
    weak = views(
        (0.78, 0.19, 0.02, 0.01),
        (0.3, 0.5, 0.01, 0.19),
        (0.4, 0.3, 0.2, 0.1),
        (0.01, 0.97, 0.01, 0.01),
    )
    quarter = (0.25, 0.25, 0.25, 0.25)
    batch = Batch(
        (views(quarter),), np.array([3]), (weak, views(quarter, quarter, quarter, (0.2, 0.5, 0.2, 0.1))), 0, 9
    )
    oracle = ShrinkMatch(4, momentum=0.9, window=3, lambda_=2.0, shrink=0.5, align=False)
    out = oracle.step(batch, model, model)
    unlabeled_loss = -(0.02 * log(0.2) + 0.97 * log(0.5) + 0.01 * log(0.1)) / 4
    close(oracle.confident, 0.9 * 0.25)  # the first update's momentum is .1
    first = 0.78 * log(1 + math.exp(-2) + math.exp(-1))  # 0 among 0, 2, 3
    second = 0.5 * log(1 + math.exp(0.3))  # 1 among 1 and 2
    shrink_loss = (first + second) / 4 * 0.225
    assert out["dropped"].tolist() == [2, 3, 0, 0]
    close(out["unlabeled_loss"], unlabeled_loss)
    close(out["shrink_loss"], shrink_loss)
    close(out["loss"], log(4) + 2 * unlabeled_loss + 0.5 * shrink_loss)
    close(out["target"][1], [0.3, 0.5, 0.01, 0.19])
    assert out["kept"] == 0.25

    oracle.step(replace(batch, t=1), model, model)
    close(oracle.confident, 2 / 11 * 0.225 + 9 / 11 * 0.25)


def test_shrinkmatch_trains_the_auxiliary_head_that_moves():
    still = network(3, **constant_head(3, [0.0, 0.0, 0.0]))
    moving = network(3, **constant_head(3, [0.0, 0.0, log(3)]))
    weak = views((0.8, 0.19, 0.01), (0.98, 0.01, 0.01))
    batch = Batch((weak,), np.array([0, 0]), (weak, weak), 0, 9)
    out = ShrinkMatch(3, momentum=0.0, window=1, align=False).step(batch, still, moving)
    close(out["shrink_loss"], 0.8 * log(4) / 2 * 0.5)


def test_shrinkmatch_aligns_to_the_recent_mean():
    model = network(2, **constant_head(2, [0.0, 0.0]))
    oracle = ShrinkMatch(2, momentum=0.9, window=2)

    def target(*rows: tuple[float, ...]) -> Floats:
        batch = Batch((views((0.5, 0.5)),), np.array([0]), (views(*rows), views(*rows)), 0, 9)
        return oracle.step(batch, model, model)["target"]

    close(target((0.8, 0.2), (0.4, 0.6))[0], [8 / 11, 3 / 11])  # over .6, .4
    close(target((0.5, 0.5))[0], [0.45, 0.55])  # over .55, .45: each step counts once
    close(target((0.2, 0.8))[0], [13 / 41, 28 / 41])  # over .35, .65: the first step is forgotten


def test_auxiliary_head():
    x = np.array([[1.0, 5.0], [3.0, 5.0]])
    root = 1 / math.sqrt(1 + 1e-5)
    close(batch_norm(x, np.array([2.0, 1.0]), np.array([0.5, -1.0])), [[0.5 - 2 * root, -1], [0.5 + 2 * root, -1]])
    own = {
        "auxiliary.0.weight": np.array([[2.0, 0.0]]),
        "auxiliary.0.bias": np.array([7.0]),
        "auxiliary.1.weight": np.array([1.0]),
        "auxiliary.1.bias": np.array([0.0]),
        "auxiliary.3.weight": np.array([[10.0]]),
        "auxiliary.3.bias": np.array([1.0]),
        "auxiliary.4.weight": np.array([4.0]),
        "auxiliary.4.bias": np.array([1.0]),
        "auxiliary.6.weight": np.array([[1.0], [-1.0]]),
        "auxiliary.6.bias": np.array([0.0, 0.5]),
    }
    # 9, 13 -> -a, a -> -.1 a, a -> 1 - a, 1 + 10 a, half their distance 5.5 a -> 1 - 4 r, 1 + 4 r, the first below 0
    a = 2 / math.sqrt(4 + 1e-5)
    r = 5.5 * a / math.sqrt((5.5 * a) ** 2 + 1e-5)
    low, high = 0.1 - 0.4 * r, 1 + 4 * r
    close(auxiliary_logits(network(2, **own), x), [[low, 0.5 - low], [high, 0.5 - high]])


WEAK = ((0.96, 0.02, 0.015, 0.005), (0.3, 0.5, 0.15, 0.05))  # 0, kept; 1, not kept


def full(
    strong: tuple[tuple[float, ...], ...], t: int = 3, moving: Model | None = None, **options: Any
) -> dict[str, Any]:
    model = network(4)
    quarter = (0.25, 0.25, 0.25, 0.25)
    batch = Batch((views(quarter),), np.array([3]), (views(*WEAK), views(*strong)), t, 9)
    method = FullMatch(4, start=3, lambda_=2.0, negative=0.5, entropy=0.25, **options)
    return method.step(batch, model, moving or model)


def test_fullmatch_with_two_classes_left():
    out = full(((0.5, 0.3, 0.1, 0.1), (0.2, 0.3, 0.4, 0.1)))
    negative = -(2 * log(0.9) + log(0.6) + log(0.9)) / 2
    meaning = -(0.3 * log(0.3) + 0.7 * log(0.7))  # .3 is left for class 1
    assert out["k"] == 2
    close(out["unlabeled_loss"], log(2) / 2)
    close(out["negative_loss"], negative, 1e-9)
    close(out["entropy_loss"], meaning, 1e-6)
    close(out["loss"], log(4) + log(2) + 0.5 * out["negative_loss"] + 0.25 * out["entropy_loss"])


def test_fullmatch_with_three_classes_left():
    out = full(((0.5, 0.3, 0.1, 0.1), (0.45, 0.1, 0.4, 0.05)))
    assert out["k"] == 3
    close(out["negative_loss"], -(log(0.9) + log(0.95)) / 2, 1e-9)
    each = [0.2 * log(s) + 0.8 * log(1 - s) for s in (0.3, 0.1)]  # (1 - .5 - .1) / 2 for each of 1 and 2
    close(out["entropy_loss"], -sum(each) / 2, 1e-6)


def test_fullmatch_leaves_out_what_the_strong_view_is_sure_of():
    other = (0.1, 0.7, 0.1, 0.1)
    out = full(((0.05, 0.01, 0.92, 0.02), other))
    assert out["k"] == 2
    close(out["negative_loss"], -(log(0.98) + 2 * log(0.9)) / 2, 1e-9)
    close(out["entropy_loss"], -(0.01 * log(0.01) + 0.99 * log(0.99)), 1e-5)  # the wished value counts class 2
    assert full(((0.05, 0.92, 0.02, 0.01), other))["entropy_loss"] == 0


def test_fullmatch_wishes_stand_still():
    strong = ((0.5, 0.3, 0.1, 0.1), (0.2, 0.3, 0.4, 0.1))
    even = Model(np.eye(4), np.zeros((4, 4)), np.zeros(4))
    out = full(strong, moving=even)
    assert out["k"] == 2
    close(out["negative_loss"], -2 * log(0.75), 1e-9)
    close(out["entropy_loss"], -(0.3 * log(0.25) + 0.7 * log(0.75)), 1e-6)


def test_fullmatch_wishes_may_move():
    # the moving network squares: (25, 9, 1, 1) / 36 in the kept row, k = 3, of which (36 - 25 - 1) / 72 is left
    strong = ((0.5, 0.3, 0.1, 0.1), (0.45, 0.1, 0.4, 0.05))
    squares = replace(network(4), W=2 * SCALE * np.eye(4))
    for learns, t in ((True, 5 / 36), (False, 0.2)):
        out = full(strong, moving=squares, wish_learns=learns)
        each = [t * log(s) + (1 - t) * log(1 - s) for s in (1 / 4, 1 / 36)]
        assert out["k"] == 3
        close(out["entropy_loss"], -sum(each) / 2, 1e-6)
        close(out["negative_loss"], full(strong, moving=squares)["negative_loss"])
    still = [full(strong, wish_learns=learns)["entropy_loss"] for learns in (True, False)]
    close(*still)  # the value is the same where nothing moves


def test_fullmatch_gradient_of_the_wish():
    # With k = 2 the wish is s itself, .3: a constant wish is reached and has no slope, one that learns leaves the
    # entropy of (.3, .7), whose slope is log(.7 / .3) ds, ds = .3 * .7 for the logit's own bias.
    strong = ((0.5, 0.3, 0.1, 0.1), (0.2, 0.3, 0.4, 0.1))
    h = 1e-5
    ends = [replace(network(4), b=np.array([0.0, side, 0.0, 0.0])) for side in (h, -h)]
    for learns, slope in ((True, log(7 / 3) * 0.21), (False, 0.0)):
        up, down = (full(strong, moving=moving, wish_learns=learns)["entropy_loss"] for moving in ends)
        close((up - down) / (2 * h), slope, 1e-6)


def test_fullmatch_waits_for_its_start():
    out = full(((0.5, 0.3, 0.1, 0.1), (0.2, 0.3, 0.4, 0.1)), t=2)
    assert (out["negative_loss"], out["entropy_loss"], out["k"]) == (0, 0, 0)
    close(out["loss"], log(4) + log(2))


def test_smallest_k_of_equals():
    even = np.full((1, 4), 0.25)
    assert [smallest_k(even, np.array([y])) for y in range(4)] == [2, 2, 3, 4]


def test_no_unlabeled_rows():
    model = network(3, **constant_head(3, [0.0, 0.0, 0.0]))
    sure = views((0.98, 0.01, 0.01))
    batch = Batch((sure, sure), np.array([1]), (nothing(3), nothing(3)), 5, 9)
    shrink = ShrinkMatch(3, momentum=0.9, window=2)
    shrink.confident = 0.3
    for oracle in (DeFixMatch(), ReFixMatch(), shrink, FullMatch(3, start=0), FullMatch(3, start=0, wish_learns=True)):
        out = oracle.step(batch, model, model)
        close(out["loss"], -log(0.01))
        assert out["unlabeled_loss"] == 0
        assert out["kept"] == 0
        assert len(out["row_weight"]) == len(out["target"]) == 0
    assert (shrink.confident, shrink.means) == (0.3, [])
