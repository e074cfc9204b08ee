"""How a learner is trained: every value resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewlabels.training.schedule import Schedule


@dataclass(frozen=True)
class OptimizerRecipe:
    """The numbers of an optimizer.

    Attributes:
        kind: sgd (Nesterov momentum 0.9) or adamw.
        lr: highest learning rate.
        weight_decay: not on norms and biases.
        layer_decay: factor on the learning rate from a layer of `Learner.layered` to the one below, or None.
        schedule: how the learning rate falls.
        warm_up: steps over which the learning rate first rises, from the first step of the turn on.
        clip_norm: largest norm of the gradient of all that is moved together, after the mean over the parts of a batch
            and over processes; a larger one is scaled down to it.
    """

    kind: Literal["sgd", "adamw"]
    lr: float
    weight_decay: float
    layer_decay: float | None = None
    schedule: Schedule = "cosine"
    warm_up: int = 0
    clip_norm: float | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All numbers of a training.

    Attributes:
        steps: how many.
        optimizer: of every turn that has none of its own.
        ema_memory: steps that the average of the parameters remembers.
        accumulate: parts of a batch that go through the network one after another; their gradients are averaged.
            Batch norm sees one part at a time, and what is remembered takes each in by itself.
        compile: whether the step is compiled.
    """

    steps: int
    optimizer: OptimizerRecipe
    ema_memory: float
    accumulate: int = 1
    compile: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each kind in a batch, which its parts divide; none where a batch cannot be cut."""
        return ()
