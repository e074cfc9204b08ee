"""One training of a run, from its last checkpoint on: the method's, or labels only."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fewlabels.classify.job import Job, Rows, begin, make_probe
from fewlabels.classify.layer_probe import Probe
from fewlabels.classify.learner import MethodLearner
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.data.table import Labels, spread
from fewlabels.errors import Interrupted, UserError
from fewlabels.inputs.feed import RowFeed
from fewlabels.methods.base import Method
from fewlabels.models.classifier import Classifier
from fewlabels.processes import any_of, first_says, send_from_first
from fewlabels.runs.show import Bar, Show
from fewlabels.training import checkpoint
from fewlabels.training.boards import Board
from fewlabels.training.checkpoint import Checkpoint
from fewlabels.training.loop import CompiledStepError, State, run, update
from fewlabels.training.record import ExplodedError, Record, append_line, rewind

METRICS, PROBES = "metrics.jsonl", "probe.jsonl"
LINES = 100  # of the metrics in a run
CHECKPOINTS = 20
EVALUATIONS = 10
TESTED_ROWS = 10_000  # of the test rows, while training; all at the end
HIDDEN_ROWS = 2000  # of the hidden rows, likewise

_NOTHING: tuple[int, dict[str, Any]] = (0, {})

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Trained:
    """The outcome: averaged parameters, seconds of work, over all sittings."""

    classifier: Classifier
    seconds: float


def try_probe(job: Job, method: Method) -> None:
    """Probe after a step, on copies that are thrown away: what is missing is said before the training.

    Raises:
        UserError: see `make_probe` and `Probe`.
    """
    make_probe(job, method)  # its errors come before anything is computed

    def tried(job: Job) -> None:
        state, feed = begin(_eager(job), copy.deepcopy(method))
        update(state, feed.batch(0, state.step))
        with suppress(torch.OutOfMemoryError):  # in training such a probe is left out
            make_probe(job, method)(state.learner.network, state.learner.method, state.step)

    _fitted(replace(job, show=Show(None)), "layer probe", tried)


def seconds_a_step(job: Job, method: Method, tries: int = 3) -> float:
    """Measure a step on copies that are thrown away; the run itself is not touched."""
    silent = replace(job, show=Show(None))  # too small a memory is said when the training begins
    return _fitted(silent, "estimate", lambda job: _seconds_a_step(job, method, tries))


def _seconds_a_step(job: Job, method: Method, tries: int) -> float:
    state, feed = begin(_eager(job), copy.deepcopy(method))
    return statistics.median(_timed_steps(state, feed, 0, tries))


def _eager(job: Job) -> Job:
    """Give the job without compiling, which takes longer than a few steps."""
    return replace(job, recipe=replace(job.recipe, compile=False))


def _timed_steps(state: State[MethodLearner], feed: RowFeed, first: int, count: int) -> list[float]:
    """Give the seconds of `count` steps, after one in which all gets ready."""
    ends: list[float] = []

    def watch(state: State[MethodLearner], step: int, metrics: dict[str, Tensor]) -> None:
        del state, step
        float(metrics["loss"])  # wait for the device
        ends.append(time.perf_counter())

    run(state, feed, first, first + 1 + count, watch=watch)
    return [end - start for start, end in itertools.pairwise(ends)]


def fastest_threads(job: Job, method: Method, tries: int = 3) -> tuple[int, str]:
    """Measure a step with one thread and with all, in turn; give the better number and the figures.

    More threads must be a fifth faster: on a shared machine small differences are chance. Several processes measure
    together, since a step is theirs together; what each finds may differ.
    """
    most = torch.get_num_threads()
    if any_of(most == 1 or job.rows.images.device.type != "cpu"):
        return most, "as many as the machine gives"
    state, feed = begin(_eager(job), copy.deepcopy(method))
    times: dict[int, list[float]] = {1: [], most: []}
    try:
        for step in range(tries):
            for threads, taken in times.items():
                torch.set_num_threads(threads)
                taken += _timed_steps(state, feed, step, 1)
                if any_of(job.stop()):
                    raise Interrupted("stopped before the training; nothing is lost")
    finally:
        torch.set_num_threads(most)
    one, all_of_them = (statistics.median(taken) for taken in times.values())
    figures = f"measured: {1000 * one:.0f} ms a step with 1 thread, {1000 * all_of_them:.0f} with {most}"
    figures += "; more threads must be a fifth faster"
    return (most if all_of_them < 0.8 * one else 1), figures


def train(job: Job, method: Method, name: str, folder: Path) -> Trained:
    """Train to the last step, from the newest checkpoint in `folder` on where there is one.

    Raises:
        Interrupted: the run was asked to stop; its state is saved.
        UserError: the loss exploded (says since when and what to try), or the memory holds not even one image.
    """
    return _fitted(job, name, lambda job: _train(job, copy.deepcopy(method), name, folder))


def _fitted(job: Job, name: str, work: Callable[[Job], T]) -> T:
    """Do some work; where the memory is too small, again with each batch in more parts."""
    while True:
        try:
            return work(job)
        except torch.OutOfMemoryError as error:
            job = _in_more_parts(job, name, error)
        # Outside of `except`, so that nothing holds what filled the memory any more.
        gc.collect()  # a compiled step and its state hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _in_more_parts(job: Job, name: str, error: torch.OutOfMemoryError) -> Job:
    batch, unlabeled, now = job.recipe.batch, job.recipe.unlabeled_batch, job.recipe.accumulate
    shared = math.gcd(batch, unlabeled) // job.process.world_size
    # Batch norm needs two images of each kind.
    parts = next((n for n in range(2 * now, shared // 2 + 1) if shared % n == 0), None)
    if parts is None or job.process.world_size > 1:
        raise UserError(
            f"{name}: out of memory with {batch} labeled and {unlabeled} unlabeled images a step ({error}). "
            f"Give {f'--accumulate {parts}, ' if parts else ''}a smaller --batch or --size, or a smaller --model."
        ) from error
    job.show.line(
        f"{name}: out of memory. Each batch now goes through the network in {parts} parts of {batch // parts} labeled "
        f"and {unlabeled // parts} unlabeled images. The gradient is the mean over all of them as before; batch norm "
        "and adaptive thresholds see one part at a time, so the outcome differs.",
        "yellow",
    )
    return replace(job, recipe=replace(job.recipe, accumulate=parts))


def _train(job: Job, method: Method, name: str, folder: Path) -> Trained:
    state, feed = begin(job, method)
    watch = _Watch(job, method, name, folder)
    first = watch.restore(state)
    if first:
        job.show.line(f"{name}: continued from step {first}")
    last = job.recipe.steps
    images = job.recipe.batch + job.recipe.unlabeled_batch * bool(feed.wanted.unlabeled)
    with job.show.progress(name, first, last, images) as bar, watch.on_board(first):
        watch.bar = bar
        try:
            if job.recipe.compile:
                job.show.line(f"{name}: compiling the step, which may take minutes; the time left is wrong until then")
                torch.compiler.reset()  # what was compiled for other trainings counts against a limit
            run(state, feed, first, last, watch=watch)
        except CompiledStepError as error:
            cause = error.__cause__
            said = (str(cause).strip() or type(cause).__name__).splitlines()[0]
            raise UserError(f"{name}: the compiled step failed ({said}); leave --compile yes out") from cause
        except ExplodedError as error:
            raise UserError(_exploded(error, name, job.recipe, watch.saved, folder)) from error
    return Trained(state.averaged.classifier.eval(), watch.seconds)


def _exploded(error: ExplodedError, name: str, recipe: ClassifierRecipe, saved: int | None, folder: Path) -> str:
    lr = recipe.optimizer.lr
    good = (
        f"the last good checkpoint is of step {saved}, in {folder / 'checkpoint'}"
        if saved
        else "no checkpoint is older"
    )
    return (
        f"{name}: {error}; {good}. Try a lower learning rate (--lr {lr / 3:.2g}; now {lr:.2g})"
        f"{' or --precision float32' if recipe.precision != 'float32' else ''} with another --out."
    )


class _Watch:
    """Records, evaluates and saves between steps."""

    def __init__(self, job: Job, method: Method, name: str, folder: Path) -> None:
        self.job, self.name, self.folder = job, name, folder
        self.writes = job.process.rank == 0
        self.record = Record(folder / METRICS, max(1, job.recipe.steps // LINES))
        self.method = method
        self.probe: Probe | None = None
        self.bar: Bar | None = None
        self.saved: int | None = None
        self.seconds = 0.0
        self._since = time.perf_counter()
        self._board: Board | None = None

    def restore(self, state: State[MethodLearner]) -> int:
        """Take the newest checkpoint into `state`; give its step, 0 without one.

        The first of several processes reads it for all: the others may be on machines that have no such file.
        """
        held: list[Checkpoint] = []
        step, notes = first_says(lambda: self._look(held))
        if not step:
            return 0
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
        """Put the newest checkpoint into `held`, bring the record back to it, and give its step and notes."""
        found = checkpoint.load(self.folder / "checkpoint")
        if found is None and any((self.folder / "checkpoint").glob("*")):
            self.job.show.line(f"{self.name}: no checkpoint can be read; training starts anew", "yellow")
        held.extend([found] if found else [])
        for name in (METRICS, PROBES) if self.job.probe_every else (METRICS,):
            rewind(self.folder / name, found.step if found else 0)
        return (found.step, found.notes) if found else _NOTHING

    @contextmanager
    def on_board(self, first: int) -> Generator[None]:
        """Write to a board too, where asked to; the first of several processes does."""

        def begin() -> None:
            if self.job.board is not None and first < self.job.recipe.steps:
                self._board = self.job.board(self.name, first)

        first_says(begin)
        try:
            yield
        finally:
            self._with_board(lambda board: board.close(self.saved == self.job.recipe.steps))

    def _with_board(self, tell: Callable[[Board], None]) -> None:
        """Tell the board something; one that cannot be reached must not end the training, whose record lies here."""
        if self._board is None:
            return
        try:
            tell(self._board)
        except Exception as error:  # what fails there, and how, is a package's own
            self._board = None
            self.job.show.line(f"{self.name}: the board takes no more numbers ({error}); {METRICS} has them", "yellow")

    def __call__(self, state: State[MethodLearner], step: int, metrics: dict[str, Tensor]) -> None:
        self.record.add(step, metrics)
        last = step == self.job.recipe.steps
        due = self.record.due(step) or last
        if self.bar is not None:
            self.bar.move(step)
        if due:
            self._line(state, step, last)
        if self.job.probe_every and (last or step % self.job.probe_every == 0):
            self._probe(state)
        # Several processes stop together: they ask each other, which costs an exchange, so not in each step.
        stop = (due or self.job.process.world_size == 1) and any_of(self.job.stop())
        if last or stop or step % max(1, self.job.recipe.steps // CHECKPOINTS) == 0:
            self._save(state, step)
        if stop and not last:
            raise Interrupted(f"{self.name}: saved at step {self.saved} of {self.job.recipe.steps}")

    def _probe(self, state: State[MethodLearner]) -> None:
        """Probe the layers; the clock of the training stands still."""
        began = time.perf_counter()
        # The parts of a batch may be more than they were in the beginning.
        self.probe = self.probe or make_probe(replace(self.job, recipe=state.recipe), self.method)
        try:
            found = self.probe(state.learner.network, state.learner.method, state.step)
        except torch.OutOfMemoryError:
            self.job.show.line(f"{self.name}: out of memory in the layer probe, which is left out here", "yellow")
        else:
            if self.writes:
                append_line(self.folder / PROBES, asdict(found))
        self._since += time.perf_counter() - began

    def _line(self, state: State[MethodLearner], step: int, last: bool) -> None:
        line = self.record.flush(step)
        every = self.job.recipe.steps / EVALUATIONS
        if self.writes and (last or step // every > (step - self.record.every) // every):
            line |= self._evaluate(state, line.get("kept"))
        if self.bar is not None:
            self.bar.numbers(step, line)
        if self.writes:
            self.record.write(step, line)
        self._with_board(lambda board: board.write(step, line))

    def _evaluate(self, state: State[MethodLearner], kept: float | None) -> dict[str, float]:
        """Give accuracies so far; `kept_accuracy` is that of the surest hidden rows, as many as were kept."""
        rows, out = self.job.rows, dict[str, float | None]()
        for name, chosen, truth in (
            ("test", spread(rows.test, TESTED_ROWS), rows.labels),
            ("unlabeled", spread(rows.hidden, HIDDEN_ROWS), rows.truth),
        ):
            probabilities = predict_rows(state.averaged.classifier, rows, chosen)
            right = probabilities.argmax(1) == truth[chosen]
            out[f"{name}_accuracy"] = float(right.mean()) if len(right) else None
            if name == "unlabeled" and kept is not None:
                surest = np.argsort(-probabilities.max(1), kind="stable")[: round(kept * len(chosen))]
                out["kept_accuracy"] = float(right[surest].mean()) if len(surest) else None
        return {name: value for name, value in out.items() if value is not None}

    def _save(self, state: State[MethodLearner], step: int) -> None:
        if any_of(self.record.first_bad() is not None or not state.finite()):
            raise ExplodedError(self.record.first_bad() or step)  # what is saved stays good
        now = time.perf_counter()
        self.seconds, self._since, self.saved = self.seconds + now - self._since, now, step
        if not self.writes:
            return
        sums = {f"record/{name}": t for name, t in self.record.tensors().items()}
        notes = {
            "seconds": self.seconds,
            "accumulate": state.recipe.accumulate,
            "counts": self.record.counts,
            "threads": torch.get_num_threads(),  # sums depend on it
            "processes": self.job.process.world_size,
        }
        checkpoint.save(self.folder / "checkpoint", step, state.tensors() | sums, notes)


def predict_rows(classifier: Classifier, rows: Rows, chosen: Labels) -> np.ndarray:
    """Give probabilities [n, K] of these rows."""
    return classifier.probabilities(rows.images, chosen).numpy()
