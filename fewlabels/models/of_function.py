"""A function as a backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from fewlabels.errors import UserError

Backbone: TypeAlias = "nn.Module | Callable[[Tensor], Tensor]"


class OfFunction(nn.Module):
    """A function of the user's as a backbone: it gives features, and has nothing to train.

    Args:
        function: maps normalized images [n, C, H, W] to features [n, D].
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x)


def as_module(backbone: Backbone) -> nn.Module:
    """Give a user's backbone as a module.

    Raises:
        UserError: it is none, and no function.
    """
    if isinstance(backbone, nn.Module):
        return backbone
    if not callable(backbone):
        raise UserError(f"model is {backbone!r}; give a name, a module, or a function from images to features [n, D]")
    return OfFunction(backbone)
