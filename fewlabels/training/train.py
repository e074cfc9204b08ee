"""A stage at work: from its newest checkpoint to the last step, recorded, evaluated and saved on the way."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fewlabels.console import Bar, Show
from fewlabels.errors import Interrupted, UserError
from fewlabels.processes import any_of, first_says, send_from_first, this_process
from fewlabels.training import checkpoint
from fewlabels.training.boards import Board
from fewlabels.training.checkpoint import Checkpoint
from fewlabels.training.learner import Learner
from fewlabels.training.loop import CompiledStepError, State, run
from fewlabels.training.record import ExplodedError, Record, append_line, rewind
from fewlabels.training.stage import Periodic, Stage

METRICS = "metrics.jsonl"
LINES = 100  # of the metrics in a training
CHECKPOINTS = 20
EVALUATIONS = 10

_NOTHING: tuple[int, dict[str, Any]] = (0, {})

L = TypeVar("L", bound=Learner[Any])
T = TypeVar("T")


def train(stage: Stage[L], show: Show | None = None, stop: Callable[[], bool] = lambda: False) -> Training[L]:
    """Train to the last step, from the newest checkpoint on where there is one.

    Args:
        stage: what to train.
        show: where to say what happens; silent by default.
        stop: whether the run was asked to stop.

    Raises:
        Interrupted: it was; the state is saved.
        UserError: the loss exploded (says since when and what to try), or the memory holds not even one part of a
            batch.
    """
    show = Show(None) if show is None or stage.quiet else show
    return fitted(stage, show, lambda stage: _trained(stage, show, stop))


def _trained(stage: Stage[L], show: Show, stop: Callable[[], bool]) -> Training[L]:
    training = Training(stage, show, stop)
    training.run()
    return training


def fitted(stage: Stage[L], show: Show, work: Callable[[Stage[L]], T]) -> T:
    """Do some work; where the memory is too small, again with each batch in more parts.

    Raises:
        UserError: a batch cannot be cut into more parts.
    """
    while True:
        if torch.cuda.is_available():
            gc.collect()  # what an earlier training left must not make the memory too small for this one
            torch.cuda.empty_cache()
        try:
            return work(stage)
        except torch.OutOfMemoryError as error:
            stage = _in_more_parts(stage, show, error)
        # Outside of `except`, so that nothing holds what filled the memory any more.
        gc.collect()  # a compiled step and its state hold each other


def _in_more_parts(stage: Stage[L], show: Show, error: torch.OutOfMemoryError) -> Stage[L]:
    sizes, now, processes = stage.recipe.sizes, stage.recipe.accumulate, this_process().world_size
    shared = math.gcd(*sizes) // processes
    # Batch norm needs two rows of each kind.
    parts = next((n for n in range(2 * now, shared // 2 + 1) if shared % n == 0), None)
    rows = " and ".join(map(str, sizes))
    if parts is None or processes > 1:
        raise UserError(
            f"{stage.name}: out of memory{f' with {rows} rows a step' if rows else ''} ({error}). "
            f"Give {f'--accumulate {parts}, ' if parts else ''}a smaller --batch, smaller inputs, or a smaller network."
        ) from error
    show.line(
        f"{stage.name}: out of memory. Each batch now goes through the network in {parts} parts of "
        f"{' and '.join(str(size // parts) for size in sizes)} rows. The gradient is the mean over all of them as "
        "before; batch norm and adaptive thresholds see one part at a time, so the outcome differs.",
        "yellow",
    )
    return replace(stage, recipe=replace(stage.recipe, accumulate=parts))


class Training(Generic[L]):
    """What a stage has become: its state, its record, the time it took.

    Args:
        stage: to train.
        show: where to say what happens.
        stop: whether the run was asked to stop.

    Attributes:
        state: what is trained.
        seconds: of work, over all sittings.
        record: of its metrics.
    """

    def __init__(self, stage: Stage[L], show: Show, stop: Callable[[], bool]) -> None:
        self.stage, self.show, self.stop = stage, show, stop
        self.state, self.feed = stage.begin(stage.recipe)
        self.steps = stage.recipe.steps
        writes = stage.folder is not None and this_process().rank == 0
        self.folder = stage.folder if writes else None  # None where this process writes nothing
        path = None if self.folder is None else self.folder / METRICS
        self.record = Record(path, max(1, self.steps // LINES))
        self.bar: Bar | None = None
        self.saved: int | None = None
        self.seconds = 0.0
        self._since = time.perf_counter()
        self._board: Board | None = None

    def run(self) -> None:
        """Do the steps that are left; see `train` for what it raises."""
        name, recipe = self.stage.name, self.stage.recipe
        first = self.restore()
        if first:
            self.show.line(f"{name}: continued from step {first}")
        with self.show.progress(name, first, self.steps, self.feed.rows) as bar, self.on_board(first):
            self.bar = bar
            try:
                if recipe.compile and first < self.steps:
                    self.show.line(
                        f"{name}: compiling the step, which may take minutes; the time left is wrong until then"
                    )
                    torch.compiler.reset()  # what was compiled for other trainings counts against a limit
                run(self.state, self.feed, first, self.steps, watch=self)
                self.state.compiled.clear()  # it and the state hold each other
            except CompiledStepError as error:
                cause = error.__cause__
                said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
                raise UserError(f"{name}: the compiled step failed ({said}); leave --compile yes out") from cause
            except ExplodedError as error:
                raise UserError(self._exploded(error)) from error

    def _exploded(self, error: ExplodedError) -> str:
        lr, folder = self.stage.recipe.optimizer.lr, self.stage.folder
        good = "no checkpoint is older"
        if self.saved and folder is not None:
            good = f"the last good checkpoint is of step {self.saved}, in {folder / 'checkpoint'}"
        other = " with another --out" if folder is not None else ""
        return (
            f"{self.stage.name}: {error}; {good}. Try a lower learning rate (--lr {lr / 3:.2g}; now {lr:.2g}){other}."
        )

    def restore(self) -> int:
        """Take the newest checkpoint; return its step, 0 without one.

        The first of several processes reads it for all: the others may be on machines that have no such file.
        """
        held: list[Checkpoint] = []
        step, notes = first_says(lambda: self._look(held))
        if not step:
            return 0
        state = self.state
        tensors = send_from_first(held[0].tensors if held else None, state.step.device)
        sums = {name.removeprefix("record/"): t for name, t in tensors.items() if name.startswith("record/")}
        state.load({name: t for name, t in tensors.items() if not name.startswith("record/")})
        self.record.load(sums, notes["counts"])
        # The parts of a batch decide the outcome: once halved, they stay so.
        parts = max(state.recipe.accumulate, int(notes["accumulate"]))
        state.recipe = replace(state.recipe, accumulate=parts)
        self.saved, self.seconds = step, float(notes["seconds"])
        return step

    def _look(self, held: list[Checkpoint]) -> tuple[int, dict[str, Any]]:
        """Put the newest checkpoint into `held`, bring the records back to it, and return its step and notes."""
        if self.folder is None:
            return _NOTHING
        found = checkpoint.load(self.folder / "checkpoint")
        if found is None and any((self.folder / "checkpoint").glob("*")):
            self.show.line(f"{self.stage.name}: no checkpoint can be read; training starts anew", "yellow")
        held.extend([found] if found else [])
        for name in (METRICS, *(f"{each.name}.jsonl" for each in self.stage.periodic)):
            rewind(self.folder / name, found.step if found else 0)
        return (found.step, found.notes) if found else _NOTHING

    @contextmanager
    def on_board(self, first: int) -> Generator[None]:
        """Write to a board too, where asked to; the first of several processes does."""

        def begin() -> None:
            if self.stage.board is not None and first < self.steps:
                self._board = self.stage.board(self.stage.name, first)

        first_says(begin)
        try:
            yield
        finally:
            self._with_board(lambda board: board.close(self.saved == self.steps))

    def _with_board(self, tell: Callable[[Board], None]) -> None:
        """Tell the board something; one that cannot be reached must not end the training, whose record lies here."""
        if self._board is None:
            return
        try:
            tell(self._board)
        except Exception as error:  # what fails there, and how, is a package's own
            self._board = None
            self.show.line(
                f"{self.stage.name}: the board takes no more numbers ({error}); {METRICS} has them", "yellow"
            )

    def __call__(self, state: State[L], step: int, metrics: dict[str, Tensor]) -> None:
        """Look at the state after a step."""
        self.record.add(step, metrics)
        last = step == self.steps
        due = self.record.due(step) or last
        if self.bar is not None:
            self.bar.move(step)
        if due:
            self._line(step, last)
        for each in self.stage.periodic:
            if last or step % each.every == 0:
                self._measure(each)
        # Several processes stop together: they ask each other, which costs an exchange, so not in each step.
        stop = (due or this_process().world_size == 1) and any_of(self.stop())
        if last or stop or step % max(1, self.steps // CHECKPOINTS) == 0:
            self._save(step)
        if stop and not last:
            saved = "stopped" if self.stage.folder is None else f"saved at step {self.saved} of {self.steps}"
            raise Interrupted(f"{self.stage.name}: {saved}")

    def _measure(self, periodic: Periodic[L]) -> None:
        """Take a measurement; the clock of the training stands still."""
        began = time.perf_counter()
        try:
            found = periodic.measure(self.state)
        except torch.OutOfMemoryError:
            self.show.line(f"{self.stage.name}: out of memory in the {periodic.name}, which is left out here", "yellow")
        else:
            if self.folder is not None:
                append_line(self.folder / f"{periodic.name}.jsonl", found)
        self._since += time.perf_counter() - began

    def _line(self, step: int, last: bool) -> None:
        line = self.record.flush(step)
        every = self.steps / EVALUATIONS
        first = this_process().rank == 0
        if first and (last or step // every > (step - self.record.every) // every):
            line |= self.stage.evaluate(self.state.averaged, line)
        if self.bar is not None:
            self.bar.numbers(step, line)
        if first:
            self.record.write(step, line)
        self._with_board(lambda board: board.write(step, line))

    def _save(self, step: int) -> None:
        if any_of(self.record.first_bad() is not None or not self.state.finite()):
            raise ExplodedError(self.record.first_bad() or step)  # what is saved stays good
        now = time.perf_counter()
        self.seconds, self._since, self.saved = self.seconds + now - self._since, now, step
        if self.folder is None:
            return
        sums = {f"record/{name}": t for name, t in self.record.tensors().items()}
        notes = {
            "seconds": self.seconds,
            "accumulate": self.state.recipe.accumulate,
            "counts": self.record.counts,
            "threads": torch.get_num_threads(),  # sums depend on it
            "processes": this_process().world_size,
        }
        checkpoint.save(self.folder / "checkpoint", step, self.state.tensors() | sums, notes)
