"""The table of rows: where each image is, its label or -1, its split, its name."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.image import ImageLike
from fewlabels.errors import all_of

Labels: TypeAlias = NDArray[np.int64]
UNLABELED = -1


def spread(rows: Labels, most: int) -> Labels:
    """Take at most so many rows, evenly spread: neighbors in a table are often of one class."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


class Chosen(Sequence[ImageLike]):
    """Some of a sequence of images, which may read each only when it is asked for."""

    def __init__(self, images: Sequence[ImageLike], rows: Labels) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        rows = self.rows[place]
        return self.images[int(rows)] if rows.ndim == 0 else Chosen(self.images, rows)


class Joined(Sequence[ImageLike]):
    """One sequence of images after another."""

    def __init__(self, first: Sequence[ImageLike], second: Sequence[ImageLike]) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        place = place + len(self) if place < 0 else place
        return self.first[place] if place < len(self.first) else self.second[place - len(self.first)]


class Takeable(Sequence[Any]):
    """Rows that lie in memory, of which some are taken at once."""

    @abstractmethod
    def take(self, rows: Labels) -> Sequence[Any]:
        """Return some of them."""


def chosen(contents: Sequence[Any], rows: Labels) -> Sequence[Any]:
    """Return some rows of a table's contents; what is read only when it is asked for stays so."""
    return contents.take(rows) if isinstance(contents, Takeable) else Chosen(contents, rows)


@dataclass(frozen=True, eq=False)
class Table:
    """What a run learns from. All sequences have one entry a row.

    Attributes:
        name: of the data, for the run's folder.
        contents: of the rows: paths, pixels or vectors.
        names: of the rows, unique; a path relative to the data, or a place in an array.
        labels: int64 [N], a class or -1.
        test: bool [N], rows of the test split; their labels are only ever used to report.
        classes: names of the classes.
        truth: int64 [N], the labels that were hidden from training to try a method, else -1; never seen by it.
        notes: what was done to the table, in words for the user.
        quarantine: files that are no rows, and why: they could not be read, or are none of the data's.
        groups: of the rows (one patient, one burst of photos), "" for none; empty where there are no groups. Rows
            of one group never stand on both sides of the split.
        lost: rows that the source set aside: missing or refused files; files that are no images do not count.
        added: names of rows whose labels were given later, and are not in the source.
    """

    name: str
    contents: Sequence[ImageLike]
    names: tuple[str, ...]
    labels: Labels
    test: NDArray[np.bool_]
    classes: tuple[str, ...]
    truth: Labels
    notes: tuple[str, ...] = ()
    quarantine: Mapping[str, str] = field(default_factory=dict[str, str])
    groups: tuple[str, ...] = ()
    lost: int = 0
    added: frozenset[str] = frozenset()

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
            contents=chosen(self.contents, rows),
            names=tuple(self.names[i] for i in rows),
            labels=self.labels[rows],
            test=self.test[rows],
            truth=self.truth[rows],
            groups=tuple(self.groups[i] for i in rows) if self.groups else (),
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
        digest = hashlib.sha256("\0".join((*self.names, *self.classes, *self.groups)).encode())
        for column in (self.labels, self.test, self.truth):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]


def make_table(
    name: str,
    images: Sequence[ImageLike],
    names: Sequence[str],
    labels: Labels,
    classes: Sequence[str],
    *,
    test: NDArray[np.bool_] | None = None,
    groups: Sequence[str] = (),
    notes: Sequence[str] = (),
    quarantine: Mapping[str, str] | None = None,
    problems: Sequence[str] = (),
    lost: int = 0,
) -> Table:
    """Make a table of what a source found, and check it.

    Args:
        name: of the data.
        images, names, labels, classes, test, groups, notes, quarantine, lost: as in `Table`; without `test` all
            rows are training rows. A name that comes twice with one label and split is kept once.
        problems: what the source found wrong already.

    Raises:
        UserError: all problems at once: no rows, labels that are no classes, one name with two labels or on both
            sides of the split, test rows without a label, groups on both sides of the split.
    """
    if test is None:
        test = np.zeros(len(labels), bool)
    found = [*problems]
    if not len(labels) and not found:
        found.append("there are no rows")
    highest = int(labels.max(initial=UNLABELED))
    if highest >= len(classes) or labels.min(initial=0) < UNLABELED:
        found.append(
            f"labels run from {labels.min()} to {highest} for {len(classes)} classes; give 0 to {len(classes) - 1}, "
            "and -1 for unlabeled"
        )
        raise all_of(name, found)
    if len(set(classes)) < len(classes):
        found.append(f"two classes have one name ({', '.join(classes)}); give each its own")
    without = np.flatnonzero(test & (labels == UNLABELED))
    if len(without):
        found.append(
            f"test rows without a label: {len(without)} ({_some(names, without)}); a test row needs one to be of use"
        )
    kept, twice = _once(names, labels, test, classes)
    found += twice
    found += split_groups(groups, test)
    if found:
        raise all_of(name, found)
    blank = np.full(len(labels), UNLABELED)
    table = Table(
        name,
        images,
        tuple(names),
        labels,
        test,
        tuple(classes),
        blank,
        tuple(notes),
        quarantine or {},
        tuple(groups),
        lost,
    )
    if len(kept) == len(names):
        return table
    return table.take(kept).with_note(f"rows named more than once, of which one is kept: {len(names) - len(kept)}")


def _some(names: Sequence[str], rows: Labels, most: int = 3) -> str:
    return ", ".join(names[i] for i in cast(list[int], rows[:most].tolist())) + (", ..." if len(rows) > most else "")


def _once(
    names: Sequence[str], labels: Labels, test: NDArray[np.bool_], classes: Sequence[str]
) -> tuple[Labels, list[str]]:
    """Give the first row of each name, and what is wrong with names that come more than once."""
    first: dict[str, int] = {}
    problems: list[str] = []
    for row, name in enumerate(names):
        before = first.setdefault(name, row)
        if labels[before] != labels[row]:
            said = [classes[k] if k != UNLABELED else "none" for k in (labels[before], labels[row])]
            problems.append(f"{name} has two labels, {said[0]} and {said[1]}; keep one")
        elif test[before] != test[row]:
            problems.append(f"{name} is a training row and a test row; keep one")
    return np.array(list(first.values()), np.int64), problems


def split_groups(groups: Sequence[str], test: NDArray[np.bool_]) -> list[str]:
    """Name the groups that stand on both sides of a split, as problems."""
    sides: dict[str, set[bool]] = {}
    for group, is_test in zip(groups, test.tolist(), strict=bool(groups)):
        if group:
            sides.setdefault(group, set()).add(is_test)
    both = [group for group, found in sides.items() if len(found) > 1]
    if not both:
        return []
    listed = ", ".join(both[:5]) + (", ..." if len(both) > 5 else "")
    return [f"groups with rows both in training and in test: {listed}; move each to one side"]
