"""Methods and their options in words, for the command line."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from typing import TYPE_CHECKING, Any, get_type_hints

from fewlabels.config import describe
from fewlabels.methods import method_class, method_names

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
    """Show a method: its algorithm with shapes, and its options.

    Raises:
        UserError: no such method.
    """
    kind = method_class(name)
    lines = [
        f"{name}: {_first_sentence(name)}",
        "",
        inspect.getdoc(kind) or "",
        "",
        *_layers_of(kind),
        "Options, given as --method.NAME VALUE:",
    ]
    for option in options_of(kind):
        lines.append(f"  --method.{option.name.replace('_', '-')} (default {_word(option.default)}; {option.allowed})")
        lines += textwrap.wrap(option.meaning, 100, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines if options_of(kind) else lines[:-1])


def _layers_of(kind: type[Method]) -> list[str]:
    method = kind()
    if not method.views().unlabeled:
        return []
    from fewlabels.models.layers import preset_of

    own = method.layer_rule().policy
    return [f"Which layers learn from unlabeled images: --policy {preset_of(own)}, unless another is given.", ""]


@dataclasses.dataclass(frozen=True)
class OptionOf:
    """One option of a method, in words."""

    name: str
    default: Any
    allowed: str
    meaning: str


def options_of(kind: type[Any]) -> list[OptionOf]:
    """Read a method's options from its fields and the line under each."""
    hints = get_type_hints(kind, include_extras=True)
    meanings = _field_lines(kind)
    return [
        OptionOf(f.name, f.default, describe(hints[f.name]), meanings.get(f.name, "")) for f in dataclasses.fields(kind)
    ]


def _field_lines(kind: type[Any]) -> dict[str, str]:
    """Give for each annotated field the string that stands under it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    out = {}
    for field, under in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(under, ast.Expr):
            out[field.target.id] = str(ast.literal_eval(under.value))
    return out


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
