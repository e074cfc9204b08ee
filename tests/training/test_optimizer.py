"""The optimizer: Nesterov momentum or AdamW by hand, rates that follow the schedule, decay where it belongs."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.errors import UserError
from fewlabels.training.learner import Learner, Turn
from fewlabels.training.optimizer import TurnOptimizer
from fewlabels.training.recipe import OptimizerRecipe
from fewlabels.training.schedule import lr_factor
from tests.conftest import assert_same

LR, DECAY, STEPS = 0.05, 0.01, 10
ALL = Turn()


class Small(Learner):
    def __init__(self):
        super().__init__()
        self.backbone, self.norm, self.still = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)
        self.still.requires_grad_(False)

    def layered(self):
        return self.backbone


def recipe_of(kind, **numbers):
    return OptimizerRecipe(kind, lr=LR, weight_decay=DECAY, **{"schedule": "constant"} | numbers)


def gradients(learner, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in learner.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def stepped(recipe, steps, turn=ALL):
    """Take steps with known gradients; return the learner and its optimizer."""
    torch.manual_seed(1)
    learner = Small()
    made = TurnOptimizer(learner, turn, recipe)
    for step in range(steps):
        gradients(learner, step)
        made.step(torch.tensor(step), STEPS)
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


SCHEDULES = {"constant": lambda step: 1.0, "linear": lambda step: 1 - step / STEPS}


@pytest.mark.parametrize(("kind", "by_hand"), [("sgd", sgd_by_hand), ("adamw", adamw_by_hand)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_are_those_by_hand_and_only_matrices_decay(kind, by_hand, schedule):
    recipe = recipe_of(kind, schedule=schedule)
    start, _ = stepped(recipe, 0)
    end, _ = stepped(recipe, 6)
    recorded = []
    for step in range(6):
        gradients(start, step)
        recorded.append({name: p.grad.numpy().astype(float) for name, p in start.named_parameters() if p.requires_grad})
    for name, parameter in start.named_parameters():
        expected = parameter.detach().numpy().astype(float)
        if parameter.requires_grad:
            decay = DECAY if parameter.ndim > 1 else 0.0
            expected = by_hand(expected, [found[name] for found in recorded], SCHEDULES[schedule], decay)
        np.testing.assert_allclose(end.get_parameter(name).detach(), expected, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_what_it_remembers_is_returned_and_taken_back(kind):
    recipe = recipe_of(kind)
    whole, _ = stepped(recipe, 6)
    half, made = stepped(recipe, 3)
    again = Small()
    again.load_state_dict(half.state_dict())
    other = TurnOptimizer(again, ALL, recipe)
    other.load({name: tensor.clone() for name, tensor in made.tensors().items()})
    for step in range(3, 6):
        gradients(again, step)
        other.step(torch.tensor(step), STEPS)
    assert_same(whole.state_dict(), again.state_dict())


def test_a_turn_moves_its_own_parameters_at_its_own_rates():
    start, _ = stepped(recipe_of("sgd"), 0)
    turn = Turn("norm", moves=("norm.", "backbone.b"), optimizer=OptimizerRecipe("sgd", 1.0, 0.0, schedule="constant"))
    end, _ = stepped(recipe_of("sgd"), 1, turn)
    gradients(start, 0)
    for name, parameter in start.named_parameters():
        moves = name in ("norm.weight", "norm.bias", "backbone.bias")
        expected = parameter - 1.9 * parameter.grad if moves else parameter  # the first step of Nesterov's momentum
        torch.testing.assert_close(end.get_parameter(name), expected)


def test_a_turn_that_moves_nothing_is_refused():
    with pytest.raises(UserError, match=r"'critic' moves nothing: .* begins with critic\. or still\. is to be"):
        TurnOptimizer(Small(), Turn("critic", moves=("critic.", "still.")), recipe_of("sgd"))


def test_where_all_is_frozen_the_error_says_so():
    learner = Small().requires_grad_(False)
    with pytest.raises(UserError, match=r"'' moves nothing: no parameter is to be trained \(requires_grad\)"):
        TurnOptimizer(learner, ALL, recipe_of("sgd"))


@pytest.mark.parametrize("largest", [0.5, 1e3])
def test_gradients_are_scaled_down_to_the_largest_norm(largest):
    start, _ = stepped(recipe_of("sgd"), 0)
    end, _ = stepped(OptimizerRecipe("sgd", LR, 0.0, schedule="constant", clip_norm=largest), 1)
    gradients(start, 0)
    moved = [p for p in start.parameters() if p.requires_grad]
    norm = torch.cat([p.grad.flatten() for p in moved]).norm()
    scale = min(1.0, largest / norm)
    for name, parameter in start.named_parameters():
        if parameter.requires_grad:
            expected = parameter - 1.9 * LR * scale * parameter.grad
            torch.testing.assert_close(end.get_parameter(name), expected, rtol=1e-5, atol=1e-6)


def test_layer_decay_needs_layers_that_have_names():
    with pytest.raises(UserError, match="--layer-decay"):
        TurnOptimizer(Small(), ALL, recipe_of("sgd", layer_decay=0.5))


def test_with_layer_decay_rates_fall_from_layer_to_layer_and_the_head_has_the_highest():
    from timm import create_model

    class Transformer(Small):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = create_model("test_vit", num_classes=0), nn.Linear(4, 2)

    learner = Transformer()
    made = TurnOptimizer(learner, ALL, recipe_of("adamw", layer_decay=0.5, schedule="linear"))
    made.step(torch.tensor(5), STEPS)
    rates = {id(p): float(group["lr"]) for group in made.optimizer.param_groups for p in group["params"]}
    assert rates.keys() == {id(p) for p in learner.parameters() if p.requires_grad}
    assert rates[id(learner.head.weight)] == pytest.approx(0.5 * LR)
    blocks = [rates[id(block.mlp.fc1.weight)] for block in learner.backbone.blocks]
    assert blocks[1:] == pytest.approx([2 * rate for rate in blocks[:-1]])
    assert rates[id(learner.backbone.patch_embed.proj.weight)] < blocks[0] < 0.5 * LR


EXPECTED = {
    "cosine": [1, math.cos(7 * math.pi / 32), math.cos(7 * math.pi / 16)],
    "cosine_to_zero": [1, 0.5, 0],
    "linear": [1, 0.5, 0],
    "constant": [1, 1, 1],
}


@pytest.mark.parametrize("schedule", EXPECTED)
def test_the_rate_falls_by_the_schedule_after_a_linear_rise(schedule):
    found = [float(lr_factor(torch.tensor(step), 100, schedule)) for step in (0, 50, 100)]
    assert found == pytest.approx(EXPECTED[schedule], abs=1e-6)
    rising = [float(lr_factor(torch.tensor(step), 100, schedule, warm_up=4)) for step in range(6)]
    full = [float(lr_factor(torch.tensor(step), 100, schedule)) for step in range(6)]
    assert rising == pytest.approx([f * min(1, (step + 1) / 4) for step, f in enumerate(full)])
    later = [float(lr_factor(torch.tensor(step), 100, schedule, warm_up=4, start=2)) for step in range(2, 6)]
    assert later == pytest.approx([f * min(1, (step + 1) / 4) for step, f in enumerate(full[2:])])


def test_the_two_cosines_differ_in_between():
    quarter = lr_factor(torch.tensor(25), 100, "cosine_to_zero")
    assert float(quarter) == pytest.approx((1 + math.sqrt(0.5)) / 2)
