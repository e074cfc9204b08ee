"""Checks of the oracles: numbers worked out by hand, central differences, properties."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .basics import (
    Floats,
    Ints,
    cosine_lr,
    cross_entropy,
    debiased,
    ema_series,
    horizon,
    horizon_to_momentum,
    log_softmax,
    ramp,
    sgd_nesterov,
    softmax,
)
from .layer_rule import (
    CenterAverage,
    LayerMatch,
    OutputAverage,
    SoftWeight,
    ThresholdKind,
    head_gradients,
    head_logits,
)
from .threshold_methods import (
    FixMatch,
    FreeMatch,
    PseudoLabel,
    Supervised,
    fairness_part,
    fixed_row_weight,
)

B, M, K, D = 3, 7, 4, 3
METHODS: list[Callable[[], Any]] = [
    Supervised,
    lambda: PseudoLabel(lambda_=1.3, threshold=0.6),
    lambda: FixMatch(lambda_=0.7, threshold=0.6),
    lambda: FreeMatch(K, lambda_=0.7, fairness=0.4),
    lambda: FreeMatch(K, momentum=0.8, fairness=0.4, clip=(0.4, 0.6)),
]
KINDS: list[ThresholdKind] = ["fixed", "self_adaptive", "soft"]


def difference(function: Callable[[Floats], float], x: Floats, h: float = 1e-5) -> Floats:
    """Return the gradient of `function` at x by central differences."""
    out = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        high, low = x.copy(), x.copy()
        high[place] += h
        low[place] -= h
        out[place] = (function(high) - function(low)) / (2 * h)
    return out


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def logits_of(*rows: tuple[float, ...]) -> Floats:
    return np.log(np.array(rows))


def batch(seed: int, unlabeled: int = M) -> tuple[Floats, Ints, Floats, Floats]:
    """Return labeled logits, labels, weak and strong logits; some rows are kept, some not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, B)
    weak, strong = 1.5 * rng.standard_normal((2, unlabeled, K))
    return rng.standard_normal((B, K)), labels, weak, strong


def features(seed: int, unlabeled: int = M) -> tuple[Floats, Ints, Floats, Floats, Floats, Floats]:
    """Return labeled features, labels, weak and strong features, W and b."""
    rng = np.random.default_rng(seed)
    weak, strong = rng.standard_normal((2, unlabeled, D))
    W, b = 1.5 * rng.standard_normal((K, D)), rng.standard_normal(K)
    return rng.standard_normal((B, D)), rng.integers(0, K, B), weak, strong, W, b


# basics


def test_softmax_and_cross_entropy() -> None:
    z = np.array([[0.0, math.log(3.0)], [1000.0, 1000.0]])
    close(softmax(z), [[0.25, 0.75], [0.5, 0.5]])
    close(log_softmax(z + 7), log_softmax(z))
    close(cross_entropy(z, np.array([0, 1])), [math.log(4), math.log(2)])


def test_time_constants() -> None:
    assert debiased(0.999, 0) == 0.1 and debiased(0.999, 10**6) == 0.999 and debiased(0.05, 0) == 0.05
    assert horizon(1000, 2**20) == 1000 and horizon(1000, 600) == 30 and horizon(1000, 20_000) == 1000
    assert horizon(2**19, 1000) == 500  # a paper that spends half its run on it
    close(horizon_to_momentum(1000), 0.999)
    assert horizon_to_momentum(1) == 0 and horizon_to_momentum(0.25) == 0
    assert [ramp(x, 0.4) for x in (0.0, 0.2, 0.4, 1.0)] == [0, 0.5, 1, 1] and ramp(0.0, 0.0) == 1
    close([cosine_lr(0.03, 0, 8), cosine_lr(0.03, 8, 8)], [0.03, 0.03 * math.cos(7 * math.pi / 16)])


def test_sgd_by_hand() -> None:
    ones = [[np.ones(1)], [np.ones(1)]]
    close(np.ravel(sgd_nesterov([np.ones(1)], ones, 0.1)), [0.81, 0.539])
    close(np.ravel(sgd_nesterov([np.ones(1)], ones, [0.1, 0.0], nesterov=False)), [0.9, 0.9])
    # weight decay .5: g = 1.5, v = 1.5, step 2.85; then g = 1 + .5 * .715, v = 1.35 + g
    decayed = sgd_nesterov([np.ones(1)], ones, 0.1, weight_decay=[0.5])
    close(np.ravel(decayed), [0.715, 0.715 - 0.1 * (1.9 * 1.3575 + 1.215)])


def test_ema_by_hand() -> None:
    values = [np.array([1.0]), np.array([2.0])]
    close(np.ravel(ema_series(np.zeros(1), values, 0.999)), [0.9, 0.9 * 2 / 11 + 2 * 9 / 11])
    close(np.ravel(ema_series(np.zeros(1), values, 0.5, debias=False)), [0.5, 1.25])


# threshold methods


@pytest.mark.parametrize("make", METHODS)
def test_gradients_by_central_differences(make: Callable[[], Any]) -> None:
    """After two steps; targets and memories depend on neither labeled nor strong logits."""
    method = make()
    for t in range(2):
        method.step(*batch(t), t, 10)
    x, y, weak, strong = batch(7)

    def loss(x: Floats, weak: Floats, strong: Floats) -> float:
        return float(copy.deepcopy(method).step(x, y, weak, strong, 2, 10)["loss"])

    out = copy.deepcopy(method).step(x, y, weak, strong, 2, 10)
    if not isinstance(method, Supervised):
        assert 0 < out["kept"] < 1
    close(out["grad_labeled"], difference(lambda v: loss(v, weak, strong), x), 1e-8)
    close(out["grad_strong"], difference(lambda v: loss(x, weak, v), strong), 1e-8)
    if isinstance(method, FreeMatch):  # its memories depend on the weak view, and pass no gradient
        assert not out["grad_weak"].any()
    else:
        close(out["grad_weak"], difference(lambda v: loss(x, v, strong), weak), 1e-8)


def test_fixmatch_by_hand() -> None:
    weak = logits_of((0.96, 0.04), (0.06, 0.94), (0.03, 0.97))
    strong = logits_of((0.5, 0.5), (0.5, 0.5), (0.8, 0.2))
    out = FixMatch(lambda_=2).step(logits_of((0.25, 0.75)), np.array([0]), weak, strong, 0, 1)
    close(out["row_weight"], [1, 0, 1])
    close(out["target"], [0, 1, 1])
    close(out["kept"], 2 / 3)
    close(out["unlabeled_loss"], (math.log(2) + math.log(5)) / 3)
    close(out["loss"], math.log(4) + 2 * (math.log(2) + math.log(5)) / 3)
    close(out["grad_strong"], 2 / 3 * np.array([[-0.5, 0.5], [0, 0], [0.8, -0.8]]))
    close(out["grad_labeled"], [[-0.75, 0.75]])


def test_threshold_itself_is_kept() -> None:
    p = np.array([[0.95, 0.05], [0.949, 0.051], [0.05, 0.95]])
    close(fixed_row_weight(p, 0.95), [1, 0, 1])


def test_pseudo_label_by_hand() -> None:
    weak = logits_of((0.96, 0.04), (0.5, 0.5))
    out = PseudoLabel().step(logits_of((0.5, 0.5)), np.array([0]), weak, weak, 1, 10)  # ramp .1 / .4
    close(out["unlabeled_loss"], -math.log(0.96) / 2)
    close(out["loss"], math.log(2) - 0.25 * math.log(0.96) / 2)
    close(out["grad_weak"], [[-0.04 / 8, 0.04 / 8], [0, 0]])
    at_start = PseudoLabel().step(logits_of((0.5, 0.5)), np.array([0]), weak, weak, 0, 10)  # ramp 0
    close(at_start["loss"], math.log(2))
    assert not at_start["grad_weak"].any()


def test_freematch_by_hand() -> None:
    """One class pair, two steps: tau, p_tilde, h_tilde, row weights and fairness."""
    x, y = logits_of((0.5, 0.5)), np.array([0])
    weak, strong = logits_of((0.8, 0.2), (0.4, 0.6)), logits_of((0.9, 0.1), (0.2, 0.8))
    method = FreeMatch(2)
    out = method.step(x, y, weak, strong, 0, 9)
    close(method.tau, 0.1 * 0.5 + 0.9 * 0.7)
    close(method.p_tilde, [0.59, 0.41])
    close(method.h_tilde, [0.5, 0.5])
    close(out["row_weight"], [1, 1])  # .6 >= .68 * .41 / .59
    close(out["fairness_loss"], 0.59 * math.log(0.55) + 0.41 * math.log(0.45), 1e-11)
    close(out["loss"], math.log(2) - (math.log(0.9) + math.log(0.8)) / 2 + 0.01 * out["fairness_loss"])

    out = method.step(x, y, logits_of((0.9, 0.1), (0.7, 0.3)), logits_of((0.9, 0.1), (0.7, 0.3)), 1, 9)
    m = 2 / 11
    close(method.tau, m * 0.68 + (1 - m) * 0.8)
    close(method.p_tilde, [m * 0.59 + (1 - m) * 0.8, m * 0.41 + (1 - m) * 0.2])
    close(method.h_tilde, [m * 0.5 + (1 - m), m * 0.5])
    close(out["row_weight"], [1, 0])
    ratio = method.p_tilde / method.h_tilde
    close(out["fairness_loss"], ratio[1] / ratio.sum() * math.log(1e-12), 1e-11)  # b = (1, 0)


def test_freematch_clip() -> None:
    x, y, weak, strong = batch(0)
    remembers, uses = (
        FreeMatch(K, clip=(0.9, 0.95)),
        FreeMatch(K, clip=(0.9, 0.95), clip_memory=False),
    )
    plain = FreeMatch(K)
    first, second = remembers.step(x, y, weak, strong, 0, 9), uses.step(x, y, weak, strong, 0, 9)
    plain.step(x, y, weak, strong, 0, 9)
    close(first["row_weight"], second["row_weight"])
    assert remembers.tau == 0.9 and uses.tau == plain.tau < 0.9


def test_fairness_with_absent_class() -> None:
    """A class that no kept row predicts adds a constant, without epsilon nothing."""
    strong = logits_of((0.7, 0.2, 0.1), (0.2, 0.6, 0.2), (0.5, 0.2, 0.3), (0.1, 0.1, 0.8))
    weight, p, h = np.array([1.0, 1, 1, 0]), np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.6, 0.0])
    loss, gradient = fairness_part(strong, weight, p, h)
    without, same = fairness_part(strong, weight, p, h, epsilon=0)
    a = np.array([1.25, 0.5]) / 1.75  # 1/0 is 0 in p/h too
    u = np.array([1.4 / 3 * 1.5, 1.0 / 3 * 3])
    close(without, float(a @ np.log(u / u.sum())))
    close(loss, without, 1e-10)  # a of the absent class is 0 here
    close(same, difference(lambda v: fairness_part(v, weight, p, h, 0)[0], strong), 1e-9)
    close(gradient, same, 1e-10)
    assert not gradient[3].any()
    full = fairness_part(strong, weight, p, np.full(3, 1 / 3))
    bare = fairness_part(strong, weight, p, np.full(3, 1 / 3), epsilon=0)
    close(full[0] - bare[0], 0.2 * math.log(1e-12), 1e-10)
    close(full[1], bare[1], 1e-10)
    assert fairness_part(strong, np.zeros(4), p, h)[0] == 0


@pytest.mark.parametrize("make", METHODS)
def test_properties_of_the_setting(make: Callable[[], Any]) -> None:
    x, y, weak, strong = batch(3)
    plain = Supervised().step(x, y, weak, strong, 4, 10)
    alone = make().step(x, y, weak[:0], strong[:0], 4, 10)  # no unlabeled rows
    close(alone["loss"], plain["loss"])
    close(alone["grad_labeled"], plain["grad_labeled"])
    assert alone["kept"] == 0 and alone["grad_strong"].shape == (0, K)

    order = np.random.default_rng(0).permutation(M)
    first, second = make(), make()
    one, other = (
        first.step(x, y, weak, strong, 4, 10),
        second.step(x, y, weak[order], strong[order], 4, 10),
    )
    close(one["loss"], other["loss"])
    close(one["grad_strong"][order], other["grad_strong"])
    close(one["grad_weak"][order], other["grad_weak"])


# LayerMatch


def test_head_rule_by_hand() -> None:
    f, W, b = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.0, 1.0])
    W_avg, b_avg = 2 * W, np.array([3.0, 0.0])
    close(head_logits(f, W, b, W_avg, b_avg, False), [[1, 3]])
    close(head_logits(f, W, b, W_avg, b_avg, True), [[5, 4]])
    grad_f, grad_W, grad_b = head_gradients(f, np.array([[1.0, -1.0]]), W, W_avg, 0.5, True)
    close(grad_f, [[2, -2]])
    close(grad_W, [[0.5, 1], [-0.5, -1]])
    close(grad_b, [0.5, -0.5])


def test_center_average() -> None:
    W, b = np.ones((2, 2)), np.zeros(2)
    average = CenterAverage(W, b)
    average.update(W, b, 0)
    close(average.W_avg, W)
    average.update(4 * W, b + 1, 1)
    close(average.W_avg, 2 * W)  # the mean of 1, 1, 4
    close(average.b_avg, b + 1 / 3)
    short = CenterAverage(W, b, 0.2)
    short.update(6 * W, b, 0)
    close(short.W_avg, 5 * W)


def test_output_average() -> None:
    average = OutputAverage(4, 2)
    p = np.array([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
    close(average.update(np.array([2, 2, 0]), p), [[0.6, 0.4], [0.6, 0.4], [0.5, 0.5]])
    second = [2 / 11 * 0.6 + 9 / 11 * 0.4, 2 / 11 * 0.4 + 9 / 11 * 0.6]
    close(average.update(np.array([1, 2]), p[:2]), [[0.8, 0.2], second])
    assert list(average.visits) == [1, 1, 2, 0]


def test_soft_weight_by_hand() -> None:
    rule = SoftWeight(2)
    weight = rule.row_weight(np.array([[0.8, 0.2], [0.4, 0.6]]), 0)
    close([rule.mean, rule.variance], [0.1 * 0.5 + 0.9 * 0.7, 0.1 + 0.9 * 0.02])
    close(weight, [1, math.exp(-4 * 0.08**2 / (2 * 0.118))])


def unlabeled_loss(f_strong: Floats, V: Floats, c: Floats, target: Ints, row_weight: Floats) -> float:
    """Return the unlabeled loss with targets and row weights held fixed, written once more."""
    losses = [
        weight * (math.log(sum(math.exp(v @ f + d) for v, d in zip(V, c, strict=True))) - (V[k] @ f + c[k]))
        for f, k, weight in zip(f_strong, target, row_weight, strict=True)
    ]
    return float(sum(losses)) / len(losses)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("use_average", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
def test_layermatch_gradients(kind: ThresholdKind, use_average: bool, scale: float) -> None:
    method = LayerMatch(K, kind, scale, use_average, lambda_=0.7, threshold=0.6, center_momentum=0.6)
    for t in range(3):
        method.step(*features(t), t, 10)
    x, y, weak, strong, W, b = features(9)
    out = method.step(x, y, weak, strong, W, b, 3, 10)
    assert 0 < out["kept"] < 1 and method.centers is not None
    V, c = (method.centers.W_avg, method.centers.b_avg) if use_average else (W, b)
    fixed = (out["target"], out["row_weight"])

    def labeled(f: Floats, w: Floats, d: Floats) -> float:
        return unlabeled_loss(f, w, d, y, np.ones(B))

    close(out["loss"], labeled(x, W, b) + 0.7 * unlabeled_loss(strong, V, c, *fixed))
    close(out["grad_f_labeled"], difference(lambda v: labeled(v, W, b), x), 1e-8)
    close(
        out["grad_f_strong"],
        difference(lambda v: 0.7 * unlabeled_loss(v, V, c, *fixed), strong),
        1e-8,
    )
    to_V = difference(lambda v: 0.7 * unlabeled_loss(strong, v, c, *fixed), V)
    to_c = difference(lambda v: 0.7 * unlabeled_loss(strong, V, v, *fixed), c)
    close(out["grad_W_unlabeled"], scale * to_V, 1e-8)
    close(out["grad_W"], scale * to_V + difference(lambda v: labeled(x, v, b), W), 1e-8)
    close(out["grad_b"], scale * to_c + difference(lambda v: labeled(x, W, v), b), 1e-8)


def test_layermatch_is_fixmatch_and_freematch_at_scale_one() -> None:
    """With the usual head, gradients are those of the threshold method through f and W."""
    pairs = [("fixed", FixMatch(threshold=0.6)), ("self_adaptive", FreeMatch(K, fairness=0.0))]
    for kind, base in pairs:
        method = LayerMatch(K, kind, scale=1.0, threshold=0.6)  # type: ignore[arg-type]
        for t in range(3):
            x, y, weak, strong, W, b = features(t)
            logits = [head_logits(f, W, b, W, b, False) for f in (x, weak, strong)]
            out, plain = (
                method.step(x, y, weak, strong, W, b, t, 3),
                base.step(logits[0], y, *logits[1:], t, 3),
            )
            close(out["row_weight"], plain["row_weight"])
            close(out["loss"], plain["loss"])
            close(out["grad_W"], plain["grad_labeled"].T @ x + plain["grad_strong"].T @ strong)
            close(out["grad_b"], plain["grad_labeled"].sum(axis=0) + plain["grad_strong"].sum(axis=0))


@pytest.mark.parametrize("kind", KINDS)
def test_layermatch_average_and_empty(kind: ThresholdKind) -> None:
    """The first step uses the head itself, later ones the average; no rows = supervised."""
    method, plain = LayerMatch(K, kind, use_average=True), LayerMatch(K, kind)
    first, second = features(0), features(1)
    close(method.step(*first, 0, 9)["loss"], plain.step(*first, 0, 9)["loss"])
    method.step(*second, 1, 9)
    assert method.centers is not None
    close(method.centers.W_avg, (first[4] + second[4]) / 2)
    x, y, weak, strong, W, b = first
    out = LayerMatch(K, kind).step(x, y, weak[:0], strong[:0], W, b, 0, 9)
    base = Supervised().step(x @ W.T + b, y, weak[:0, :1], strong[:0, :1], 0, 9)
    close(out["loss"], base["loss"])
    close(out["grad_W"], base["grad_labeled"].T @ x)
    assert out["kept"] == 0 and not out["grad_W_unlabeled"].any()
