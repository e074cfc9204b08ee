"""Where the gradient of the unlabeled loss goes, on a real network and real images."""

import copy
import dataclasses
import importlib
from functools import partial

import numpy as np
import pytest
import torch

from fewlabels.averaging.memory import Memory
from fewlabels.classify.preparation import begin
from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.methods import method_class, method_names
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.parts.losses import consistency
from fewlabels.methods.supervised import Supervised
from fewlabels.models.network import Network
from fewlabels.training.loop import run, update
from tests.conftest import assert_same, parameters_of
from tests.eager import ELSEWHERE, MIXES, ON_IMAGES, OWN_LABELED_LOSS, WITH_UNLABELED, eager
from tests.prepared import with_options

LEARNING = {name: partial(eager, name) for name in WITH_UNLABELED} | {
    "layermatch fixed": lambda: LayerMatch(threshold="fixed", confidence=0.0),
    "layermatch outputs": lambda: LayerMatch(threshold="self_adaptive", outputs="averaged"),
    "layermatch soft": lambda: LayerMatch(threshold="soft"),
}


def unlabeled_gradients(state, batch):
    """Give the gradient of the unlabeled loss alone at each parameter, and the share of kept rows."""
    out = state.learner.method(state.learner.network, batch)
    named = dict(state.learner.network.classifier.named_parameters())
    found = torch.autograd.grad(out["unlabeled_loss"], list(named.values()), retain_graph=True, allow_unused=True)
    labeled = torch.autograd.grad(out["labeled_loss"], list(named.values()), retain_graph=True)
    return dict(zip(named, found, strict=True)), dict(zip(named, labeled, strict=True)), out.get("kept", 1.0)


@pytest.mark.parametrize("name", LEARNING)
def test_the_unlabeled_gradient_reaches_every_layer_it_should(small_job, name):
    state, feed = begin(small_job(), LEARNING[name]())
    for step in range(4):
        batch = feed.batch(step, state.step)
        unlabeled, labeled, kept = unlabeled_gradients(state, batch)
        assert kept > 0
        for parameter, gradient in unlabeled.items():
            at_head = parameter.startswith("head.")
            if at_head and name.startswith("layermatch"):
                assert gradient is None, f"{parameter} at step {step}"
            else:
                assert gradient.norm() > 0, f"{parameter} at step {step}"
            assert labeled[parameter].norm() > 0, f"{parameter} at step {step}"
        update(state, batch)


@pytest.mark.parametrize("passes", ["one", "two", "three"])
def test_the_heads_whole_gradient_under_grad_relu_is_that_of_the_labeled_rows(small_job, passes):
    """Also where labeled and unlabeled rows share a pass, in each step, for any pseudo-labels."""
    method = LayerMatch(threshold="fixed", confidence=0.0, weight=50.0, passes=passes)
    state, feed = begin(small_job(), method)
    method, head = state.learner.method, state.learner.network.classifier.head
    for step in range(5):
        batch = feed.batch(step, state.step)
        out = method(state.learner.network, batch)
        whole = torch.autograd.grad(out["loss"], [head.weight, head.bias], retain_graph=True)
        labeled = torch.autograd.grad(out["labeled_loss"], [head.weight, head.bias])
        for a, b in zip(whole, labeled, strict=True):
            assert b.norm() > 0
            assert torch.equal(a, b)
        update(state, batch)


@pytest.mark.parametrize("center_memory", [0.0, 0.3])
def test_under_grad_relu_no_pseudo_label_whatever_reaches_the_head(small_job, center_memory):
    """Classes or distributions, any weights: the unlabeled loss has no gradient there at all, in each step."""
    job = dataclasses.replace(small_job(), policy={"head": 0.0}, center_memory=center_memory)
    state, feed = begin(job, FixMatch(threshold=0.0))
    net, head = state.learner.network, list(state.learner.network.classifier.head.parameters())
    generator = torch.Generator().manual_seed(0)
    for step in range(8):
        batch = feed.batch(step, state.step)
        z = net.unlabeled_logits(net.unlabeled_features(batch.unlabeled[1]))
        weight = 10 * torch.rand(len(z), generator=generator)
        for target in (torch.randint(10, (len(z),), generator=generator),
                       (5 * torch.randn(len(z), 10, generator=generator)).softmax(1)):  # fmt: skip
            loss = consistency(z, target, weight)
            assert torch.autograd.grad(loss, head, retain_graph=True, allow_unused=True) == (None, None)
            backbone = list(net.classifier.backbone.parameters())
            assert all(g.norm() > 0 for g in torch.autograd.grad(loss, backbone, retain_graph=True))
        update(state, batch)


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0])
def test_the_head_scale_scales_the_unlabeled_gradient_of_the_head_and_of_nothing_else(small_job, scale):
    gradients = {}
    for s in (scale, 1.0):
        job = dataclasses.replace(small_job("group"), policy={"head": s})
        state, feed = begin(job, LayerMatch(threshold="fixed", confidence=0.0))
        out = state.learner.method(state.learner.network, feed.batch(0, state.step))
        parameters = dict(state.learner.network.classifier.named_parameters())
        found = torch.autograd.grad(out["unlabeled_loss"], list(parameters.values()), allow_unused=True)
        gradients[s] = dict(zip(parameters, found, strict=True))
    for name, whole in gradients[1.0].items():
        scaled = gradients[scale][name]
        expected = whole * (scale if name.startswith("head.") else 1.0)
        torch.testing.assert_close(torch.zeros_like(whole) if scaled is None else scaled, expected)


def train(job, method):
    state, feed = begin(job, method)
    run(state, feed, 0, job.recipe.steps, watch=lambda *_: None)
    return parameters_of(state)


def assert_close(expected, found):
    """Hold the network's parameters to rounding: sums of gradients are taken in another order."""
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


@pytest.fixture
def without_unlabeled(small_job, digits_rows):
    alone = digits_rows.take(np.setdiff1d(np.arange(len(digits_rows.labels)), digits_rows.unlabeled))
    return with_options(small_job(rows=alone), classify_labeled_in_unlabeled=False)


@pytest.mark.parametrize("name", [name for name in WITH_UNLABELED if name not in OWN_LABELED_LOSS])
def test_without_unlabeled_rows_a_method_is_supervised(without_unlabeled, name):
    assert_close(train(without_unlabeled, Supervised()), train(without_unlabeled, eager(name)))


@pytest.mark.parametrize("name", OWN_LABELED_LOSS)
def test_without_unlabeled_rows_only_the_labeled_loss_is_left(without_unlabeled, name):
    state, feed = begin(without_unlabeled, eager(name))
    for step in range(3):
        out = state.learner.method(state.learner.network, feed.batch(step, state.step))
        assert out["loss"] == out["labeled_loss"] > 0
        update(state, feed.batch(step, state.step))


FACTORS = {
    "weight", "fairness", "contrast", "instance", "rotation", "distance", "negative", "entropy", "shrink", "strong",
    "unsure",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in WITH_UNLABELED if n not in OWN_LABELED_LOSS])
def test_with_all_factors_zero_a_method_is_supervised(small_job, name):
    """On a network without batch statistics; rows of one pass touch each other through these."""
    job, options = small_job("group"), {f.name for f in dataclasses.fields(method_class(name))}
    assert_close(train(job, Supervised()), train(job, eager(name, **dict.fromkeys(FACTORS & options, 0.0))))


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("rule", [{"policy": {"head": 0.0}}, {"center_memory": 0.5}, {"policy": {"backbone": 0.5}}])
def test_methods_that_mix_images_refuse_a_rule_for_unlabeled_ones(small_job, name, rule):
    state, feed = begin(dataclasses.replace(small_job(), **rule), eager(name))
    with pytest.raises(UserError, match=r"leave --policy and --classify\.center-memory out"):
        update(state, feed.batch(0, state.step))


@pytest.mark.parametrize("name", ["comatch", "remixmatch", "crmatch", "shrinkmatch", "simmatch"])
def test_the_heads_of_a_method_learn_too(small_job, name):
    state, feed = begin(small_job(), eager(name))
    # Without biases: batch norm takes away what one before it adds.
    heads = [p for p in state.learner.method.parameters() if p.ndim > 1]
    before = [p.clone() for p in heads]
    for step in range(3):
        update(state, feed.batch(step, state.step))
    assert before
    for old, new in zip(before, heads, strict=True):
        assert new.requires_grad and not torch.equal(old, new)


@pytest.mark.parametrize("name", ["mean_teacher", "simmatch"])
def test_the_teacher_is_the_average_and_gets_no_gradient(small_job, name):
    state, feed = begin(small_job(ema_memory=100.0), eager(name))
    for step in range(3):
        update(state, feed.batch(step, state.step))
    assert state.learner.network.teacher.classifier is state.averaged.classifier
    before = state.averaged.classifier.head.weight.clone()
    out = state.learner.method(state.learner.network, feed.batch(3, state.step))
    out["loss"].backward()
    assert torch.equal(before, state.averaged.classifier.head.weight)
    assert all(p.grad is None for p in state.ema.parameters())
    assert {id(p) for p in state.ema.parameters()}.isdisjoint(id(p) for p in state.learner.parameters())
    view, network = feed.batch(3, state.step).unlabeled[0], state.learner.network
    student = network.unlabeled_logits(network.features(view))
    teacher = network.teacher.unlabeled_logits(network.teacher.features(view))
    assert not torch.allclose(student, teacher)  # it is not compared with itself


def test_without_a_teacher_the_error_says_how_to_get_one(small_job):
    state, _ = begin(small_job(), eager("mean_teacher"))
    alone = Network(copy.deepcopy(state.learner.network.classifier))
    with pytest.raises(UserError, match="this Network has none"):
        assert alone.teacher


def test_layermatch_with_a_fixed_threshold_and_the_policy_all_is_fixmatch_and_the_other_way_round(small_job):
    job = small_job()
    fixmatch, layermatch = FixMatch(threshold=0.12), LayerMatch(threshold="fixed", confidence=0.12)
    assert_same(train(job, fixmatch), train(dataclasses.replace(job, policy={}), layermatch))
    assert_same(train(dataclasses.replace(job, policy={"head": 0.0}), fixmatch), train(job, layermatch))


def test_layermatch_differs_from_fixmatch_by_default(small_job):
    job = small_job()
    first, second = train(job, FixMatch(threshold=0.12)), train(job, LayerMatch(threshold="fixed", confidence=0.12))
    assert not torch.equal(first["network.classifier.head.weight"], second["network.classifier.head.weight"])


# Of methods that tests/methods/test_methods_and_their_oracles.py has not: there all options change the losses.
OPTIONS = {
    "pseudo_label": [{"threshold": 0.9}, {"weight": 3.0}, {"ramp": 0.9}],
    "fixmatch": [{"threshold": 0.9}, {"weight": 3.0}],
    "freematch": [{"weight": 3.0}, {"fairness": 0.0}, {"memory": 1.0}, {"clip": (0.9, 0.95)}],
    "layermatch": [
        {"threshold": "soft"}, {"threshold": "self_adaptive"}, {"confidence": 0.9}, {"outputs": "averaged"},
        {"weight": 3.0}, {"memory": 1.0},
    ],
    "adamatch": [{"interpolation": False}],
}  # fmt: skip
for _name in WITH_UNLABELED:
    if (_usual := getattr(method_class(_name), "passes", None)) is not None:
        OPTIONS.setdefault(_name, []).extend({"passes": each} for each in ("one", "two") if each != _usual)


def test_each_option_of_a_method_without_variants_elsewhere_is_here():
    for name in ELSEWHERE - {"supervised"}:
        here = {option for options in OPTIONS[name] for option in options}
        assert here == {f.name for f in dataclasses.fields(method_class(name))}, name


@pytest.mark.parametrize(("name", "options"), [(n, o) for n, several in OPTIONS.items() for o in several], ids=str)
def test_each_option_changes_the_training(small_job, name, options):
    start = {"threshold": "fixed", "confidence": 0.12} if name == "layermatch" else {}
    if options == {"memory": 1.0}:
        start = {"memory": 4000.0}
    # A row must come again before the average of its outputs is another than its output.
    job = small_job(steps=60, unlabeled_batch=48) if {"memory", "outputs"} & set(options) else small_job(steps=4)
    first, second = train(job, eager(name, **start)), train(job, eager(name, **start | options))
    assert not torch.equal(first["network.classifier.head.weight"], second["network.classifier.head.weight"])


@pytest.mark.parametrize("name", [name for name in WITH_UNLABELED if name not in MIXES])
def test_the_memory_of_averaged_centers_changes_the_training_of_every_method(small_job, vector_job, name):
    job = (small_job if name in ON_IMAGES else vector_job)(steps=15)
    found = [train(dataclasses.replace(job, center_memory=share), eager(name)) for share in (0.0, 0.1, 1.0)]
    heads = [parameters["network.classifier.head.weight"] for parameters in found]
    assert not torch.equal(heads[0], heads[1]) and not torch.equal(heads[1], heads[2])


@pytest.mark.parametrize("name", WITH_UNLABELED)
def test_in_these_tests_no_loss_of_a_method_is_always_zero(small_job, name):
    """Or they would see nothing of it."""
    seen = {}
    # FullMatch's take some steps: what is likelier than the square of the threshold is left out of them.
    job, options = (small_job(steps=60), {"threshold": 0.45}) if name == "fullmatch" else (small_job(), {})
    state, feed = begin(job, eager(name, **options))
    run(
        state,
        feed,
        0,
        job.recipe.steps,
        watch=lambda _, __, found: [seen.setdefault(k, []).append(v) for k, v in found.items()],
    )
    for key, values in seen.items():
        if key.endswith("_loss"):
            assert any(value != 0 for value in values), key


THRESHOLD = dict.fromkeys(("tau", "p_mean", "histogram"), "mean")
RECENT = {"means": "mean", "count": "first"}
# How copies of what a method remembers combine. A running mean is averaged. Counts and the place in a ring of recent
# rows are the same in all copies. What belongs to a row comes from the copy that saw it.
COMBINE = {
    "adamatch": {"average": RECENT, "average_x": RECENT},
    "comatch": {"recent": dict.fromkeys(("embeddings", "targets", "count"), "first"), "average": RECENT},
    "dash": {"rho_0": {"value": "mean"}},
    "debiaspl": {"average": {"value": "mean"}},
    "flexmatch": {"row_weight": {"selected": "rows"}},
    "freematch": {"threshold": THRESHOLD},
    "layermatch": {"row_weight": THRESHOLD},
    "regmixmatch": {"threshold": THRESHOLD},
    "remixmatch": {"average": RECENT, "prior": {"value": "first"}},
    "sequencematch": {"row_weight": {"selected": "rows"}},
    "shrinkmatch": {"average": RECENT, "confident": {"value": "mean"}},
    "simmatch": {"bank": dict.fromkeys(("embeddings", "labels"), "rows"), "average": RECENT},
    "softmatch": {"average": {"value": "mean"}, "row_weight": {"mean": "mean", "variance": "mean"}},
}


@pytest.mark.parametrize("name", method_names())
def test_all_that_a_method_remembers_says_how_copies_combine(small_job, name):
    state, _ = begin(small_job(), eager(name))
    declared = {
        f"{path}.{buffer}": kind
        for path, part in state.learner.method.named_modules() if isinstance(part, Memory)
        for buffer, kind in part.combine.items()
    }  # fmt: skip
    kept = state.learner.method.state_dict()  # without constants, which are no memory
    buffers = {name: buffer for name, buffer in state.learner.method.named_buffers() if name in kept}
    assert set(buffers) == set(declared)
    expected = COMBINE.get(name, {}).items()
    assert declared == {f"{part}.{buffer}": kind for part, kinds in expected for buffer, kind in kinds.items()}
    for path, kind in declared.items():
        if kind == "rows":
            assert len(buffers[path]) == (40 if name == "simmatch" else 1797)  # of its labeled rows, or of all


@pytest.mark.parametrize("name", ["crmatch", "remixmatch"])
def test_images_that_are_not_square_need_no_rotations(small_job, monkeypatch, name):
    """The error for them names the option that leaves rotations out."""
    state, feed = begin(small_job(), eager(name, rotation=0.0))
    module = importlib.import_module(f"fewlabels.methods.{name}")
    monkeypatch.setattr(module, "turned", None)  # not called
    assert update(state, feed.batch(0, state.step))["rotation_loss"] == 0


def test_vat_finds_its_direction_in_float32_whatever_the_precision(small_job):
    state, feed = begin(small_job(), eager("vat"))
    images, key = feed.batch(0, state.step).unlabeled[0], Key(0)
    whole = state.learner.method._worst_change(state.learner.network, images, key)
    state.learner.network.precision = "bfloat16"
    assert torch.equal(state.learner.method._worst_change(state.learner.network, images, key), whole)
    assert state.learner.network.precision == "bfloat16"
