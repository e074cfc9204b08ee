"""How a network is trained, apart from the method: every value resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """All numbers of a training.

    Attributes:
        steps: updates.
        batch: B, labeled rows a step, of all processes together.
        unlabeled_batch: M, unlabeled rows a step, likewise.
        optimizer: sgd (Nesterov momentum .9) or adamw.
        lr: highest learning rate.
        weight_decay: not on norms and biases.
        layer_decay: factor on the learning rate from a layer to the one below (timm backbones), or None.
        warm_up: steps over which the learning rate rises.
        ema_memory: steps that the average of the parameters remembers.
        batch_norm_memory: steps that running statistics remember, or None: as the network has it.
        precision: of the arithmetic in the backbone.
        accumulate: parts of a batch that go through the network one after another; their gradients are averaged.
            Batch norm sees one part at a time, and what a method remembers takes each in by itself.
        compile: whether the step is compiled.
    """

    steps: int
    batch: int
    unlabeled_batch: int
    optimizer: Literal["sgd", "adamw"]
    lr: float
    weight_decay: float
    layer_decay: float | None
    warm_up: int
    ema_memory: float
    batch_norm_memory: float | None
    precision: Literal["float32", "bfloat16"]
    accumulate: int = 1
    compile: bool = False
