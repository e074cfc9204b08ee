"""Methods and their options in words, for the command line."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_type_hints

from fewlabels.config import allowed_words
from fewlabels.methods import has_default, method_class, method_names, option_fields
from fewlabels.own_file import own_file

if TYPE_CHECKING:
    from fewlabels.methods.base import Method


def list_methods() -> str:
    """List each method with the first sentence of its file; imports none of them."""
    lines = [f"{name:14}{_first_sentence(name)}" for name in method_names()]
    return "\n".join([*lines, "", "`fewlabels methods NAME` shows one with its options."])


def _first_sentence(name: str) -> str:
    from importlib.util import find_spec

    spec = find_spec(f"fewlabels.methods.{name}")
    assert spec is not None and spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:
        return (ast.get_docstring(ast.parse(file.read())) or "").splitlines()[0]


def describe_method(name: str) -> str:
    """Show a method, also one of a user's own file: its algorithm with shapes, and its options.

    Raises:
        UserError: no such method.
    """
    kind = method_class(name)
    lines = [
        _title(name, kind),
        "",
        *([text, ""] if (text := ast.get_docstring(_tree(kind))) else []),
        *_layers_of(kind),
        "Options, given as --method.NAME VALUE:",
    ]
    for option in options_of(kind):
        lines.append(f"  --method.{option.name.replace('_', '-')} ({option.default}; {option.allowed})")
        lines += textwrap.wrap(option.meaning, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines if options_of(kind) else lines[:-1])


def _title(name: str, kind: type[Method]) -> str:
    if (own := own_file(kind)) is None:
        return f"{name}: {_first_sentence(name)}"
    said = (sys.modules[kind.__module__].__doc__ or "").strip().splitlines()
    return f"{kind.__name__} of {own.path.name}{f': {said[0]}' if said else ''}"


def _layers_of(kind: type[Method]) -> list[str]:
    if not all(map(has_default, option_fields(kind))):
        return []
    method = kind()
    if not method.views().unlabeled:
        return []
    if method.mixes:
        return ["It mixes labeled with unlabeled images, so it takes no --policy and no --classify.center-memory.", ""]
    from fewlabels.models.layers import preset_of

    own = method.layer_rule().policy
    return [f"Which layers learn from unlabeled images: --policy {preset_of(own)}, unless another is given.", ""]


@dataclasses.dataclass(frozen=True)
class OptionOf:
    """One option of a method, in words."""

    name: str
    default: str
    allowed: str
    meaning: str


def options_of(kind: type[Any]) -> list[OptionOf]:
    """Read a method's options from its fields and the line under each."""
    hints = get_type_hints(kind, include_extras=True)
    families = [each for each in reversed(kind.__mro__) if dataclasses.is_dataclass(each)]
    meanings = {name: line for each in families for name, line in _field_lines(each).items()}
    return [
        OptionOf(f.name, _default(f), allowed_words(hints[f.name]), meanings.get(f.name, ""))
        for f in option_fields(kind)
    ]


def _tree(kind: type[Any]) -> ast.ClassDef:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    return tree


def _field_lines(kind: type[Any]) -> dict[str, str]:
    """Give for each annotated field the string that stands under it."""
    fields = _tree(kind).body
    out = {}
    for field, under in pairwise(fields):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(under, ast.Expr) and isinstance(under.value, ast.Constant):
            out[field.target.id] = " ".join(str(under.value.value).split())
    return out


def _default(field: dataclasses.Field[Any]) -> str:
    if not has_default(field):
        return "to be given"
    if field.default is dataclasses.MISSING:
        return "default made anew"
    return f"default {field.default}"
