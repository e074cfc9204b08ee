"""The words in which a run's numbers are told, in the terminal and in the report alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Literal, TypeAlias

from fewlabels.classify.metrics import accuracy_interval
from fewlabels.report.words import count, percent, points_of


def metric(row: Mapping[str, Any], split: str = "test", name: str = "accuracy") -> float | None:
    """Return a metric of a row of the summary, or of what was chosen; None where it is not known."""
    return row[split][name] if row[split] is not None else None


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Return the columns of a table of rows: their titles, each with the split and the metric that it shows.

    All metrics are of the test split where there is one, and of hidden labels otherwise.
    """
    hidden = any(row["hidden"] for row in rows)
    if not any(row["test"] for row in rows):
        return {"accuracy on hidden labels": ("hidden", "accuracy"), **_more("hidden")} if hidden else {}
    columns = {"test accuracy": ("test", "accuracy"), **_more("test")}
    return columns | ({"on hidden labels": ("hidden", "accuracy")} if hidden else {})


def _more(split: str) -> dict[str, tuple[str, str]]:
    return {"balanced accuracy": (split, "balanced_accuracy"), "macro F1": (split, "macro_f1")}


def things(summary: Mapping[str, Any]) -> str:
    """Name what a run's rows are: images, or vectors."""
    return summary.get("rows_are", "images")


def source(summary: Mapping[str, Any]) -> str:
    """Name what a run's row is read from: a file, or a row of numbers."""
    return "file" if things(summary) == "images" else "row"


def tested(summary: Mapping[str, Any]) -> str:
    """Name one row of the test split: test image, or test vector."""
    return f"test {things(summary)[:-1]}"


Verdict: TypeAlias = Literal[
    "no_test", "no_unlabeled", "no_baseline", "unchanged", "not_significant", "helped", "harmed"
]


def verdict_id(summary: Mapping[str, Any]) -> Verdict:
    """Return whether the unlabeled data helped, or why that is not known."""
    gain = summary["gain"]
    if metric(summary["chosen"]) is None:
        return "no_test"
    if summary["unlabeled"] == 0:
        return "no_unlabeled"
    if gain is None:
        return "no_baseline"
    if gain["value"] == gain["standard_error"] == 0:
        return "unchanged"
    if not gain["clear"]:
        return "not_significant"
    return "helped" if gain["value"] > 0 else "harmed"


def verdict(summary: Mapping[str, Any]) -> list[str]:
    """Return in words what the table means: the gain over the best training-free baseline, and over supervised."""
    leading = over_training_free(summary)
    return [*([f"{leading}."] if leading else []), helped(summary)]


def over_training_free(summary: Mapping[str, Any]) -> str | None:
    """Return by how much the run is better than the best training-free baseline; None where that is not known."""
    gain, best = summary["gain_over_training_free"], best_training_free(summary)
    if gain is None or best is None:
        return None
    points, side = 100 * gain["value"], "below" if gain["value"] < 0 else "over"
    found = f"{abs(points):.1f} points {side} the best training-free baseline, {best['label']}"
    unclear = "" if gain["clear"] else ", not statistically significant"
    return f"{found} (standard error {100 * gain['standard_error']:.1f}{unclear})"


def helped(summary: Mapping[str, Any]) -> str:
    """Return in a sentence whether the unlabeled data helped, against the supervised baseline."""
    which = verdict_id(summary)
    if which == "no_test":
        fix = "Put labeled images into test/" if things(summary) == "images" else "Give labeled test vectors too"
        return f"There is no test split, so the accuracy is not known. {fix} to know it."
    if which == "no_unlabeled":
        return f"accuracy {percent(metric(summary['chosen']))}; there are no unlabeled {things(summary)} to gain from."
    if which == "no_baseline":
        return (
            f"accuracy {percent(metric(summary['chosen']))}; without the supervised baseline no gain over it is known."
        )
    value, error = (100 * summary["gain"][name] for name in ("value", "standard_error"))
    what = f"test {things(summary)}"
    against = f"{value:+.1f} points against the supervised baseline (standard error {error:.1f} over the {what})"
    if which == "unchanged":
        return f"The unlabeled data changed nothing: the same {what} are right as with the supervised baseline."
    if which == "not_significant":
        return f"The difference is not statistically significant: {against}."
    return f"The unlabeled data {'helped' if which == 'helped' else 'did harm'}: {against}."


def compared_with_start(summary: Mapping[str, Any]) -> str | None:
    """Say how much better it became than the run that it went on from; None where it went on from none."""
    before, now = summary.get("before"), metric(summary["chosen"])
    if not before or now is None:
        return None
    steps = f" and {before['more_steps']:,} more steps" if before["more_steps"] else ""
    return (
        f"With {count(before['labeled'], 'label')} it was {percent(before['accuracy'])} ({before['run']}), with "
        f"{labels_of(summary):,}{steps} it is {percent(now)}: {points_of(before['value'])} points on the same "
        f"{count(summary['test'], tested(summary))} (standard error {100 * before['standard_error']:.1f}"
        f"{'' if before['clear'] else ', so it is not settled which is better'})."
    )


def labels_of(summary: Mapping[str, Any]) -> int:
    """Count the labels of a run: those it trained on, and those held out for calibration."""
    return summary["labeled"] + summary.get("held_out", 0)


def asked(summary: Mapping[str, Any]) -> str:
    """Say in a sentence what was asked."""
    unlabeled = f"{summary['unlabeled']:,} unlabeled" if summary["unlabeled"] else "no unlabeled"
    held_out = f" ({summary['held_out']:,} more for calibration)" if summary.get("held_out") else ""
    test = f", and {count(summary['test'], tested(summary))} that chose nothing" if summary["test"] else ""
    chosen, (backbone, *_) = summary["rows"][-1], summary["model"].split("+")
    what = f"{summary['method']} trained {summary['model']} for {summary['steps']:,} steps"
    if chosen["kind"] == "training_free":
        what = f"{summary['method']} and training-free classifiers ({chosen['label']}) learned from {backbone}"
    return (
        f"{what} on {summary['data']}: "
        f"{summary['labeled']:,} labeled{held_out} and {unlabeled} {things(summary)}{test}."
    )


def came_out(summary: Mapping[str, Any]) -> str:
    """Say in a sentence what came out: the accuracy, the baselines, and whether the unlabeled data helped."""
    said = helped(summary)
    if metric(summary["chosen"]) is None:
        return said
    leading = over_training_free(summary)
    right = f"It is right on {percent(metric(summary['chosen']))} of them{f', {leading}' if leading else ''}"
    if summary["unlabeled"] == 0:
        return f"{right}; there are no unlabeled {things(summary)} to gain from."
    if summary["gain"] is None:
        return f"{right}; without the supervised baseline no gain over it is known."
    return f"{right}; {said[0].lower()}{said[1:]}"


def trust(summary: Mapping[str, Any]) -> str:
    """Say in a sentence how far to trust what came out."""
    said = [_accuracy_trust(summary), _probability_trust(summary.get("calibration")), _health(summary.get("warnings"))]
    text = "; ".join(filter(None, said))
    return f"{text[0].upper()}{text[1:]}."


def _accuracy_trust(summary: Mapping[str, Any]) -> str:
    accuracy = metric(summary["chosen"])
    if accuracy is None:
        return "nothing measured says how far to trust it"
    low, high = accuracy_interval(accuracy, summary["test"])
    return (
        f"{count(summary['test'], tested(summary))} place the accuracy between {100 * low:.1f} and {percent(high)} "
        "(95 % interval)"
    )


def _probability_trust(calibration: Mapping[str, Any] | None) -> str:
    if not calibration:
        return ""
    found, rows = calibration["calibrated"], count(calibration["rows"], "label")
    off = f"{100 * found['ece']:.1f} points off in the mean" if found else ""
    if not calibration["rows"]:
        return f"its probabilities are not calibrated{f', and {off}' if off else ''}"
    if not calibration["promised"]:
        return f"its probabilities are fitted to {rows}, too few to promise anything"
    return f"its probabilities are {off or f'fitted to {rows}'}"


def _health(warnings: Sequence[Mapping[str, str]] | None) -> str:
    if warnings is None:
        return ""
    if not warnings:
        return "the health checks found nothing to warn of"
    return f"mind the {'warning' if len(warnings) == 1 else f'{len(warnings)} warnings'} below"


def best_training_free(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give the row of the best training-free baseline, on the test split; None where none was measured."""
    others = [row for row in summary["rows"] if row["name"] != summary["chosen"]["name"]]
    rows = [row for row in others if row["kind"] == "training_free" and row["test"] is not None]
    return max(rows, key=lambda row: row["test"]["accuracy"], default=None)


AGREEMENT = {
    "cosine_kept": "true labels of the kept images: what the wrong ones among the pseudo-labels do",
    "cosine_all": "true labels of all images: where learning from pseudo-labels leads",
    "test": "true labels of test images: where learning from pseudo-labels leads",
}
AGREEMENT_MEANING = (
    "A cosine is that of the angle between the gradient of the pseudo-labels and that of true labels. Above 0 "
    "pseudo-labels move the layer to where true labels would, below 0 away from there; near 0 they do neither. A layer "
    "that the policy keeps from pseudo-labels is shown as if it did not."
)
TEST_MEANING = "Test images are others than the unlabeled ones, so chance alone keeps the cosine below 1."
RATIO_MEANING = "The norm ratio is the length of the pseudo-labels' gradient over that of true labels of all images."
FEWEST_PROBES = 3  # that a mean is told of


def agreement_verdict(probes: Sequence[Mapping[str, Any]], steps: int) -> str | None:
    """Say in a sentence how layer probes of a run of so many steps ended; None where they are too few."""
    last = [probe for probe in probes if probe["step"] > steps / 2]
    if len(last) < FEWEST_PROBES:
        return None
    which, whose = (
        ("cosine_kept", "the kept images") if last[-1]["against"] == "hidden" else ("cosine_all", "test images")
    )
    found: dict[str, list[float]] = {"backbone": [], "head": []}
    for layer in (layer for probe in last for layer in probe["layers"] if layer[which] is not None):
        found["head" if layer["layer"] == "head" else "backbone"].append(layer[which])
    said = [f"{fmean(of):+.2f} in the {where} ({min(of):+.2f} to {max(of):+.2f})" for where, of in found.items() if of]
    if not said:
        return "No pseudo-label was kept in the second half of the run: there is nothing to compare."
    return f"Over the last {len(last)} probes the mean cosine with true labels of {whose} was {' and '.join(said)}."


def agreement_title(probed: Mapping[str, Any]) -> str:
    """Say what a layer probe compared, and how many of the pseudo-labels are wrong."""
    whose = "the hidden labels of the same images" if probed["against"] == "hidden" else "the labels of test images"
    kept = "kept: not known" if probed["kept"] is None else f"{percent(probed['kept'])} of the pseudo-labels kept"
    wrong = "wrong ones: not known" if probed["wrong"] is None else f"{percent(probed['wrong'])} of these wrong"
    return f"{probed['method']} at step {probed['step']}, against {whose}; {kept}, {wrong}"
