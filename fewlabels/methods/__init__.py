"""One paper, one file: a method turns a batch into a dictionary of losses."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_type_hints

from fewlabels.config import read_word
from fewlabels.errors import UserError
from fewlabels.own_file import import_file, own_file

if TYPE_CHECKING:
    from fewlabels.methods.base import Method

_NOT_METHODS = ("base", "describe", "parts")


def method_names() -> list[str]:
    """Give the names of all methods: the files of this folder. Imports none of them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS)


def method_class(name: str) -> type[Method]:
    """Give the class of a method by name, or of FILE.py:CLASS, a user's own; FILE.py will do where it has one method.

    Raises:
        UserError: no such method (the nearest are listed), or the file has none such.
    """
    if (own := _file_and_class(name)) is not None:
        return _own_class(*own)
    if name == "auto":
        raise UserError("auto is chosen from the data by `fewlabels train`; here name a method")
    if name not in method_names():
        near = difflib.get_close_matches(name, method_names(), n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else " One of your own is path/to/file.py:CLASS."
        raise UserError(f"no method is named {name!r}; there are {', '.join(method_names())}.{hint}")
    (found,) = _methods_in(importlib.import_module(f"{__name__}.{name}")).values()
    return found


def _file_and_class(name: str) -> tuple[Path, str] | None:
    """Part FILE.py:CLASS, with "" for no class; None for the name of one of ours."""
    if name.endswith(".py"):
        return Path(name), ""
    file, _, kind = name.rpartition(":")
    return (Path(file), kind) if file.endswith(".py") else None


def _methods_in(module: ModuleType) -> dict[str, type[Method]]:
    """Give the methods that a module defines, not those that it imports."""
    from fewlabels.methods.base import Method

    return {
        c.__name__: c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module.__name__
    }


def _own_class(file: Path, kind: str) -> type[Method]:
    module = import_file(file)
    found = _methods_in(module)
    if kind in found:
        return found[kind]
    if not kind and len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise UserError(f"{file} has no method: no class that it defines is derived from fewlabels.Method")
    there = ", ".join(found)
    if not kind:
        raise UserError(f"{file} has several methods, {there}: name one, as {file}:{next(iter(found))}")
    if hasattr(module, kind):
        raise UserError(f"{kind} is no method that {file} defines; its methods are {there}")
    near = difflib.get_close_matches(kind, found, n=1)
    raise UserError(
        f"{file} has no class {kind}; its methods are {there}.{f' Did you mean {near[0]}?' if near else ''}"
    )


def make_method(spec: str) -> Method:
    """Make a method from its name, as `method_class` takes it, and options: NAME:OPTION=VALUE:OPTION=VALUE.

    Raises:
        UserError: no such method or option, a value that it does not allow, or none where one is needed.
    """
    name, *given = re.split(r":(?=[\w-]+=)", spec)
    kind = method_class(name)
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: field for field in option_fields(kind)}
    options: dict[str, Any] = {}
    for pair in given:
        word, _, value = pair.partition("=")
        option = word.replace("-", "_")
        if option not in fields:
            raise UserError(f"{name} has no option {option!r}; it has {', '.join(fields) or 'none'}")
        options[option] = read_word(hints[option], value)
    if needed := [option for option, field in fields.items() if option not in options and not has_default(field)]:
        raise UserError(f"{name} needs a value of {', '.join(needed)}, since it has no default")
    return kind(**options)


def option_fields(kind: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """Give a method's options as fields, its own before those that it shares with others."""
    shared = {name for base in kind.__bases__ for name in getattr(base, "__dataclass_fields__", ())}
    return tuple(sorted(dataclasses.fields(kind), key=lambda field: field.name in shared))


def has_default(field: dataclasses.Field[Any]) -> bool:
    """Tell whether an option may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def method_spec(method: Method) -> str:
    """Give the words from which `method_class` finds a method's class again, from any folder; else its name."""
    own = own_file(type(method))
    return f"{own.path}:{type(method).__name__}" if own else method_name(method)


def is_ours(method: Method) -> bool:
    """Tell whether a method is one of this folder's."""
    return type(method).__module__.startswith(f"{__name__}.")


def method_name(method: Method) -> str:
    """Give the name of a method object: its file's for ours, its class's for a user's own."""
    module = type(method).__module__
    return module.rpartition(".")[2] if is_ours(method) else type(method).__name__
