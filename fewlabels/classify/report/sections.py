"""The parts of the report that tell a run in numbers and curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fewlabels.classify.calibration import BINS, LEVEL, PROMISED_FROM
from fewlabels.classify.report.plots import agreement, reliability_diagram
from fewlabels.classify.report.words import (
    AGREEMENT_MEANING,
    TEST_MEANING,
    agreement_verdict,
    asked,
    best_free,
    came_out,
    columns_of,
    compared_with_start,
    metric,
    source,
    tested,
    things,
    trust,
)
from fewlabels.report.page import Section, Text, bar, drawing, fill, lines, listed, paragraph, table, told
from fewlabels.report.plots import Line, Points, curves, points
from fewlabels.report.words import count, percent, points_of
from fewlabels.training.record import read_lines

SUPERVISED = "supervised"  # the baseline, and the folder of its training


def head(title: str, summary: dict[str, Any]) -> Markup:
    """Say in three sentences what was asked, what came out, and how far to trust it; then the main numbers."""
    return fill(
        '<header>\n<p class="overline">fewlabels, report of a run</p>\n<h1>{}</h1>\n{}\n</header>',
        title,
        lines(
            [
                paragraph(asked(summary), "said"),
                paragraph(came_out(summary), "verdict"),
                *(paragraph(said, "said") for said in (compared_with_start(summary), trust(summary)) if said),
                _tiles(summary),
                _warnings(summary.get("warnings")),
            ]
        ),
    )


def _tiles(summary: Mapping[str, Any]) -> Markup:
    gain, best = summary["gain"], best_free(summary)
    reliability = (summary.get("calibration") or {}).get("calibrated")
    tiles: list[tuple[str, str]] = []
    if metric(summary["chosen"]) is not None:
        tiles.append((percent(metric(summary["chosen"])), f"right, of {count(summary['test'], tested(summary))}"))
    elif metric(summary["chosen"], "hidden") is not None:
        hidden = f"right, of the {things(summary)} whose labels were hidden"
        tiles.append((percent(metric(summary["chosen"], "hidden")), hidden))
    if gain is not None:
        error = 100 * gain["standard_error"]
        tiles.append((points_of(gain["value"]), f"points against the supervised baseline, standard error {error:.1f}"))
    if best is not None:
        tiles.append((percent(metric(best)), f"the best training-free baseline: {best['label']}"))
    if reliability is not None:
        tiles.append((f"{100 * reliability['ece']:.1f}", "points that probabilities are off in the mean"))
    items = lines(fill("<li><strong>{}</strong>{}</li>", *tile) for tile in tiles)
    return fill('<ul class="tiles">\n{}\n</ul>', items) if tiles else Markup("")


def _warnings(warnings: Sequence[Mapping[str, str]] | None) -> Markup:
    if not warnings:
        return Markup("")
    return fill(
        '<section class="warnings" aria-labelledby="warnings-title">\n<h2 id="warnings-title">{}</h2>\n{}\n</section>',
        "A warning" if len(warnings) == 1 else f"{len(warnings)} warnings",
        listed(told(warning["text"]) for warning in warnings),
    )


def result_section(summary: Mapping[str, Any]) -> Section:
    """Make the honest table: each step with its gain over the supervised baseline."""
    rows = summary["rows"]
    on_test = any(row["test"] for row in rows)
    split = "test" if on_test else "hidden"
    base = next((metric(row, split) for row in rows if row["kind"] == "supervised"), None)
    known = {rows[-1]["name"]: summary["gain"]}
    columns: list[tuple[str, Callable[[Mapping[str, Any]], Text]]] = [("method", lambda row: row["label"])]
    for title, which in columns_of(rows).items():
        columns.append((title, partial(_metric, which=which)))
    if base is not None:
        columns.append(("gain over supervised", lambda row: _gain(row, split, base, known.get(row["name"]))))
    if any(row.get("added") is not None for row in rows):
        columns.append(("added to the step before", lambda row: _points(row.get("added"))))
    columns.append(("seconds", lambda row: f"{row['seconds']:.1f}"))
    cells = [[make(row) for _, make in columns] for row in rows]
    return Section(
        "results",
        "What each step brought",
        "Results",
        (
            table("Methods side by side", [name for name, _ in columns], cells, marked=len(rows) - 1),
            *([paragraph(f"Why it ended there: {why}.")] if (why := summary["chosen"]["why"]) else []),
            paragraph(_meaning(summary, base is not None, on_test), "soft"),
        ),
    )


def _metric(row: Mapping[str, Any], which: tuple[str, str]) -> Text:
    value = metric(row, *which)
    return bar(percent(value), value) if which == ("test", "accuracy") else percent(value)


def _gain(row: Mapping[str, Any], split: str, base: float | None, known: Mapping[str, Any] | None) -> str:
    if known:
        return f"{points_of(known['value'])} \u00b1 {100 * known['standard_error']:.1f}"
    value = metric(row, split)
    return _points(None if base is None or value is None or row["kind"] == "supervised" else value - base)


def _points(value: float | None) -> str:
    return "-" if value is None else points_of(value)


def _meaning(summary: Mapping[str, Any], compared: bool, on_test: bool) -> str:
    where = "on the test split, which chose nothing" if on_test else "on hidden labels: there is no test split"
    error = " After \u00b1 stands its standard error." if summary["gain"] else ""
    steps = any(row.get("added") is not None for row in summary["rows"])
    added = " The first step is compared with the best training-free baseline." if steps else ""
    return (
        f"{f'The gain is in points of accuracy {where}.{error}{added} ' if compared else ''}The numbers are of the "
        f"averaged parameters after the last step. Policy of the layers that learn from unlabeled {things(summary)}: "
        f"{summary['policy']}."
    )


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
    drawn = lines(
        drawing(title, _told(title, series), curves(series, key), note)
        for title, key, series, note in plots
        if any(series.values())
    )
    if not drawn:
        return None
    return Section("learning", "While it learned", "Learning", (fill('<div class="plots">\n{}\n</div>', drawn),))


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
    names = ("raw", "calibrated") if calibration["kind"] != "none" else ("raw",)
    forms = {name: calibration[name] for name in names if calibration[name]}
    titles = {"raw": "As the network gives them", "calibrated": "Calibrated, as in all outputs"}
    thing = tested(summary)
    drawn = lines(
        drawing(titles[name], _reliability_said(titles[name], found, thing), reliability_diagram(found, BINS, name),
                _off(found, thing))
        for name, found in forms.items()
    )  # fmt: skip
    parts = [paragraph(told(text)) for text in _calibration_said(summary)]
    if forms:
        note = (
            f"Test {things(summary)} of like probability stand together: a point below the dotted line means that "
            "they are right less often than the network is sure, a point above it more often. "
            f"The fewer {things(summary)} a point has, the longer its line (95 % interval)."
        )
        parts += [fill('<div class="plots">\n{}\n</div>', drawn), paragraph(note, "soft")]
    return Section("probabilities", "Can the probabilities be trusted?", "Probabilities", tuple(parts))


def _off(found: Mapping[str, Any], thing: str) -> str:
    low, high = 100 * found["low"], 100 * found["high"]
    return (
        f"Expected calibration error {100 * found['ece']:.1f} points ({100 * LEVEL:.0f} % interval {low:.1f} to "
        f"{high:.1f}, from {count(sum(found['counts']), thing)})."
    )


def _reliability_said(title: str, found: Mapping[str, Any], thing: str) -> str:
    bins = (
        f"{percent(accuracy)} right where {percent(confidence)} sure ({count(number, thing)})"
        for confidence, accuracy, number in zip(
            found["confidence"], found["accuracy"], found["counts"], strict=True
        )
    )  # fmt: skip
    return f"Reliability diagram. {title}: {'; '.join(bins)}."


_HOW = {
    "held out": "that nothing was trained on",
    "cross-fitted": "each by a network that was not trained on it",
}


def _calibration_said(summary: Mapping[str, Any]) -> list[str]:
    """Say what the probabilities were fitted to, and what that is worth."""
    calibration = summary["calibration"]
    rows = calibration["rows"]
    if calibration["kind"] == "none":
        said = ["The probabilities are as the network gives them: they were fitted to no labels."]
    else:
        kind = "a scale and an offset of each class" if calibration["kind"] == "vector" else "one temperature"
        said = [
            f"The probabilities were fitted ({kind}; the temperature is {calibration['temperature']:.2f}) to {rows:,} "
            f"labeled {things(summary)}, {_HOW[calibration['how']]}."
        ]
    if not calibration["promised"]:
        cross = "; `--calibrate cross` fits to all there are, by two more trainings" if not rows else ""
        said.append(
            f"Calibration cannot be promised here: it needs {PROMISED_FROM} labels that were not trained on, and there "
            f"were {rows}. Take the probabilities as an order, not as chances. More labels mend it, and `fewlabels "
            f"next` names the {things(summary)} where they help most{cross}."
        )
    if not calibration["calibrated"]:
        said.append("There is no test split, so how far off they are is not known.")
    return said


def layer_section(folder: Path, steps: int) -> Section | None:
    """Show the layer probe; None where there was none."""
    probes = read_lines(folder / "probe.jsonl")
    svg, said = agreement(probes), agreement_verdict(probes, steps)
    if svg is None:
        return None
    text = f"Agreement of pseudo-labels with true labels, by layer and step. {said or ''}"
    meaning = AGREEMENT_MEANING if probes[-1]["against"] == "hidden" else f"{AGREEMENT_MEANING} {TEST_MEANING}"
    parts = [paragraph(said)] if said else []
    parts.append(drawing("Agreement by layer and step", text, svg, meaning, "large"))
    return Section("layers", "Do pseudo-labels help every layer?", "Layers", tuple(parts))


def data_section(summary: Mapping[str, Any]) -> Section | None:
    """Say what was done to the data; None where there is nothing to say."""
    said = [*summary["notes"]]
    if summary["set_aside"]:
        said.append(
            f"{source(summary)}s set aside: {summary['set_aside']:,}; quarantine.csv names them with the reasons"
        )
    if not said:
        return None
    return Section("data", "What was done to the data", "Data", (listed(said),))
