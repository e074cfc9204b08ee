"""How a classifier is trained, apart from the method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fewlabels.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ClassifierRecipe(Recipe):
    """All numbers of the training of a classifier.

    Attributes:
        batch: B, labeled rows a step, of all processes together.
        unlabeled_batch: M, unlabeled rows a step, likewise.
        batch_norm_memory: steps that running statistics remember, or None: as the network has it.
        precision: of the arithmetic in the backbone.
    """

    batch: int
    unlabeled_batch: int
    batch_norm_memory: float | None
    precision: Literal["float32", "bfloat16"]

    @property
    def sizes(self) -> tuple[int, ...]:
        """B and M."""
        return self.batch, self.unlabeled_batch
