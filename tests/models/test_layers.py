"""Layers by name, and policies: the unlabeled gradient of a layer is scaled by its factor, exactly."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.classify.preparation import begin
from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.methods import method_class
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.freematch import FreeMatch
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.pseudo_label import PseudoLabel
from fewlabels.models.build import build_classifier
from fewlabels.models.layers import PRESETS, layers_of, preset_of, read_policy, scales_of
from fewlabels.training.loop import update
from tests.models.test_models import card

POLICIES = [
    {"head": 0.0},
    {"head": 0.5, "backbone.stage2": 0.25},
    {"backbone": 0.0},
    {"backbone": 0.3, "backbone.stage1.0": 2.0, "head.bias": 0.0},
    {"backbone.stage2.1.0.weight": 0.0},
]


def factor_of(name, policy):
    """By hand: of the given names that are this parameter or stand before it, the longest."""
    fitting = sorted((p for p in policy if (name + ".").startswith(p + ".")), key=len)
    return policy[fitting[-1]] if fitting else 1.0


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize(
    "make", [lambda: FixMatch(threshold=0.0), lambda: FreeMatch(fairness=0.5), lambda: LayerMatch(threshold="soft")]
)
def test_a_step_equals_two_separate_backward_passes(small_job, policy, norm, make):
    """The gradient of the whole loss is that of the labeled one, and that of the rest times each layer's factor."""
    job = small_job(norm)
    state, feed = begin(replace(job, policy={}), make())
    out = state.learner.method(state.learner.network, feed.batch(0, state.step))
    named = dict(state.learner.network.classifier.named_parameters())
    (labeled, rest) = (
        torch.autograd.grad(loss, list(named.values()), retain_graph=True)
        for loss in (out["labeled_loss"], out["loss"] - out["labeled_loss"])
    )

    state, feed = begin(replace(job, policy=policy), make())
    scaled_out = state.learner.method(state.learner.network, feed.batch(0, state.step))
    assert torch.equal(scaled_out["loss"], out["loss"])  # a policy changes gradients, never values
    scaled_out["loss"].backward()
    for (name, parameter), own, others in zip(
        state.learner.network.classifier.named_parameters(), labeled, rest, strict=True
    ):
        assert others.norm() > 0, name
        expected = own + factor_of(name, policy) * others
        # In the head of the small network sums are long, and float32 rounds them in another order.
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("policy", PRESETS)
def test_presets_reach_what_they_say(small_job, policy):
    job = replace(small_job(), policy=read_policy(policy))
    state, feed = begin(job, FixMatch(threshold=0.0))
    reached = {"head": policy in ("all", "head_only"), "backbone": policy != "head_only"}
    for step in range(3):
        batch = feed.batch(step, state.step)
        loss = state.learner.method(state.learner.network, batch)["unlabeled_loss"]
        named = dict(state.learner.network.classifier.named_parameters())
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, found, strict=True):
            there = gradient is not None and gradient.norm() > 0
            assert there == reached[name.split(".")[0]], name
        update(state, batch)


@pytest.mark.parametrize(
    "make", [lambda: FixMatch(passes="one"), lambda: FixMatch(passes="two"), lambda: PseudoLabel()]
)
def test_a_joint_pass_refuses_all_but_the_head(small_job, make):
    state, feed = begin(replace(small_job(), policy={"head": 0.5}), make())
    update(state, feed.batch(0, state.step))
    state, feed = begin(replace(small_job(), policy={"backbone.stage1": 0.5}), make())
    with pytest.raises(UserError, match=r"here for backbone\.stage1.*cannot be told apart.*three"):
        update(state, feed.batch(0, state.step))


@pytest.mark.parametrize("name", ["fixmatch", "freematch", "layermatch"])
def test_a_policy_of_no_change_changes_nothing(small_job, name):
    outcomes = []
    for policy in ({}, {"head": 1.0, "backbone": 1.0}):
        state, feed = begin(replace(small_job(), policy=policy), method_class(name)())
        for step in range(3):
            update(state, feed.batch(step, state.step))
        outcomes.append([p.clone() for p in state.learner.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_unknown_names_list_the_nearest_and_all_layers():
    classifier = build_classifier(card(), key=Key(0))
    with pytest.raises(UserError) as error:
        scales_of(classifier, {"head": 0, "backbone.stage4": 0.5, "haed": 1})
    said = str(error.value)
    assert "'backbone.stage4' (nearest: backbone.stage" in said and "'haed' (nearest: head" in said
    assert "backbone.stage1.0, backbone.stage1.1" in said and said.endswith("head.")


@pytest.mark.parametrize("given", ["nonsense", '{"head": }', "[1]", "3", "null", ""])
def test_a_text_that_is_no_policy_shows_what_is(given):
    with pytest.raises(UserError, match=r"grad_relu.*JSON object of factors by layer"):
        read_policy(given)


@pytest.mark.parametrize("factor", ["-1", "NaN", "Infinity", "true", '"0"', "null"])
def test_a_factor_is_a_finite_number_of_zero_or_more(factor):
    with pytest.raises(UserError, match="the factor of head is"):
        read_policy(f'{{"head": {factor}}}')


def test_a_policy_from_json_and_from_a_mapping():
    assert read_policy('{"head": 0, "backbone.stage3": 0.5}') == {"head": 0.0, "backbone.stage3": 0.5}
    assert read_policy({"head": 0}) == {"head": 0.0}


@pytest.mark.parametrize(
    ("model", "count", "some"),
    [
        ("small_cnn", 7, ["backbone.stage1.0", "backbone.stage3.1", "head"]),
        ("wrn_28_2", 15, ["backbone.stem", "backbone.stage2.3", "backbone.norm", "head"]),
        ("resnet18", 11, ["backbone.conv1", "backbone.layer4.1", "head"]),
        ("vit_tiny_patch16_224", 17, ["backbone.cls_token", "backbone.blocks.11", "head"]),
    ],
)
def test_layers_are_what_holds_parameters_and_is_no_container(model, count, some):
    classifier = build_classifier(card(model, 3, 224 if "vit" in model else 32), key=Key(0))
    layers = layers_of(classifier)
    assert len(layers) == count and set(some) <= set(layers)
    assert [*layers][-1] == "head"
    held = [name for names in layers.values() for name in names]
    assert sorted(held) == sorted(name for name, _ in classifier.named_parameters())


def test_a_users_backbone_that_is_one_module_is_a_layer_by_itself():
    classifier = build_classifier(card(), key=Key(0))
    classifier.backbone = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(256, 8)), nn.ReLU(), nn.Linear(8, 64))
    assert [*layers_of(classifier)] == ["backbone.0.1", "backbone.2", "head"]


def test_a_module_under_two_names_is_a_layer_under_the_first():
    classifier = build_classifier(card(), key=Key(0))
    shared = nn.Linear(256, 256)
    classifier.backbone = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Linear(256, 64))
    assert [*layers_of(classifier)] == ["backbone.1", "backbone.4", "head"]


def test_a_policy_is_written_in_one_way():
    assert preset_of({"head": 0.5, "backbone": 0.25}) == preset_of({"backbone": 0.25, "head": 0.5})
    assert read_policy(preset_of({"head": 0.5, "backbone": 0.25})) == {"head": 0.5, "backbone": 0.25}
    assert [preset_of(policy) for policy in ({}, {"head": 0.0}, {"backbone": 0.0})] == ["all", "grad_relu", "head_only"]
    assert read_policy({"head": np.float32(0.5)}) == {"head": 0.5}
