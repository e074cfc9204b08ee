"""Who learns may look at a teacher: the same module with averaged parameters, which belongs to somebody else."""

from __future__ import annotations

from typing import TypeVar, cast

from torch import nn

from fewlabels.errors import UserError

M = TypeVar("M", bound=nn.Module)


def follow(module: M, teacher: M) -> None:
    """Let a module look at its teacher."""
    # In a tuple, for what a module holds itself becomes a part of it: trained, saved and averaged once more.
    object.__setattr__(module, "_teacher", (teacher,))


def leader(module: M) -> M:
    """Give the teacher that a module follows.

    Raises:
        UserError: it follows none.
    """
    found = getattr(module, "_teacher", None)
    if found is None:
        raise UserError(
            "this method learns from a teacher with averaged parameters, and there is none: outside of a run call "
            "`fewlabels.models.teacher.follow(network, ema.module)`, with `ema = Ema(network, memory)`"
        )
    return cast(M, found[0])
