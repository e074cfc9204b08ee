"""What a compiler may take for a constant: small tensors, made once for a device and kept, and numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def constant_to_compiler(give: Callable[P, T]) -> Callable[P, T]:
    """Let a compiler call this function once and keep what it gives, without looking inside.

    `torch.compiler.assume_constant_result` does nothing else, but imports the compiler, which takes 2 seconds.
    """
    setattr(give, "_dynamo_marked_constant", True)  # noqa: B010 - functions have no such field
    return give


def constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep what `make` gives, since a copy from the host would stop the device at each step.

    To a compiler it is a constant; through `functools.cache` alone it would look and make the copy again.
    """
    kept = cache(make)

    @constant_to_compiler
    @wraps(make)
    def give(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return kept(*args, **kwargs)  # pyright: ignore[reportArgumentType]

    return give
