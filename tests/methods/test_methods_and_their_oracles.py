"""Each method against its slow reference on a small real network: losses, row weights, memories, and gradients.

The reference computes with one network what gets a gradient and with another what gets none. So its derivative, taken
by moving the first along a random direction, is the one that the method must have, stopped gradients and all.
"""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.averaging.horizon import horizon
from fewlabels.inputs.batch import Batch
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.mix import beta, resize_mix
from fewlabels.keys import Key
from fewlabels.methods import method_class, method_names, regmixmatch
from fewlabels.methods.base import Sizes
from fewlabels.methods.parts.draws import directions, of_rows
from fewlabels.models.classifier import Card, Classifier
from fewlabels.models.network import Network
from fewlabels.models.teacher import follow
from tests.eager import ELSEWHERE
from tests.oracles import (
    bank_oracles,
    basics,
    consistency_oracles,
    curriculum_oracles,
    fixmatch_oracles,
    mixing_oracles,
    network,
)

K, D, B, M, N, STEPS = 5, 8, 6, 9, 20, 40
LABELS = (3, 1, 2, 2, 2)  # of each class
SIDE = 3
SCALE = (SIDE * SIDE / 3072) ** 0.5  # of lengths that VAT gives for images of 32x32x3
TOLERANCE = {"rtol": 1e-6, "atol": 1e-9}


class TanhOfPixels(nn.Module):
    """A backbone that NumPy can follow: tanh(V x)."""

    def __init__(self):
        super().__init__()
        self.V = nn.Parameter(torch.randn(D, SIDE * SIDE) / SIDE)

    def forward(self, x):
        return torch.tanh(x.flatten(1) @ self.V.T)


pytestmark = pytest.mark.usefixtures("float64")


def momentum(memory=1000.0):
    return basics.horizon_to_momentum(horizon(memory, STEPS))


def window(batches):
    return int(horizon(batches, STEPS))


# What each method draws, by the names that its reference has for it.
def draws_of_mixmatch(batch, method):
    blocks = (batch.labeled[0], *batch.unlabeled)
    share = beta(of_rows(batch.key, "share", *blocks), method.quantiles)
    order = of_rows(batch.key, "order", *blocks).uniform().argsort()
    return {"share": share.double().numpy(), "order": order.numpy()}


def draws_of_turns(batch, method):
    return {"turns": of_rows(batch.key, "turns", batch.unlabeled[0]).integers(4).numpy()}


def draws_of_remixmatch(batch, method):
    return draws_of_mixmatch(batch, method) | draws_of_turns(batch, method)


def draws_of_vat(batch, method):
    return {"directions": directions(batch.key, batch.unlabeled[0]).numpy()}


def draws_of_regmixmatch(batch, method):
    blocks, rows = (batch.labeled[0], batch.unlabeled[1]), batch.rows

    def paste(image, other, which, place):
        keys = of_rows(batch.key, which, *(blocks if which == "sure" else [rows])).state
        quantiles = method.sure_sides if which == "sure" else method.unsure_sides
        pair = (torch.tensor(x)[None] for x in (image, other))
        mixed, share = resize_mix(*pair, Key(keys[place : place + 1]), quantiles=quantiles)
        return mixed[0].numpy(), float(share)

    return {
        "order": of_rows(batch.key, "order", *blocks).uniform().numpy(),
        "second": (of_rows(batch.key, "second", rows).uniform() < 0.5).numpy(),
        "partner": of_rows(batch.key, "partner", rows).uniforms(B + M).T.numpy(),
        "paste": paste,
    }


def no_draws(batch, method):
    return {}


@dataclass
class Case:
    """A method with options that make rows of all kinds, its reference, and how one option goes over to the other."""

    oracle: Any
    """from the method's options, as the reference has them, to the reference"""
    options: dict[str, Any] = field(default_factory=dict)
    """of the method"""
    given: dict[str, Any] = field(default_factory=dict)
    """the same of the reference"""
    variants: list[tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=list)
    """other values of each option, one after another, and the same of the reference"""
    draws: Any = no_draws
    memories: dict[str, str] = field(default_factory=dict)
    """what the method remembers, and the same of the reference, both by path"""
    unseen: tuple[str, ...] = ()
    """options that make a difference to batch statistics alone, which this network has not"""
    names: dict[str, str] = field(default_factory=dict)
    """own modules that the reference names otherwise"""
    scale: float = 2.0
    """of the head: how sure the network is"""


LOW = ({"threshold": 0.5}, {"threshold": 0.5})
FEWER = ({"threshold": 0.7}, {"threshold": 0.7})
WEIGHT = ({"weight": 3.0}, {"lambda_": 3.0})
EXP = ({"rise": "exp"}, {"rise": "exp"})
PASSES = ("passes",)


CASES = {
    "pi_model": Case(
        consistency_oracles.PiModel,
        variants=[WEIGHT, ({"ramp": 0.05}, {"ramp_share": 0.05}), ({"ramp": 0.0}, {"ramp_share": 0.0}),
                  ({"gradient": "one"}, {"gradient": "second"}), EXP,
                  ({"ramp": 0.0, "rise": "exp"}, {"ramp_share": 0.0, "rise": "exp"})],
    ),
    "mean_teacher": Case(
        consistency_oracles.MeanTeacher, variants=[WEIGHT, ({"ramp": 0.05}, {"ramp_share": 0.05}), EXP]
    ),
    "vat": Case(
        lambda **given: consistency_oracles.VAT(**{"xi": 1e-2 * SCALE} | given),
        variants=[WEIGHT, ({"ramp": 0.05}, {"ramp_share": 0.05}), ({"entropy": 1.0}, {"entropy": 1.0}), EXP,
                  ({"size": 20.0}, {"eps": 20.0}), ({"trial": 1.0}, {"xi": SCALE})],
        draws=draws_of_vat,
    ),
    "uda": Case(
        lambda **given: consistency_oracles.UDA(**{"classes": K} | given), *LOW,
        variants=[FEWER, WEIGHT, ({"temperature": 2.0}, {"temperature": 2.0}),
                  *(({"annealing": kind}, {"annealing": kind}) for kind in ("linear", "log", "exp"))],
        unseen=PASSES,
    ),
    "dash": Case(
        lambda **given: consistency_oracles.Dash(**{"warm_up": 2, "period": 1.0} | given),
        variants=[WEIGHT, ({"factor": 1.5}, {"factor": 1.5}), ({"decay": 2.0}, {"decay": 2.0}),
                  ({"floor": 2.0}, {"floor": 2.0}), ({"period": 0.1}, {"period": 4.0}),
                  ({"warm_up_steps": 0.0}, {"warm_up": 0}), ({"temperature": 0.9}, {"temperature": 0.9}),
                  ({"soft": False}, {"soft": False})],
        memories={"rho_0.value": "rho0"}, unseen=PASSES,
    ),
    "flexmatch": Case(
        lambda **given: curriculum_oracles.FlexMatch(K, N - 3, N, **given),
        {"threshold": 0.4}, {"threshold": 0.4},
        variants=[({"threshold": 0.45}, {"threshold": 0.45}), WEIGHT, ({"mapping": "linear"}, {"mapping": "linear"}),
                  ({"mapping": "concave"}, {"mapping": "concave"}), ({"threshold_warm_up": False}, {"warm_up": False})],
        memories={"row_weight.selected": "selected"}, unseen=PASSES, scale=0.7,
    ),
    "sequencematch": Case(
        lambda **given: curriculum_oracles.SequenceMatch(K, N - 3, N, **given), *LOW,
        variants=[FEWER, WEIGHT, ({"temperature": 1.5}, {"temperature": 1.5})],
        memories={"row_weight.selected": "selected"}, unseen=PASSES,
    ),
    "softmatch": Case(
        lambda **given: curriculum_oracles.SoftMatch(K, **{"momentum": momentum()} | given),
        variants=[WEIGHT, ({"sigmas": 1.0}, {"sigmas": 1.0}), ({"align": False}, {"align": False}),
                  ({"memory": 1.2}, {"momentum": momentum(1.2)})],
        memories={"row_weight.mean": "mean", "row_weight.variance": "variance", "average.value": "p_average"},
        unseen=PASSES,
    ),
    "debiaspl": Case(
        lambda **given: curriculum_oracles.DebiasPL(K, **{"momentum": momentum()} | given), *LOW,
        variants=[FEWER, WEIGHT, ({"strength": 1.0}, {"strength": 1.0}),
                  ({"bias_of_targets": "before"}, {"margin": "after"}), ({"memory": 1.2}, {"momentum": momentum(1.2)})],
        memories={"average.value": "q"}, unseen=PASSES,
    ),
    "mixmatch": Case(
        lambda **given: mixing_oracles.MixMatch(**{"ramp_share": 1 / 20} | given),
        variants=[WEIGHT, ({"temperature": 0.9}, {"temperature": 0.9}), ({"alpha": 5.0}, {}),
                  ({"ramp_steps": 2.0**19}, {"ramp_share": 0.5})],
        draws=draws_of_mixmatch,
    ),
    "remixmatch": Case(
        lambda **given: mixing_oracles.ReMixMatch(
            np.array(LABELS) / sum(LABELS), **{"window": window(128), "ramp_share": 1 / 20} | given
        ),
        variants=[WEIGHT, ({"temperature": 0.9}, {"temperature": 0.9}), ({"alpha": 5.0}, {}),
                  ({"ramp_steps": 2.0**19}, {"ramp_share": 0.5}), ({"strong": 2.0}, {"strong_weight": 2.0}),
                  ({"rotation": 2.0}, {"rotation_weight": 2.0}), ({"window": 1.0}, {"window": 1})],
        draws=draws_of_remixmatch, names={"turn_head": "rotation"},
    ),
    "adamatch": Case(
        lambda **given: mixing_oracles.AdaMatch(**{"target": "class"} | given), {"factor": 0.8}, {"factor": 0.8},
        variants=[WEIGHT, ({"factor": 0.9}, {"factor": 0.9}), ({"target": "aligned"}, {"target": "aligned"}),
                  ({"window": 3.0}, {"window": window(3)})],
        unseen=("interpolation",),
    ),
    "regmixmatch": Case(
        lambda **given: mixing_oracles.RegMixMatch(K, **{"momentum": momentum()} | given), {"sure": 0.5}, {"sure": 0.5},
        variants=[WEIGHT, ({"sure": 0.6}, {"sure": 0.6}), ({"unsure": 3.0}, {"unsure": 3.0}),
                  ({"fairness": 1.0}, {"fairness": 1.0}),
                  ({"memory": 1.2}, {"momentum": momentum(1.2)})],
        draws=draws_of_regmixmatch, unseen=PASSES,
        memories={"threshold.tau": "tau", "threshold.p_mean": "p_tilde", "threshold.histogram": "h_tilde"},
    ),
    "comatch": Case(
        lambda **given: bank_oracles.CoMatch(
            K, **{"embedding": 64, "bank_rows": 5 * (B + M), "bank_steps": 5, "window": window(32)} | given
        ), {"threshold": 0.5, "edge": 0.4}, {"threshold": 0.5, "graph_threshold": 0.4},
        variants=[FEWER, WEIGHT, ({"contrast": 3.0}, {"contrast": 3.0}), ({"smoothing": 0.5}, {"smoothing": 0.5}),
                  ({"temperature": 1.0}, {"temperature": 1.0}), ({"edge": 0.0}, {"graph_threshold": 0.0}),
                  ({"embedding": 3}, {"embedding": 3}), ({"bank": 2}, {"bank_rows": 2 * (B + M), "bank_steps": 2}),
                  ({"window": 1.0}, {"window": 1})],
        memories={"recent.embeddings": "bank_embeddings", "recent.targets": "bank_targets"}, unseen=PASSES,
    ),
    "simmatch": Case(
        lambda **given: bank_oracles.SimMatch(K, sum(LABELS), **{"embedding": 128, "window": window(32)} | given), *LOW,
        variants=[FEWER, WEIGHT, ({"instance": 3.0}, {"instance": 3.0}), ({"smoothing": 0.5}, {"smoothing": 0.5}),
                  ({"temperature": 1.0}, {"temperature": 1.0}), ({"embedding": 3}, {"embedding": 3}),
                  ({"window": 1.0}, {"window": 1}), ({"targets_of": "own"}, {"teacher": False}),
                  ({"bank_momentum": 0.7}, {"bank_momentum": 0.7})],
        memories={"bank.embeddings": "bank", "bank.labels": "bank_labels"},
    ),
    "crmatch": Case(
        bank_oracles.CRMatch, *LOW,
        variants=[FEWER, WEIGHT, ({"rotation": 3.0}, {"rotation": 3.0}), ({"distance": 3.0}, {"distance": 3.0}),
                  ({"weak_learns": True}, {"both": True})],
        draws=draws_of_turns, unseen=PASSES, names={"turn_head": "rotation"},
    ),
    "defixmatch": Case(fixmatch_oracles.DeFixMatch, *LOW, variants=[FEWER, WEIGHT]),
    "refixmatch": Case(
        fixmatch_oracles.ReFixMatch, *LOW,
        variants=[FEWER, WEIGHT, ({"temperature": 2.0}, {"temperature": 2.0})], unseen=PASSES,
    ),
    "shrinkmatch": Case(
        lambda **given: fixmatch_oracles.ShrinkMatch(K, **{"momentum": momentum(), "window": window(32)} | given),
        {"threshold": 0.6}, {"threshold": 0.6},
        variants=[FEWER, WEIGHT, ({"shrink": 3.0}, {"shrink": 3.0}), ({"align": False}, {"align": False}),
                  ({"memory": 1.2}, {"momentum": momentum(1.2)}), ({"window": 1.0}, {"window": 1})],
        memories={"confident.value": "confident"}, unseen=PASSES,
    ),
    "fullmatch": Case(
        lambda **given: fixmatch_oracles.FullMatch(K, **{"start": 2} | given), *LOW,
        variants=[FEWER, WEIGHT, ({"negative": 3.0}, {"negative": 3.0}), ({"entropy": 3.0}, {"entropy": 3.0}),
                  ({"start_steps": 0.0}, {"start": 0}), ({"target_learns": True}, {"wish_learns": True})],
        unseen=PASSES, scale=4.0,
    ),
}  # fmt: skip


def test_every_method_has_a_reference():
    assert {*CASES, *ELSEWHERE} == set(method_names())


def by_path(thing, path):
    for name in path.split("."):
        thing = getattr(thing, name)
    return thing


class Twins:
    """A method with its network, and the reference with the same one."""

    def __init__(self, name, options, given):
        torch.manual_seed(7)
        self.case = CASES[name]
        card = Card("custom", tuple("abcde"), ImageForm(1, (SIDE, SIDE)), (0.0,), (1.0,))
        self.net = Network(Classifier(TanhOfPixels(), D, card))
        teacher = copy.deepcopy(self.net)
        self.method = method_class(name)(**self.case.options | options)
        self.method.setup(Sizes(LABELS, D, N, N - 3, B, M, STEPS))
        self.method.train()
        teaching = copy.deepcopy(self.method)
        follow(self.net, teacher)
        follow(self.method, teaching)
        with torch.no_grad():
            for parameter in [*self.parameters(), *teacher.parameters(), *teaching.parameters()]:
                parameter.add_(0.3 * torch.randn_like(parameter))
            for each in (self.net, teacher):
                each.classifier.head.weight.mul_(self.case.scale)
        self.oracle = self.case.oracle(**self.case.given | given)

    def parameters(self):
        return [*self.net.parameters(), *self.method.parameters()]

    def model(self, teacher=None):
        """The network as the reference sees it."""
        net, method = (self.net, self.method) if teacher is None else teacher
        own = {}
        for name, parameter in method.named_parameters():
            first, _, rest = name.partition(".")
            own[f"{self.case.names.get(first, first)}.{rest}"] = parameter.detach().numpy().copy()
        head = net.classifier.head
        arrays = (p.detach().numpy().copy() for p in (net.classifier.backbone.V, head.weight, head.bias))
        followed = None if teacher else self.model((self.net.teacher, self.method.teacher))
        return network.Model(*arrays, own=own, teacher=followed)

    def batch(self, step):
        torch.manual_seed(100 + step)
        wanted, images = self.method.views(), 1.5 * torch.randn(M, 1, SIDE, SIDE)
        return Batch(
            labeled=tuple(1.5 * torch.randn(B, 1, SIDE, SIDE) for _ in wanted.labeled),
            labels=torch.randint(K, (B,)),
            places=torch.randint(sum(LABELS), (B,)),  # some stand twice
            unlabeled=tuple(images + 0.4 * torch.randn_like(images) for _ in wanted.unlabeled),
            rows=torch.randint(N - 3, (M,)),
            step=torch.tensor(step),
            progress=torch.tensor(step / STEPS),
            key=Key(5).fold(step),
        )

    def as_arrays(self, batch):
        return network.Batch(
            tuple(view.numpy() for view in batch.labeled), batch.labels.numpy(),
            tuple(view.numpy() for view in batch.unlabeled), int(batch.step), STEPS, batch.rows.numpy(),
            batch.places.numpy(), self.case.draws(batch, self.method),
        )  # fmt: skip

    def derivative(self, batch, before):
        """The reference's along a random direction of all parameters, and the method's."""
        torch.manual_seed(int(batch.step))
        direction = [torch.randn_like(p) for p in self.parameters()]
        arrays, still, losses = self.as_arrays(batch), self.model(), []
        for sign in (1, -1):
            self.move(direction, sign * 1e-6)
            losses.append(copy.deepcopy(before).step(arrays, still, self.model())["loss"])
            self.move(direction, -sign * 1e-6)
        own = sum((p.grad * d).sum() for p, d in zip(self.parameters(), direction, strict=True) if p.grad is not None)
        return (losses[0] - losses[1]) / 2e-6, float(own)

    def move(self, direction, by):
        with torch.no_grad():
            for parameter, d in zip(self.parameters(), direction, strict=True):
                parameter.add_(by * d)


VARIANTS = [
    pytest.param(name, options, given, id=f"{name} {options or ''}")
    for name, case in CASES.items()
    for options, given in [({}, {}), *case.variants]
]


@pytest.mark.parametrize(("name", "options", "given"), VARIANTS)
def test_losses_memories_and_gradients_over_consecutive_steps(name, options, given):
    twins, kept = Twins(name, options, given), []
    method, case = twins.method, twins.case
    for step in range(8):
        batch, before = twins.batch(step), copy.deepcopy(twins.oracle)
        out = method(twins.net, batch)
        expected = twins.oracle.step(twins.as_arrays(batch), twins.model(), twins.model())
        shared = set(out) & set(expected)
        assert {"loss", "labeled_loss", "unlabeled_loss"} <= shared
        assert {key for key in out if key.endswith("_loss")} <= {*shared, "passed_loss"}
        if not np.any(expected["row_weight"]):
            shared.discard("target")  # of no row that counts
        for key in shared:
            np.testing.assert_allclose(out[key].detach(), expected[key], err_msg=f"{key} at {step}", **TOLERANCE)
        for ours, theirs in case.memories.items():
            if ours == "average.value" and not getattr(method, "align", True):
                continue  # not needed then, and not kept
            mine, other = by_path(method, ours), by_path(twins.oracle, theirs)
            np.testing.assert_allclose(mine, other, err_msg=f"{ours} at {step}", **TOLERANCE)
        out["loss"].backward()
        reference, own = twins.derivative(batch, before)
        np.testing.assert_allclose(own, reference, rtol=1e-5, atol=1e-7, err_msg=f"derivative at {step}")
        twins.move([-p.grad if p.grad is not None else torch.zeros_like(p) for p in twins.parameters()], 0.1)
        for parameter in twins.parameters():
            parameter.grad = None
        kept.append(expected["kept"])
    if "threshold" in case.options:
        assert 0 < np.mean(kept) < 1  # the case tests rows of both kinds


def test_regmixmatch_with_so_many_labels_that_labeled_images_join(monkeypatch):
    monkeypatch.setattr(regmixmatch, "MANY", 0)
    test_losses_memories_and_gradients_over_consecutive_steps("regmixmatch", {}, {"labeled_joins": True})


@pytest.mark.parametrize("name", CASES)
def test_the_variants_are_of_all_options_and_each_changes_the_loss(name):
    case, usual = CASES[name], losses_with(name, {})
    seen = {option for options, _ in case.variants for option in options}
    assert {f.name for f in dataclasses.fields(method_class(name))} == seen | set(case.unseen)
    for options, _ in case.variants:
        assert losses_with(name, options) != usual, options


def losses_with(name, options):
    """Losses and gradients of some steps."""
    twins, found = Twins(name, options, {}), []
    for step in range(8):
        loss = twins.method(twins.net, twins.batch(step))["loss"]
        gradients = torch.autograd.grad(loss, twins.parameters(), allow_unused=True)
        found += [float(loss), *(0.0 if each is None else float(each.abs().sum()) for each in gradients)]
    return found
