"""Checks of the mixing oracles: numbers worked out by hand, and other routes to the same number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from .basics import Floats, Ints
from .mixing_oracles import AdaMatch, MixMatch, RegMixMatch, ReMixMatch
from .network import Batch, Model

LN2, LN3 = math.log(2), math.log(3)


class Open(Model):
    """A network that shows its input: features are the pixels, so logits = W pixels + b."""

    def features(self, images: Floats) -> Floats:
        return images.reshape(len(images), int(np.prod(images.shape[1:])))


def opened(classes: int, **own: Floats) -> Open:
    """A network whose logits are the K pixels of an image [1, 1, K]."""
    return Open(np.zeros((1, 1)), np.eye(classes), np.zeros(classes), own)


def pictures(*rows: tuple[float, ...]) -> Floats:
    """Images [n, 1, 1, K] whose logits are the logs of the given numbers."""
    return np.log(np.array(rows, dtype=np.float64))[:, None, None, :]


def nothing(classes: int) -> Floats:
    return np.zeros((0, 1, 1, classes))


def batch_of(labeled: tuple[Floats, ...], labels: list[int], unlabeled: tuple[Floats, ...], **rest: Any) -> Batch:
    settings = {"t": 5, "steps": 10, "draws": {}} | rest
    return Batch(labeled, np.array(labels), unlabeled, **settings)


def random_model(seed: int, values: int, classes: int, features: int = 5) -> Model:
    random = np.random.default_rng(seed)
    own = {"rotation.weight": random.normal(size=(4, features)), "rotation.bias": random.normal(size=4)}
    shapes = (features, values), (classes, features), (classes,)
    V, W, b = (random.normal(size=shape) for shape in shapes)
    return Model(V, W, b, own)


def probabilities(z: Floats) -> Floats:
    """The softmax by another route than basics."""
    return 1 / np.exp(z[:, None, :] - z[:, :, None]).sum(axis=2)


# MixMatch


def test_mixmatch_by_hand():
    # p of the two views (3/4, 1/4) and (1/4, 3/4): mean (1/2, 1/2). The labeled image is 0, class 0. All rows mix half.
    views = pictures((3, 1)), pictures((1, 3))
    draws = {"share": np.array([0.5, 0.5, 0.0]), "order": np.array([1, 0, 2])}
    out = MixMatch(lambda_=8, ramp_share=1.0).step(
        batch_of((pictures((1, 1)),), [0], views, draws=draws), opened(2), opened(2)
    )
    assert out["target"] == pytest.approx(np.array([[0.5, 0.5]]))
    # rows 0 and 1: pixels (ln 3 / 2, 0), softmax (s, 1) / (s + 1), s = sqrt 3; targets (3/4, 1/4). Row 2 has l' = 1.
    s = math.sqrt(3)
    labeled = -0.75 * math.log(s / (s + 1)) - 0.25 * math.log(1 / (s + 1))
    unlabeled = ((s / (s + 1) - 0.75) ** 2 + 0.25**2) / 2
    assert out["labeled_loss"] == pytest.approx(labeled)
    assert out["unlabeled_loss"] == pytest.approx(unlabeled)
    assert out["loss"] == pytest.approx(labeled + 8 * 0.5 * unlabeled)
    assert out["row_weight"] == pytest.approx(np.ones(1))


def test_mixmatch_sharpens():
    views = pictures((3, 1)), pictures((3, 1))
    draws = {"share": np.ones(3), "order": np.arange(3)}
    batch = batch_of((pictures((1, 3)),), [1], views, draws=draws, t=0)
    out = MixMatch().step(batch, opened(2), opened(2))
    assert out["target"] == pytest.approx(np.array([[0.9, 0.1]]))
    assert out["labeled_loss"] == pytest.approx(math.log(4 / 3))
    assert out["unlabeled_loss"] == pytest.approx(0.15**2)
    assert out["loss"] == pytest.approx(math.log(4 / 3))  # the ramp is 0 at the start


def test_mixmatch_in_matrices():
    # the same in one product with a mixing matrix
    random = np.random.default_rng(3)
    labeled, first, second = (random.normal(size=(n, 2, 2, 2)) for n in (3, 4, 4))
    share, order = random.random(11), random.permutation(11)
    still, moving = random_model(0, 8, 3), random_model(1, 8, 3)
    batch = batch_of((labeled,), [0, 2, 1], (first, second), draws={"share": share, "order": order}, t=1, steps=256)
    out = MixMatch(lambda_=2.0).step(batch, still, moving)
    q = (probabilities(still.logits(first)) + probabilities(still.logits(second))) ** 2
    q /= q.sum(axis=1, keepdims=True)
    larger = np.where(share > 0.5, share, 1 - share)
    mixing = np.diag(larger) + np.diag(1 - larger) @ np.eye(11)[order]
    targets = mixing @ np.vstack([np.eye(3)[[0, 2, 1]], q, q])
    images = (mixing @ np.vstack([labeled, first, second]).reshape(11, -1)).reshape(11, 2, 2, 2)
    p = probabilities(moving.logits(images))
    expected = -(targets * np.log(p))[:3].sum() / 3, ((p - targets) ** 2)[3:].mean()
    assert (out["labeled_loss"], out["unlabeled_loss"]) == pytest.approx(expected)
    assert out["loss"] == pytest.approx(expected[0] + 2.0 / 4 * expected[1])


def test_mixing_wants_a_permutation():
    draws = {"share": np.ones(3), "order": np.array([0, 0, 1])}
    views = pictures((3, 1)), pictures((3, 1))
    with pytest.raises(ValueError, match="permutation"):
        MixMatch().step(batch_of((pictures((1, 3)),), [1], views, draws=draws), opened(2), opened(2))


# ReMixMatch


def rotation_head(classes: int) -> dict[str, Floats]:
    return {"rotation.weight": np.zeros((4, classes)), "rotation.bias": np.zeros(4)}


def test_remixmatch_by_hand():
    # weak p (3/4, 1/4), prior (1/4, 3/4), average p itself: aligned to the prior (1/4, 3/4), sharpened (1/10, 9/10)
    weak, strong1, strong2 = pictures((3, 1)), pictures((1, 1)), pictures((1, 3))
    draws = {"share": np.ones(4), "order": np.arange(4), "turns": np.array([2])}
    batch = batch_of((pictures((1, 1)),), [0], (weak, strong1, strong2), draws=draws, t=1, steps=4)
    method = ReMixMatch(np.array([0.25, 0.75]), window=2, ramp_share=0.5)
    model = opened(2, **rotation_head(2))
    model.own["rotation.bias"][2] = LN3
    out = method.step(batch, model, model)
    assert out["target"] == pytest.approx(np.array([[0.1, 0.9]]))
    assert method.average() == pytest.approx(np.array([0.75, 0.25]))
    of_strong2 = -0.1 * math.log(0.25) - 0.9 * math.log(0.75)
    of_weak = -0.1 * math.log(0.75) - 0.9 * math.log(0.25)
    assert out["labeled_loss"] == pytest.approx(LN2)
    assert out["strong_loss"] == pytest.approx(LN2)
    assert out["unlabeled_loss"] == pytest.approx((LN2 + of_strong2 + of_weak) / 3)
    assert out["rotation_loss"] == pytest.approx(LN2)  # 3 of 6
    ramped = 1.5 * out["unlabeled_loss"] + 0.5 * LN2
    assert out["loss"] == pytest.approx(LN2 + 0.5 * ramped + 0.5 * LN2)


def test_remixmatch_remembers_a_window():
    method = ReMixMatch(np.array([0.5, 0.5]), window=2)
    model = opened(2, **rotation_head(2))
    seen = []
    for p in (0.2, 0.6, 0.8):
        view = pictures((p, 1 - p))
        draws = {"share": np.ones(4), "order": np.arange(4), "turns": np.array([0])}
        method.step(batch_of((view,), [0], (view, view, view), draws=draws), model, model)
        seen.append(method.average()[0])
    assert seen == pytest.approx([0.2, 0.4, 0.7])
    none = nothing(2)
    batch = batch_of((pictures((1, 1)),), [0], (none,) * 3, draws={"share": np.ones(1), "order": np.arange(1)})
    out = method.step(batch, model, model)
    assert method.average()[0] == pytest.approx(0.7)
    assert out["loss"] == pytest.approx(LN2)


def test_remixmatch_turns_counter_clockwise():
    # all 0 but the bottom left pixel, ln 9; the head shows the bottom left as logit 0, then on counter-clockwise
    image = np.zeros((1, 1, 2, 2))
    image[0, 0, 1, 0] = 2 * LN3
    head = np.zeros((4, 4))
    head[0, 2], head[1, 3], head[2, 1], head[3, 0] = 1.0, 1.0, 1.0, 1.0
    own = {"rotation.weight": head, "rotation.bias": np.zeros(4)}
    model = Open(np.zeros((1, 1)), np.zeros((2, 4)), np.zeros(2), own)
    # turned once counter-clockwise the bottom left goes to the bottom right, then top right, then top left
    for turn in range(4):
        draws = {"share": np.ones(4), "order": np.arange(4), "turns": np.array([turn])}
        batch = batch_of((image,), [0], (image, image, image), draws=draws)
        out = ReMixMatch(np.array([0.5, 0.5]), 1).step(batch, model, model)
        assert out["rotation_loss"] == pytest.approx(math.log(12 / 9))


def test_remixmatch_in_matrices():
    random = np.random.default_rng(4)
    labeled, weak, strong1, strong2 = (random.normal(size=(n, 2, 2, 2)) for n in (3, 2, 2, 2))
    draws = {"share": random.random(9), "order": random.permutation(9), "turns": np.array([3, 1])}
    still, moving = random_model(0, 8, 3), random_model(1, 8, 3)
    prior = np.array([0.5, 0.3, 0.2])
    batch = batch_of((labeled,), [0, 2, 1], (weak, strong1, strong2), draws=draws)
    out = ReMixMatch(prior, 7).step(batch, still, moving)
    p = probabilities(still.logits(weak))
    q = (p * prior / p.mean(axis=0)) ** 2  # the sum between the two powers cancels
    q /= q.sum(axis=1, keepdims=True)
    larger = np.maximum(draws["share"], 1 - draws["share"])
    mixing = np.diag(larger) + np.diag(1 - larger) @ np.eye(9)[draws["order"]]
    targets = mixing @ np.vstack([np.eye(3)[[0, 2, 1]], q, q, q])
    images = np.tensordot(mixing, np.vstack([labeled, strong1, strong2, weak]), axes=1)
    losses = -(targets * np.log(probabilities(moving.logits(images)))).sum(axis=1)
    strong = -(q * np.log(probabilities(moving.logits(strong1)))).sum(axis=1).mean()
    # three quarters counter-clockwise: one clockwise, so transpose and flip left to right; one: flip first
    turned = np.stack([strong1[0].transpose(0, 2, 1)[:, :, ::-1], strong1[1][:, :, ::-1].transpose(0, 2, 1)])
    head = moving.features(turned) @ moving.own["rotation.weight"].T + moving.own["rotation.bias"]
    rotation = -np.log(probabilities(head)[[0, 1], [3, 1]]).mean()
    assert out["labeled_loss"] == pytest.approx(losses[:3].mean())
    assert out["unlabeled_loss"] == pytest.approx(losses[3:].mean())
    assert (out["strong_loss"], out["rotation_loss"]) == pytest.approx((strong, rotation))
    expected = losses[:3].mean() + 1.5 * losses[3:].mean() + 0.5 * strong + 0.5 * rotation
    assert out["loss"] == pytest.approx(expected)


# AdaMatch


def adamatch_batch(t: int = 5) -> Batch:
    # labeled (3/4, 1/4), (1/4, 3/4): mean (1/2, 1/2), mean top 3/4; unlabeled (3/4, 1/4), (1/2, 1/2): mean (5/8, 3/8).
    # Aligned: (3/4 : 1/4) * (4/5 : 4/3) = 3/5 : 1/3 = 9 : 5, and 1/2 * (4/5 : 4/3) = 2/5 : 2/3 = 3 : 5.
    labeled = pictures((3, 1), (1, 3)), pictures((1, 1), (1, 1))
    unlabeled = pictures((3, 1), (1, 1)), pictures((1, 3), (3, 1))
    return batch_of(labeled, [0, 0], unlabeled, t=t)


def test_adamatch_by_hand():
    out = AdaMatch(lambda_=2.0, factor=0.84).step(adamatch_batch(), opened(2), opened(2))
    assert out["threshold"] == pytest.approx(0.63)
    assert out["target"] == pytest.approx(np.array([[9 / 14, 5 / 14], [3 / 8, 5 / 8]]))
    assert out["row_weight"] == pytest.approx(np.array([1.0, 0.0]))  # .643 and .625
    assert out["kept"] == 0.5
    labeled = ((math.log(4 / 3) + math.log(4)) / 2 + LN2) / 2
    unlabeled = (9 / 14 * math.log(4) + 5 / 14 * math.log(4 / 3)) / 2
    assert out["labeled_loss"] == pytest.approx(labeled)
    assert out["unlabeled_loss"] == pytest.approx(unlabeled)
    assert out["loss"] == pytest.approx(labeled + 2 * unlabeled)


def test_adamatch_with_classes_keeps_all_that_reach_the_threshold():
    out = AdaMatch(factor=0.8, target="class", interpolation=True).step(adamatch_batch(), opened(2), opened(2))
    assert list(out["target"]) == [0, 1]
    assert out["row_weight"] == pytest.approx(np.ones(2))
    assert out["unlabeled_loss"] == pytest.approx(math.log(4))


@pytest.mark.parametrize(("t", "mu"), [(0, 0.0), (2, math.sin(math.pi / 5) ** 2), (5, 1.0), (9, 1.0)])
def test_adamatch_warms_up(t: int, mu: float):
    out = AdaMatch().step(adamatch_batch(t), opened(2), opened(2))
    assert out["loss"] == pytest.approx(out["labeled_loss"] + mu * out["unlabeled_loss"])


def test_adamatch_remembers_a_window():
    method = AdaMatch(factor=0.8, window=2)
    model = opened(2)
    first = method.step(adamatch_batch(), model, model)  # means (1/2, 1/2) and (5/8, 3/8), as by hand
    assert first["target"] == pytest.approx(np.array([[9 / 14, 5 / 14], [3 / 8, 5 / 8]]))
    # means (7/8, 1/8) and (3/8, 5/8), over two batches (11/16, 5/16) and (1/2, 1/2): p is multiplied by 11 : 5
    labeled, strong = pictures((7, 1), (7, 1)), pictures((1, 3), (3, 1))
    batch = batch_of((labeled, labeled), [0, 0], (pictures((1, 1), (1, 3)), strong))
    second = method.step(batch, model, model)
    assert second["target"] == pytest.approx(np.array([[11 / 16, 5 / 16], [11 / 26, 15 / 26]]))
    assert second["threshold"] == pytest.approx(0.8 * 7 / 8)  # of this batch alone; over both it would be .65
    assert list(second["row_weight"]) == [0, 0]  # .6875, below .7
    # a batch without unlabeled rows is not taken in
    none = nothing(2)
    alone = method.step(batch_of((pictures((1, 9)), pictures((1, 9))), [0], (none, none)), model, model)
    assert alone["unlabeled_loss"] == 0
    # of the three batches the first has left: again 11 : 5, now of (3/4, 1/4) and (1/2, 1/2)
    third = method.step(adamatch_batch(), model, model)
    assert third["target"] == pytest.approx(np.array([[33 / 38, 5 / 38], [11 / 16, 5 / 16]]))
    assert third["threshold"] == pytest.approx(0.6)


def test_adamatch_without_window_forgets():
    method = AdaMatch(factor=0.84)
    model = opened(2)
    labeled = pictures((7, 1), (7, 1))
    method.step(batch_of((labeled, labeled), [0, 0], (labeled, labeled)), model, model)
    out = method.step(adamatch_batch(), model, model)
    assert out["target"] == pytest.approx(np.array([[9 / 14, 5 / 14], [3 / 8, 5 / 8]]))


# RegMixMatch

Call = tuple[float, float, str, int]


class Halves:
    """Pastes by taking the mean of the logs; the first has share 3/4 in name. Remembers what it was asked."""

    def __init__(self):
        self.calls: list[Call] = []

    def __call__(self, image: Floats, other: Floats, which: str, place: int) -> tuple[Floats, float]:
        self.calls.append((float(np.exp(image[0, 0, 0])), float(np.exp(other[0, 0, 0])), which, place))
        return (image + other) / 2, 0.75


def regmix_batch(paste: Halves, second: list[bool] | None = None, partner: Floats | None = None) -> Batch:
    # K = 3, one labeled row of class 2. p of the weak views: row 0 (.8, .1, .1) sure, row 1 (.5, .3, .2), row 2
    # (.1, .8, .1) sure, with sure = .75. The first pixel of each image tells them apart.
    labeled = (pictures((2, 2, 4)),)
    weak = pictures((8, 1, 1), (5, 3, 2), (1, 8, 1))
    strong = pictures((3, 1, 1), (4, 1, 1), (5, 1, 1))
    draws = {
        "order": np.array([0.5, 0.9, 0.0, 0.1]),
        "second": np.array(second or [False] * 3),
        "partner": np.zeros((3, 4)) if partner is None else partner,
        "paste": paste,
    }
    return batch_of(labeled, [2], (weak, strong), draws=draws, t=0)


def test_regmixmatch_by_hand():
    paste = Halves()
    method = RegMixMatch(3, 0.999, lambda_=2.0, fairness=0.5, sure=0.75)
    out = method.step(regmix_batch(paste), opened(3), opened(3))
    # the first average at t = 0: m = 1/10. mean c = 2.1 / 3 = .7
    assert method.tau == pytest.approx(0.1 / 3 + 0.9 * 0.7)
    assert method.p_tilde == pytest.approx(0.1 / 3 + 0.9 * np.array([1.4, 1.2, 0.4]) / 3)
    assert method.h_tilde == pytest.approx(0.1 / 3 + 0.9 * np.array([2, 1, 0]) / 3)
    # threshold .6633 for class 0, and a little less for class 1: rows 0 and 2 are kept
    assert list(out["row_weight"]) == [1.0, 0.0, 1.0]
    assert list(out["target"]) == [0, 0, 1]
    assert out["labeled_loss"] == pytest.approx(LN2)  # 4 of 8
    assert out["unlabeled_loss"] == pytest.approx((math.log(5 / 3) + math.log(7)) / 3)
    # the pool is slots 1, 3 (rows 0, 2) with draws .9, .1: reversed. Both mixes are sqrt(15) : 1 : 1.
    z = math.sqrt(15)
    top, rest = math.log((z + 2) / z), math.log(z + 2)
    assert out["mix_loss"] == pytest.approx(((0.75 * top + 0.25 * rest) + (0.75 * rest + 0.25 * top)) / 3)
    # row 1 wants class 0, which only row 0 has: sqrt(12) : 1 : 1 against 3/4 (.5, .3, .2) + 1/4 (1, 0, 0)
    z = math.sqrt(12)
    squares = (z / (z + 2) - 0.625) ** 2 + (1 / (z + 2) - 0.225) ** 2 + (1 / (z + 2) - 0.15) ** 2
    assert out["unsure_loss"] == pytest.approx(0.125 * squares / 3)
    expected = [(3, 5, "sure", 1), (5, 3, "sure", 3), (4, 3, "unsure", 1)]
    for call, wished in zip(paste.calls, expected, strict=True):
        assert call[:2] == pytest.approx(wished[:2])
        assert call[2:] == wished[2:]
    # kept strong rows (3, 1, 1) / 5 and (5, 1, 1) / 7, both predicted 0, so b = (1, 0, 0)
    a = method.p_tilde / method.h_tilde
    assert out["fairness_loss"] == pytest.approx((a[1] + a[2]) / a.sum() * math.log(1e-12))
    terms = out["labeled_loss"] + 2 * (out["unlabeled_loss"] + out["mix_loss"])
    assert out["loss"] == pytest.approx(terms + 0.5 * out["fairness_loss"] + out["unsure_loss"])


def test_regmixmatch_with_labeled_rows_in_the_pool():
    paste = Halves()
    method = RegMixMatch(3, 0.999, sure=0.75, labeled_joins=True)
    out = method.step(regmix_batch(paste), opened(3), opened(3))
    # slots 0, 1, 3 with draws .5, .9, .1: in order 3, 0, 1
    sure = [call for call in paste.calls if call[2] == "sure"]
    assert [call[3] for call in sure] == [0, 1, 3]
    assert [call[0] for call in sure] == pytest.approx([2, 3, 5])
    assert [call[1] for call in sure] == pytest.approx([5, 2, 3])
    # mixes: (2, 2, 4) and (5, 1, 1) of classes 2, 1; (3, 1, 1) and (2, 2, 4) of 0, 2; (5, 1, 1) and (3, 1, 1) of 1, 0
    mixes = [((10, 2, 4), 2, 1), ((6, 2, 4), 0, 2), ((15, 1, 1), 1, 0)]
    total = 0.0
    for squares, own, other in mixes:
        roots = [math.sqrt(x) for x in squares]
        total += math.log(sum(roots)) - 0.75 * math.log(roots[own]) - 0.25 * math.log(roots[other])
    assert out["mix_loss"] == pytest.approx(total / 3)


def test_regmixmatch_second_class_and_partners():
    partner = np.zeros((3, 4))
    partner[1, 1] = 0.9  # row 0, of another class
    paste = Halves()
    method = RegMixMatch(3, 0.999, sure=0.75)
    method.step(regmix_batch(paste, [False, True, False], partner), opened(3), opened(3))
    assert paste.calls[-1][1:] == (pytest.approx(5), "unsure", 1)  # class 1: row 2

    # with sure = .9 no row is: row 0 and 1 want class 0, row 2 class 1, and only the labeled row could be taken
    paste = Halves()
    out = RegMixMatch(3, 0.999, sure=0.9).step(regmix_batch(paste), opened(3), opened(3))
    assert paste.calls == []
    assert out["mix_loss"] == 0.0
    weak = np.array([[8, 1, 1], [5, 3, 2], [1, 8, 1]]) / 10
    strong = np.array([[3, 1, 1], [4, 1, 1], [5, 1, 1]]) / np.array([[5], [6], [7]])
    rows = ((weak - strong) ** 2).mean(axis=1) * np.array([0.512, 0.125, 0.512])
    assert out["unsure_loss"] == pytest.approx(rows.mean())


def test_regmixmatch_takes_the_candidate_with_the_largest_draw():
    # all three rows are of class 0 or wish for it: labeled row 0 of class 0, sure row 0 of class 0, row 1 not sure
    for largest, first_pixel in ((0, 2.0), (1, 3.0)):
        paste = Halves()
        partner = np.zeros((2, 3))
        partner[1, largest] = 0.5
        partner[1, 2] = 0.9  # the row itself, which is not sure
        draws = {"order": np.zeros(3), "second": np.array([False, False]), "partner": partner, "paste": paste}
        unlabeled = pictures((8, 2), (6, 4)), pictures((3, 1), (4, 1))
        batch = batch_of((pictures((2, 1)),), [0], unlabeled, draws=draws)
        RegMixMatch(2, 0.9, sure=0.75).step(batch, opened(2), opened(2))
        assert paste.calls[-1] == (pytest.approx(4), pytest.approx(first_pixel), "unsure", 1)


# All


def paste_rows(image: Floats, other: Floats, which: str, place: int) -> tuple[Floats, float]:
    """Put the top row of the other image on the image, a third of it."""
    mixed = image.copy()
    mixed[:, 0] = other[:, 0]
    return mixed, 2 / 3


def random_batch(views: tuple[int, int], B: int = 3, M: int = 4, mixed: int = 3) -> Batch:
    random = np.random.default_rng(9)
    labeled = tuple(random.normal(size=(B, 1, 3, 3)) for _ in range(views[0]))
    unlabeled = tuple(random.normal(size=(M, 1, 3, 3)) for _ in range(views[1]))
    rows = B + mixed * M
    draws = {
        "share": random.random(rows),
        "order": random.permutation(rows),
        "turns": random.integers(0, 4, M),
        "second": random.random(M) < 0.5,
        "partner": random.random((M, B + M)),
        "paste": paste_rows,
    }
    labels: Ints = np.arange(B) % 3
    return Batch(labeled, labels, unlabeled, 3, 10, draws=draws)


METHODS = [
    (MixMatch, (1, 2), 2),
    (lambda: ReMixMatch(np.array([0.2, 0.5, 0.3]), 3), (1, 3), 3),
    (AdaMatch, (2, 2), 0),
    (lambda: AdaMatch(target="class"), (2, 2), 0),
    (lambda: AdaMatch(window=3), (2, 2), 0),
    (lambda: RegMixMatch(3, 0.9, sure=0.8), (1, 2), 1),
    (lambda: RegMixMatch(3, 0.9, sure=0.8, labeled_joins=True), (1, 2), 1),
]


@pytest.mark.parametrize(("make", "views", "mixed"), METHODS)
def test_targets_come_from_the_still_network(make: Any, views: tuple[int, int], mixed: int):
    batch = random_batch(views, mixed=mixed)
    still, moving = random_model(0, 9, 3), random_model(1, 9, 3)
    alone, other = make().step(batch, still, still), make().step(batch, still, moving)
    for key in ("target", "row_weight", "kept"):
        assert alone[key] == pytest.approx(other[key])
    assert alone["loss"] != other["loss"]
    assert alone["loss"] == make().step(batch, still, still)["loss"]


@pytest.mark.parametrize(("make", "views", "mixed"), METHODS)
def test_without_unlabeled_rows(make: Any, views: tuple[int, int], mixed: int):
    batch = random_batch(views, M=0, mixed=mixed)
    model = random_model(0, 9, 3)
    method = make()
    out = method.step(batch, model, model)
    assert out["loss"] == out["labeled_loss"] > 0
    assert out["unlabeled_loss"] == 0.0
    assert len(out["row_weight"]) == len(out["target"]) == 0
    if isinstance(method, RegMixMatch):
        assert method.tau == pytest.approx(1 / 3)
        assert method.h_tilde == pytest.approx(np.full(3, 1 / 3))
