"""Packages that come with an extra: imported on use, and named where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from fewlabels.errors import UserError


def import_extra(package: str, extra: str, wanted_by: str) -> Any:
    """Import a package.

    Args:
        package: its name.
        extra: of ours, which installs it.
        wanted_by: what needs it, for the message.

    Raises:
        UserError: it cannot be imported; says how to install it.
    """
    try:
        return _imported(package)
    except ImportError as error:
        raise UserError(f"{wanted_by} needs an extra ({error}): pip install fewlabels[{extra}]") from error


def import_if_there(package: str) -> Any:
    """Import a package; give None where that cannot be done."""
    try:
        return _imported(package)
    except ImportError:
        return None


def _imported(package: str) -> Any:
    module = importlib.import_module(package)
    if getattr(module, "__file__", package) is None:  # Python takes a folder of that name for a package
        raise ImportError(f"{package} is but a folder here")
    return module
