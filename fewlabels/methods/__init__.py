"""One paper, one file: a method turns a batch into a dictionary of losses."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from fewlabels.errors import UserError

if TYPE_CHECKING:
    from fewlabels.methods.base import Method

_NOT_METHODS = ("base", "describe", "parts")


def method_names() -> list[str]:
    """Give the names of all methods: the files of this folder. Imports none of them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS)


def method_class(name: str) -> type[Method]:
    """Give the class of a method by name.

    Raises:
        UserError: no such method; the nearest are listed.
    """
    if name not in method_names():
        near = difflib.get_close_matches(name, method_names(), n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"no method is named {name!r}; there are {', '.join(method_names())}.{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    from fewlabels.methods.base import Method

    (found,) = (
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Method) and c.__module__ == module.__name__
    )
    return found


def method_name(method: Method) -> str:
    """Give the name of a method object: its file's for ours, its class's for a user's own."""
    module = type(method).__module__
    return module.rpartition(".")[2] if module.startswith(f"{__name__}.") else type(method).__name__
