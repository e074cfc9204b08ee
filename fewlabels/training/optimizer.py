"""The optimizer of a run: fused, with its learning rates as tensors on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from fewlabels.errors import UserError
from fewlabels.training.recipe import Recipe


class ScheduledOptimizer:
    """An optimizer whose groups have a learning rate each, a fixed multiple of one scheduled rate.

    Args:
        learner: what is trained, with the backbone of `backbone` within.
        backbone: the part to which layer decay applies.
        recipe: which optimizer, with which numbers.
    """

    def __init__(self, learner: nn.Module, backbone: nn.Module, recipe: Recipe) -> None:
        groups = _groups(learner, backbone, recipe)
        device = next(learner.parameters()).device
        self.scales = [float(group.pop("lr_scale", 1.0)) for group in groups]
        self.lrs = [torch.tensor(recipe.lr * scale, device=device) for scale in self.scales]
        for group, lr in zip(groups, self.lrs, strict=True):
            group["lr"] = lr
        self.base = recipe.lr
        self.optimizer = _make(groups, recipe)

    def step(self, factor: Tensor) -> None:
        """Update the parameters with `factor` (0-dim) of the highest learning rate, and forget the gradients."""
        for lr, scale in zip(self.lrs, self.scales, strict=True):
            lr.copy_(factor * (self.base * scale))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Give what the optimizer remembers, under flat names."""
        state = self.optimizer.state_dict()["state"]
        return {
            f"{i}.{name}": value for i, entry in state.items() for name, value in entry.items() if value is not None
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            number, entry = name.split(".", 1)
            state.setdefault(int(number), {})[entry] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        for parameter, entry in self.optimizer.state.items():
            for name, value in entry.items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    # A fused optimizer walks through memory: what was saved must lie there as its parameter does.
                    entry[name] = torch.empty_like(parameter).copy_(value)
        for group, lr in zip(self.optimizer.param_groups, self.lrs, strict=True):
            group["lr"] = lr  # loading replaces the tensors that the schedule writes to


def _make(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    if recipe.optimizer == "adamw":
        on_gpu = groups[0]["params"][0].device.type == "cuda"
        return AdamW(groups, lr=recipe.lr, fused=True, capturable=on_gpu and recipe.compile)
    return SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True, fused=True)


def _groups(learner: nn.Module, backbone: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    if recipe.layer_decay is None:
        return _decay_groups(list(learner.parameters()), recipe.weight_decay)
    if not hasattr(backbone, "group_matcher"):
        raise UserError("--layer-decay needs a timm backbone, which names its layers; leave it out for this one")
    from timm.optim import param_groups_layer_decay

    groups: list[dict[str, Any]] = param_groups_layer_decay(
        backbone, recipe.weight_decay, layer_decay=recipe.layer_decay
    )
    in_backbone = {id(p) for p in backbone.parameters()}
    return groups + _decay_groups([p for p in learner.parameters() if id(p) not in in_backbone], recipe.weight_decay)


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Split parameters in those that decay and those that do not (norms and biases: one axis at most)."""
    trained = [p for p in parameters if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
