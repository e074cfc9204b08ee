"""The phases between data and outcome, each resumable: what is free, labels only, the method, its calibration."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.splits import halves
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.evaluation.accuracy import accuracy
from fewlabels.evaluation.baselines import free_baselines
from fewlabels.evaluation.probe import COST, ROWS
from fewlabels.methods.supervised import Supervised
from fewlabels.models.build import flops
from fewlabels.runs.job import Rows
from fewlabels.runs.modality import modality_of
from fewlabels.runs.prepare import Work
from fewlabels.runs.train import Trained, seconds_a_step, train

LABELS_ONLY = "labels_only"


@dataclass(frozen=True, eq=False)
class Judged:
    """Labeled rows, and logits [n, K] of a network that was not trained on them."""

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
    """

    name: str
    label: str
    accuracy: float | None
    unlabeled_accuracy: float | None
    seconds: float


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
    if _with_baseline(work):
        seconds += recipe.steps * seconds_a_step(work.job, Supervised())
    if work.plan.calibrate == CROSS:
        seconds += 2 * recipe.steps * a_step
    classifier = work.job.build()
    parameters = sum(p.numel() for p in classifier.parameters())
    # Two checkpoints of parameters, their average and one to two optimizer moments, for each training; and the model.
    disk = parameters * 4 * (2 * 4 * (1 + _with_baseline(work)) + 1)
    eager = ", not compiled" if recipe.compile else ""
    work.show.line(
        f"estimate: {_duration(seconds)} ({1000 * a_step:.0f} ms a step{eager}), {max(disk / 1e6, 1):.0f} MB on disk; "
        f"{parameters:,} parameters, {flops(classifier) / 1e6:,.1f} MFLOP a row"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _with_baseline(work: Work) -> bool:
    return work.options.baseline and not isinstance(work.method, Supervised)


def free_phase(work: Work) -> list[Row]:
    """Fit what is free, on a pretrained backbone's features or else on pixels or vectors."""
    saved = work.folder.read_json("free.json")
    if saved is None:
        saved = [asdict(row) for row in _fit_free(work)]
        work.folder.write_json("free.json", saved)
    return [Row(**row) for row in saved]


def _fit_free(work: Work) -> list[Row]:
    rows = work.job.rows
    pretrained = work.options.pretrained or work.options.weights is not None
    train_rows = np.concatenate([rows.labeled, rows.unlabeled])
    if pretrained:
        classifier = work.job.build().to(rows.images.device)
        features, on = (
            classifier.outputs(rows.images, np.arange(len(rows.labels))).features.numpy(),
            f"{work.plan.model} features",
        )
    else:
        modality = modality_of(work.plan)
        features, on = modality.features(rows.images, train_rows), modality.features_are
    asked = np.concatenate([rows.test, rows.hidden])
    names = {"knn": "nearest neighbors", "linear": "linear", "label_spreading": "label spreading"}
    out = []
    for free in free_baselines(features, rows.labels, train_rows, asked) if len(asked) else []:
        predicted = np.full(len(rows.labels), UNLABELED)
        predicted[asked] = free.predicted
        out.append(make_row(free.name, f"{names[free.name]} on {on}", rows, predicted, free.seconds))
    return out


def labels_only_phase(work: Work) -> Trained | None:
    """Train the same network on the labeled rows alone, for as many steps; None where that was not asked for."""
    if not _with_baseline(work):
        return None
    # What another run ended with has learned from the unlabeled images.
    job = replace(work.job, probe_every=None, start=None)
    return train(job, Supervised(), LABELS_ONLY, work.folder / LABELS_ONLY)


def method_phase(work: Work) -> Trained:
    """Train by the method."""
    return train(work.job, work.method, row_name(work), work.folder.path)


def row_name(work: Work) -> str:
    """Name the method's row."""
    return LABELS_ONLY if isinstance(work.method, Supervised) else work.name


CROSS = "cross"


def cross_phase(work: Work) -> list[Judged]:
    """Train twice, each time without one half of the labeled rows, which the network then judges.

    Empty where the run is not calibrated so.
    """
    if work.plan.calibrate != CROSS:
        return []
    found: list[Judged] = []
    for number, left_out in enumerate(halves(work.table, work.job.rows.labeled, work.options.seed)):
        rows = replace(work.job.rows, labeled=np.setdiff1d(work.job.rows.labeled, left_out))
        name = f"{CROSS}-{number}"
        trained = train(
            replace(work.job, rows=rows, probe_every=None, start=None), work.method, name, work.folder / name
        )
        found.append(Judged(left_out, trained.classifier.outputs(rows.images, left_out).logits.numpy()))
    return found
