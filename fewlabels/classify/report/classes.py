"""What became of each class: how often it is found, and which classes are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.classify.metrics import confusions
from fewlabels.classify.report.findings import Findings
from fewlabels.data.table import UNLABELED, Labels
from fewlabels.report.page import Bar, Section
from fewlabels.report.pictures import as_source
from fewlabels.report.words import count, percent, short

WHOLE = 50  # classes up to which all are shown
ENDS = 10  # of more, so many of the worst and of the best
MOST_LISTED = 1000  # classes in the folded table
MATRIX = 20  # classes up to which the confusion matrix has numbers
PICTURE = 1000  # and up to which it is a picture
CONFUSIONS = 10  # that are listed
_HEAT = (59, 130, 246)  # a blue that is seen on white and on black
_STRONGEST = 0.45  # of a cell's color: the number on it stays readable


@dataclass(frozen=True, eq=False)
class Confusions:
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

    @property
    def recall(self) -> NDArray[np.float64]:
        """Which share of each class is found; NaN where it has no rows."""
        return np.divide(self.right, self.rows, out=np.full(self.classes, np.nan), where=self.rows > 0)

    @property
    def precision(self) -> NDArray[np.float64]:
        """Which share of what is taken for each class is of it; NaN where nothing is."""
        return np.divide(self.right, self.predicted, out=np.full(self.classes, np.nan), where=self.predicted > 0)

    def _sum(self, column: int, which: NDArray[np.bool_] | slice = slice(None)) -> Labels:
        chosen = self.pairs[which]
        return np.bincount(chosen[:, column], chosen[:, 2], self.classes).astype(np.int64)


def judged(findings: Findings) -> Confusions | None:
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
    return Confusions(what, findings.things, pairs, classes)


def class_section(findings: Findings) -> Section:
    """Show each class in numbers, and the confusion matrix where true classes are known."""
    data, found = findings.table, judged(findings)
    labeled = np.bincount(data.labels[data.labeled_rows], minlength=len(data.classes))
    columns = _columns(findings, found, labeled)
    rows = list(zip(*columns.values(), strict=True))
    values = {"judged": found, "head": list(columns), "count": len(rows), "few": len(rows) <= WHOLE, "ends": {}}
    if found is not None:
        values |= _confusions(found, data.classes)
    if found is not None and not values["few"]:
        order = np.lexsort((-labeled, np.nan_to_num(found.precision), np.nan_to_num(found.recall, nan=2.0)))
        rows = [rows[k] for k in order]
        values["ends"] = {"least": rows[:ENDS], "best": rows[: -ENDS - 1 : -1]}
    return Section("classes", "Class by class", "Classes", values | {"rows": rows[:MOST_LISTED]})


def _columns(findings: Findings, found: Confusions | None, labeled: Labels) -> dict[str, list[str] | list[str | Bar]]:
    """Return what the table of classes shows, by the titles of its columns."""
    data = findings.table
    columns: dict[str, list[str] | list[str | Bar]] = {
        "class": [short(name) for name in data.classes],
        "labeled": _counts(labeled),
    }
    if found is not None:
        columns[found.what] = _counts(found.rows)
        columns["found (recall)"] = _shares(found.recall)
        columns["right if named (precision)"] = _shares(found.precision)
    if len(data.unlabeled_rows):
        taken = findings.probabilities[data.unlabeled_rows].argmax(1)
        columns["unlabeled taken for it"] = _counts(np.bincount(taken, minlength=len(data.classes)))
    return columns


def _counts(numbers: Labels) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _shares(shares: NDArray[np.float64]) -> list[str | Bar]:
    return ["-" if np.isnan(share) else Bar(percent(share), share) for share in shares.tolist()]


def _confusions(found: Confusions, classes: Sequence[str]) -> dict[str, Any]:
    wrong = found.pairs[found.pairs[:, 0] != found.pairs[:, 1]]
    most = wrong[np.lexsort((wrong[:, 1], wrong[:, 0], -wrong[:, 2]))][:CONFUSIONS]
    names, rows = [short(name) for name in classes], found.rows.tolist()
    return {
        "confused": [(names[i], names[j], n, rows[i]) for i, j, n in most.tolist()],
        "matrix": _matrix(found, classes) if found.classes <= MATRIX else None,
        "heat": _heat(found) if MATRIX < found.classes <= PICTURE else None,
    }


def _dense(found: Confusions) -> tuple[Labels, NDArray[np.float64]]:
    """Give the counts [K, K], true classes down and predicted ones across, and the shares of each row."""
    counts = np.zeros((found.classes, found.classes), np.int64)
    counts[found.pairs[:, 0], found.pairs[:, 1]] = found.pairs[:, 2]
    return counts, counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _matrix(found: Confusions, classes: Sequence[str]) -> dict[str, Any]:
    """Make the confusion matrix as a table with numbers."""
    counts, shares = _dense(found)
    names = [short(name, 30) for name in classes]
    return {"names": names, "counts": counts.tolist(), "shades": (_STRONGEST * shares).tolist()}


def _heat(found: Confusions) -> dict[str, str]:
    """Make the confusion matrix as a picture, a pixel a cell."""
    _, shares = _dense(found)
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _HEAT
    pixels[..., 3] = np.rint(255 * np.sqrt(shares))  # rare confusions are seen too
    right = int(found.right.sum()) / int(found.rows.sum())
    said = (
        f"Confusion matrix of {count(found.classes, 'class')}: true classes down, predicted ones across. "
        f"{percent(right)} of the {found.what} {found.things} lie on the diagonal, where both are the same."
    )
    return {"source": as_source(Image.fromarray(pixels), "PNG"), "said": said}
