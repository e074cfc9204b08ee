"""Checks of the consistency oracles: numbers worked out by hand, central differences, a second route."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from .basics import Floats
from .consistency_oracles import UDA, VAT, Dash, MeanTeacher, PiModel
from .network import Batch, Model

LOG = math.log
SPREAD = 10.0
# logits = 10 tanh(image), so an image can be made for each distribution over two classes
PLAIN = Model(V=np.eye(2), W=SPREAD * np.eye(2), b=np.zeros(2))
FLAT = Model(V=np.eye(2), W=np.zeros((2, 2)), b=np.zeros(2))  # says (1/2, 1/2) to everything
METHODS: list[Callable[[], Any]] = [
    PiModel,
    lambda: PiModel(gradient="second"),
    MeanTeacher,
    VAT,
    lambda: PiModel(rise="exp"),
    lambda: MeanTeacher(rise="exp"),
    lambda: VAT(rise="exp"),
    lambda: UDA(classes=2, annealing="linear"),
    lambda: Dash(warm_up=1, period=1.0),
]


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def images(*first: float) -> Floats:
    """Return images [n, 1, 1, 2] to which PLAIN says (p, 1 - p) for each p of `first`."""
    rows = [[LOG(p), LOG(1 - p)] for p in first]
    return np.arctanh(np.array(rows).reshape(len(rows), 1, 1, 2) / SPREAD)


def batch(
    labeled: tuple[float, ...], *views: tuple[float, ...], t: int = 2, steps: int = 10, labels: Any = None
) -> Batch:
    """Return a batch of images by their probability of class 0; all labels are 0 unless given."""
    y = np.zeros(len(labeled), dtype=np.int64) if labels is None else np.array(labels)
    return Batch(labeled=(images(*labeled),), labels=y, unlabeled=tuple(images(*v) for v in views), t=t, steps=steps)


def random_model(seed: int, values: int = 12, features: int = 5, classes: int = 3) -> Model:
    rng = np.random.default_rng(seed)
    V = 0.4 * rng.standard_normal((features, values))
    return Model(V=V, W=rng.standard_normal((classes, features)), b=0.3 * rng.standard_normal(classes))


def random_batch(seed: int, rows: int = 4) -> Batch:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, rows, 3, 2, 2))
    y = np.array([0, 2, 1, 1])[:rows]
    return Batch((x[0],), y, (x[1],), t=5, steps=10, draws={"directions": x[2]})


# two views


def test_pi_model_by_hand() -> None:
    # squared differences .25^2 twice and 0 twice; labeled -log .25; a fifth of the run is half of the ramp
    b = batch((0.25,), (0.5, 0.1), (0.25, 0.1))
    for gradient in ("both", "second"):
        out = PiModel(gradient=gradient).step(b, PLAIN, PLAIN)
        close(out["unlabeled_loss"], 0.125 / 4)
        close(out["loss"], LOG(4) + 10 * 0.5 * 0.125 / 4)
        close(out["target"], [[0.5, 0.5], [0.1, 0.9]])
        assert out["kept"] == 1
    close(PiModel(lambda_=2, ramp_share=0).step(replace(b, t=0), PLAIN, PLAIN)["loss"], LOG(4) + 0.125 / 2)


def test_pi_model_gradient_flows_where_it_says() -> None:
    b = batch((0.25,), (0.9,), (0.2,))
    both, second = (PiModel(gradient=g).step(b, PLAIN, FLAT) for g in ("both", "second"))
    assert both["unlabeled_loss"] == 0  # both views say (1/2, 1/2)
    close(second["unlabeled_loss"], 0.4**2)  # the target stays at (.9, .1)
    close([both["labeled_loss"], second["labeled_loss"]], [LOG(2)] * 2)
    close(both["target"], [[0.9, 0.1]])


def test_mean_teacher_by_hand() -> None:
    # the student says (.9, .1) to the first view, the teacher, whose logits are half of the student's, says to the
    # second, (.2, .8), (sqrt .2, sqrt .8) over their sum: (1, 2) / 3
    b = batch((0.25,), (0.9,), (0.2,), t=8)
    teacher = replace(PLAIN, W=PLAIN.W / 2)
    out = MeanTeacher().step(b, replace(PLAIN, teacher=teacher), PLAIN)
    close(out["target"], [[1 / 3, 2 / 3]])
    close(out["unlabeled_loss"], (0.9 - 1 / 3) ** 2)
    close(out["loss"], LOG(4) + 50 * (0.9 - 1 / 3) ** 2)
    # neither the teacher of `moving` nor the student of `still` has a part
    other = MeanTeacher().step(b, replace(FLAT, teacher=teacher), replace(PLAIN, teacher=FLAT))
    close(other["loss"], out["loss"])
    with pytest.raises(ValueError, match="teacher"):
        MeanTeacher().step(b, PLAIN, PLAIN)


@pytest.mark.parametrize(
    ("t", "linear", "exp"), [(0, 0, -5), (1, 0.25, -5 * 9 / 16), (2, 0.5, -5 / 4), (4, 1, 0), (9, 1, 0)]
)
def test_rise_by_hand(t: int, linear: float, exp: float) -> None:
    # the ramp is over at step 4 of 10; `exp` is the exponent
    b = replace(batch((0.25,), (0.9,), (0.2,), t=t), draws={"directions": np.ones((1, 1, 1, 2))})
    still = replace(PLAIN, teacher=FLAT)
    for kind, lambda_, entropy in ((PiModel, 10, 0), (MeanTeacher, 50, 0), (VAT, 0.3, 0.06)):
        given: list[tuple[float, dict[str, Any]]]
        given = [(linear, {}), (linear, {"rise": "linear"}), (math.exp(exp), {"rise": "exp"})]
        for factor, options in given:
            out = kind(**options).step(b, still, PLAIN)
            assert out["unlabeled_loss"] > 0.01
            rest = LOG(4) + entropy * out.get("entropy_loss", 0)
            close(out["loss"], rest + lambda_ * factor * out["unlabeled_loss"])


@pytest.mark.parametrize("rise", ["linear", "exp"])
def test_rise_of_no_length_is_over(rise: Any) -> None:
    b = replace(batch((0.25,), (0.9,), (0.2,), t=0), draws={"directions": np.ones((1, 1, 1, 2))})
    still = replace(PLAIN, teacher=FLAT)
    for kind in (PiModel, MeanTeacher, VAT):
        out = kind(lambda_=2, ramp_share=0, rise=rise).step(b, still, PLAIN)
        close(out["loss"], LOG(4) + 2 * out["unlabeled_loss"] + 0.06 * out.get("entropy_loss", 0))


def test_rise_must_be_known() -> None:
    rise: Any = "sigmoid"
    for kind in (PiModel, MeanTeacher, VAT):
        with pytest.raises(ValueError, match="sigmoid"):
            kind(rise=rise)


# VAT


def test_vat_by_hand_with_one_value() -> None:
    # one value x = 0, logits +-2 tanh x: p is (1/2, 1/2). In one dimension the KL grows on both sides, so the
    # perturbation has the sign of the draw; logits +-s have KL((1/2, 1/2) || .) = log cosh s.
    model = Model(V=np.ones((1, 1)), W=np.array([[2.0], [-2.0]]), b=np.zeros(2))
    x = np.zeros((2, 1, 1, 1))
    draws = {"directions": np.array([3.0, -0.01]).reshape(2, 1, 1, 1)}
    b = Batch((x[:1],), np.array([1]), (x,), t=2, steps=10, draws=draws)
    for iterations in (1, 3):
        out = VAT(eps=0.5 * math.sqrt(3072), iterations=iterations).step(b, model, model)
        close(out["perturbation"].ravel(), [0.5, -0.5])
        expected = LOG(math.cosh(2 * math.tanh(0.5)))
        close(out["unlabeled_loss"], expected)
        close(out["entropy_loss"], LOG(2))
        close(out["loss"], LOG(2) + 0.3 * 0.5 * expected + 0.06 * LOG(2))  # the ramp is not the entropy's


def test_vat_gradient_by_central_differences() -> None:
    """With a large xi and one iteration, r points along the gradient of the KL at x + xi d."""
    b, model, xi, h = random_batch(1), random_model(2), 0.7, 1e-5
    out = VAT(xi=xi).step(b, model, model)

    def kl(clean: Floats, seen: Floats) -> float:
        p, q = (np.exp(z) / np.exp(z).sum() for z in (model.logits(v[None])[0] for v in (clean, seen)))
        return float((p * np.log(p / q)).sum())

    for x, d, r in zip(b.unlabeled[0], b.draws["directions"], out["perturbation"], strict=True):
        start = x + xi * d / np.sqrt((d**2).sum())
        slope = np.zeros_like(x)
        for place in np.ndindex(*x.shape):
            move = np.zeros_like(x)
            move[place] = h
            slope[place] = (kl(x, start + move) - kl(x, start - move)) / (2 * h)
        close(r, 6 * math.sqrt(12 / 3072) * slope / np.sqrt((slope**2).sum()), 1e-7)


@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_vat_is_power_iteration_on_the_hessian(iterations: int) -> None:
    """For a small xi, d <- unit(H d) with H = J^T (diag p - p p^T) J, the Hessian of the KL at r = 0."""
    b, model = random_batch(3), random_model(4)
    out = VAT(iterations=iterations).step(b, model, model)
    for x, d, r in zip(b.unlabeled[0], b.draws["directions"], out["perturbation"], strict=True):
        f = np.tanh(model.V @ x.ravel())
        p = np.exp(model.W @ f + model.b)
        p /= p.sum()
        jacobian = model.W @ np.diag(1 - f**2) @ model.V
        hessian = jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
        direction = np.linalg.matrix_power(hessian, iterations) @ d.ravel()
        close(r.ravel(), 6 * math.sqrt(12 / 3072) * direction / np.linalg.norm(direction), 1e-5)


def test_vat_losses_and_what_moves() -> None:
    b, still, moving = random_batch(5), random_model(6), random_model(7)
    out, alone = VAT().step(b, still, moving), VAT().step(b, still, still)
    close(out["perturbation"], alone["perturbation"])
    close(out["target"], alone["target"])
    images_, r = b.unlabeled[0], out["perturbation"]
    kl, entropy = 0.0, 0.0
    for i in range(4):
        p, q, own = (
            np.exp(z) / np.exp(z).sum()
            for z in (
                still.logits(images_[i : i + 1])[0],
                moving.logits(images_[i : i + 1] + r[i])[0],
                moving.logits(images_[i : i + 1])[0],
            )
        )
        kl += float((p * np.log(p / q)).sum()) / 4
        entropy -= float((own * np.log(own)).sum()) / 4
    close(out["entropy_loss"], entropy)
    close(out["unlabeled_loss"], kl)
    close(out["loss"], out["labeled_loss"] + 0.3 * kl + 0.06 * entropy)  # half of the run: the ramp is over
    first = VAT(lambda_=7, entropy=0.5).step(replace(b, t=0), still, moving)
    close(first["loss"], first["labeled_loss"] + 0.5 * entropy)


def test_vat_without_a_slope() -> None:
    b = replace(batch((0.5,), (0.3, 0.8)), draws={"directions": np.ones((2, 1, 1, 2))})
    out = VAT().step(b, FLAT, FLAT)
    assert not out["perturbation"].any()
    close([out["unlabeled_loss"], out["entropy_loss"]], [0, LOG(2)])
    nowhere = replace(b, draws={"directions": np.zeros((2, 1, 1, 2))})
    assert np.isfinite(VAT().step(nowhere, PLAIN, PLAIN)["loss"])


# UDA


def test_uda_by_hand() -> None:
    # sharpen((.9, .1), .5) = (81, 1) / 82; the second row is below the threshold; strong view (.75, .25)
    b = batch((0.25, 0.5), (0.9, 0.6), (0.75, 0.9))
    out = UDA(lambda_=2, temperature=0.5).step(b, PLAIN, PLAIN)
    expected = -(81 * LOG(0.75) + LOG(0.25)) / 82 / 2
    close(out["target"], [[81 / 82, 1 / 82], [36 / 52, 16 / 52]])
    close(out["row_weight"], [1, 0])
    close(out["unlabeled_loss"], expected)
    close(out["loss"], (LOG(4) + LOG(2)) / 2 + 2 * expected)
    assert out["kept"] == 0.5
    close(UDA(temperature=0.5).step(b, PLAIN, FLAT)["unlabeled_loss"], LOG(2) / 2)  # only the strong view moves


def test_uda_annealing_schedules() -> None:
    schedules = [UDA(annealing=a, classes=4) for a in ("linear", "log", "exp")]
    close([s.eta(0.0) for s in schedules], [0.25, 0.25, 0.25 + 0.75 / math.exp(5)])
    close([s.eta(0.4) for s in schedules], [0.55, 1 - 0.75 * math.exp(-2), 0.25 + 0.75 * math.exp(-3)])
    close([s.eta(1.0) for s in schedules], [1, 1 - 0.75 * math.exp(-5), 1])


def test_uda_annealing_by_hand() -> None:
    # half of the run: eta = 3/4. It is the LABEL's probability that counts, so the row (.1, .9) with label 0 stays in
    b = batch((0.5, 0.9, 0.1, 0.9), (0.6,), (0.6,), t=5, labels=[0, 0, 0, 1])
    uda = UDA(annealing="linear", classes=2)
    close(uda.step(b, PLAIN, PLAIN)["labeled_loss"], (LOG(2) + 2 * LOG(10)) / 3)
    close(uda.step(b, PLAIN, FLAT)["labeled_loss"], LOG(2))  # who counts is decided by `still`
    # nobody is below; at the very threshold, one is in
    sure = batch((0.9, 0.8), (0.6,), (0.6,), t=0)
    assert uda.step(sure, PLAIN, PLAIN)["labeled_loss"] == 0
    close(uda.step(sure, FLAT, FLAT)["labeled_loss"], LOG(2))


# Dash


def test_dash_threshold_by_hand() -> None:
    dash = Dash(warm_up=2, period=2.5)
    views = ((0.6,), (0.6,))
    seen = [dash.step(batch((0.25 if t == 2 else 0.9,), *views, t=t), PLAIN, PLAIN)["rho"] for t in range(8)]
    start = 1.0001 * LOG(4)
    close(seen, [0, 0, start, start, start, start / 1.27, start / 1.27, start / 1.27**2])
    close(dash.rho0, LOG(4))
    close(dash.rho(10**4), 0.05)


def test_dash_warm_up_is_supervised() -> None:
    out = Dash(warm_up=3, period=9).step(batch((0.25,), (0.99,), (0.6,)), PLAIN, PLAIN)
    assert out["unlabeled_loss"] == 0 and out["kept"] == 0 and out["rho"] == 0
    close(out["loss"], LOG(4))


def test_dash_tests_the_loss_of_the_target_it_uses() -> None:
    # row (.6, .4): sharpened (9, 4) / 13 with loss -(9 log .6 + 4 log .4) / 13 = .6356; one-hot -log .6 = .5108.
    # rho0 = -log .56 = .5798 lies between, so the row is out while the target is soft and in once it is hard.
    b = batch((0.56,), (0.6, 0.95), (0.75, 0.5), t=0)
    soft, hard = (Dash(warm_up=0, period=1, soft=s).step(b, PLAIN, PLAIN) for s in (True, False))
    close(soft["target"], [[9 / 13, 4 / 13], [361 / 362, 1 / 362]])
    close(soft["row_weight"], [0, 1])
    close(soft["unlabeled_loss"], LOG(2) / 2)
    close(hard["target"], [[1, 0], [1, 0]])
    close(hard["row_weight"], [1, 1])
    close(hard["unlabeled_loss"], (LOG(4 / 3) + LOG(2)) / 2)
    at_floor = Dash(warm_up=0, period=1, floor=0.6).step(b, PLAIN, PLAIN)
    assert at_floor["rho"] == 0.6
    close(at_floor["target"], hard["target"])
    close(at_floor["loss"], -LOG(0.56) + hard["unlabeled_loss"])


def test_dash_what_moves() -> None:
    b = batch((0.56,), (0.95,), (0.75,), t=0)
    dash = Dash(warm_up=0, period=1)
    out = dash.step(b, PLAIN, FLAT)
    close(dash.rho0, -LOG(0.56))
    close(out["target"], [[361 / 362, 1 / 362]])
    close([out["labeled_loss"], out["unlabeled_loss"]], [LOG(2)] * 2)


# all of them


def test_at_the_threshold_a_row_counts() -> None:
    # FLAT says (1/2, 1/2) to everything, to which each cross-entropy is log 2; these are exact in floating point
    b = batch((0.9,), (0.9,), (0.9,), t=0)
    assert UDA(threshold=0.5).step(b, FLAT, FLAT)["kept"] == 1
    assert Dash(warm_up=0, period=1, factor=1.0).step(b, FLAT, FLAT)["kept"] == 1


@pytest.mark.parametrize("make", METHODS)
def test_no_unlabeled_rows(make: Callable[[], Any]) -> None:
    still = replace(PLAIN, teacher=FLAT)
    none = np.zeros((0, 1, 1, 2))
    b = replace(batch((0.25,), t=1), unlabeled=(none, none), draws={"directions": none})
    method = make()
    before = dict(vars(method))
    out = method.step(b, still, PLAIN)
    assert out["unlabeled_loss"] == 0 and out["kept"] == 0 and out["target"].shape == (0, 2)
    close(out["loss"], LOG(4))
    assert vars(method) == before


@pytest.mark.parametrize("make", METHODS)
def test_a_step_is_repeatable_and_its_keys_agree(make: Callable[[], Any]) -> None:
    still = replace(PLAIN, teacher=FLAT)
    b = batch((0.25, 0.7), (0.95, 0.6, 0.3), (0.8, 0.5, 0.4), t=1)
    b = replace(b, draws={"directions": np.arange(1.0, 7.0).reshape(3, 1, 1, 2)})
    first, again = (make().step(b, still, PLAIN) for _ in range(2))
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
    close(first["kept"], first["row_weight"].mean())
    close(first["target"].sum(axis=1), 1)
