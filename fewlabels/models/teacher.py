"""Who learns may look at a teacher: the same module with averaged parameters, which belongs to somebody else."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import nn

from fewlabels.errors import UserError

M = TypeVar("M", bound=nn.Module)


class _Link:
    """Holds a teacher that is nobody's part: not trained, saved or averaged once more, and shared by copies."""

    def __init__(self, teacher: nn.Module) -> None:
        self.teacher = teacher

    def __deepcopy__(self, memo: dict[int, Any]) -> _Link:
        return self


def follow(module: M, teacher: M) -> None:
    """Let a module look at its teacher."""
    object.__setattr__(module, "_teacher", _Link(teacher))


def leader(module: M) -> M:
    """Give the teacher that a module follows.

    Raises:
        UserError: it follows none.
    """
    found = getattr(module, "_teacher", None)
    if found is None:
        kind = type(module).__name__
        raise UserError(
            f"the method learns from a teacher with averaged parameters, and this {kind} has none: outside of a run "
            "call `fewlabels.models.teacher.follow(module, Ema(module, memory).module)` for the network and the method"
        )
    return cast(M, found.teacher)
