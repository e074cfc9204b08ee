"""The table of rows: where each image is, its label or -1, its split, its name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.decode import ImageLike

Labels: TypeAlias = NDArray[np.int64]
UNLABELED = -1


def spread(rows: Labels, most: int) -> Labels:
    """Take at most so many rows, evenly spread: neighbors in a table are often of one class."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


@dataclass(frozen=True, eq=False)
class Table:
    """What a run learns from. All sequences have one entry a row.

    Attributes:
        name: of the data, for the run's folder.
        images: paths or pixels.
        names: of the rows, unique; a path relative to the data, or a place in an array.
        labels: int64 [N], a class or -1.
        test: bool [N], rows of the test split; their labels are only ever used to report.
        classes: names of the classes.
        truth: int64 [N], the labels that were hidden from training to try a method, else -1; never seen by it.
        notes: what was done to the table, in words for the user.
        quarantine: images that could not be read, and why; they are no rows.
    """

    name: str
    images: Sequence[ImageLike]
    names: tuple[str, ...]
    labels: Labels
    test: NDArray[np.bool_]
    classes: tuple[str, ...]
    truth: Labels
    notes: tuple[str, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labeled_rows(self) -> Labels:
        """Rows to train on with their labels."""
        return np.flatnonzero(~self.test & (self.labels != UNLABELED))

    @property
    def unlabeled_rows(self) -> Labels:
        """Rows to train on without labels."""
        return np.flatnonzero(~self.test & (self.labels == UNLABELED))

    @property
    def test_rows(self) -> Labels:
        """Rows that only report."""
        return np.flatnonzero(self.test)

    def with_note(self, note: str, **changes: Any) -> Table:
        """Give a changed copy that says what was done to it."""
        return replace(self, notes=(*self.notes, note), **changes)

    def take(self, rows: Labels) -> Table:
        """Give the table of these rows alone, in this order."""
        return replace(
            self,
            images=[self.images[i] for i in rows],
            names=tuple(self.names[i] for i in rows),
            labels=self.labels[rows],
            test=self.test[rows],
            truth=self.truth[rows],
        )

    def counts(self) -> list[tuple[str, int, int]]:
        """Count (class, labeled, test) for each class."""
        out = []
        for k, name in enumerate(self.classes):
            of_class = self.labels == k
            out.append(
                (
                    name,
                    int((of_class & ~self.test).sum()),
                    int((of_class & self.test).sum()),
                )
            )
        return out

    def fingerprint(self) -> str:
        """Give a hash of names, labels and splits: two runs of one configuration have the same."""
        digest = hashlib.sha256("\0".join((*self.names, *self.classes)).encode())
        for column in (self.labels, self.test, self.truth):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]
