"""A stage: one training of a run, resumable, with a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from fewlabels.training.boards import Board
from fewlabels.training.feed import Feed
from fewlabels.training.learner import Learner
from fewlabels.training.loop import State
from fewlabels.training.recipe import Recipe

L = TypeVar("L", bound=Learner[Any])

Evaluate: TypeAlias = Callable[[L, Mapping[str, float]], dict[str, float]]
"""from the averaged learner, and the means recorded last, to metrics by name"""


@dataclass(frozen=True)
class Periodic(Generic[L]):
    """A measurement that is taken now and then, and changes nothing in the training.

    Attributes:
        name: of its record, `NAME.jsonl`.
        every: steps from one to the next; one more is taken after the last step.
        measure: from the state to a line of the record, which has a `step`.
    """

    name: str
    every: int
    measure: Callable[[State[L]], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Stage(Generic[L]):
    """One training.

    Attributes:
        name: in what is shown.
        folder: of its checkpoints and records; None keeps all in memory, and nothing can be resumed.
        recipe: the numbers of the training.
        begin: makes the state before the first step, and the feed, each time anew.
        evaluate: the averaged learner, at ten lines of the record where there are so many, the last among them; only
            the first of several processes calls it.
        periodic: what else is measured.
        board: opens one, by the name and the step that the training continues after; None writes to none.
        quiet: whether progress is not shown.
    """

    name: str
    folder: Path | None
    recipe: Recipe
    begin: Callable[[Recipe], tuple[State[L], Feed[Any]]]
    evaluate: Evaluate[L]
    periodic: tuple[Periodic[L], ...] = ()
    board: Callable[[str, int], Board] | None = None
    quiet: bool = False
