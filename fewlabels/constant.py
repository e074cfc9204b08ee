"""Small tensors that are made once for a device and kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep what `make` gives, since a copy from the host would stop the device at each step.

    To a compiler it is a constant; through `functools.cache` alone it would look and make the copy again.
    """
    kept = cache(make)

    @torch.compiler.assume_constant_result
    @wraps(make)
    def give(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        return kept(*args, **kwargs)  # pyright: ignore[reportArgumentType]

    return give
