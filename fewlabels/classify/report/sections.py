"""The sections that tell a run in numbers and curves: what their templates are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewlabels.classify.calibration import BINS, LEVEL, PROMISED_FROM
from fewlabels.classify.metrics import SUPERVISED
from fewlabels.classify.report.plots import agreement, reliability_diagram
from fewlabels.classify.report.words import (
    AGREEMENT_MEANING,
    TEST_MEANING,
    agreement_verdict,
    asked,
    best_training_free,
    came_out,
    columns_of,
    compared_with_start,
    metric,
    source,
    tested,
    things,
    trust,
)
from fewlabels.report.page import Bar, Drawing, Section
from fewlabels.report.plots import Line, Points, curves, points
from fewlabels.report.words import count, percent, points_of
from fewlabels.training.record import read_lines


def head(title: str, summary: dict[str, Any]) -> dict[str, Any]:
    """Give what stands above the sections, in sentences and in tiles of a number and what it is."""
    return {
        "title": title,
        "asked": asked(summary),
        "came_out": came_out(summary),
        "compared": compared_with_start(summary),
        "trust": trust(summary),
        "tiles": _tiles(summary),
        "warnings": summary.get("warnings"),
    }


def _tiles(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    gain, best = summary["gain"], best_training_free(summary)
    reliability = (summary.get("calibration") or {}).get("calibrated")
    tiles: list[tuple[str, str]] = []
    if metric(summary["chosen"]) is not None:
        tiles.append((percent(metric(summary["chosen"])), f"right, of {count(summary['test'], tested(summary))}"))
    elif metric(summary["chosen"], "hidden") is not None:
        hidden = f"right, of the {things(summary)} whose labels were hidden"
        tiles.append((percent(metric(summary["chosen"], "hidden")), hidden))
    gains = {"the supervised baseline": gain}
    if best is not None:
        gains = {f"{best['label']}, the best training-free baseline": summary["gain_over_training_free"], **gains}
    for name, found in gains.items():
        if found is not None:
            error = 100 * found["standard_error"]
            tiles.append((points_of(found["value"]), f"points over {name}, standard error {error:.1f}"))
    if reliability is not None:
        tiles.append((f"{100 * reliability['ece']:.1f}", "points that probabilities are off in the mean"))
    return tiles


def result_section(summary: Mapping[str, Any]) -> Section:
    """Make the honest table: each step with its gain over the best training-free and the supervised baseline."""
    rows = summary["rows"]
    on_test = any(row["test"] for row in rows)
    split = "test" if on_test else "hidden"
    bases = _bases(summary, split)
    known = {"gain over supervised": summary["gain"], "gain over training-free": summary["gain_over_training_free"]}
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str | Bar]]] = [("method", lambda row: row["label"])]
    for title, which in columns_of(rows).items():
        columns.append((title, partial(_metric, which=which)))
    for title, base in bases.items():
        columns.append((title, partial(_gain, split=split, base=base, known=known[title], last=rows[-1]["name"])))
    added = any(row.get("added") is not None for row in rows)
    if added:
        columns.append(("added to the step before", lambda row: _points(row.get("added"))))
    columns.append(("seconds", lambda row: f"{row['seconds']:.1f}"))
    why = summary["chosen"]["why"]
    values = {
        "head": [name for name, _ in columns],
        "rows": [[make(row) for _, make in columns] for row in rows],
        "notes": [why] if why else [],
        "compared": bool(bases),
        "on_test": on_test,
        "added": added,
    }
    return Section("results", "What each step brought", "Results", values)


def _metric(row: Mapping[str, Any], which: tuple[str, str]) -> str | Bar:
    value = metric(row, *which)
    return Bar(percent(value), value) if which == ("test", "accuracy") else percent(value)


def _bases(summary: Mapping[str, Any], split: str) -> dict[str, tuple[str, float]]:
    """Return what gains are measured from: names of columns, with the kind of row and its accuracy."""
    found: dict[str, tuple[str, float]] = {}
    for title, kind in (("gain over training-free", "training_free"), ("gain over supervised", "supervised")):
        others = [row for row in summary["rows"] if row["name"] != summary["chosen"]["name"]]
        values = [metric(row, split) for row in others if row["kind"] == kind]
        if there := [value for value in values if value is not None]:
            found[title] = kind, max(there)
    return found


def _gain(
    row: Mapping[str, Any], split: str, base: tuple[str, float], known: Mapping[str, Any] | None, last: str
) -> str:
    if known and row["name"] == last:
        return f"{points_of(known['value'])} \u00b1 {100 * known['standard_error']:.1f}"
    (kind, from_here), value = base, metric(row, split)
    return _points(None if value is None or row["kind"] == kind else value - from_here)


def _points(value: float | None) -> str:
    return "-" if value is None else points_of(value)


def learning_section(folder: Path, summary: Mapping[str, Any]) -> Section | None:
    """Show how accuracy, loss and pseudo-labels went; None where nothing was recorded."""
    method, base = read_lines(folder / "metrics.jsonl"), read_lines(folder / SUPERVISED / "metrics.jsonl")
    name = summary["method"]

    def both(key: str, scale: float = 100.0) -> dict[str, Points]:
        return {name: points(method, key, scale), SUPERVISED: points(base, key, scale)}

    kept = {"kept share": points(method, "kept", 100.0), "right, of the surest": points(method, "kept_accuracy", 100.0)}
    counts = f"Of a method it counts unlabeled {things(summary)} too: the two do not compare."
    plots = (
        ("Test accuracy, %", "test", both("test_accuracy"), ""),
        ("Accuracy on hidden labels, %", "hidden", both("hidden_accuracy"), ""),
        ("Pseudo-labels, %", "pseudo", kept, _kept_note(method, things(summary))),
        ("Loss", "loss", both("loss", 1.0), counts),
    )
    drawings = [
        Drawing(title, _told(title, series), curves(series, key), note)
        for title, key, series, note in plots
        if any(series.values())
    ]
    return Section("learning", "While it learned", "Learning", {"drawings": drawings}) if drawings else None


def _kept_note(found: Sequence[Line], what: str) -> str:
    note = "The kept share is how much of the pseudo-labels counts."
    if points(found, "kept_accuracy"):
        note += f" Of as many unlabeled {what}, the surest, the other curve shows how many are right."
    return note


def _told(title: str, series: Mapping[str, Points]) -> str:
    """Tell the curves of a plot in words."""
    said = [
        f"{name} from {found[0][1]:.3g} at step {found[0][0]:g} to {found[-1][1]:.3g} at step {found[-1][0]:g}"
        for name, found in series.items()
        if found
    ]
    return f"{title} over the steps: {'; '.join(said)}."


def calibration_section(summary: Mapping[str, Any]) -> Section | None:
    """Show whether probabilities are as often right as they say; None where a run did not look."""
    calibration = summary.get("calibration")
    if not calibration:
        return None
    titles = {"raw": "As the network gives them", "calibrated": "Calibrated, as in all outputs"}
    names = ("raw",) if calibration["kind"] == "none" else ("raw", "calibrated")
    found = {name: calibration[name] for name in names if calibration[name]}
    drawings = [_reliability(titles[name], of, name, tested(summary)) for name, of in found.items()]
    values = {"drawings": drawings, "promised_from": PROMISED_FROM}
    return Section("probabilities", "Can the probabilities be trusted?", "Probabilities", values)


def _reliability(title: str, found: Mapping[str, Any], name: str, thing: str) -> Drawing:
    """Draw how often the network is right where it is how sure, and tell it in words."""
    bins = (
        f"{percent(accuracy)} right where {percent(confidence)} sure ({count(rows, thing)})"
        for confidence, accuracy, rows in zip(found["confidence"], found["accuracy"], found["counts"], strict=True)
    )
    off = (
        f"Expected calibration error {100 * found['ece']:.1f} points ({100 * LEVEL:.0f} % interval "
        f"{100 * found['low']:.1f} to {100 * found['high']:.1f}, from {count(sum(found['counts']), thing)})."
    )
    said = f"Reliability diagram. {title}: {'; '.join(bins)}."
    return Drawing(title, said, reliability_diagram(found, BINS, name), off)


def layer_section(folder: Path, steps: int) -> Section | None:
    """Show the layer probe; None where there was none."""
    probes = read_lines(folder / "probe.jsonl")
    svg, said = agreement(probes), agreement_verdict(probes, steps)
    if svg is None:
        return None
    text = f"Agreement of pseudo-labels with true labels, by layer and step. {said or ''}"
    meaning = AGREEMENT_MEANING if probes[-1]["against"] == "hidden" else f"{AGREEMENT_MEANING} {TEST_MEANING}"
    drawn = Drawing("Agreement by layer and step", text, svg, meaning)
    return Section("layers", "Do pseudo-labels help every layer?", "Layers", {"said": said, "drawing": drawn})


def data_section(summary: Mapping[str, Any]) -> Section | None:
    """Say what was done to the data; None where there is nothing to say."""
    said = [*summary["notes"]]
    if summary["set_aside"]:
        said.append(
            f"{source(summary)}s set aside: {summary['set_aside']:,}; quarantine.csv names them with the reasons"
        )
    return Section("data", "What was done to the data", "Data", {"said": said}) if said else None
