"""Copies of a module that parted from one start, brought together in their mean (Huang et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewlabels.averaging.batch_norm import BatchNorm
from fewlabels.averaging.memory import Combine, Memory


def combined(start: nn.Module, copies: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Return the state of the mean of copies, as `load_state_dict` takes it.

    Parameters and running statistics of batch norm are averaged, memories combine by their own rules, and of all other
    buffers the first copy's are kept.

    Args:
        start: what the copies were before they parted.
        copies: at least one.
    """
    rules, before, states = rules_of(start), start.state_dict(), [copy.state_dict() for copy in copies]
    return {name: combine(rules.get(name, "first"), before[name], [state[name] for state in states]) for name in before}


def rules_of(module: nn.Module) -> dict[str, Combine]:
    """Return the rule of each parameter and buffer, by its name, where it is another than "first"."""
    rules: dict[str, Combine] = {name: "mean" for name, _ in module.named_parameters(remove_duplicate=False)}
    for path, part in module.named_modules(remove_duplicate=False):
        own: dict[str, Combine] = {}
        if isinstance(part, Memory):
            own = part.combine
        elif isinstance(part, BatchNorm):
            own = {"running_mean": "mean", "running_var": "mean"}
        rules |= {f"{path}.{name}" if path else name: rule for name, rule in own.items()}
    return rules


def combine(rule: Combine, start: Tensor, copies: Sequence[Tensor]) -> Tensor:
    """Combine tensors of one shape by a rule; see `Memory`."""
    if rule == "first":
        return copies[0]
    if rule == "mean":
        return torch.stack(list(copies)).mean(0)
    found = start
    for copy in copies:
        changed = (copy != start).flatten(1).any(1) if copy.ndim > 1 else copy != start
        found = torch.where(changed.reshape(-1, *[1] * (copy.ndim - 1)), copy, found)
    return found
