"""A job: what a training needs; from it the state before the first step, the feed, and the layer probe are made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewlabels.averaging.batch_norm import set_batch_norm_memory
from fewlabels.classify.layer_probe import ROWS, Probe
from fewlabels.classify.learner import MethodLearner
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.data.samplers import Epochs
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.errors import UserError
from fewlabels.inputs.base import Provider
from fewlabels.inputs.batch import KINDS, Viewer, Views
from fewlabels.inputs.feed import RowFeed
from fewlabels.keys import Key
from fewlabels.methods.base import Method, Task
from fewlabels.models.classifier import Classifier, load_tensors
from fewlabels.models.layers import Policy
from fewlabels.models.network import LayerRule, Network
from fewlabels.processes import ALONE, Process
from fewlabels.runs.show import Show
from fewlabels.training.boards import Board
from fewlabels.training.loop import State


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a run.

    Attributes:
        images: of all rows, or their vectors.
        labels, truth: int64 [N], -1 unlabeled and not hidden.
        labeled, unlabeled, test: row numbers.
        held_out: likewise, of labeled rows that nothing is trained on: probabilities are calibrated on them.
    """

    images: Provider
    labels: Labels
    truth: Labels
    labeled: Labels
    unlabeled: Labels
    test: Labels
    held_out: Labels = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def hidden(self) -> Labels:
        """Rows whose labels were hidden."""
        return np.flatnonzero(self.truth != UNLABELED)


@dataclass(frozen=True, eq=False)
class Job:
    """What a training needs, the same for the method and for labels only.

    `policy` and `center_memory` take the place of what a method's own layer rule says; the parameters in the file
    `start` take that of those that `build` draws. `board` opens one for a training, by its name and the step that it
    continues after.
    """

    rows: Rows
    views: Viewer
    recipe: ClassifierRecipe
    build: Callable[[], Classifier]
    labeled_in_unlabeled: bool
    key: Key
    show: Show
    policy: Policy | None = None
    center_memory: float | None = None
    process: Process = ALONE
    start: Path | None = None
    stop: Callable[[], bool] = lambda: False
    board: Callable[[str, int], Board] | None = None
    probe_every: int | None = None


def layer_rule(job: Job, method: Method) -> LayerRule:
    """Give the method's rule for its layers, or what the user gave instead."""
    own = method.layer_rule()
    return LayerRule(
        policy=own.policy if job.policy is None else job.policy,
        center_memory=own.center_memory if job.center_memory is None else job.center_memory,
    )


def begin(job: Job, method: Method) -> tuple[State[MethodLearner], RowFeed]:
    """Make the state before the first step, and the feed; `method` is changed (set up, moved to the device)."""
    classifier = job.build()
    if job.start is not None:
        load_tensors(classifier, job.start)
    classifier = classifier.to(job.rows.images.device)
    classes, features = classifier.head.weight.shape
    rows, recipe = job.rows, job.recipe
    also = rows.labeled if job.labeled_in_unlabeled else rows.labeled[:0]
    unlabeled = np.concatenate([rows.unlabeled, also])
    task = Task(
        labels=tuple(np.bincount(rows.labels[rows.labeled], minlength=classes).tolist()),
        features=features,
        rows=len(rows.labels),
        unlabeled=len(unlabeled),
        batch=recipe.batch,
        unlabeled_batch=recipe.unlabeled_batch,
        steps=recipe.steps,
    )
    with torch.random.fork_rng():
        torch.manual_seed(job.key.fold("method").seed())  # it draws its own parameters
        method.setup(task)
    if job.process.world_size > 1 and classifier.device.type == "cuda":
        for module in (classifier, method):
            nn.SyncBatchNorm.convert_sync_batchnorm(module)
    network = Network(classifier, layer_rule(job, method), recipe.precision, recipe.steps).to(classifier.device)
    if recipe.batch_norm_memory is not None:
        set_batch_norm_memory(network, recipe.batch_norm_memory)
    state = State(MethodLearner(network, method.to(classifier.device)), recipe)
    state.learner.look_at(state.averaged)
    sizes = recipe.batch, recipe.unlabeled_batch
    return state, _feed(job, rows.labeled, unlabeled, sizes, method.views(), job.key, job.process)


def _feed(
    job: Job,
    labeled: Labels,
    unlabeled: Labels,
    sizes: tuple[int, int],
    wanted: Views,
    key: Key,
    process: Process = ALONE,
) -> RowFeed:
    return RowFeed(
        job.rows.images,
        job.rows.labels,
        labeled=Epochs(labeled, sizes[0], key, "labeled"),
        unlabeled=Epochs(unlabeled, sizes[1], key, "unlabeled"),
        steps=job.recipe.steps,
        wanted=wanted,
        views=job.views,
        key=key,
        process=process,
    )


def make_probe(job: Job, method: Method) -> Probe:
    """Make the layer probe of a training; each of several processes makes the whole of it.

    True labels are the hidden ones of unlabeled rows, or else those of the test split.

    Raises:
        UserError: the method uses no unlabeled images, there are none, or no label is known that is not learned from.
    """
    rows, wanted = job.rows, method.views()
    if not wanted.unlabeled or not len(rows.unlabeled):
        what = "the method uses no unlabeled images" if not wanted.unlabeled else "there are no unlabeled images"
        raise UserError(f"nothing to probe: {what}, so there are no pseudo-labels")
    key, hidden, parts = job.key.fold("probe"), rows.hidden, job.recipe.accumulate
    if rows.images.device.type == "cpu":
        parts *= job.process.world_size  # there batch norm sees a process's share
    sizes = job.recipe.batch // parts, job.recipe.unlabeled_batch // parts
    batches = math.ceil(ROWS / sizes[1])
    if len(hidden):
        truth = torch.from_numpy(rows.truth).to(rows.images.device)
        return Probe(_feed(job, rows.labeled, hidden, sizes, wanted, key), truth, None, batches)
    if not len(rows.test):
        raise UserError(
            "the layer probe needs true labels that are not learned from: put labeled images into test/, or hide "
            "some of a labeled set by --labels-per-class"
        )
    learning = max(wanted.unlabeled, key=KINDS.index)  # the view that learns from the others
    one_view, other_key = Views(labeled=(learning,)), key.fold("held out")
    held_out = _feed(job, rows.test, rows.test[:0], (sizes[1], sizes[1]), one_view, other_key)
    return Probe(_feed(job, rows.labeled, rows.unlabeled, sizes, wanted, key), None, held_out, batches)
