"""What became of each class: how often it is found, and which classes are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from fewlabels.classify.metrics import confusions
from fewlabels.classify.report.findings import Findings
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.report.page import Section, bar, fill, folded, heading, listed, paragraph, scrolled, short, table
from fewlabels.report.pictures import as_source
from fewlabels.report.words import count, percent

WHOLE = 50  # classes up to which all are shown
ENDS = 10  # of more, so many of the worst and of the best
MOST_LISTED = 1000  # classes in the folded table
MATRIX = 20  # classes up to which the confusion matrix has numbers
PICTURE = 1000  # and up to which it is a picture
CONFUSIONS = 10  # that are listed
_HEAT = (59, 130, 246)  # a blue that is seen on white and on black
_STRONGEST = 0.45  # of a cell's color: the number on it stays readable


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions of rows whose true class is known: the test split's, or else those whose labels were hidden.

    Attributes:
        what: "test" or "hidden".
        things: what the rows are.
        pairs: int64 [n, 3], as `confusions` gives them.
        classes: how many there are.
    """

    what: str
    things: str
    pairs: Labels
    classes: int

    @property
    def right(self) -> Labels:
        """How many of each class are found."""
        return self._sum(0, self.pairs[:, 0] == self.pairs[:, 1])

    @property
    def rows(self) -> Labels:
        """How many each class has."""
        return self._sum(0)

    @property
    def predicted(self) -> Labels:
        """How many are taken for each class."""
        return self._sum(1)

    def _sum(self, column: int, which: NDArray[np.bool_] | slice = slice(None)) -> Labels:
        chosen = self.pairs[which]
        return np.bincount(chosen[:, column], chosen[:, 2], self.classes).astype(np.int64)


def judged(findings: Findings) -> Judged | None:
    """Count true and predicted classes; None where no true class is known."""
    rows, truth = findings.table.test_rows, findings.table.labels
    what = "test"
    if not len(rows):
        truth = findings.table.truth
        rows, what = np.flatnonzero(truth != UNLABELED), "hidden"
    if not len(rows):
        return None
    classes = len(findings.table.classes)
    pairs = confusions(findings.probabilities[rows].argmax(1), truth[rows], classes)
    return Judged(what, findings.things, pairs, classes)


def class_section(findings: Findings) -> Section:
    """Show each class in numbers, and the confusion matrix where true classes are known."""
    found = judged(findings)
    parts = [_per_class(findings, found)]
    if found is not None:
        parts += _confusions(found, findings.table.classes)
    return Section("classes", "Class by class", "Classes", tuple(parts))


def _per_class(findings: Findings, found: Judged | None) -> Markup:
    rows, order = _class_rows(findings, found)
    head = ["class", "labeled"]
    if found is not None:
        head += [found.what, "found (recall)", "right if named (precision)"]
    if len(findings.table.unlabeled_rows):
        head.append("unlabeled taken for it")
    if len(rows) <= WHOLE:
        return table("Results of each class", head, rows)
    if found is None:
        first = rows[:MOST_LISTED]
        return folded(f"{_how_many(len(rows), 'as named')}", table("Results of the classes", head, first))
    worst, best = [rows[k] for k in order[:ENDS]], [rows[k] for k in order[::-1][:ENDS]]
    rest = [rows[k] for k in order[:MOST_LISTED]]
    return Markup("\n").join(
        [
            heading(f"The {ENDS} classes that are found least"),
            table(f"Results of the {ENDS} classes that are found least", head, worst),
            heading(f"The {ENDS} classes that are found best"),
            table(f"Results of the {ENDS} classes that are found best", head, best),
            folded(_how_many(len(rows), "the worst first"), table("Results of all classes", head, rest)),
        ]
    )


def _how_many(classes: int, order: str) -> str:
    if classes <= MOST_LISTED:
        return f"All {classes} classes, {order}"
    return f"{MOST_LISTED:,} of {classes:,} classes, {order}; predictions.parquet has all of them"


def _class_rows(findings: Findings, found: Judged | None) -> tuple[list[list[str | Markup]], Sequence[int]]:
    """Make the cells of each class, and their order from the worst found to the best."""
    data = findings.table
    k = len(data.classes)
    labeled = np.bincount(data.labels[data.labeled_rows], minlength=k)
    taken = np.bincount(findings.probabilities[data.unlabeled_rows].argmax(1), minlength=k)
    recall, precision = np.full(k, np.nan), np.full(k, np.nan)
    if found is not None:
        np.divide(found.right, found.rows, out=recall, where=found.rows > 0)
        np.divide(found.right, found.predicted, out=precision, where=found.predicted > 0)
    known = found.rows if found is not None else labeled
    rows: list[list[str | Markup]] = []
    for i, name in enumerate(data.classes):
        row: list[str | Markup] = [short(name), f"{labeled[i]:,}"]
        if found is not None:
            row += [f"{known[i]:,}", _share(recall[i]), _share(precision[i])]
        rows.append([*row, f"{taken[i]:,}"] if len(data.unlabeled_rows) else row)
    order = np.lexsort((-labeled, np.nan_to_num(precision), np.nan_to_num(recall, nan=2.0)))
    return rows, [int(i) for i in order]


def _share(value: float) -> Markup:
    return bar("-" if np.isnan(value) else percent(float(value)), float(value))


def _confusions(found: Judged, classes: Sequence[str]) -> list[Markup]:
    picture = _matrix(found, classes) if found.classes <= MATRIX else _heat(found)
    wrong = found.pairs[found.pairs[:, 0] != found.pairs[:, 1]]
    most = wrong[np.lexsort((wrong[:, 1], wrong[:, 0], -wrong[:, 2]))][:CONFUSIONS]
    rows = found.rows
    told = listed((_confusion(int(i), int(j), int(n), int(rows[i]), classes) for i, j, n in most), "ol")
    if not len(most):
        told = paragraph(f"None of the {found.what} {found.things} is taken for another class.")
    listing = fill("<div><h4>The most frequent</h4>{}</div>", told) if picture else told
    both = fill('<div class="beside">{}{}</div>', picture, listing) if picture else listing
    return [heading("Which classes are confused"), both]


def _confusion(truth: int, predicted: int, times: int, rows: int, classes: Sequence[str]) -> Markup:
    return fill(
        "<strong>{}</strong> taken for <strong>{}</strong>: {} of {} ({})",
        short(classes[truth]), short(classes[predicted]), f"{times:,}", f"{rows:,}",
        percent(times / rows).replace(" ", "\u00a0"),
    )  # fmt: skip


def _dense(found: Judged) -> tuple[Labels, NDArray[np.float64]]:
    """Give the counts [K, K], true classes down and predicted ones across, and the shares of each row."""
    counts = np.zeros((found.classes, found.classes), np.int64)
    counts[found.pairs[:, 0], found.pairs[:, 1]] = found.pairs[:, 2]
    return counts, counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _matrix(found: Judged, classes: Sequence[str]) -> Markup:
    """Make the confusion matrix as a table with numbers."""
    counts, shares = _dense(found)
    names = [short(name, 30) for name in classes]
    upright = max(map(len, names)) <= 3
    cell = '<th scope="col">{}</th>' if upright else '<th scope="col"><div class="up">{}</div></th>'
    head = Markup("").join(fill(cell, name) for name in names)
    body = Markup("\n").join(
        fill(
            '<tr><th scope="row">{}</th>{}</tr>',
            name,
            Markup("").join(_cell(int(counts[i, j]), shares[i, j], i == j) for j in range(len(names))),
        )
        for i, name in enumerate(names)
    )
    label = f"Confusion matrix: {found.what} {found.things} of each true class (down) by predicted class (across)"
    return scrolled(
        "Confusion matrix",
        fill(
            '<table class="matrix">\n<caption>{}</caption>\n<thead><tr><td></td>{}</tr></thead>\n<tbody>{}</tbody>'
            "\n</table>",
            label, head, body,
        ),
    )  # fmt: skip


def _cell(times: int, share: float, right: bool) -> Markup:
    if not times and not right:
        return Markup("<td></td>")
    kind = Markup(' class="right"') if right else ""
    return fill('<td{} style="--a:{:.2f}">{}</td>', kind, _STRONGEST * share, times)


def _heat(found: Judged) -> Markup | None:
    """Make the confusion matrix as a picture, a pixel a cell; None where there are too many classes for one."""
    if found.classes > PICTURE:
        return None
    _, shares = _dense(found)
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _HEAT
    pixels[..., 3] = np.rint(255 * np.sqrt(shares))  # rare confusions are seen too
    right = int(found.right.sum()) / int(found.rows.sum())
    said = (
        f"Confusion matrix of {count(found.classes, 'class')}: true classes down, predicted ones across. "
        f"{percent(right)} of the {found.what} {found.things} lie on the diagonal, where both are the same."
    )
    return fill(
        '<figure><img class="heat" src="{}" width="{}" height="{}" alt="{}">\n{}</figure>',
        as_source(Image.fromarray(pixels), "PNG"), found.classes, found.classes, said, paragraph(said, "soft"),
    )  # fmt: skip
