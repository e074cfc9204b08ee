"""Health checks: what is likely to be wrong with a run, in plain words, each with what to try.

They warn late rather than wrongly: a warning that a healthy run gets too is soon read by nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.metrics import accuracy_interval
from fewlabels.classify.reference import FLAGGED
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.words import best_training_free, metric, source, tested, things
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.report.plots import Line, points
from fewlabels.report.words import count, percent, short

FEWEST_ROWS = 50  # unlabeled ones, below which shares of classes are chance
MOST_OF_THEM = 0.9  # of the unlabeled images: what is left is noise
FEW_CLASSES = 4  # times fewer than there should be that hold most of them
EXPECTED = 20  # images of a class that, by its share, should be there: none by chance is then e**-20
MOST_NAMED = 5  # classes in a sentence

MOST_OFF = 0.05  # that sureness may exceed accuracy: below it nobody acts otherwise
LEAST_KEPT = 0.02  # of the pseudo-labels, in the mean over the end of a run
ONCE_KEPT = 0.2  # a share from which a fall to that is a fall
END = 0.25  # of a run, its end
LEAST_RIGHT = 0.7  # of the kept pseudo-labels: threshold methods aim at .95, and noise of .3 stops learning
RISEN = 2.0  # times its least that the labeled loss may be at the end, if that is above its start

MOST_ASIDE = 0.05  # of the files: a few broken ones are in every folder
MOST_UNKNOWN = 4 * FLAGGED  # of the unlabeled images: where none is strange, weak features flag over twice that share
WIDEST = 0.1  # half of the interval of the accuracy; with less than it hardly any two methods can be told apart
ERRORS = 2.0  # standard errors that a difference must have


WarningId: TypeAlias = Literal[
    "collapse",
    "classes_never_predicted",
    "classes_without_pseudo_labels",
    "few_pseudo_labels_kept",
    "pseudo_labels_wrong",
    "labeled_loss_rose",
    "unlabeled_data_harmed",
    "training_free_is_better",
    "probabilities_off",
    "many_unknown",
    "many_quarantined",
    "few_test_rows",
]


@dataclass(frozen=True)
class HealthWarning:
    """What is likely to be wrong with a run.

    Attributes:
        id: the check that found it; never changes, for programs that act on it.
        severity: "high" where the result is likely worse than it could be; "low" where it may be good, and what is
            said of it is not to be relied on.
        text: one or two sentences, and what to try.
    """

    id: WarningId
    severity: Literal["high", "low"]
    text: str


def warnings_of(summary: Mapping[str, Any], lines: Sequence[Line], findings: Findings) -> list[dict[str, str]]:
    """Return the fields of a `HealthWarning` for each thing that is likely wrong with a run, the worst first.

    Args:
        summary: as in `summary.json`; what an older run has not is not checked.
        lines: of `metrics.jsonl`.
        findings: of its rows.
    """
    if _is_head(summary):
        lines = ()  # what they record is not what is handed over
    crowd = _crowd(summary, lines, findings)
    checks = (
        _collapse(summary, crowd),
        _without_pseudo_labels(summary, crowd),
        _kept(summary, lines),
        _kept_wrong(summary, crowd),
        _loss(lines),
        _unlabeled_harmed(summary),
        _training_free_is_better(summary),
        _overconfident(summary),
        _unknown(summary),
        _set_aside(summary, findings),
        _small_test(summary),
    )
    return [asdict(warning) for check in checks for warning in check]


@dataclass(frozen=True, eq=False)
class _Crowd:
    """The unlabeled rows, seen together.

    Attributes:
        classes: names.
        predicted: int64 [K], how many are taken for each class.
        expected: float [K], how many there should be: where hidden labels are known those, else by the labeled rows.
        known: whether they are known.
        labeled: int64 [K], labeled rows of each class.
        sure: int64 [K], how many of the surest rows, as many as were kept at the end, are taken for each class; None
            where nothing was kept or the method keeps no count.
        right: share of right ones among these, where at least `FEWEST_ROWS` of them have a hidden label; else None.
    """

    classes: tuple[str, ...]
    predicted: Labels
    expected: NDArray[np.float64]
    known: bool
    labeled: Labels
    sure: Labels | None
    right: float | None

    def named(self, which: Labels) -> str:
        """Name classes, or some of them."""
        names = [short(self.classes[k]) for k in which]
        if len(names) > MOST_NAMED:
            names = [*names[:MOST_NAMED], f"{len(names) - MOST_NAMED:,} more"]
        return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _crowd(summary: Mapping[str, Any], lines: Sequence[Line], findings: Findings) -> _Crowd | None:
    """Count what the unlabeled rows are taken for; None where they are too few."""
    table = findings.table
    rows, k = table.unlabeled_rows, len(table.classes)
    if len(rows) < FEWEST_ROWS or k < 2 or not len(table.labeled_rows):
        return None
    says, truth = findings.raw[rows], table.truth[rows]
    predicted = says.argmax(1)
    labeled = np.bincount(table.labels[table.labeled_rows], minlength=k)
    known = bool((truth != UNLABELED).all())
    shares = np.bincount(truth, minlength=k) if known else labeled
    kept = _mean_at_end(points(lines, "kept"))
    surest = np.argsort(-says.max(1), kind="stable")[: round((kept or 0.0) * len(rows))]
    judged = surest[truth[surest] != UNLABELED]
    return _Crowd(
        classes=table.classes,
        predicted=np.bincount(predicted, minlength=k),
        expected=len(rows) * shares / shares.sum(),
        known=known,
        labeled=labeled,
        sure=np.bincount(predicted[surest], minlength=k) if len(surest) else None,
        right=float((predicted[judged] == truth[judged]).mean()) if len(judged) >= FEWEST_ROWS else None,
    )


def _mean_at_end(found: Sequence[tuple[float, float]]) -> float | None:
    last = [value for step, value in found if step > (1 - END) * found[-1][0]]
    return fmean(last) if last else None


def _holders(counts: NDArray[Any]) -> Labels:
    """Give the fewest classes that hold most of the rows."""
    order = np.argsort(-counts, kind="stable")
    return order[: int(np.searchsorted(np.cumsum(counts[order]), MOST_OF_THEM * counts.sum())) + 1]


def _collapsed(crowd: _Crowd) -> bool:
    """Tell whether few classes hold most of the rows, and should not: where most are of one class, that is right."""
    holders, should = _holders(crowd.predicted), len(_holders(crowd.expected))
    theirs = crowd.expected[holders].sum() / crowd.expected.sum()
    return len(holders) <= max(1, should // FEW_CLASSES) and theirs < MOST_OF_THEM**2


def _collapse(summary: Mapping[str, Any], crowd: _Crowd | None) -> Iterator[HealthWarning]:
    if crowd is not None and _collapsed(crowd):
        holders = _holders(crowd.predicted)
        share = crowd.predicted[holders].sum() / crowd.predicted.sum()
        yield HealthWarning(
            "collapse",
            "high",
            f"The network has collapsed: it takes {percent(share)} of the unlabeled {things(summary)} for "
            f"{crowd.named(holders)}, of {len(crowd.classes):,} classes. Try "
            + (
                f"{_TRAINED}."
                if _is_head(summary)
                else f"{_other(summary, 'debiaspl', 'adamatch')}, which takes out the bias to classes "
                "predicted too often, or a lower `--lr`."
            ),
        )


def _without_pseudo_labels(summary: Mapping[str, Any], crowd: _Crowd | None) -> Iterator[HealthWarning]:
    if crowd is None or _collapsed(crowd):
        return
    should = (crowd.expected >= EXPECTED) & (crowd.labeled > 0)
    never = should & (crowd.predicted == 0)
    if never.any():
        there = "though there are such" if crowd.known else "though labeled ones are not rare"
        yield HealthWarning(
            "classes_never_predicted",
            "high",
            f"None of the unlabeled {things(summary)} is taken for {crowd.named(np.flatnonzero(never))}, {there}. "
            f"Label more of them (`fewlabels next` names {things(summary)}), or try "
            + (
                f"{_TRAINED}."
                if _is_head(summary)
                else f"{_other(summary, 'debiaspl', 'adamatch')}, which looks after classes predicted too rarely."
            ),
        )
    if crowd.sure is None:
        return
    enough = crowd.expected * crowd.sure.sum() / crowd.predicted.sum() >= EXPECTED
    unsure = should & ~never & enough & (crowd.sure == 0)
    if unsure.any():
        yield HealthWarning(
            "classes_without_pseudo_labels",
            "high",
            f"No pseudo-label sure enough to count is of {crowd.named(np.flatnonzero(unsure))}: learned from labels "
            f"alone. Try {_other(summary, 'flexmatch', 'freematch')}, which asks less of classes learned late, or "
            "label more of them.",
        )


_TRAINED = "`--choose method`, which hands over the trained network instead"


def _is_head(summary: Mapping[str, Any]) -> bool:
    """Tell whether a linear head of training-free classifiers is handed over, and not what was trained."""
    rows: Sequence[Mapping[str, Any]] = summary.get("rows", ())
    return bool(rows) and rows[-1].get("kind") == "training_free"


def _other(summary: Mapping[str, Any], *methods: str) -> str:
    """Name the first of these methods that the run did not use."""
    return f"`--method {next(name for name in methods if name != summary['method'])}`"


def _more_work(summary: Mapping[str, Any]) -> str:
    """Suggest a longer training, or where there is none more labels."""
    if summary.get("budget") != "full":
        return "`--budget full`"
    return f"more labels (`fewlabels next` names {things(summary)})"


def _kept(summary: Mapping[str, Any], lines: Sequence[Line]) -> Iterator[HealthWarning]:
    found = points(lines, "kept")
    end = _mean_at_end(found)
    if end is None or end >= LEAST_KEPT:
        return
    most = max(value for _, value in found)
    how = f"fell from {percent(most)} to {percent(end)}" if most >= ONCE_KEPT else f"was {percent(end)} at the end"
    yield HealthWarning(
        "few_pseudo_labels_kept",
        "high",
        f"The kept share of the pseudo-labels {how}: the unlabeled {things(summary)} taught next to nothing. "
        f"Try {_other(summary, 'softmatch', 'freematch')}, which has no fixed threshold, or {_more_work(summary)}.",
    )


def _kept_wrong(summary: Mapping[str, Any], crowd: _Crowd | None) -> Iterator[HealthWarning]:
    if crowd is None or crowd.right is None or _collapsed(crowd):
        return
    if crowd.right < LEAST_RIGHT:
        yield HealthWarning(
            "pseudo_labels_wrong",
            "high",
            f"Of the surest pseudo-labels, as many as were kept, {percent(1 - crowd.right)} are wrong: the network "
            f"learns its own mistakes. More labels help most (`fewlabels next` names {things(summary)}).",
        )


def _loss(lines: Sequence[Line]) -> Iterator[HealthWarning]:
    # The loss on unlabeled images may rise in a healthy run, as more of them are kept; that on labeled ones may not.
    alone = not any("unlabeled_loss" in line for line in lines)
    found = points(lines, "labeled_loss") or (points(lines, "loss") if alone else [])
    end = _mean_at_end(found)
    if end is None or len(found) < 8:
        return
    quarter = len(found) // 4
    least = min(fmean(v for _, v in found[i : i + quarter]) for i in range(len(found) - quarter + 1))
    start = found[0][1]
    if end > start and end > RISEN * least:
        yield HealthWarning(
            "labeled_loss_rose",
            "high",
            f"The loss on labels rose, from {start:.2g} at the start and {least:.2g} at best to {end:.2g}: the "
            "training is not stable. Try a lower `--lr`, a third of that in config.yaml, or `--precision float32`.",
        )


def _unlabeled_harmed(summary: Mapping[str, Any]) -> Iterator[HealthWarning]:
    gain = summary["gain"]
    other = "`--choose linear`" if _is_head(summary) else _other(summary, "fixmatch", "freematch")
    if gain is not None and gain["value"] < -ERRORS * gain["standard_error"]:
        yield HealthWarning(
            "unlabeled_data_harmed",
            "high",
            f"The supervised baseline was better by {-100 * gain['value']:.1f} points: the unlabeled {things(summary)} "
            f"did harm. Try {other}, or `fewlabels bench`, which compares methods "
            "on your data. They may also show other things than the labeled ones: the report has the most doubtful; "
            "take such "
            "out.",
        )


def _training_free_is_better(summary: Mapping[str, Any]) -> Iterator[HealthWarning]:
    best, gain = best_training_free(summary), summary["gain_over_training_free"]
    if best is None or gain is None:
        return
    if gain["value"] < 0 and gain["clear"]:
        keep = "`--classify.features only`, which leaves the backbone as it was"
        trained = best.get("on_features") and not summary["rows"][-1].get("on_features")
        other = f"`--choose {best['name']}`" if _is_head(summary) else _more_work(summary)
        yield HealthWarning(
            "training_free_is_better",
            "high",
            f"{best['label'][0].upper()}{best['label'][1:]}, which needs no training, is better by "
            f"{-100 * gain['value']:.1f} points. "
            f"Try {keep if trained else other}.",
        )


def _overconfident(summary: Mapping[str, Any]) -> Iterator[HealthWarning]:
    found = (summary.get("calibration") or {}).get("calibrated")
    if not found:
        return
    counts = np.array(found["counts"], float)
    rows = counts.sum()
    sure, right = (float(np.dot(counts, found[name]) / rows) for name in ("confidence", "accuracy"))
    # The calibration error of few rows is large by chance, and so is its interval: the mean must differ clearly too.
    error = (right * (1 - right) / rows) ** 0.5
    off = sure - right if summary["calibration"]["kind"] == "none" else abs(sure - right)
    if found["low"] > MOST_OFF and off > max(MOST_OFF, ERRORS * error):
        yield HealthWarning(
            "probabilities_off",
            "low",
            f"The network is too {'sure' if sure > right else 'unsure'}: {percent(sure)} in the mean where "
            f"{percent(right)} is right. Take its probabilities as an order, not as chances. {_calibrated(summary)}.",
        )


def _calibrated(summary: Mapping[str, Any]) -> str:
    made = summary["calibration"]
    if made["kind"] == "none":
        return "`--classify.calibrate cross` fits them to all labels, by two more trainings; with few it may go too far"
    if made.get("how") == "cross-fitted":
        return (
            "They were fitted to networks that had fewer labels and were the less sure for it: `--classify.calibrate "
            f"no` leaves them as they are, and more labels mend it (`fewlabels next` names {things(summary)})"
        )
    return f"More labels mend it (`fewlabels next` names {things(summary)})"


def _unknown(summary: Mapping[str, Any]) -> Iterator[HealthWarning]:
    unknown, rows = summary.get("unknown"), summary["unlabeled"]
    if unknown and rows and unknown > MOST_UNKNOWN * rows:
        yield HealthWarning(
            "many_unknown",
            "low",
            f"{count(unknown, f'unlabeled {things(summary)[:-1]}')} of {rows:,} are unlike every class. Look at "
            "them in the report: if they show none of the classes, take them out, or label them as a class of their "
            "own.",
        )


def _set_aside(summary: Mapping[str, Any], findings: Findings) -> Iterator[HealthWarning]:
    aside, there = summary["set_aside"], len(findings.table)
    if aside > MOST_ASIDE * (aside + there):
        yield HealthWarning(
            "many_quarantined",
            "low",
            f"{count(aside, source(summary))} of {aside + there:,} were set aside. quarantine.csv names them with the "
            "reasons; "
            "`fewlabels data DATA` shows what is read and what is not.",
        )


def _small_test(summary: Mapping[str, Any]) -> Iterator[HealthWarning]:
    accuracy = metric(summary["chosen"])
    if accuracy is None:
        return
    low, high = accuracy_interval(accuracy, summary["test"])
    if (high - low) / 2 > WIDEST:
        yield HealthWarning(
            "few_test_rows",
            "low",
            f"With {count(summary['test'], tested(summary))} the accuracy is only known to lie between "
            f"{percent(low)} and {percent(high)}. Put more labeled {things(summary)} into the test split "
            "before you choose by it.",
        )
