"""Checks of CoMatch, SimMatch and CRMatch: small cases worked out by hand, matrix forms, what stays still."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from .bank_oracles import CoMatch, CRMatch, SimMatch, UniformAlignment, embed
from .basics import Floats, Ints
from .network import Batch, Model

HEAD = 4.0  # logits are HEAD times the first two features in `plain`


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def plain(swap: bool = False, teacher: Model | None = None) -> Model:
    """Return K = 2, D = 4, E = 2: features (u, v, a, b) have logits 4 (u, v) and embedding (a, b) / length.

    With `swap` the embedding is (b, a).
    """
    pick = np.array([[0, 0, 0, 1], [0, 0, 1, 0]] if swap else [[0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)
    own = {
        "projector.0.weight": np.eye(4),
        "projector.0.bias": np.zeros(4),
        "projector.2.weight": pick,
        "projector.2.bias": np.zeros(2),
    }
    W = HEAD * np.eye(2, 4)
    return Model(np.eye(4), W, np.zeros(2), own, teacher)


def image(probabilities: tuple[float, float], embedding: tuple[float, float]) -> Floats:
    """Return the [1, 2, 2] image that `plain` maps to these."""
    logits = np.log(np.array(probabilities)) / HEAD
    features = np.concatenate([logits, np.array(embedding) / 2])
    return np.arctanh(features).reshape(1, 2, 2)


EVEN = (0.5, 0.5)
# their mean is (.6, .4): aligned they are (8, 3) / 11 and (4, 9) / 13
WEAK = np.array([image((0.8, 0.2), (1, 0)), image((0.4, 0.6), (0, 1))])
STRONG = np.array([image(EVEN, (1, 0)), image(EVEN, (0, 1))])
P = np.array([[8 / 11, 3 / 11], [4 / 13, 9 / 13]])
E1 = math.e


def test_embedding_leaks_and_has_length_one() -> None:
    # leaky ReLU of (-.8, .6) is (-.08, .6)
    features = np.array([[0.3, 0.1, -0.8, 0.6], [0.2, 0.2, 0.6, 0.8]])
    length = math.sqrt(0.08**2 + 0.6**2)
    close(embed(plain(), features), [[-0.08 / length, 0.6 / length], [0.6, 0.8]])


def test_alignment_forgets_what_left_the_window() -> None:
    alignment = UniformAlignment(2, window=2)
    alignment.align(np.array([[0.99, 0.01]]))
    alignment.align(np.array([[0.2, 0.8]]))
    # the mean of .2 and .6 is .4: (.6 / .4, .4 / .6) = (9, 4) / 6
    close(alignment.align(np.array([[0.6, 0.4]])), [[9 / 13, 4 / 13]])


def comatch_batch(t: int) -> Batch:
    labeled = np.array([image(EVEN, (0.6, 0.8))])
    return Batch((labeled,), np.array([1]), (WEAK, STRONG, STRONG), t, 10)


def test_comatch_by_hand() -> None:
    method = CoMatch(
        2, 2, 7, 1, 5, lambda_=2.0, contrast=3.0, threshold=0.7, temperature=1.0, smoothing=0.9, graph_threshold=0.4
    )
    out = method.step(comatch_batch(0), plain(), plain())
    close(out["target"], P)
    close(out["row_weight"], [1, 0])
    assert out["kept"] == 0.5
    close(out["labeled_loss"], math.log(2))
    close(out["unlabeled_loss"], math.log(2) / 2)
    # Q_12 = 8/11 4/13 + 3/11 9/13 = 59/143, so Q's rows are (143, 59) / 202; S's are (e, 1) / (1 + e)
    contrast = math.log(1 + E1) - 143 / 202
    close(out["contrast_loss"], contrast)
    close(out["loss"], math.log(2) * (1 + 2 / 2) + 3 * contrast)
    close(method.bank_embeddings, [[1, 0], [0, 1], [0.6, 0.8], [0, 0], [0, 0], [0, 0], [0, 0]])
    close(method.bank_targets, [*P, [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]])

    # The same batch again: p stays, and row 1 looks at the three rows filled with e^1, e^0, e^.6.
    out = method.step(comatch_batch(1), plain(), plain())
    a = np.array([[E1, 1, E1**0.6], [1, E1, E1**0.8]])
    first = (E1 * 8 / 11 + 4 / 13) / a[0].sum()
    second = (8 / 11 + E1 * 4 / 13) / a[1].sum()
    q1, q2 = 0.9 * 8 / 11 + 0.1 * first, 0.9 * 4 / 13 + 0.1 * second
    close(out["target"], [[q1, 1 - q1], [q2, 1 - q2]])
    close(method.bank_targets[3:6], [*P, [0, 1]])  # unsmoothed

    # The ring wraps: of rows 6, 7, 8 the last two overwrite the first two.
    method.step(comatch_batch(2), plain(), plain())
    close(method.bank_embeddings[[6, 0, 1, 2]], [[1, 0], [0, 1], [0.6, 0.8], [0.6, 0.8]])
    close(method.bank_targets[[6, 0, 1, 2]], [P[0], P[1], [0, 1], [0, 1]])


def test_comatch_graph() -> None:
    method = CoMatch(2, 2, 7, 1, 5, graph_threshold=0.5)
    # dot products .9 (1st, 2nd), .18 (1st, 3rd), .26 (2nd, 3rd)
    q = np.array([[1.0, 0.0], [0.9, 0.1], [0.18, 0.82]])
    close(method.graph(q)[:2], [[1 / 1.9, 0.9 / 1.9, 0], [0.9 / 1.9, 1 / 1.9, 0]])
    close(method.graph(q)[2], [0, 0, 1])


def simmatch_batch() -> Batch:
    # Row 0 stands twice: the last, embedding (0, 1) and class 1, counts. Row 1 is not seen.
    labeled = np.array([image(EVEN, (1, 0)), image(EVEN, (1, 0)), image(EVEN, (0, 1))])
    return Batch((labeled,), np.array([0, 0, 1]), (WEAK, STRONG), 0, 10, labeled_rows=np.array([0, 2, 0]))


def test_simmatch_by_hand() -> None:
    student = plain(swap=True, teacher=plain())
    method = SimMatch(2, 3, 2, 5, lambda_=2.0, instance=3.0, threshold=0.65, temperature=1.0, smoothing=0.9)
    out = method.step(simmatch_batch(), student, student)
    close(method.bank, [[0, 1], [0, 0], [1, 0]])
    assert method.bank_labels.tolist() == [1, -1, 0]
    near, far = E1 / (1 + E1), 1 / (1 + E1)
    target = 0.9 * P + 0.1 * np.array([[near, far], [far, near]])
    close(out["target"], target)  # tops .7276 and .6962
    close(out["row_weight"], [1, 1])
    close(out["unlabeled_loss"], math.log(2))
    # Bank rows 0, 2: q'_1 = (3, 8e) / (3 + 8e), q'_2 = (9e, 4) / (9e + 4); the student, whose embeddings are swapped,
    # has (e, 1) / (1 + e) and (1, e) / (1 + e).
    instance = math.log(1 + E1) - (3 / (3 + 8 * E1) + 4 / (9 * E1 + 4)) / 2
    close(out["instance_loss"], instance)
    close(out["loss"], math.log(2) * (1 + 2) + 3 * instance)


def test_simmatch_takes_threshold_after_smoothing() -> None:
    student = plain(swap=True, teacher=plain())
    method = SimMatch(2, 3, 2, 5, threshold=0.7, temperature=1.0)  # p's 2nd top is .692, p''s .696; the first .728
    close(method.step(simmatch_batch(), student, student)["row_weight"], [1, 0])
    method = SimMatch(2, 3, 2, 5, threshold=0.695, temperature=1.0)
    close(method.step(simmatch_batch(), student, student)["row_weight"], [1, 1])


def test_simmatch_keeps_rows_of_former_steps() -> None:
    student = plain(swap=True, teacher=plain())
    method = SimMatch(2, 3, 2, 5, temperature=1.0)
    method.step(simmatch_batch(), student, student)
    labeled = np.array([image(EVEN, (0.6, 0.8))])
    batch = Batch((labeled,), np.array([1]), (WEAK, STRONG), 1, 10, labeled_rows=np.array([1]))
    out = method.step(batch, student, student)
    close(method.bank, [[0, 1], [0.6, 0.8], [1, 0]])
    w = np.array([[1, E1**0.6, E1], [E1, E1**0.8, 1]])  # bank rows of class 1, 1, 0
    zeros = w[:, 2] / w.sum(axis=1)
    close(out["target"][:, 0], 0.9 * P[:, 0] + 0.1 * zeros)


def test_simmatch_without_a_teacher_asks_the_network_itself() -> None:
    # the numbers of the first test, with the teacher's part played by the network that stands still
    options: dict[str, Any] = {"lambda_": 2.0, "instance": 3.0, "threshold": 0.65, "temperature": 1.0}
    with_teacher, without = SimMatch(2, 3, 2, 5, **options), SimMatch(2, 3, 2, 5, **options, teacher=False)
    student = plain(swap=True, teacher=plain())
    expected = with_teacher.step(simmatch_batch(), student, student)
    for still in (plain(), plain(teacher=student)):
        out = copy.deepcopy(without).step(simmatch_batch(), still, plain(swap=True))
        for key, value in expected.items():
            close(out[key], value)
    # and with one network for all the student agrees: (e, 1) / (1 + e), (1, e) / (1 + e)
    out = without.step(simmatch_batch(), plain(), plain())
    close(without.bank, with_teacher.bank)
    instance = math.log(1 + E1) - (8 * E1 / (3 + 8 * E1) + 9 * E1 / (9 * E1 + 4)) / 2
    close(out["instance_loss"], instance)


def test_simmatch_bank_momentum_by_hand() -> None:
    student = plain(swap=True, teacher=plain())
    method = SimMatch(2, 3, 2, 5, temperature=1.0, bank_momentum=0.7)
    method.step(simmatch_batch(), student, student)
    close(method.bank, [[0, 1], [0, 0], [1, 0]])  # new rows are taken as they are, row 0 too, which stood there twice
    # row 0 twice: .7 (0, 1) + .3 (1, 0), of the last and of what was there before the step; row 1 for the first time
    labeled = np.array([image(EVEN, (0.6, 0.8)), image(EVEN, (0.6, 0.8)), image(EVEN, (1, 0))])
    rows = np.array([0, 1, 0])
    batch = Batch((labeled,), np.array([1, 1, 1]), (WEAK, STRONG), 1, 10, labeled_rows=rows)
    out = method.step(batch, student, student)
    x, y = 0.3 / math.sqrt(0.58), 0.7 / math.sqrt(0.58)
    close(method.bank, [[x, y], [0.6, 0.8], [1, 0]])
    w = np.exp([[x, 0.6, 1], [y, 0.8, 0]])  # bank rows of class 1, 1, 0: the new entries are used at once
    close(out["target"][:, 0], 0.9 * P[:, 0] + 0.1 * w[:, 2] / w.sum(axis=1))


# places of the flattened [[0, 1], [2, 3]] after each number of quarter turns counter-clockwise
TURNED = {0: [0, 1, 2, 3], 1: [1, 3, 0, 2], 2: [3, 2, 1, 0], 3: [2, 0, 3, 1]}


def test_crmatch_by_hand() -> None:
    rng = np.random.default_rng(5)
    head = {"rotation.0.weight": rng.standard_normal((4, 4)), "rotation.0.bias": rng.standard_normal(4)}
    head |= {"rotation.2.weight": rng.standard_normal((4, 4)), "rotation.2.bias": rng.standard_normal(4)}
    # projects features (u, v, a, b) to (a, b, 0, 0)
    shift = np.zeros((4, 4))
    shift[0, 2] = shift[1, 3] = 1.0
    model = Model(np.eye(4), HEAD * np.eye(2, 4), np.zeros(2))
    model = dataclasses.replace(model, own=head | {"projection.weight": shift, "projection.bias": np.zeros(4)})
    sure, unsure = (0.97, 0.03), (0.3, 0.7)
    weak = np.array([image(sure, (1, 0)), image(sure, (1, 0)), image(unsure, (1, 0)), image(sure[::-1], (0, 1))])
    strong = np.array([image(EVEN, e) for e in [(0.6, 0.8), (-1, 0), (1, 0), (0.6, 0.8)]])
    weak2 = 0.5 * rng.standard_normal((4, 1, 2, 2))
    turns = np.array([3, 1, 0, 2])
    labeled = np.array([image((0.25, 0.75), (1, 0))])
    batch = Batch((labeled,), np.array([0]), (weak, strong, weak2), 0, 10, draws={"turns": turns})
    out = CRMatch(lambda_=2.0, rotation=3.0, distance=5.0).step(batch, model, model)
    assert out["target"].tolist() == [0, 0, 1, 1]
    close(out["row_weight"], [1, 1, 0, 1])
    close(out["labeled_loss"], math.log(4))
    close(out["unlabeled_loss"], 0.75 * math.log(2))
    close(out["distance_loss"], (0.6 + 0 + 0 + 0.8) / 4)  # cosine -1 counts 0, the third row is not kept
    total = 0.0
    for pixels, k in zip(weak2, turns, strict=True):
        f = np.tanh(pixels.ravel()[TURNED[int(k)]])
        hidden = head["rotation.0.weight"] @ f + head["rotation.0.bias"]
        z = head["rotation.2.weight"] @ (hidden * (hidden > 0)) + head["rotation.2.bias"]
        total += math.log(np.exp(z).sum()) - z[k]
    close(out["rotation_loss"], total / 4)
    expected = math.log(4) + 2 * 0.75 * math.log(2) + 3 * total / 4 + 5 * 0.35
    close(out["loss"], expected)


# Random networks and batches: B, M, K, D, E and L labeled rows.
B, M, K, D, E, L = 3, 5, 4, 6, 3, 8
TOP = 0.75  # threshold of the first two: some rows are kept, some not
SHAPES = {
    "projector.0.weight": (D, D),
    "projector.0.bias": (D,),
    "projector.2.weight": (E, D),
    "projector.2.bias": (E,),
    "rotation.0.weight": (D, D),
    "rotation.0.bias": (D,),
    "rotation.2.weight": (4, D),
    "rotation.2.bias": (4,),
    "projection.weight": (D, D),
    "projection.bias": (D,),
}
METHODS: list[Callable[[], Any]] = [
    lambda: CoMatch(K, E, 11, 2, 2, 0.7, 0.6, threshold=TOP, graph_threshold=0.25),
    lambda: SimMatch(K, L, E, 2, 0.7, 0.6, threshold=TOP),
    lambda: CRMatch(0.7, 0.6, 0.5, threshold=0.5),
    lambda: SimMatch(K, L, E, 2, 0.7, 0.6, threshold=TOP, teacher=False, bank_momentum=0.7),
    lambda: CRMatch(0.7, 0.6, 0.5, threshold=0.7, both=True),
]


def random_model(rng: np.random.Generator, teacher: Model | None = None) -> Model:
    own = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    V, W = 0.4 * rng.standard_normal((D, 12)), 1.5 * rng.standard_normal((K, D))
    return Model(V, W, rng.standard_normal(K), own, teacher)


def random_batch(rng: np.random.Generator, method: Any, t: int, unlabeled: int = M) -> Batch:
    views = 2 if isinstance(method, SimMatch) else 3
    labels: Ints = rng.integers(0, K, B)
    return Batch(
        (rng.standard_normal((B, 3, 2, 2)),),
        labels,
        tuple(rng.standard_normal((views, unlabeled, 3, 2, 2))),
        t,
        10,
        labeled_rows=rng.integers(0, L, B),
        draws={"turns": rng.integers(0, 4, unlabeled)},
    )


def memories(method: Any) -> list[Floats]:
    return [value.copy() for value in vars(method).values() if isinstance(value, np.ndarray)]


@pytest.mark.parametrize("make", METHODS)
def test_without_unlabeled_rows(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(1)
    method, model = make(), random_model(rng, random_model(rng))
    method.step(random_batch(rng, method, 0), model, model)
    before = memories(method)
    batch = random_batch(rng, method, 1, unlabeled=0)
    out = method.step(batch, model, model)
    z = np.tanh(batch.labeled[0].reshape(B, -1) @ model.V.T) @ model.W.T + model.b
    expected = (np.log(np.exp(z).sum(axis=1)) - z[np.arange(B), batch.labels]).mean()
    close(out["loss"], expected)
    close(out["labeled_loss"], expected)
    assert all(out[key] == 0 for key in out if key.endswith("_loss") and key != "labeled_loss")
    assert len(out["row_weight"]) == len(out["target"]) == 0
    for now, then in zip(memories(method), before, strict=True):
        close(now, then)


@pytest.mark.parametrize("make", METHODS)
def test_moving_network_reaches_losses_only(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(2)
    method, still, other = make(), random_model(rng, random_model(rng)), random_model(rng)
    method.step(random_batch(rng, method, 0), still, still)
    twin, batch = copy.deepcopy(method), random_batch(rng, method, 1)
    one, two = method.step(batch, still, still), twin.step(batch, still, other)
    assert 0 < one["kept"] < 1
    for key in ("row_weight", "target"):
        close(one[key], two[key])
    for now, then in zip(memories(method), memories(twin), strict=True):
        close(now, then)
    for key in (key for key in one if key.endswith("loss")):
        assert one[key] != two[key], key


@pytest.mark.parametrize("make", METHODS)
def test_still_network_leaves_labeled_loss(make: Callable[[], Any]) -> None:
    rng = np.random.default_rng(3)
    method, moving, other = make(), random_model(rng), random_model(rng, random_model(rng))
    moving = dataclasses.replace(moving, teacher=random_model(rng))
    twin, batch = copy.deepcopy(method), random_batch(rng, method, 1)
    one, two = method.step(batch, moving, moving), twin.step(batch, other, moving)
    same = {"labeled_loss", "rotation_loss"}
    for key in (key for key in one if key.endswith("loss")):
        assert (one[key] == two[key]) == (key in same), key


def matrix_softmax(z: Floats) -> Floats:
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


def matrix_forward(model: Model, images: Floats) -> tuple[Floats, Floats]:
    """Return probabilities and embeddings of images in matrix form."""
    f = np.tanh(images.reshape(len(images), -1) @ model.V.T)
    h = f @ model.own["projector.0.weight"].T + model.own["projector.0.bias"]
    g = np.maximum(h, 0.1 * h) @ model.own["projector.2.weight"].T + model.own["projector.2.bias"]
    return matrix_softmax(f @ model.W.T + model.b), g / np.linalg.norm(g, axis=1, keepdims=True)


def test_comatch_in_matrix_form() -> None:
    """Five steps against products of matrices, the bank as a list of all rows so far; 11 rows are no multiple of 8."""
    rng = np.random.default_rng(4)
    method, means, rows, kept = METHODS[0](), [], [], []
    for t in range(5):
        still, moving, batch = random_model(rng), random_model(rng), random_batch(rng, method, t)
        out = method.step(batch, still, moving)
        p, g_w = matrix_forward(still, batch.unlabeled[0])
        _, g_l = matrix_forward(still, batch.labeled[0])
        p_l, _ = matrix_forward(moving, batch.labeled[0])
        p_s, g_s1 = matrix_forward(moving, batch.unlabeled[1])
        _, g_s2 = matrix_forward(moving, batch.unlabeled[2])
        means.append(p.mean(axis=0))
        p = p / np.mean(means[-2:], axis=0)
        p /= p.sum(axis=1, keepdims=True)
        q = p
        if t >= 2:
            keys, values = (np.array(part) for part in zip(*rows[-11:], strict=True))
            q = 0.9 * p + 0.1 * matrix_softmax(g_w @ keys.T / 0.2) @ values
        rows += list(zip([*g_w, *g_l], [*p, *np.eye(K)[batch.labels]], strict=True))
        weight = (q.max(axis=1) >= TOP).astype(float)
        edges = q @ q.T
        np.fill_diagonal(edges, 1.0)
        edges = np.where(edges >= 0.25, edges, 0.0)
        edges /= edges.sum(axis=1, keepdims=True)
        close(out["labeled_loss"], -np.log(p_l[np.arange(B), batch.labels]).mean())
        close(out["target"], q)
        close(out["row_weight"], weight)
        kept += list(weight)
        close(out["unlabeled_loss"], -(weight[:, None] * q * np.log(p_s)).sum() / M)
        close(out["contrast_loss"], -(edges * np.log(matrix_softmax(g_s1 @ g_s2.T / 0.2))).sum() / M)
        close(out["loss"], out["labeled_loss"] + 0.7 * out["unlabeled_loss"] + 0.6 * out["contrast_loss"])
        for n, (key, value) in list(enumerate(rows))[-11:]:
            close(method.bank_embeddings[n % 11], key)
            close(method.bank_targets[n % 11], value)
    assert 0 < np.mean(kept) < 1


@pytest.mark.parametrize(("number", "momentum"), [(1, 0.0), (3, 0.7)])
def test_simmatch_in_matrix_form(number: int, momentum: float) -> None:
    """Five steps against products of matrices; the unseen rows weigh exp(-inf)."""
    rng = np.random.default_rng(6)
    method, means, bank, kept = METHODS[number](), [], {}, []
    for t in range(5):
        teacher = random_model(rng)
        still, moving, batch = random_model(rng, teacher), random_model(rng), random_batch(rng, method, t)
        teacher = teacher if number == 1 else still
        out = method.step(batch, still, moving)
        p, g_w = matrix_forward(teacher, batch.unlabeled[0])
        p_l, _ = matrix_forward(moving, batch.labeled[0])
        p_s, g_s = matrix_forward(moving, batch.unlabeled[1])
        _, g_l = matrix_forward(teacher, batch.labeled[0])
        assert batch.labeled_rows is not None
        old = np.array([bank[j][0] if j in bank else g for j, g in zip(batch.labeled_rows, g_l, strict=True)])
        g_l = momentum * old + (1 - momentum) * g_l
        g_l /= np.linalg.norm(g_l, axis=1, keepdims=True)
        bank |= dict(zip(batch.labeled_rows.tolist(), zip(g_l, batch.labels, strict=True), strict=True))
        keys, onehot, hidden = np.zeros((L, E)), np.zeros((L, K)), np.full(L, -np.inf)
        for j, (key, k) in bank.items():
            keys[j], onehot[j, k], hidden[j] = key, 1.0, 0.0
        means.append(p.mean(axis=0))
        p = p / np.mean(means[-2:], axis=0)
        p /= p.sum(axis=1, keepdims=True)
        q = matrix_softmax(g_w @ keys.T / 0.1 + hidden)
        q_new = q * (p @ onehot.T)
        q_new /= q_new.sum(axis=1, keepdims=True)
        p_new = 0.9 * p + 0.1 * q @ onehot
        weight = (p_new.max(axis=1) >= TOP).astype(float)
        seen = sorted(bank)
        log_student = np.log(matrix_softmax(g_s @ keys[seen].T / 0.1))
        close(out["labeled_loss"], -np.log(p_l[np.arange(B), batch.labels]).mean())
        close(out["target"], p_new)
        close(out["row_weight"], weight)
        kept += list(weight)
        close(out["unlabeled_loss"], -(weight[:, None] * p_new * np.log(p_s)).sum() / M)
        close(out["instance_loss"], -(q_new[:, seen] * log_student).sum() / M)
        close(out["loss"], out["labeled_loss"] + 0.7 * out["unlabeled_loss"] + 0.6 * out["instance_loss"])
        assert [j for j in range(L) if method.bank_labels[j] >= 0] == seen
    assert 0 < np.mean(kept) < 1


@pytest.mark.parametrize("both", [False, True])
def test_crmatch_distance_gradient_flows_through_strong_side_alone_or_both(both: bool) -> None:
    """d cosine(a, b) / db = (a / |a| - cosine b / |b|) / |b|, times d b / d bias = 1, for the projection's bias.

    The other side's is the same with a and b exchanged.
    """
    rng = np.random.default_rng(7)
    method = CRMatch(threshold=0.0, both=both)
    still = random_model(rng)
    batch = random_batch(rng, method, 0)
    f_w = np.tanh(batch.unlabeled[0].reshape(M, -1) @ still.V.T)
    f_s = np.tanh(batch.unlabeled[1].reshape(M, -1) @ still.V.T)
    A, bias = still.own["projection.weight"], still.own["projection.bias"]
    expected = np.zeros(D)
    for a, b in zip(f_w @ A.T + bias, f_s @ A.T + bias, strict=True):
        a_length, b_length = np.linalg.norm(a), np.linalg.norm(b)
        c = a @ b / (a_length * b_length)
        if c > 0:
            expected += (a / a_length - c * b / b_length) / b_length / M
            expected += both * (b / b_length - c * a / a_length) / a_length / M
    assert np.abs(expected).max() > 1e-3
    h = 1e-5
    for d in range(D):
        ends = []
        for side in (h, -h):
            moved = bias + side * np.eye(D)[d]
            moving = dataclasses.replace(still, own={**still.own, "projection.bias": moved})
            ends.append(method.step(batch, still, moving)["distance_loss"])
        close((ends[0] - ends[1]) / (2 * h), expected[d], 1e-8)


def test_crmatch_with_both_moves_the_weak_side_and_nothing_else_of_it() -> None:
    """The features of the weak view move too, not just its projection; who counts is decided by the still network."""
    rng = np.random.default_rng(8)
    still, moving = random_model(rng), random_model(rng)
    batch = random_batch(rng, CRMatch(), 0)
    one, two = (CRMatch(threshold=0.6, both=both).step(batch, still, moving) for both in (False, True))
    assert 0 < one["kept"] < 1
    total = 0.0
    for i, keep in enumerate(one["row_weight"]):
        weak, strong = (np.tanh(moving.V @ view[i].ravel()) for view in batch.unlabeled[:2])
        A, bias = moving.own["projection.weight"], moving.own["projection.bias"]
        a, b = A @ weak + bias, A @ strong + bias
        total += keep * max(0.0, a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / M
    close(two["distance_loss"], total)
    assert one["distance_loss"] != two["distance_loss"]
    for key in ("labeled_loss", "unlabeled_loss", "rotation_loss", "row_weight", "target", "kept"):
        close(one[key], two[key])
    same = [CRMatch(threshold=0.6, both=both).step(batch, still, still)["loss"] for both in (False, True)]
    close(*same)
