"""One training of a run, from its last checkpoint on: the method's, or labels only."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewlabels.data.feed import WHOLE, ResidentFeed, Share
from fewlabels.data.table import UNLABELED, Labels, spread
from fewlabels.errors import Interrupted, UserError
from fewlabels.evaluation.accuracy import accuracy
from fewlabels.keys import Key
from fewlabels.methods.base import Method, Task
from fewlabels.models.classifier import Classifier
from fewlabels.models.network import Network
from fewlabels.runs.show import Bar, Show
from fewlabels.training import checkpoint
from fewlabels.training.loop import State, run, update
from fewlabels.training.processes import any_of
from fewlabels.training.recipe import Recipe
from fewlabels.training.record import ExplodedError, Record
from fewlabels.views.images import ImageViews

LINES = 100  # of metrics.jsonl in a run
CHECKPOINTS = 20
EVALUATIONS = 10
EVALUATED_ROWS = 2000  # of the hidden rows, while training; all at the end


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a run on the training device.

    Attributes:
        images: uint8 [N, C, H, W] on the training device.
        labels, truth: int64 [N], -1 unlabeled and not hidden.
        labeled, unlabeled, test: row numbers.
    """

    images: Tensor
    labels: Labels
    truth: Labels
    labeled: Labels
    unlabeled: Labels
    test: Labels

    @property
    def hidden(self) -> Labels:
        """Rows whose labels were hidden."""
        return np.flatnonzero(self.truth != UNLABELED)


@dataclass(frozen=True, eq=False)
class Job:
    """What a training needs, the same for the method and for labels only."""

    rows: Rows
    views: ImageViews
    recipe: Recipe
    build: Callable[[], Classifier]
    labeled_in_unlabeled: bool
    key: Key
    show: Show
    share: Share = WHOLE
    stop: Callable[[], bool] = lambda: False
    tensorboard: Path | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """The outcome: averaged parameters, seconds of work, over all sittings."""

    classifier: Classifier
    seconds: float


def begin(job: Job, method: Method) -> tuple[State, ResidentFeed]:
    """Make the state before the first step, and the feed; `method` is changed (set up, moved to the device)."""
    classifier = job.build().to(job.rows.images.device)
    classes, features = classifier.head.weight.shape
    task = Task(classes, features, len(job.rows.labels), job.recipe.steps)
    method.setup(task)
    if job.share.world > 1 and classifier.device.type == "cuda":
        classifier.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(classifier.backbone)
    network = Network(classifier, method.layer_rule(task)).to(classifier.device)
    state = State(network, method.to(classifier.device), job.recipe)
    also = job.rows.labeled if job.labeled_in_unlabeled else job.rows.labeled[:0]
    feed = ResidentFeed(
        job.rows.images,
        job.rows.labels,
        labeled=job.rows.labeled,
        unlabeled=np.concatenate([job.rows.unlabeled, also]),
        batch=job.recipe.batch,
        unlabeled_batch=job.recipe.unlabeled_batch,
        steps=job.recipe.steps,
        wanted=method.views(),
        views=job.views,
        key=job.key,
        share=job.share,
    )
    return state, feed


def seconds_a_step(job: Job, method: Method, tries: int = 3) -> float:
    """Measure a step on copies that are thrown away; the run itself is not touched."""
    state, feed = begin(job, copy.deepcopy(method))
    times = []
    for step in range(tries + 1):
        start = time.perf_counter()
        metrics = update(state, feed.batch(step, state.step))
        float(metrics["loss"])  # wait for the device
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def train(job: Job, method: Method, name: str, folder: Path) -> Trained:
    """Train to the last step, from the newest checkpoint in `folder` on where there is one.

    Raises:
        Interrupted: the run was asked to stop; its state is saved.
        UserError: the loss exploded; says since when and what to try.
    """
    state, feed = begin(job, method)
    watch = _Watch(job, name, folder)
    first = watch.restore(state)
    watch.open_board(first)
    if first:
        job.show.line(f"{name}: continued from step {first}")
    last = job.recipe.steps
    images = job.recipe.batch + job.recipe.unlabeled_batch * bool(feed.wanted.unlabeled)
    with job.show.progress(name, first, last, images) as bar:
        watch.bar = bar
        try:
            run(state, feed, first, last, watch=watch)
        except ExplodedError as error:
            raise UserError(_exploded(error, name, job.recipe, watch.saved, folder)) from error
    return Trained(state.averaged.eval(), watch.seconds)


def _exploded(error: ExplodedError, name: str, recipe: Recipe, saved: int | None, folder: Path) -> str:
    good = (
        f"the last good checkpoint is of step {saved}, in {folder / 'checkpoint'}"
        if saved
        else "no checkpoint is older"
    )
    return (
        f"{name}: {error}; {good}. Try a lower learning rate (--lr {recipe.lr / 3:.2g}; now {recipe.lr:.2g})"
        f"{' or --precision float32' if recipe.precision != 'float32' else ''} with another --out."
    )


class _Watch:
    """Records, evaluates and saves between steps."""

    def __init__(self, job: Job, name: str, folder: Path) -> None:
        self.job, self.name, self.folder = job, name, folder
        self.writes = job.share.rank == 0
        self.record = Record(folder / "metrics.jsonl", max(1, job.recipe.steps // LINES))
        self.bar: Bar | None = None
        self.saved: int | None = None
        self.seconds = 0.0
        self._since = time.perf_counter()
        self._board: Any = None

    def restore(self, state: State) -> int:
        """Take the newest checkpoint into `state`; give its step, 0 without one."""
        found = checkpoint.load(self.folder / "checkpoint", str(state.step.device))
        if found is None:
            if any((self.folder / "checkpoint").glob("*")):
                self.job.show.line(f"{self.name}: no checkpoint can be read; training starts anew", "yellow")
            if self.writes:
                self.record.rewind(0)
            return 0
        step, tensors, notes = found
        sums = {name.removeprefix("record/"): t for name, t in tensors.items() if name.startswith("record/")}
        state.load({name: t for name, t in tensors.items() if not name.startswith("record/")})
        self.record.load(sums)
        if self.writes:
            self.record.rewind(step)
        self.saved, self.seconds = step, float(notes["seconds"])
        return step

    def open_board(self, first: int) -> None:
        """Write to TensorBoard too, where asked to; what it has of later steps is replaced."""
        if self.job.tensorboard is not None and self.writes:
            self._board = _tensorboard(self.job.tensorboard / self.name, first)

    def __call__(self, state: State, step: int, metrics: dict[str, Tensor]) -> None:
        self.record.add(step, metrics)
        last = step == self.job.recipe.steps
        due = self.record.due(step) or last
        if self.bar is not None:
            self.bar.move(step)
        if due:
            self._line(state, step, last)
        # Several processes stop together: they ask each other, which costs an exchange, so not in each step.
        stop = (due or self.job.share.world == 1) and any_of(self.job.stop())
        if last or stop or step % max(1, self.job.recipe.steps // CHECKPOINTS) == 0:
            self._save(state, step)
        if stop and not last:
            raise Interrupted(f"{self.name}: saved at step {self.saved} of {self.job.recipe.steps}")

    def _line(self, state: State, step: int, last: bool) -> None:
        line = self.record.flush(step)
        every = self.job.recipe.steps / EVALUATIONS
        if last or step // every > (step - self.record.every) // every:
            line |= self._evaluate(state)
        if self.bar is not None:
            self.bar.numbers(step, line)
        if self.writes:
            self.record.write(step, line)
        if self._board is not None:
            for key, value in line.items():
                self._board.add_scalar(key, value, step)
            self._board.flush()

    def _evaluate(self, state: State) -> dict[str, float]:
        rows, out = self.job.rows, {}
        for name, chosen, truth in (
            ("test_accuracy", rows.test, rows.labels),
            ("unlabeled_accuracy", spread(rows.hidden, EVALUATED_ROWS), rows.truth),
        ):
            value = accuracy(predict_rows(state.averaged, rows, chosen).argmax(1), truth[chosen])
            if value is not None:
                out[name] = value
        return out

    def _save(self, state: State, step: int) -> None:
        if any_of(self.record.first_bad() is not None or not state.finite()):
            raise ExplodedError(self.record.first_bad() or step)  # what is saved stays good
        now = time.perf_counter()
        self.seconds, self._since, self.saved = self.seconds + now - self._since, now, step
        if not self.writes:
            return
        sums = {f"record/{name}": t for name, t in self.record.tensors().items()}
        checkpoint.save(self.folder / "checkpoint", step, state.tensors() | sums, {"seconds": self.seconds})


def _tensorboard(folder: Path, first: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--log tensorboard needs an extra: pip install fewlabels[tensorboard]") from error
    return SummaryWriter(str(folder), purge_step=first + 1)


def predict_rows(classifier: Classifier, rows: Rows, chosen: Labels) -> np.ndarray:
    """Give probabilities [n, K] of these rows."""
    return classifier.probabilities(rows.images[torch.from_numpy(chosen).to(rows.images.device)]).numpy()
