"""The end of a run: what came out, calibrated, of every row, and the files that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from fewlabels.classify.calibration import Calibration, calibrate, reliability, uncalibrated
from fewlabels.classify.choose import begins_with_weights
from fewlabels.classify.hand_over import Choice
from fewlabels.classify.metrics import Gain, gain
from fewlabels.classify.next_labels import write_next
from fewlabels.classify.outcome import SUPERVISED, Outcome, scores
from fewlabels.classify.outputs import Judgment, write_predictions
from fewlabels.classify.preparation import Preparation, begins_propagated, layer_rule
from fewlabels.classify.reference import NAME, make_reference, suspects
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.health import warnings_of
from fewlabels.classify.report.words import labels_of
from fewlabels.classify.report.write import write_report
from fewlabels.classify.stages import whole_network
from fewlabels.config import Options
from fewlabels.data.table import Labels
from fewlabels.methods import method_name
from fewlabels.methods.base import Method
from fewlabels.models.layers import preset_of
from fewlabels.report.words import percent
from fewlabels.runs.folder import RunFolder, plain
from fewlabels.training.record import read_lines
from fewlabels.training.train import METRICS


def finish(
    folder: RunFolder,
    preparation: Preparation,
    method: Method,
    given: Options,
    training_free: Sequence[Outcome],
    groups: Sequence[Sequence[Outcome]],
    choice: Choice | None,
    ended: str | None,
) -> dict[str, Any]:
    """Choose what is handed over, calibrate it, let it judge all rows, and write what comes out.

    Args:
        folder: of the run.
        preparation: of the run.
        method: that trained.
        given: the options as the user gave them.
        training_free: what the training-free baselines come to.
        groups: what each group of trainings comes to, in order: the baseline, where it was trained, and the method.
        choice: between what was trained on features and a linear head on them; None where there was none.
        ended: why no more was trained.

    Returns:
        The summary.
    """
    groups, table = [list(group) for group in groups], preparation.table
    best, why = _best(preparation, groups)
    chosen = groups[best][-1]
    if not chosen.on_features:
        choice = None  # it was made before the whole network was trained
    if given.classify_calibrate == "no":
        chosen = replace(chosen, unseen=chosen.unseen[:0], unseen_logits=chosen.unseen_logits[:0])
    calibration = calibrate(chosen.unseen_logits, table.labels[chosen.unseen])
    raw, probabilities = uncalibrated(calibration.classes)(chosen.logits), calibration(chosen.logits)
    # It is reported with its calibrated probabilities, as all its outputs have them.
    test, hidden = scores(preparation, probabilities.argmax(1))
    chosen = groups[best][-1] = replace(chosen, test=test, hidden=hidden)
    classifier = whole_network(preparation, chosen)
    if calibration.kind != "none":
        classifier.card = replace(classifier.card, scale=calibration.scale, bias=calibration.bias)
    classifier.save(folder.path)
    findings = _findings(folder, preparation, chosen, raw, probabilities)
    predicted, records = probabilities.argmax(1), _records(folder, groups, best)
    summary = {
        **_setting(preparation, method, given, groups, best),
        "model": classifier.card.model,
        "chosen": {
            "name": chosen.name,
            "why": "; ".join(filter(None, [choice and choice.why, why or ended])) or None,
            "margin": choice and choice.margin,
            "cross_validated": choice and choice.cross_validated,
            "test": test,
            "hidden": hidden,
        },
        "before": _before(preparation, predicted),
        "gain": _gain(preparation, groups[best], predicted),
        "gain_over_training_free": _gain_over(preparation, [*training_free, *_others(groups, best)], predicted),
        "rows": [outcome.row for outcome in _rows(training_free, groups, best)],
        "calibration": _calibration_of(preparation, chosen, calibration, findings),
        "unknown": int(findings.unknown[preparation.unlabeled].sum()),
    }
    summary = plain(summary)
    summary["warnings"] = warnings_of(summary, read_lines(records / METRICS), findings)
    write_report(folder.path, summary, findings, records)
    return summary


def _findings(
    folder: RunFolder,
    preparation: Preparation,
    chosen: Outcome,
    raw: NDArray[np.float32],
    probabilities: NDArray[np.float32],
) -> Findings:
    """Write what is said of each row, and return what the report shows."""
    table = preparation.table
    reference = make_reference(
        chosen.features, probabilities, table.labels, table.names,
        labeled=preparation.labeled, unlabeled=preparation.unlabeled, held_out=preparation.held_out,
    )  # fmt: skip
    reference.save(folder / NAME)
    said = Judgment(chosen.features, chosen.logits, probabilities)
    unknown = write_predictions(folder / "predictions.parquet", table, said, reference)
    return Findings(
        table=table,
        inputs=preparation.inputs,
        store=preparation.store,
        probabilities=probabilities,
        raw=raw,
        unknown=unknown,
        suspects=suspects(reference, chosen.features, probabilities, table.labels, table.names),
        next=write_next(folder.path, table, chosen.features, probabilities, unknown),
    )


def _records(folder: RunFolder, groups: Sequence[Sequence[Outcome]], best: int) -> Path:
    """Return the folder of the records of the training that the run ends with."""
    return folder / "features" if groups[best][-1].on_features else folder.path


def _best(preparation: Preparation, groups: Sequence[Sequence[Outcome]]) -> tuple[int, str | None]:
    """Choose the group that the run ends with: the last, unless labels that were left out say otherwise."""
    before, after = groups[0][-1], groups[-1][-1]
    last = len(groups) - 1
    both = np.intersect1d(before.unseen, after.unseen)
    if before is after or not len(both):
        return last, None
    was, became = (float(each.right_on(both, preparation.table.labels).mean()) for each in (before, after))
    if became > was:
        return last, None
    return 0, (
        f"training the whole network added nothing on {len(both)} labels that were left out ({percent(became)} after "
        f"{percent(was)}): the features are kept as they were"
    )


def _rows(training_free: Sequence[Outcome], groups: Sequence[Sequence[Outcome]], best: int) -> list[Outcome]:
    """Put all rows in order, what the run ends with last; where features come first, with what each step added."""
    *before_it, chosen = groups[best]
    baseline, others = ([e for e in before_it if (e.name == SUPERVISED) is wanted] for wanted in (True, False))
    if len(groups) == 1 and not chosen.on_features:
        return [*baseline, *training_free, chosen]
    known = [each.reached for each in training_free if each.reached is not None]
    before = max(known) if known else None
    steps: list[Outcome] = []
    for number, group in enumerate(groups):
        now = group[-1].reached
        added = None if now is None or before is None else now - before
        before, outcome = now, replace(group[-1], added=added)
        steps += [*others, outcome] if number == best else [*map(_of_another, group[:-1]), _of_another(outcome)]
    steps.sort(key=lambda outcome: outcome.name == chosen.name)
    return [*baseline, *training_free, *steps]


def _others(groups: Sequence[Sequence[Outcome]], best: int) -> list[Outcome]:
    """Return what was not chosen."""
    return [each for group in groups for each in group if each is not groups[best][-1]]


def _of_another(outcome: Outcome) -> Outcome:
    """Rename an outcome that the run does not end with: the plain names are those of what it ends with."""
    return replace(outcome, name=f"{outcome.name}_of_another_stage")


def _calibration_of(
    preparation: Preparation, chosen: Outcome, calibration: Calibration, findings: Findings
) -> dict[str, Any]:
    """Describe the calibration, and how far confidence and accuracy are apart on the test split without and with it."""
    test = preparation.test
    truth = preparation.table.labels[test]
    found = {
        name: reliability(values[test], truth)
        for name, values in (("raw", findings.raw), ("calibrated", findings.probabilities))
    }
    crossed = len(chosen.unseen) > len(preparation.held_out)
    return {
        "kind": calibration.kind,
        "temperature": calibration.temperature,
        "rows": calibration.rows,
        "how": "cross-fitted" if crossed else "held out" if calibration.rows else "none",
        "promised": calibration.promised,
        **{name: None if each is None else asdict(each) for name, each in found.items()},
    }


def _before(preparation: Preparation, predicted: Labels) -> dict[str, Any] | None:
    """Compare the classes [N] that are predicted with what the run had reached that this one goes on from.

    None where there is none, it has no predictions any more, or it was tested on other rows.
    """
    start, test, table = preparation.options.start, preparation.test, preparation.table
    summary = None if start is None else RunFolder(start).read_json("summary.json")
    if start is None or summary is None or not (start / "predictions.parquet").is_file():
        return None
    said = pyarrow.parquet.read_table(start / "predictions.parquet", columns=["path", "split", "label"])
    rows = zip(*(said[name].to_pylist() for name in ("path", "split", "label")), strict=True)
    classes = {path: label for path, split, label in rows if split == "test"}
    names = [table.names[row] for row in test]
    if not names or classes.keys() != {*names} or not {*classes.values()} <= {*table.classes}:
        return None
    was = np.array([table.classes.index(classes[name]) for name in names])
    found = gain(predicted[test], was, table.labels[test])
    return {
        "run": start.name,
        "labeled": labels_of(summary),
        "accuracy": summary["chosen"]["test"]["accuracy"],
        "more_steps": preparation.recipe.steps if preparation.start is not None else None,
        **(_said(found) or {}),
    }


def _gain(preparation: Preparation, group: Sequence[Outcome], predicted: Labels) -> dict[str, Any] | None:
    """Compare the classes [N] that are predicted with those of the supervised baseline, on the test split."""
    test = preparation.test
    baseline = next((each for each in group[:-1] if each.name == SUPERVISED), None)
    if baseline is None:
        return None
    return _said(gain(predicted[test], baseline.logits[test].argmax(1), preparation.table.labels[test]))


def _gain_over(preparation: Preparation, outcomes: Sequence[Outcome], predicted: Labels) -> dict[str, Any] | None:
    """Compare the classes [N] that are predicted with those of the best training-free baseline, on the test split."""
    free = [each for each in outcomes if each.kind == "training_free"]
    test, there = preparation.test, [each for each in free if each.test is not None]
    if not there:
        return None
    best = max(there, key=lambda each: each.test["accuracy"] if each.test else 0.0)
    found = gain(predicted[test], np.array(best.predicted), preparation.table.labels[test])
    return _said(found and replace(found, opponents=len(there)))


def _said(difference: Gain | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {"value": difference.value, "standard_error": difference.error, "clear": difference.clear}


def _setting(
    preparation: Preparation, method: Method, given: Options, groups: Sequence[Sequence[Outcome]], best: int
) -> dict[str, Any]:
    """Say what was done, with which data."""
    options, table = preparation.options, preparation.table
    return {
        "task": "classify",
        "data": table.name,
        "rows_are": preparation.inputs.many,
        "method": method_name(method),
        "propagate": options.propagate if begins_propagated(preparation, method) else 0.0,
        "seed": options.seed,
        "budget": options.budget,
        "begun_with_weights": begins_with_weights(options),
        "steps": max(each.steps for each in groups[best]),
        "policy": preset_of(layer_rule(preparation, method).policy),
        "labeled": len(preparation.labeled),
        "unlabeled": len(preparation.unlabeled),
        "held_out": len(preparation.held_out),
        "test": len(preparation.test),
        "set_aside": len(table.quarantine),
        "notes": list(table.notes),
    }
