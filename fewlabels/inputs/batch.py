"""What a method asks to see, and what it gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, get_args

from torch import Tensor

from fewlabels.errors import UserError
from fewlabels.keys import Key

Kind: TypeAlias = Literal["weak", "medium", "strong"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""from the lightest to the heaviest"""


@dataclass(frozen=True)
class Views:
    """The views of a step: one entry a view, in the order in which the method unpacks them."""

    labeled: tuple[Kind, ...] = ("weak",)
    unlabeled: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        if unknown := {*self.labeled, *self.unlabeled} - {*KINDS}:
            raise UserError(f"no view is {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")


class Viewer(Protocol):
    """Makes the views that a method asks for, of one kind of data."""

    def make(self, taken: Tensor, /, kinds: Sequence[Kind], key: Key) -> tuple[Tensor, ...]:
        """Make one view a kind of what is kept of rows [n, ...], each float and normalized.

        `key` has one element a row (its slot in the global batch), so that views do not depend on how many processes
        share the batch.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """One step's input of one process.

    Attributes:
        labeled: the labeled views, each float [B, C, H, W] (of vectors [B, D]), normalized.
        labels: int64 [B], classes of the labeled rows.
        places: int64 [B], which of the run's labeled rows these are, for memories of one entry a labeled row.
        unlabeled: the unlabeled views, likewise of M rows; M is 0 where there are no unlabeled rows.
        rows: int64 [M], the unlabeled rows' numbers in the table, for memories of one entry a row.
        step: int64 [], updates done before this one.
        progress: float32 [], the fraction of the run that is done, 0 to 1, for ramps.
        key: the step's key, for what a method draws itself.
        propagated: labels of the unlabeled rows by propagation, [M, K], times their weight a in the target, which
            falls from 1 to 0; None for a method as published.
    """

    labeled: tuple[Tensor, ...]
    labels: Tensor
    places: Tensor
    unlabeled: tuple[Tensor, ...]
    rows: Tensor
    step: Tensor
    progress: Tensor
    key: Key
    propagated: Tensor | None = None

    def parts(self, count: int) -> list[Batch]:
        """Cut the batch into `count` equal parts, each with draws of its own."""
        if count == 1:
            return [self]
        labeled, unlabeled = ([view.tensor_split(count) for view in views] for views in (self.labeled, self.unlabeled))
        return [
            replace(
                self,
                labeled=tuple(view[i] for view in labeled),
                labels=self.labels.tensor_split(count)[i],
                places=self.places.tensor_split(count)[i],
                unlabeled=tuple(view[i] for view in unlabeled),
                rows=self.rows.tensor_split(count)[i],
                key=self.key.fold("part", i),
                propagated=None if self.propagated is None else self.propagated.tensor_split(count)[i],
            )
            for i in range(count)
        ]
