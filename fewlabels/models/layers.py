"""The layers of a classifier by name, and policies: a factor on the unlabeled gradient of each."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from torch import nn

from fewlabels.errors import UserError, all_of
from fewlabels.models.classifier import Classifier

Policy: TypeAlias = Mapping[str, float]
"""factors by the name of a layer, a prefix of it, or a parameter; 1 for all others, and the longest name decides"""

PRESETS: dict[str, Policy] = {
    "all": {},
    "grad_relu": {"head": 0.0},
    "head_only": {"backbone": 0.0},
    "backbone_only": {"head": 0.0},
}


def read_policy(given: str | Policy) -> Policy:
    """Read a policy: the name of a preset, a JSON object, or a mapping.

    Raises:
        UserError: none of these, or a factor that is not a finite number of 0 or more; all at once.
    """
    found: Any = given
    wrong = ""
    if isinstance(given, str):
        if given in PRESETS:
            return PRESETS[given]
        try:
            found = json.loads(given)
        except json.JSONDecodeError as error:
            found, wrong = None, f" (as JSON: {error.msg} at character {error.pos + 1})" if given[:1] == "{" else ""
    if not isinstance(found, Mapping):
        raise UserError(
            f"policy is {given!r}{wrong}; give auto, {', '.join(PRESETS)}, or a JSON object of factors by layer, "
            'such as {"head": 0, "backbone.stage3": 0.5}'
        )
    problems = [f"the factor of {name} is {factor!r}" for name, factor in found.items() if not _is_factor(factor)]
    if problems:
        raise all_of(
            "policy", problems, "Give finite numbers of 0 or more: 0 keeps pseudo-labels from a layer, 1 is the usual."
        )
    return {str(name): float(factor) for name, factor in found.items()}


def preset_of(policy: Policy) -> str:
    """Write a policy as `read_policy` reads it: by the name of a preset where there is one."""
    return next((name for name, preset in PRESETS.items() if preset == policy), json.dumps(policy, sort_keys=True))


def _is_factor(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def scales_of(classifier: Classifier, policy: Policy) -> dict[str, float]:
    """Give the factor of each parameter, by its name, where it is not 1.

    Raises:
        UserError: names of no layer; the nearest are listed.
    """
    names = [name for name, _ in classifier.named_parameters()]
    unknown = [given for given in policy if not any(_covers(given, name) for name in names)]
    if unknown:
        layers = [*layers_of(classifier)]
        problems = [f"no layer is named {given!r}{_nearest(given, names)}" for given in unknown]
        raise all_of("policy", problems, f"The layers are {', '.join(layers)}.")
    factors = {name: _factor(name, policy) for name in names}
    return {name: factor for name, factor in factors.items() if factor != 1}


def _covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _factor(name: str, policy: Policy) -> float:
    given = [prefix for prefix in policy if _covers(prefix, name)]
    return policy[max(given, key=len)] if given else 1.0


def _nearest(given: str, names: list[str]) -> str:
    known = {".".join(parts[:n]): None for name in names for parts in [name.split(".")] for n in range(1, len(parts))}
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    return f" (nearest: {', '.join(near)})" if near else ""


def layers_of(classifier: Classifier) -> dict[str, list[str]]:
    """Give the names of each layer's parameters, by its name, from the input to the head.

    A layer is what has parameters and is no mere container: `nn.Sequential` and `nn.ModuleList` are their members. So
    a residual block, or a block of a transformer, is one layer.
    """
    found = dict(_layers_in("backbone", classifier.backbone, expand=True))
    found |= dict(_layers_in("head", classifier.head))
    # A module under two names has its parameters under the first.
    known = {name for name, _ in classifier.named_parameters()}
    layers = {layer: [name for name in names if name in known] for layer, names in found.items()}
    return {layer: names for layer, names in layers.items() if names}


def _layers_in(name: str, module: nn.Module, *, expand: bool = False) -> Iterator[tuple[str, list[str]]]:
    if not (expand or type(module) in (nn.Sequential, nn.ModuleList)):
        own = [f"{name}.{of}" for of, _ in module.named_parameters()]
        if own:
            yield name, own
        return
    for of, _ in module.named_parameters(recurse=False):  # a transformer's class token, its positions
        yield f"{name}.{of}", [f"{name}.{of}"]
    for of, child in module.named_children():
        yield from _layers_in(f"{name}.{of}", child)
