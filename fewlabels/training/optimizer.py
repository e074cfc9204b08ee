"""The optimizers of a training: fused, with their learning rates as tensors on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from fewlabels.errors import UserError
from fewlabels.training.learner import Learner, Turn
from fewlabels.training.recipe import OptimizerRecipe
from fewlabels.training.schedule import lr_factor


class TurnOptimizer:
    """The optimizer of one turn: it moves the parameters of that turn at their scheduled rates.

    Its groups have a learning rate each, a fixed multiple of one scheduled rate.

    Args:
        learner: what is trained.
        turn: which parameters this one moves.
        recipe: with which numbers, where the turn has none of its own.
        capturable: whether the step becomes a graph on a GPU.

    Raises:
        UserError: the turn moves no parameter, or layers are to have rates of their own and the learner has none.
    """

    def __init__(self, learner: Learner[Any], turn: Turn, recipe: OptimizerRecipe, *, capturable: bool = False) -> None:
        self.turn, self.recipe = turn, turn.optimizer or recipe
        self.parameters = [
            p for name, p in learner.named_parameters() if p.requires_grad and name.startswith(turn.moves)
        ]
        if not self.parameters:
            named = f" whose name begins with {' or '.join(turn.moves)}" if any(turn.moves) else ""
            raise UserError(f"turn {turn.name!r} moves nothing: no parameter{named} is to be trained (requires_grad)")
        groups = _groups(learner, self.parameters, self.recipe)
        device = self.parameters[0].device
        self.scales = [float(group.pop("lr_scale", 1.0)) for group in groups]
        self.lrs = [torch.tensor(self.recipe.lr * scale, device=device) for scale in self.scales]
        for group, lr in zip(groups, self.lrs, strict=True):
            group["lr"] = lr
        self.optimizer = _make(groups, self.recipe, capturable)

    def step(self, now: Tensor, steps: int) -> None:
        """Update the parameters in step `now` (0-dim) of `steps`."""
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        factor = lr_factor(now, steps, self.recipe.schedule, self.recipe.warm_up, self.turn.from_step)
        for lr, scale in zip(self.lrs, self.scales, strict=True):
            lr.copy_(factor * (self.recipe.lr * scale))
        self.optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return what the optimizer remembers, under flat names."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items() if value is not None
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            number, entry = name.split(".", 1)
            state.setdefault(int(number), {})[entry] = value.clone()  # what was given may train on too
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for parameter, entry in self.optimizer.state.items():
            for name, value in entry.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # A fused optimizer walks through memory: what was saved must lie there as its parameter does.
                    entry[name] = torch.empty_like(parameter).copy_(value)
        for group, lr in zip(self.optimizer.param_groups, self.lrs, strict=True):
            group["lr"] = lr  # loading replaces the tensors that the schedule writes to


def _make(groups: list[dict[str, Any]], recipe: OptimizerRecipe, capturable: bool) -> Optimizer:
    if recipe.kind == "adamw":
        return AdamW(groups, lr=recipe.lr, fused=True, capturable=capturable)
    return SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)


def _groups(learner: Learner[Any], parameters: list[nn.Parameter], recipe: OptimizerRecipe) -> list[dict[str, Any]]:
    if recipe.layer_decay is None:
        return _decay_groups(parameters, recipe.weight_decay)
    layered = learner.layered()
    if not hasattr(layered, "group_matcher"):
        raise UserError("--layer-decay needs a timm backbone, which names its layers; leave it out for this one")
    from timm.optim import param_groups_layer_decay

    moved = {id(p) for p in parameters}
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        layered, recipe.weight_decay, layer_decay=recipe.layer_decay
    )
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) in moved]
    below = {id(p) for p in layered.parameters()}
    others = _decay_groups([p for p in parameters if id(p) not in below], recipe.weight_decay)
    return [group for group in groups if group["params"]] + others


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters in those that decay and those that do not (norms and biases: one axis at most)."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
