"""The phases between data and outcome, each resumable: what is free, labels only, the method, its calibration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.baselines import Features, free_baselines
from fewlabels.classify.job import Job, Rows
from fewlabels.classify.layer_probe import COST, ROWS
from fewlabels.classify.metrics import accuracy
from fewlabels.classify.modality import modality_of
from fewlabels.classify.train import Trained, seconds_a_step, train
from fewlabels.classify.work import Work
from fewlabels.data.splits import parted
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.methods.supervised import Supervised
from fewlabels.models.build import flops
from fewlabels.models.classifier import Classifier
from fewlabels.runs.show import Show

LABELS_ONLY = "labels_only"
CROSS = "cross"
HALVES = 2


@dataclass(frozen=True, eq=False)
class Judged:
    """Labeled rows, and logits [n, K] of networks that were not trained on them."""

    rows: Labels
    logits: NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """One line of the table that a run ends with.

    Attributes:
        name: labels_only, knn, linear, label_spreading or the method's name.
        label: how the table names it.
        accuracy: share of right predictions on the test split; None without one.
        unlabeled_accuracy: on the training rows whose labels were hidden; None without such.
        seconds: of work.
        added: what this step added to the accuracy of the step before it; None where it is no step, or not known.
        note: what else is to be said of it.
    """

    name: str
    label: str
    accuracy: float | None
    unlabeled_accuracy: float | None
    seconds: float
    added: float | None = None
    note: str | None = None


def make_row(name: str, label: str, rows: Rows, predicted: Labels, seconds: float) -> Row:
    """Make a row from predictions [N] of all rows."""
    test, hidden = rows.test, rows.hidden
    return Row(
        name,
        label,
        accuracy(predicted[test], rows.labels[test]),
        accuracy(predicted[hidden], rows.truth[hidden]),
        seconds,
    )


def say_estimate(work: Work) -> None:
    """Say in one line how long the run will take, and how much disk."""
    recipe = work.job.recipe
    a_step = seconds_a_step(work.job, work.method)
    seconds = recipe.steps * a_step
    if work.options.probe_every:
        batches = math.ceil(ROWS / recipe.unlabeled_batch)
        seconds += math.ceil(recipe.steps / work.options.probe_every) * batches * COST * a_step
    if with_baseline(work):
        seconds += recipe.steps * seconds_a_step(work.job, Supervised())
    if work.plan.calibrate == CROSS:
        seconds += HALVES * recipe.steps * a_step
    classifier = work.job.build()
    parameters = sum(p.numel() for p in classifier.parameters())
    # Two checkpoints of parameters, their average and one to two optimizer moments, for each training; and the model.
    disk = parameters * 4 * (2 * 4 * (1 + with_baseline(work)) + 1)
    eager = ", not compiled" if recipe.compile else ""
    work.show.line(
        f"estimate: {_duration(seconds)} ({1000 * a_step:.0f} ms a step{eager}), {max(disk / 1e6, 1):.0f} MB on disk; "
        f"{parameters:,} parameters, {flops(classifier) / 1e6:,.1f} MFLOP a row"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def with_baseline(work: Work) -> bool:
    """Tell whether labels only is trained as well."""
    return work.options.baseline and not isinstance(work.method, Supervised)


def free_phase(work: Work, features: Features | None) -> list[Row]:
    """Fit what is free, on features [N, D] of a backbone that begins with weights, or else on pixels or vectors."""
    saved = work.folder.read_json("free.json")
    if saved is None:
        saved = [asdict(row) for row in _fit_free(work, features)]
        work.folder.write_json("free.json", saved)
    return [Row(**row) for row in saved]


def _fit_free(work: Work, features: Features | None) -> list[Row]:
    rows = work.job.rows
    train_rows = np.concatenate([rows.labeled, rows.unlabeled])
    if features is None:
        modality = modality_of(work.plan)
        features, on = modality.features(rows.images, train_rows), modality.features_are
    else:
        on = f"{work.plan.model} features"
    asked = np.concatenate([rows.test, rows.hidden])
    names = {"knn": "nearest neighbors", "linear": "linear", "label_spreading": "label spreading"}
    out = []
    for free in free_baselines(features, rows.labels, train_rows, asked) if len(asked) else []:
        predicted = np.full(len(rows.labels), UNLABELED)
        predicted[asked] = free.predicted
        out.append(make_row(free.name, f"{names[free.name]} on {on}", rows, predicted, free.seconds))
    return out


@dataclass(frozen=True, eq=False)
class Stage:
    """A training of a run, with its baseline and its calibration: on features of a backbone, or of the whole network.

    Attributes:
        job: what is trained.
        folder: where.
        on: what follows the names of its rows in the table.
        whole: makes a classifier of what the run's data holds from what was trained.
        folds: parts of the labeled rows, each judged by a network that was trained without it; 0 for none.
    """

    job: Job
    folder: Path
    on: str
    whole: Callable[[Classifier], Classifier]
    folds: int


@dataclass(frozen=True, eq=False)
class Done:
    """What came out of a stage.

    Attributes:
        stage: which.
        labels_only: the same network trained on the labeled rows alone, for as many steps; None where not asked for.
        trained: by the method.
        judged: labeled rows with logits of networks that were not trained on them.
    """

    stage: Stage
    labels_only: Trained | None
    trained: Trained
    judged: list[Judged]


def network_stage(work: Work) -> Stage:
    """Prepare the training of the whole network."""
    folds = HALVES if work.plan.calibrate == CROSS else 0
    return Stage(work.job, work.folder.path, "", lambda trained: trained, folds)


def train_stage(work: Work, stage: Stage) -> Done:
    """Train labels only, the method, and what judges labeled rows; each goes on where it was stopped."""
    # What another run ended with has learned from the unlabeled images, and its labels: it judges none of them.
    name, job = row_name(work), replace(stage.job, probe_every=None, start=None)
    labels_only = (
        train(job, Supervised(), LABELS_ONLY + stage.on, stage.folder / LABELS_ONLY) if with_baseline(work) else None
    )
    trained = train(stage.job, work.method, name + stage.on, stage.folder)
    judged: list[Judged] = []
    parts = parted(work.table, job.rows.labeled, stage.folds, work.options.seed)
    if parts:
        labels = f"{len(job.rows.labeled)} labels{stage.on}"
        work.show.line(f"{len(parts)} more trainings calibrate on {labels}, each without a part of them")
    for number, left_out in enumerate(parts):
        rows = replace(job.rows, labeled=np.setdiff1d(job.rows.labeled, left_out))
        part = f"{CROSS}-{number}"
        judge = train(
            replace(job, rows=rows, show=Show(None), board=None), work.method, part + stage.on, stage.folder / part
        ).classifier
        judged.append(Judged(left_out, judge.outputs(rows.images, left_out).logits.numpy()))
    return Done(stage, labels_only, trained, judged)


def row_name(work: Work) -> str:
    """Name the method's row."""
    return LABELS_ONLY if isinstance(work.method, Supervised) else work.name
