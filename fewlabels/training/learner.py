"""What the loop trains: a module that turns a batch into losses, by one or several turns a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor, nn

from fewlabels.errors import UserError
from fewlabels.training.recipe import OptimizerRecipe


class Divisible(Protocol):
    """A batch that can go through the network part by part."""

    def parts(self, count: int) -> Sequence[Self]:
        """Cut the batch into `count` equal parts."""
        ...


B = TypeVar("B", bound=Divisible)


@dataclass(frozen=True)
class Turn:
    """One update of some parameters within a step.

    Attributes:
        name: by which `Learner.forward` knows whose turn it is; also the prefix of its metrics.
        moves: what the names of the parameters that it updates begin with; "" is all of them, "head." the head's.
        optimizer: its own, or None for the recipe's.
        from_step: the first step in which it takes part.
    """

    name: str = ""
    moves: tuple[str, ...] = ("",)
    optimizer: OptimizerRecipe | None = None
    from_step: int = 0


class Learner(nn.Module, Generic[B]):
    """Everything that is trained, with what it remembers.

    A turn's loss may reach parameters that the turn does not move; such gradients are forgotten.
    """

    turns: tuple[Turn, ...] = (Turn(),)
    """the updates of a step, in this order"""

    def forward(self, batch: B, turn: str) -> dict[str, Tensor]:
        """Return what is trained on under the key `loss`, and what is to be recorded: 0-dim tensors.

        Within a step nothing may be read to the host, and no shape may depend on a value. In every process the same
        parameters must get a gradient.
        """
        raise NotImplementedError

    def after_step(self, step: Tensor) -> None:
        """Do what follows the updates of a step; `step` counts those before it (int64, 0-dim, on the device)."""

    def layered(self) -> nn.Module:
        """Return the part whose layers get learning rates of their own: a module with timm's `group_matcher`.

        Raises:
            UserError: there is none.
        """
        raise UserError(
            f"{type(self).__name__} has no layers with learning rates of their own; leave --layer-decay out"
        )
