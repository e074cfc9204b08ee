"""The record of a training: averages of its metrics every so many steps, read from the device only then."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewlabels.errors import UserError
from fewlabels.files import replace_text
from fewlabels.processes import any_of

EXPLODED = 1e4  # no cross-entropy of a network that still learns is near this


class Means:
    """Sums metrics on the device, and gives their means every so many steps.

    Args:
        every: steps a line.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # how many steps each has been summed over: a turn may begin within a line
        self.bad = torch.tensor(-1)  # the first step whose loss was not a number of use

    def add(self, step: int, metrics: dict[str, Tensor]) -> None:
        """Take in the metrics of an update; `step` counts the updates done."""
        for name, value in metrics.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
            self.counts[name] = self.counts.get(name, 0) + 1
        loss = metrics["loss"]
        bad = self.bad.to(loss.device)
        self.bad = torch.where((bad < 0) & ~(loss.abs() < EXPLODED), torch.full_like(bad, step), bad)

    def due(self, step: int) -> bool:
        """Tell whether a line is due after this many updates."""
        return step % self.every == 0

    def flush(self, step: int) -> dict[str, float]:
        """Read the means since the last line, and start anew.

        Raises:
            ExplodedError: the loss was not a number, or too large, in one of these steps.
        """
        names = list(self.sums)
        values = torch.stack([self.bad.double(), *(self.sums[name].double() for name in names)]).tolist()
        if any_of(values[0] >= 0):
            raise ExplodedError(int(values[0]) if values[0] >= 0 else step)
        means = {name: value / self.counts[name] for name, value in zip(names, values[1:], strict=True)}
        self.sums, self.counts = {}, {}
        return means

    def first_bad(self) -> int | None:
        """Read the first step since the start of this sitting whose loss was no number of use."""
        step = int(self.bad)
        return step if step >= 0 else None

    def tensors(self) -> dict[str, Tensor]:
        """Give the unfinished sums, for a checkpoint."""
        return dict(self.sums)

    def load(self, sums: dict[str, Tensor], counts: dict[str, int]) -> None:
        """Take back what `tensors` returned, and `counts`."""
        self.sums, self.counts = dict(sums), dict(counts)


class Record(Means):
    """Keeps the means: in `metrics.jsonl`, one object a line, or in memory.

    Args:
        path: of the file; None keeps them in memory.
        every: steps a line.
    """

    def __init__(self, path: Path | None, every: int) -> None:
        super().__init__(every)
        self.path = path
        self._lines: list[dict[str, Any]] = []

    def write(self, step: int, line: dict[str, float]) -> None:
        """Append a line."""
        if self.path is None:
            self._lines.append({"step": step, **line})
        else:
            append_line(self.path, {"step": step, **line})

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines, of earlier sittings too."""
        return self._lines if self.path is None else read_lines(self.path)


class ExplodedError(UserError):
    """The loss is no number of use any more."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss is not finite, or above {EXPLODED:g}, at step {step}")
        self.step = step


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append a JSON object to a record, and bring it to the disk: a checkpoint must never be newer than its lines."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rewind(path: Path, step: int) -> None:
    """Forget lines after `step`: the steps come again, and none is recorded twice."""
    kept = [line for line in read_lines(path) if line["step"] <= step]
    replace_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a record; a line that was cut by a kill is left out."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
