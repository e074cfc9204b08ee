"""The phases between data and outcome, each resumable: what is free, labels only, the method, the outputs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import UNLABELED, Labels
from fewlabels.evaluation.accuracy import accuracy, gain
from fewlabels.evaluation.baselines import free_baselines, pixel_features
from fewlabels.evaluation.probe import COST, ROWS
from fewlabels.methods.supervised import Supervised
from fewlabels.models.build import flops
from fewlabels.models.classifier import Classifier
from fewlabels.models.layers import preset_of
from fewlabels.report.html import write_report
from fewlabels.runs.job import Rows, layer_rule
from fewlabels.runs.next_labels import write_next
from fewlabels.runs.outputs import write_predictions
from fewlabels.runs.prepare import Work
from fewlabels.runs.run import Run
from fewlabels.runs.train import Trained, predict_rows, seconds_a_step, train

LABELS_ONLY = "labels_only"


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


def _row(name: str, label: str, rows: Rows, predicted: Labels, seconds: float) -> Row:
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
    classifier = work.job.build()
    parameters = sum(p.numel() for p in classifier.parameters())
    # Two checkpoints of parameters, their average and one to two optimizer moments, for each training; and the model.
    disk = parameters * 4 * (2 * 4 * (1 + _with_baseline(work)) + 1)
    eager = ", not compiled" if recipe.compile else ""
    work.show.line(
        f"estimate: {_duration(seconds)} ({1000 * a_step:.0f} ms a step{eager}), {max(disk / 1e6, 1):.0f} MB on disk; "
        f"{parameters:,} parameters, {flops(classifier) / 1e6:,.1f} MFLOP an image"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _with_baseline(work: Work) -> bool:
    return work.options.baseline and not isinstance(work.method, Supervised)


def free_phase(work: Work) -> list[Row]:
    """Fit what is free, on a pretrained backbone's features or else on pixels."""
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
        features, on = pixel_features(rows.images, train_rows), "pixels"
    asked = np.concatenate([rows.test, rows.hidden])
    names = {"knn": "nearest neighbors", "linear": "linear", "label_spreading": "label spreading"}
    out = []
    for free in free_baselines(features, rows.labels, train_rows, asked) if len(asked) else []:
        predicted = np.full(len(rows.labels), UNLABELED)
        predicted[asked] = free.predicted
        out.append(_row(free.name, f"{names[free.name]} on {on}", rows, predicted, free.seconds))
    return out


@dataclass(frozen=True, eq=False)
class Outcome:
    """A trained classifier with what it says of all rows.

    Attributes:
        row: its line in the table.
        probabilities: float32 [N, K].
    """

    row: Row
    classifier: Classifier
    probabilities: NDArray[np.float32]


def labels_only_phase(work: Work) -> Trained | None:
    """Train the same network on the labeled rows alone, for as many steps; None where that was not asked for."""
    if not _with_baseline(work):
        return None
    return train(replace(work.job, probe_every=None), Supervised(), LABELS_ONLY, work.folder / LABELS_ONLY)


def method_phase(work: Work) -> Trained:
    """Train by the method."""
    return train(work.job, work.method, _method_name(work), work.folder.path)


def _method_name(work: Work) -> str:
    return LABELS_ONLY if isinstance(work.method, Supervised) else work.name


def _outcome(work: Work, trained: Trained, name: str) -> Outcome:
    rows = work.job.rows
    probabilities = predict_rows(trained.classifier, rows, np.arange(len(rows.labels)))
    row = _row(
        name, name.replace("_", " ") if name == LABELS_ONLY else name, rows, probabilities.argmax(1), trained.seconds
    )
    return Outcome(row, trained.classifier, probabilities)


def finish(work: Work, free: list[Row], labels_only: Trained | None, trained: Trained) -> Run:
    """Write the outputs; the summary comes last, so a run that has one is whole."""
    baseline = _outcome(work, labels_only, LABELS_ONLY) if labels_only else None
    outcome = _outcome(work, trained, _method_name(work))
    summary = _summary(work, free, baseline, outcome)
    outcome.classifier.save(work.folder.path)
    write_predictions(work.folder / "predictions.parquet", work.table, outcome.probabilities)
    write_next(work.folder.path, work.table, work.job.rows, outcome.classifier, outcome.probabilities)
    write_report(work.folder.path, summary, work.table, work.job.rows.images, outcome.probabilities)
    work.folder.write_json("summary.json", summary)
    return Run(work.folder.path, summary)


def _summary(work: Work, free: list[Row], labels_only: Outcome | None, trained: Outcome) -> dict[str, Any]:
    rows = work.job.rows
    table = ([labels_only.row] if labels_only else []) + free + [trained.row]
    test = rows.test
    difference = (
        gain(trained.probabilities[test].argmax(1), labels_only.probabilities[test].argmax(1), rows.labels[test])
        if labels_only
        else None
    )
    return {
        "data": work.table.name,
        "method": work.name,
        "seed": work.options.seed,
        "model": work.plan.model,
        "steps": work.plan.recipe.steps,
        "policy": preset_of(layer_rule(work.job, work.method).policy),
        "labeled": len(rows.labeled),
        "unlabeled": len(rows.unlabeled),
        "test": len(test),
        "accuracy": trained.row.accuracy,
        "unlabeled_accuracy": trained.row.unlabeled_accuracy,
        "gain": None
        if difference is None
        else {"value": difference.value, "standard_error": difference.error, "clear": difference.clear},
        "set_aside": len(work.table.quarantine),
        "notes": list(work.table.notes),
        "rows": [asdict(row) for row in table],
    }
