"""The optimizer: Nesterov momentum or AdamW by hand, rates that follow the schedule, decay where it belongs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.errors import UserError
from fewlabels.training.optimizer import ScheduledOptimizer
from fewlabels.training.schedule import cosine
from tests.conftest import assert_same, small_recipe

LR, DECAY = 0.05, 0.01


class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.norm, self.still = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)
        self.still.requires_grad_(False)


def recipe_of(optimizer):
    return small_recipe(optimizer=optimizer, lr=LR, weight_decay=DECAY)


def gradients(learner, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def stepped(optimizer, steps, factor=lambda step: 1.0):
    """Take steps with known gradients; return the learner and its optimizer."""
    torch.manual_seed(1)
    learner = Learner()
    made = ScheduledOptimizer(learner, learner.backbone, recipe_of(optimizer))
    for step in range(steps):
        gradients(learner, step)
        made.step(torch.tensor(factor(step)))
        assert all(p.grad is None for p in learner.parameters())
    return learner, made


def sgd_by_hand(w, gs, factor, decay):
    """Nesterov momentum 0.9 as torch has it: v <- 0.9 v + g, w <- w - lr (g + 0.9 v), g with the decay."""
    v = None
    for step, g in enumerate(gs):
        g = g + decay * w
        v = g if v is None else 0.9 * v + g
        w = w - LR * factor(step) * (g + 0.9 * v)
    return w


def adamw_by_hand(w, gs, factor, decay):
    """Loshchilov and Hutter 2019, with the usual 0.9, 0.999 and 1e-8."""
    m = v = np.zeros_like(w)
    for step, g in enumerate(gs):
        lr = LR * factor(step)
        w = w * (1 - lr * decay)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.999 ** (step + 1))) + 1e-8)
    return w


@pytest.mark.parametrize(("optimizer", "by_hand"), [("sgd", sgd_by_hand), ("adamw", adamw_by_hand)])
@pytest.mark.parametrize("factor", [lambda step: 1.0, lambda step: 1 / (1 + step)], ids=["constant", "falling"])
def test_steps_are_those_by_hand_and_only_matrices_decay(optimizer, by_hand, factor):
    start, _ = stepped(optimizer, 0)
    end, _ = stepped(optimizer, 6, factor)
    recorded = []
    for step in range(6):
        gradients(start, step)
        recorded.append({name: p.grad.numpy().astype(float) for name, p in start.named_parameters() if p.requires_grad})
    for name, parameter in start.named_parameters():
        expected = parameter.detach().numpy().astype(float)
        if parameter.requires_grad:
            decay = DECAY if parameter.ndim > 1 else 0.0
            expected = by_hand(expected, [found[name] for found in recorded], factor, decay)
        np.testing.assert_allclose(end.get_parameter(name).detach(), expected, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_it_remembers_is_given_and_taken_back(optimizer):
    whole, _ = stepped(optimizer, 6)
    half, made = stepped(optimizer, 3)
    again = Learner()
    again.load_state_dict(half.state_dict())
    other = ScheduledOptimizer(again, again.backbone, recipe_of(optimizer))
    other.load({name: tensor.clone() for name, tensor in made.tensors().items()})
    for step in range(3, 6):
        gradients(again, step)
        other.step(torch.tensor(1.0))
    assert_same(whole.state_dict(), again.state_dict())


def test_layer_decay_needs_a_backbone_that_names_its_layers():
    learner = Learner()
    with pytest.raises(UserError, match="--layer-decay"):
        ScheduledOptimizer(learner, learner.backbone, replace(recipe_of("sgd"), layer_decay=0.5))


def test_with_layer_decay_rates_fall_from_layer_to_layer_and_the_head_has_the_highest():
    from timm import create_model

    learner = nn.ModuleDict({"backbone": create_model("test_vit", num_classes=0), "head": nn.Linear(4, 2)})
    made = ScheduledOptimizer(learner, learner["backbone"], replace(recipe_of("adamw"), layer_decay=0.5))
    made.step(torch.tensor(0.5))
    rates = {id(p): float(group["lr"]) for group in made.optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(learner.parameters()))
    assert rates[id(learner["head"].weight)] == pytest.approx(0.5 * LR)
    blocks = [rates[id(block.mlp.fc1.weight)] for block in learner["backbone"].blocks]
    assert blocks[1:] == pytest.approx([2 * rate for rate in blocks[:-1]])
    assert rates[id(learner["backbone"].patch_embed.proj.weight)] < blocks[0] < 0.5 * LR


def test_the_rate_falls_as_a_cosine_after_a_linear_rise():
    found = [float(cosine(torch.tensor(step), 100)) for step in (0, 50, 100)]
    assert found == pytest.approx([1, math.cos(7 * math.pi / 32), math.cos(7 * math.pi / 16)])
    rising = [float(cosine(torch.tensor(step), 100, warm_up=4)) for step in range(6)]
    full = [float(cosine(torch.tensor(step), 100)) for step in range(6)]
    assert rising == pytest.approx([f * min(1, (step + 1) / 4) for step, f in enumerate(full)])
