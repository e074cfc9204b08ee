"""The last phase of a run: what came out, calibrated, of every row, and the files that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.images import as_images
from fewlabels.evaluation.accuracy import gain
from fewlabels.evaluation.baselines import Features
from fewlabels.evaluation.calibration import Calibration, calibrate, reliability, uncalibrated
from fewlabels.evaluation.reference import NAME, make_reference, suspects
from fewlabels.models.classifier import Classifier
from fewlabels.models.layers import preset_of
from fewlabels.report.findings import Findings
from fewlabels.report.health import warnings_of
from fewlabels.report.html import write_report
from fewlabels.runs.folder import plain
from fewlabels.runs.job import layer_rule
from fewlabels.runs.next_labels import write_next
from fewlabels.runs.outputs import Said, write_predictions
from fewlabels.runs.phases import LABELS_ONLY, Judged, Row, make_row, row_name
from fewlabels.runs.prepare import Work
from fewlabels.runs.run import Run
from fewlabels.runs.train import METRICS, Trained
from fewlabels.training.record import read_lines

_HOW = {"held_out": "held out", "cross": "cross-fitted", "no": "none"}


@dataclass(frozen=True, eq=False)
class Outcome:
    """A trained classifier with what it says of all rows.

    Attributes:
        row: its line in the table.
        features: [N, D].
        logits: [N, K].
    """

    row: Row
    classifier: Classifier
    features: Features
    logits: NDArray[np.float32]


def finish(
    work: Work, free: Sequence[Row], labels_only: Trained | None, trained: Trained, judged: Sequence[Judged]
) -> Run:
    """Write the outputs; the summary comes last, so a run that has one is whole.

    Args:
        work: of the run.
        free: what cost no training.
        labels_only, trained: the outcomes of the trainings.
        judged: labeled rows with logits of networks that were not trained on them, where the run made such.
    """
    outcome = _outcome(work, trained, row_name(work))
    baseline = _outcome(work, labels_only, LABELS_ONLY) if labels_only else None
    calibration = _calibration(work, outcome, judged)
    raw, probabilities = uncalibrated(calibration.classes)(outcome.logits), calibration(outcome.logits)
    if calibration.kind != "none":
        card = outcome.classifier.card
        outcome.classifier.card = replace(card, scale=calibration.scale, bias=calibration.bias)
    outcome.classifier.save(work.folder.path)
    given = work.job.rows.labels
    reference = make_reference(
        outcome.features, probabilities, given, work.table.names,
        labeled=work.job.rows.labeled, unlabeled=work.job.rows.unlabeled, held_out=work.job.rows.held_out,
    )  # fmt: skip
    reference.save(work.folder / NAME)
    said = Said(outcome.features, outcome.logits, probabilities)
    unknown = write_predictions(work.folder / "predictions.parquet", work.table, said, reference)
    chosen = write_next(work.folder.path, work.table, outcome.features, probabilities)
    images = as_images(work.job.rows.images)
    findings = Findings(
        table=work.table,
        images=images,
        probabilities=probabilities,
        raw=raw,
        unknown=unknown,
        suspects=suspects(reference, outcome.features, probabilities, given, work.table.names),
        next=chosen,
    )
    summary = _summary(work, free, baseline, outcome)
    summary |= plain({"calibration": _calibration_of(work, calibration, findings)})
    summary["warnings"] = warnings_of(summary, read_lines(work.folder / METRICS), findings)
    write_report(work.folder.path, summary, findings)
    work.folder.write_json("summary.json", summary)
    return Run(work.folder.path, summary)


def _outcome(work: Work, trained: Trained, name: str) -> Outcome:
    rows = work.job.rows
    outputs = trained.classifier.outputs(rows.images, np.arange(len(rows.labels)))
    features, logits = outputs.features.numpy(), outputs.logits.numpy()
    label = name.replace("_", " ") if name == LABELS_ONLY else name
    return Outcome(make_row(name, label, rows, logits.argmax(1), trained.seconds), trained.classifier, features, logits)


def _calibration(work: Work, outcome: Outcome, judged: Sequence[Judged]) -> Calibration:
    rows = work.job.rows
    unseen = [*judged, Judged(rows.held_out, outcome.logits[rows.held_out])]
    logits = np.concatenate([each.logits for each in unseen])
    return calibrate(logits, np.concatenate([rows.labels[each.rows] for each in unseen]))


def _calibration_of(work: Work, calibration: Calibration, findings: Findings) -> dict[str, Any]:
    """Describe the calibration, and how far confidence and accuracy are apart on the test split without and with it."""
    test = work.job.rows.test
    truth = work.job.rows.labels[test]
    found = {
        name: reliability(values[test], truth)
        for name, values in (("raw", findings.raw), ("calibrated", findings.probabilities))
    }
    return {
        "kind": calibration.kind,
        "temperature": calibration.temperature,
        "rows": calibration.rows,
        "how": _HOW[work.plan.calibrate],
        "promised": calibration.promised,
        **{name: None if each is None else asdict(each) for name, each in found.items()},
    }


def _summary(work: Work, free: Sequence[Row], labels_only: Outcome | None, trained: Outcome) -> dict[str, Any]:
    rows = work.job.rows
    table = ([labels_only.row] if labels_only else []) + [*free, trained.row]
    test = rows.test
    difference = (
        gain(trained.logits[test].argmax(1), labels_only.logits[test].argmax(1), rows.labels[test])
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
        "held_out": len(rows.held_out),
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
