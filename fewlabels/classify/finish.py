"""The last phase of a run: what came out, calibrated, of every row, and the files that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from fewlabels.classify.baselines import Features
from fewlabels.classify.calibration import Calibration, calibrate, reliability, uncalibrated
from fewlabels.classify.choose import begins_with_weights
from fewlabels.classify.job import layer_rule
from fewlabels.classify.metrics import Gain, gain
from fewlabels.classify.next_labels import write_next
from fewlabels.classify.outputs import Said, write_predictions
from fewlabels.classify.phases import LABELS_ONLY, Done, Judged, Row, make_row, row_name
from fewlabels.classify.reference import NAME, make_reference, suspects
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.health import warnings_of
from fewlabels.classify.report.words import labels_of
from fewlabels.classify.report.write import write_report
from fewlabels.classify.run import Run
from fewlabels.classify.train import METRICS
from fewlabels.classify.work import Work
from fewlabels.data.table import Labels
from fewlabels.inputs.images.store import as_images
from fewlabels.models.layers import preset_of
from fewlabels.report.words import percent
from fewlabels.runs.folder import RunFolder, plain
from fewlabels.training.record import read_lines


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out of a stage.

    Attributes:
        done: the stage.
        rows: its lines in the table: labels only, where that was trained, and the method.
        baseline: int64 [N], the classes that labels only predicts; None where that was not trained.
        features: [N, D].
        logits: [N, K].
    """

    done: Done
    rows: list[Row]
    baseline: Labels | None
    features: Features
    logits: NDArray[np.float32]

    @property
    def unseen(self) -> Judged:
        """Labeled rows as networks judge them that were not trained on these: held out, or left out in turn."""
        held_out = self.done.stage.job.rows.held_out
        each = [*self.done.judged, Judged(held_out, self.logits[held_out])]
        return Judged(np.concatenate([e.rows for e in each]), np.concatenate([e.logits for e in each]))


def finish(work: Work, free: Sequence[Row], stages: Sequence[Done], ended: str | None) -> Run:
    """Write the outputs; the summary comes last, so a run that has one is whole.

    Args:
        work: of the run.
        free: what cost no training.
        stages: what was trained, in order.
        ended: why no more was.
    """
    outcomes = [_outcome(work, done) for done in stages]
    best, reason = _best(work, outcomes)
    calibration = _calibration(best)
    raw, probabilities = uncalibrated(calibration.classes)(best.logits), calibration(best.logits)
    classifier = best.done.stage.whole(best.done.trained.classifier)
    if calibration.kind != "none":
        classifier.card = replace(classifier.card, scale=calibration.scale, bias=calibration.bias)
    classifier.save(work.folder.path)
    rows, names = work.job.rows, work.table.names
    reference = make_reference(
        best.features, probabilities, rows.labels, names,
        labeled=rows.labeled, unlabeled=rows.unlabeled, held_out=rows.held_out,
    )  # fmt: skip
    reference.save(work.folder / NAME)
    said = Said(best.features, best.logits, probabilities)
    unknown = write_predictions(work.folder / "predictions.parquet", work.table, said, reference)
    images = as_images(work.job.rows.images)
    findings = Findings(
        table=work.table,
        images=images,
        probabilities=probabilities,
        raw=raw,
        unknown=unknown,
        suspects=suspects(reference, best.features, probabilities, rows.labels, names),
        next=write_next(work.folder.path, work.table, best.features, probabilities, unknown),
    )
    best = _judged_calibrated(work, best, outcomes, probabilities)
    table, records = _table(free, outcomes, best, reason or ended), best.done.stage.folder
    summary = _summary(work, table, best, probabilities, classifier.card.model)
    summary |= plain({"calibration": _calibration_of(work, best, calibration, findings)})
    summary["rows_are"] = findings.things
    summary["unknown"] = int(findings.unknown[rows.unlabeled].sum())
    summary["warnings"] = warnings_of(summary, read_lines(records / METRICS), findings)
    write_report(work.folder.path, summary, findings, records)
    work.folder.write_json("summary.json", summary)
    return Run(work.folder.path, summary)


def _outcome(work: Work, done: Done) -> Outcome:
    """Let what a stage trained judge all rows."""
    stage, every = done.stage, np.arange(len(work.table))
    outputs = done.trained.classifier.outputs(stage.job.rows.images, every)
    features, logits = outputs.features.numpy(), outputs.logits.numpy()
    name = row_name(work)
    label = name.replace("_", " ") if name == LABELS_ONLY else name
    rows = [make_row(name, label + stage.on, work.job.rows, logits.argmax(1), done.trained.seconds)]
    if done.labels_only is None:
        return Outcome(done, rows, None, features, logits)
    baseline = done.labels_only.classifier.outputs(stage.job.rows.images, every).logits.numpy().argmax(1)
    base = make_row(LABELS_ONLY, f"labels only{stage.on}", work.job.rows, baseline, done.labels_only.seconds)
    return Outcome(done, [base, *rows], baseline, features, logits)


def _best(work: Work, outcomes: Sequence[Outcome]) -> tuple[Outcome, str | None]:
    """Choose the stage that the run ends with: the last, unless labels that were left out say otherwise."""
    first, last = outcomes[0], outcomes[-1]
    before, after = first.unseen, last.unseen
    if first is last or not len(before.rows) or not np.array_equal(before.rows, after.rows):
        return last, None
    labels = work.job.rows.labels[before.rows]
    was, became = (float((each.logits.argmax(1) == labels).mean()) for each in (before, after))
    if became > was:
        return last, None
    return first, (
        f"training the whole network added nothing on {len(labels)} labels that were left out ({percent(became)} after "
        f"{percent(was)}): the features are kept as they were"
    )


def _judged_calibrated(
    work: Work, best: Outcome, outcomes: list[Outcome], probabilities: NDArray[np.float32]
) -> Outcome:
    """Judge the outcome that is kept by its calibrated probabilities, as all its outputs have them."""
    row = best.rows[-1]
    judged = make_row(row.name, row.label, work.job.rows, probabilities.argmax(1), row.seconds)
    best = replace(best, rows=[*best.rows[:-1], judged])
    place = next(i for i, outcome in enumerate(outcomes) if outcome.done is best.done)
    outcomes[place] = best
    return best


def _table(free: Sequence[Row], outcomes: Sequence[Outcome], best: Outcome, reason: str | None) -> list[Row]:
    """Put all rows in order, what the run ends with last; where features come first, with what each step added."""
    labels_only = best.rows[:-1]
    if not any(outcome.done.stage.on for outcome in outcomes):
        return [*labels_only, *free, best.rows[-1]]
    reached = [value for row in free if (value := _reached(row)) is not None]
    before = max(reached) if reached else None
    steps: list[Row] = []
    for outcome in outcomes:
        row = outcome.rows[-1]
        now = _reached(row)
        added = None if now is None or before is None else now - before
        before = now
        row = replace(row, added=added, note=reason if outcome is best else None)
        steps += [row] if outcome is best else [*map(_apart, outcome.rows[:-1]), _apart(row)]
    steps.sort(key=lambda row: row.name == best.rows[-1].name)
    return [*labels_only, *free, *steps]


def _reached(row: Row) -> float | None:
    return row.unlabeled_accuracy if row.accuracy is None else row.accuracy


def _apart(row: Row) -> Row:
    """Rename a row of a stage that the run does not end with: the plain names are those of what it ends with."""
    return replace(row, name=f"{row.name}_of_another_stage")


def _calibration(outcome: Outcome) -> Calibration:
    unseen = outcome.unseen
    return calibrate(unseen.logits, outcome.done.stage.job.rows.labels[unseen.rows])


def _calibration_of(work: Work, best: Outcome, calibration: Calibration, findings: Findings) -> dict[str, Any]:
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
        "how": "cross-fitted" if best.done.judged else "held out" if calibration.rows else "none",
        "promised": calibration.promised,
        **{name: None if each is None else asdict(each) for name, each in found.items()},
    }


def _before(work: Work, predicted: Labels) -> dict[str, Any] | None:
    """Compare the classes [N] that are predicted with what the run had reached that this one goes on from.

    None where there is none, it has no predictions any more, or it was tested on other rows.
    """
    start, test = work.options.start, work.job.rows.test
    if start is None or (before := Run.finished(RunFolder(start))) is None:
        return None
    predictions = start / "predictions.parquet"
    if not predictions.is_file():
        return None
    said = pyarrow.parquet.read_table(predictions, columns=["path", "split", "label"])
    rows = zip(*(said[name].to_pylist() for name in ("path", "split", "label")), strict=True)
    classes = {path: label for path, split, label in rows if split == "test"}
    names = [work.table.names[row] for row in test]
    if not names or classes.keys() != {*names} or not {*classes.values()} <= {*work.table.classes}:
        return None
    was = np.array([work.table.classes.index(classes[name]) for name in names])
    found = gain(predicted[test], was, work.job.rows.labels[test])
    steps = work.job.recipe.steps if work.job.start is not None else None
    known = {"run": start.name, "labeled": labels_of(before.summary), "accuracy": before.accuracy, "more_steps": steps}
    return known | _said(found)


def _said(difference: Gain | None) -> dict[str, Any]:
    if difference is None:
        return {}
    return {"value": difference.value, "standard_error": difference.error, "clear": difference.clear}


def _summary(
    work: Work, table: Sequence[Row], best: Outcome, probabilities: NDArray[np.float32], model: str
) -> dict[str, Any]:
    rows, test, row = work.job.rows, work.job.rows.test, table[-1]
    difference = (
        None if best.baseline is None else gain(probabilities[test].argmax(1), best.baseline[test], rows.labels[test])
    )
    return {
        "data": work.table.name,
        "method": work.name,
        "seed": work.options.seed,
        "model": model,
        "budget": work.options.budget,
        "begun_with_weights": begins_with_weights(work.options),
        "steps": best.done.stage.job.recipe.steps,
        "policy": preset_of(layer_rule(best.done.stage.job, work.method).policy),
        "labeled": len(rows.labeled),
        "unlabeled": len(rows.unlabeled),
        "held_out": len(rows.held_out),
        "test": len(test),
        "accuracy": row.accuracy,
        "unlabeled_accuracy": row.unlabeled_accuracy,
        "before": _before(work, probabilities.argmax(1)),
        "gain": _said(difference) or None,
        "set_aside": len(work.table.quarantine),
        "notes": list(work.table.notes),
        "rows": [asdict(row) for row in table],
    }
