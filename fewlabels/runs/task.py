"""What `fit`, `bench` and the command line know of a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import torch

from fewlabels.config import RunOptions
from fewlabels.console import Show
from fewlabels.errors import UserError
from fewlabels.own_file import import_file
from fewlabels.processes import Process
from fewlabels.runs.folder import RunFolder, leaves
from fewlabels.runs.run import Run
from fewlabels.training.stage import Stage
from fewlabels.training.train import Training

GROUP = "fewlabels.tasks"  # of the entry points by which installed packages add tasks

O = TypeVar("O", bound=RunOptions)  # noqa: E741 - of options

Stages: TypeAlias = Generator[Stage[Any], Training[Any], dict[str, Any]]
"""yields a stage, is sent it trained, and returns the summary in the end"""


@dataclass(frozen=True, eq=False)
class Context:
    """Where a run is at work.

    Attributes:
        folder: of the run; no other command writes there meanwhile.
        device: where to train.
        process: which of the run's this is.
        stop: whether the run was asked to stop.
        show: where to say what happens; silent in all processes but the first.
    """

    folder: RunFolder
    device: torch.device
    process: Process
    stop: Callable[[], bool]
    show: Show


@dataclass(frozen=True)
class Identity:
    """What tells a run from others before any of its data is read.

    Attributes:
        name: of the run's folder where the user names none.
        values: plain values that decide the outcome, without those that do not, such as `out`; of files
            `files.state_of`. None at all where nothing tells a run without a look at its data.
    """

    name: str
    values: Mapping[str, Any]


class Task(ABC, Generic[O]):
    """One run's work. Subclasses are the tasks there are; each is made from data and options, and used once.

    Args:
        data: what the user gave.
        options: an instance of `options_type`.
    """

    name: ClassVar[str]
    options_type: ClassVar[type[RunOptions]]
    metric: ClassVar[str]
    """by which runs are compared; higher is better"""

    def __init__(self, data: Any, options: O) -> None:
        self.data, self.options = data, options

    @abstractmethod
    def identify(self) -> Identity:
        """Return what tells the run from others; cheap, called first.

        Raises:
            UserError: bad data or options.
        """

    @abstractmethod
    def prepare(self, context: Context) -> Mapping[str, Any]:
        """Make all that is needed before the first step; return the configuration, of plain values.

        Two commands whose configurations are equal continue each other; the parts `why`, `where` and `given` may
        differ. `where` has the number of `threads`, which is to be that of `context.folder.threads()` where the run was
        begun before; the device, the machine and torch are added to it. Nothing is written yet.

        Raises:
            UserError: bad data or options.
            Interrupted: the run was asked to stop.
        """

    def begin(self) -> None:
        """Write and say what belongs to the beginning of a sitting; the folder has its configuration."""

    @abstractmethod
    def stages(self) -> Stages:
        """Yield each training in turn, get it back trained, write what comes out, and return the summary.

        The summary has `rows`, each with `name`, `kind` (training_free, supervised or method), `test` and `hidden`
        (metrics by name, or None) and `seconds`; and `chosen`, with `name`, `test` and `hidden`, of what is handed
        over. A `label` of a row, `data` and `steps` beside them are shown where they are given.
        """

    def say_differences(self, before: Mapping[str, Any], names: Sequence[str], now: Mapping[str, Any]) -> list[str]:
        """Say how the configuration of a run that is there differs from this one's.

        Args:
            before, now: the configurations.
            names: of the values that differ, parted by dots.
        """
        old, new, file = dict(leaves(before)), dict(leaves(now)), "task_file_digest"
        said = ["the file of the task has changed since the run was begun"] if file in names else []
        others = [name for name in names if name != file]
        return said + [f"{n.split('.')[-1]} was {old.get(n)!r} and is {new.get(n)!r} now" for n in others]

    def again(self, folder: RunFolder, show: Show) -> None:
        """Say that the run was finished before."""
        show.line("this run is finished; nothing is trained again")

    def show(self, run: Run, show: Show) -> None:
        """Show a finished run; by default, its rows."""
        for row in run.summary["rows"]:
            show.line(f"{row['name']}: test {row['test']}, hidden {row['hidden']}, {row['seconds']:.1f} s")


def find_task(spec: str) -> type[Task[Any]]:
    """Return a task by its name, or from a file of the user's own, given as path/to/file.py:CLASS.

    Raises:
        UserError: there is none.
    """
    if ".py:" in spec:
        file, _, name = spec.rpartition(":")
        found = getattr(import_file(Path(file)), name, None)
        if not (isinstance(found, type) and issubclass(found, Task)):
            raise UserError(f"{file} has no task {name!r}: give the name of a class that is derived from Task")
        return found
    if spec.endswith(".py"):
        raise UserError(f"--task {spec} names a file alone: give {spec}:CLASS")
    there = {each.name: each for each in entry_points(group=GROUP)}
    if spec not in there:
        raise UserError(f"no task is named {spec!r}; there are {', '.join(sorted(there))}, or path/to/file.py:CLASS")
    return there[spec].load()
