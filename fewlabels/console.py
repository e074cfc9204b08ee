"""What a run says while it works: lines, a progress bar in a terminal, the table at the end."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

PLAIN_LINES = 10  # of progress, where the output is not a terminal
WIDE = 200  # letters, likewise


def console() -> Console:
    """Make the console of a command: where the output is no terminal, tables have the width that they need."""
    made = Console()
    return made if made.is_terminal else Console(width=WIDE)


class Show:
    """Speaks to the user; silent where asked to be.

    Args:
        console: where to; None is silent.
    """

    def __init__(self, console: Console | None) -> None:
        self.console = console

    def line(self, text: str, style: str | None = None) -> None:
        """Say one line."""
        if self.console is not None:
            self.console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    def table(self, table: RichTable) -> None:
        """Show a table."""
        if self.console is not None:
            self.console.print(table)

    @contextmanager
    def progress(self, name: str, first: int, last: int, rows: int) -> Generator[Bar]:
        """Show the progress of steps `first` to `last`, of `rows` each: a bar in a terminal, else plain lines."""
        if self.console is None or not self.console.is_terminal:
            yield Bar(self, name, first, last, rows)
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=last, completed=first, numbers="")
            yield Bar(self, name, first, last, rows, progress, task)


class Quiet(Show):
    """Speaks for many runs: of progress in a terminal, and of each warning once."""

    def __init__(self, console: Console | None) -> None:
        super().__init__(console)
        self._warned: set[str] = set()

    def line(self, text: str, style: str | None = None) -> None:
        """Say a warning; leave out what is none."""
        if style == "yellow" and text not in self._warned:
            self._warned.add(text)
            super().line(text, style)

    def table(self, table: RichTable) -> None:
        """Leave the table out."""


class Bar:
    """The progress of a training."""

    def __init__(
        self, show: Show, name: str, first: int, last: int, rows: int,
        progress: Progress | None = None, task: TaskID | None = None,
    ) -> None:  # fmt: skip
        self.show, self.name, self.first, self.last, self.rows = show, name, first, last, rows
        self.progress, self.task = progress, task
        self.start, self.shown = time.perf_counter(), first

    def move(self, step: int) -> None:
        """Show that so many steps are done."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=step)

    def numbers(self, step: int, line: dict[str, Any]) -> None:
        """Show the newest means."""
        speed = (step - self.first) * self.rows / max(time.perf_counter() - self.start, 1e-9)
        said = [f"{key} {line[key]:.3f}" for key in ("loss", "kept") if key in line] + [f"{speed:.0f} rows/s"]
        text = "  ".join(said)
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=step, numbers=text)
        elif step * PLAIN_LINES // self.last > self.shown * PLAIN_LINES // self.last:
            self.shown = step
            left = (self.last - step) * (time.perf_counter() - self.start) / max(step - self.first, 1)
            self.show.line(f"{self.name}: step {step} of {self.last}  {text}  {left:.0f} s left")


def cells_table(cells: Sequence[Sequence[str]]) -> RichTable:
    """Make a table of cells, the names of the columns first."""
    table = RichTable()
    for i, name in enumerate(cells[0]):
        table.add_column(name, justify="right" if i else "left", overflow="fold", no_wrap=bool(i))
    for row in cells[1:]:
        table.add_row(*row)
    return table
