"""Galleries: which images to look at, and what the run says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fewlabels.classify.report.findings import Findings
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.report.page import Section
from fewlabels.report.words import short

SHOWN = 12  # images in a gallery


@dataclass(frozen=True, eq=False)
class Gallery:
    """Some rows with a title, and a sentence that says what they are and what to do with them.

    `instead` has the class that the neighbors of a suspect row have, by the row.
    """

    title: str
    note: str
    rows: Labels
    instead: Mapping[int, int] = field(default_factory=dict[int, int])


class Item(NamedTuple):
    """A row in a gallery: what it is predicted to be, how surely, and what else is known, each with its kind."""

    row: int
    name: str
    predicted: str
    sure: str
    marks: list[tuple[str, str]]


def galleries(findings: Findings) -> list[Gallery]:
    """Choose what is shown; a gallery without rows is left out."""
    unlabeled = findings.table.unlabeled_rows
    unlike = unlabeled[findings.unknown[unlabeled]]
    confidence = findings.probabilities.max(1)
    most_doubtful = unlabeled[np.argsort(confidence[unlabeled], kind="stable")]
    things = findings.things
    found = [
        Gallery(
            "Next to label",
            "Their labels would help most, the best first. `fewlabels next RUN --out FILE` writes them with a column "
            "to fill in, and `fewlabels add-labels RUN FILE` goes on from there.",
            findings.next,
        ),
        Gallery(
            "Suspected wrong",
            f"The labeled {things} most alike contradict their given label or their sure prediction; the surest "
            "suspicion is first. It is a hint: with a weak network most of these are its own mistakes, and the labels "
            "are right. But a wrong given label costs most.",
            # Who mends test labels where the network contradicts them makes the test agree with the network.
            findings.suspects.rows[~findings.table.test[findings.suspects.rows]],
            dict(zip(*(column.tolist() for column in findings.suspects), strict=True)),
        ),
        Gallery(
            "Unlike every class",
            f"{len(unlike):,} unlabeled {things} are unlike all that is labeled, and here are those the network is "
            "surest of. It is a hint, in which some of known classes are caught by mistake. What shows none of the "
            "classes should be taken out, or labeled as a class of its own.",
            unlike[np.argsort(-confidence[unlike], kind="stable")],
        ),
        Gallery(
            "The most doubtful", f"The unlabeled {things} that the network is least sure of, the most doubtful first.",
            most_doubtful,
        ),
        Gallery(
            "The surest",
            f"The unlabeled {things} that the network is surest of, of each class in turn. A mistake here is one that "
            "it will not correct by itself.",
            _surest(findings, unlabeled, SHOWN),
        ),
    ]  # fmt: skip
    return [replace(gallery, rows=gallery.rows[:SHOWN]) for gallery in found if len(gallery.rows)]


def _surest(findings: Findings, rows: Labels, most: int) -> Labels:
    """Give the surest rows, the classes in turn: the best of each before the second of any."""
    probabilities = findings.probabilities[rows]
    order = np.argsort(-probabilities.max(1), kind="stable")
    predicted = probabilities.argmax(1)[order]
    by_class = np.argsort(predicted, kind="stable")
    starts = np.searchsorted(predicted[by_class], np.arange(probabilities.shape[1]))
    turn = np.empty(len(rows), np.int64)
    turn[by_class] = np.arange(len(rows)) - starts[predicted[by_class]]
    return rows[order[np.argsort(turn, kind="stable")[:most]]]


def gallery_section(shown: Sequence[Gallery], findings: Findings) -> Section | None:
    """Show galleries; None where there are none."""
    if not shown:
        return None
    filled = [(gallery, [_item(int(row), findings, gallery.instead) for row in gallery.rows]) for gallery in shown]
    values = {"galleries": filled, "pictured": findings.inputs.are_pictures}
    return Section("images", f"{findings.things.capitalize()} to look at", findings.things.capitalize(), values)


def _item(row: int, findings: Findings, instead: Mapping[int, int]) -> Item:
    table, probabilities = findings.table, findings.probabilities[row]
    predicted = int(probabilities.argmax())
    marks = _marks(row, predicted, findings)
    marks += [("wrong", f"most alike: {short(table.classes[instead[row]])}")] if row in instead else []
    return Item(row, short(table.names[row]), short(table.classes[predicted]), sure(probabilities[predicted]), marks)


def sure(probability: float) -> str:
    """Write a probability as whole percent; no network is 100 % sure of anything."""
    return f"{min(100 * probability, 99.9):.0f} %" if probability < 0.995 else "over 99 %"


def _marks(row: int, predicted: int, findings: Findings) -> list[tuple[str, str]]:
    """Say what is known of a row beside its prediction."""
    table = findings.table
    given, truth = int(table.labels[row]), int(table.truth[row])
    out: list[tuple[str, str]] = []
    if given != UNLABELED:
        out.append(("" if given == predicted else "wrong", f"given: {short(table.classes[given])}"))
    elif truth != UNLABELED:
        out.append(("", "right") if truth == predicted else ("wrong", f"in truth: {short(table.classes[truth])}"))
    if findings.unknown[row]:
        out.append(("wrong", "unlike every class"))
    return out
