"""Sheets (.csv, .tsv, .parquet) that name images and their labels, or hold vectors, as a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewlabels.data.image import ImageLike
from fewlabels.data.sources.cells import Sheet, read_sheet
from fewlabels.data.sources.paths import Files
from fewlabels.data.sources.roles import Role, role_of, settle_validation
from fewlabels.data.sources.vector_sheets import VectorSheet, read_vector_sheet
from fewlabels.data.sources.walk import listed, written
from fewlabels.data.table import UNLABELED, Table, chosen, make_table

_WHOLE = re.compile(r"([+-]?[0-9]{1,18})(?:\.0*)?")  # pandas writes whole numbers with gaps as 3.0
_NOTHING = frozenset(["nan", "none", "null", "n/a", "na"])


@dataclass(frozen=True)
class Row:
    """One row of a sheet: where it stands, and what it says; "" is nothing."""

    line: int
    name: str
    label: str
    role: Role
    group: str


def from_sheet(path: Path) -> Table:
    """Read a sheet with the columns path, label and optional split and group; or one of vectors.

    A sheet without paths is of vectors: a column `vector` of lists of numbers, or a column of numbers for each
    dimension, with label and optional split, group and name.

    Paths are relative to the sheet's folder, or absolute. An empty label is unlabeled, and so is -1 where labels are
    whole numbers. Split is train, val or test, and empty means train; val counts as test where there is no test.
    Files that are missing, no images, or outside of the sheet's folder by a relative path are set aside in the table's
    quarantine.

    Raises:
        UserError: the file cannot be read as a sheet with these columns; or all problems of its rows at once: empty
            paths, unknown splits, numbers among names as labels, a path with two labels, splits or groups.
    """
    vectors = read_vector_sheet(path, needed=("label",))
    if vectors is not None:
        return _vector_table(path, vectors)
    sheet = read_sheet(path, needed=("path", "label"), optional=("split", "group"))
    files = Files(path.parent)
    names = [files.name(text) for text in sheet.columns["path"]]
    labels, notes, problems = _clean_labels(sheet)
    groups = [text.strip() for text in sheet.columns["group"]]
    notes += _look_alike("groups", groups)
    roles, unknown = _roles(sheet)
    problems += _empty_paths(sheet) + unknown
    rows = [Row(*row) for row in zip(sheet.lines, names, labels, roles, groups, strict=True)]
    problems += _contradictions(rows, sheet, [row.name for row in rows])
    named = dict.fromkeys(row.name for row in rows if row.name)
    aside = {name: reason for name in named if (reason := files.why_aside(name))}
    if named and len(aside) == len(named) and not problems:
        name, reason = next(iter(aside.items()))
        problems.append(
            f"no file that it names can be used, such as {name}: {reason}; give paths with their suffix, relative to "
            f"{path.parent} or absolute"
        )
    there = [row for row in rows if row.name and row.name not in aside]
    again, contradictions = _one_file(there, files, sheet)
    classes = _classes(rows)
    found = [row for row in there if row.name not in again]
    notes = [*sheet.notes, *notes]
    images = [path.parent / row.name for row in found]
    return _table(path, found, images, classes, aside | again, len(aside), notes, problems + contradictions)


def _vector_table(path: Path, vectors: VectorSheet) -> Table:
    sheet, names = vectors.says, vectors.names
    labels, notes, problems = _clean_labels(sheet)
    groups = [text.strip() for text in sheet.columns["group"]]
    notes += _look_alike("groups", groups)
    roles, unknown = _roles(sheet)
    twice = [name for name, count in Counter(names).items() if count > 1]
    problems += unknown + [f"several rows are called {listed(twice)}; give each a name of its own"] * bool(twice)
    rows = [Row(*row) for row in zip(sheet.lines, names, labels, roles, groups, strict=True)]
    return _table(path, rows, vectors.rows, _classes(rows), {}, 0, [*sheet.notes, *notes], problems)


def _empty_paths(sheet: Sheet) -> list[str]:
    lines = [line for line, text in zip(sheet.lines, sheet.columns["path"], strict=True) if not text.strip()]
    return [f"no path in {sheet.where(lines)}; name a file, or remove the row"] if lines else []


# --- labels and splits ----------------------------------------------------------------------------------


def _clean_labels(sheet: Sheet) -> tuple[list[str], list[str], list[str]]:
    """Give the labels in one form, "" for unlabeled; notes; problems."""
    labels = [text.strip() for text in sheet.columns["label"]]
    lines: dict[str, list[int]] = {}
    for line, label in zip(sheet.lines, labels, strict=True):
        if label:
            lines.setdefault(label, []).append(line)
    numbers = {label: int(found[1]) for label in lines if (found := _WHOLE.fullmatch(label))}
    if not numbers:
        return labels, _look_alike("classes", lines) + _like_nothing(lines), []
    if len(numbers) < len(lines):
        return labels, [], [_mix(sheet, lines, numbers)]
    below = [label for label, number in numbers.items() if number < UNLABELED]
    problems = [
        f"label {label} ({sheet.where(lines[label])}); give whole numbers from 0, and -1 or nothing for unlabeled"
        for label in below
    ]
    clean = {label: str(number) if number != UNLABELED else "" for label, number in numbers.items()}
    return [clean.get(label, "") for label in labels], [], problems


def _mix(sheet: Sheet, lines: dict[str, list[int]], numbers: dict[str, int]) -> str:
    name = next(label for label in lines if label not in numbers)
    number = next(iter(numbers))
    mend = "leave the label empty for unlabeled" if set(numbers.values()) == {UNLABELED} else "use one of the two"
    return (
        f"labels are whole numbers and names: {number} in {sheet.where(lines[number])}, {name} in "
        f"{sheet.where(lines[name])}; {mend}"
    )


def _folded(word: str) -> str:
    return "".join(word.casefold().split())


def _look_alike(what: str, words: Iterable[str]) -> list[str]:
    """Note words that are perhaps one."""
    alike: dict[str, list[str]] = {}
    for word in sorted(set(words)):
        alike.setdefault(_folded(word), []).append(word)
    return [
        f"{what} that differ only by case or white space stay apart: {listed([repr(word) for word in same])}"
        for same in alike.values()
        if len(same) > 1
    ]


def _like_nothing(labels: Iterable[str]) -> list[str]:
    return [
        f"{label!r} is taken as the name of a class; leave labels empty for unlabeled"
        for label in sorted(labels)
        if _folded(label) in _NOTHING
    ]


def _roles(sheet: Sheet) -> tuple[list[Role], list[str]]:
    """Give the split of each row, and the words that mean none as problems."""
    roles: list[Role] = []
    unknown: dict[str, list[int]] = {}
    for line, word in zip(sheet.lines, sheet.columns["split"], strict=True):
        role = role_of(word) if word.strip() else "train"
        if role is None or role == "unlabeled":
            unknown.setdefault(word.strip(), []).append(line)
        roles.append(role or "train")
    return roles, [
        f"split {word!r} in {sheet.where(lines)}; give train, val or test (an unlabeled row is one with an empty label)"
        for word, lines in unknown.items()
    ]


def _contradictions(rows: Sequence[Row], sheet: Sheet, keys: Sequence[str]) -> list[str]:
    """Name the rows that mean one file, by their keys, and say two labels, splits or groups."""
    first: dict[str, Row] = {}
    problems: list[str] = []
    for row, key in zip(rows, keys, strict=True):
        before = first.setdefault(key, row)
        if before is row or not row.name:
            continue
        which = row.name if before.name == row.name else f"{row.name}, the same file as {before.name},"
        for what, a, b in (
            ("labels", before.label, row.label),
            ("splits", before.role, row.role),
            ("groups", before.group, row.group),
        ):
            if a != b:
                said = f"{a or 'none'} in {sheet.where([before.line])} and {b or 'none'} in {sheet.where([row.line])}"
                problems.append(f"{which} has two {what}, {said}; keep one")
    return problems


def _one_file(rows: Sequence[Row], files: Files, sheet: Sheet) -> tuple[dict[str, str], list[str]]:
    """Find other names of a file, as links give it; set these aside, or name what contradicts as problems."""
    single = list({row.name: row for row in rows}.values())
    real = [files.real(row.name) for row in single]
    first: dict[str, str] = {}
    for row, file in zip(single, real, strict=True):
        first.setdefault(file, row.name)
    again = {
        row.name: f"the same file as {first[file]}"
        for row, file in zip(single, real, strict=True)
        if first[file] != row.name
    }
    return again, _contradictions(single, sheet, real)


# --- as a table -----------------------------------------------------------------------------------------


def _classes(rows: Sequence[Row]) -> list[str]:
    """Give the classes of all rows, those set aside too: so a class that lost all its files is missed later."""
    labels = {row.label for row in rows} - {""}
    return sorted(labels, key=int) if all(_WHOLE.fullmatch(label) for label in labels) else sorted(labels)


def _table(
    path: Path,
    rows: Sequence[Row],
    images: Sequence[ImageLike],
    classes: Sequence[str],
    aside: dict[str, str],
    lost: int,
    notes: list[str],
    problems: list[str],
) -> Table:
    if problems:  # paths that come twice are among them already, with their lines
        rows = list({row.name: row for row in rows}.values())
    kept, test, settled = settle_validation([row.role for row in rows])
    if len(kept) < len(rows):
        rows, images = [rows[i] for i in kept], chosen(images, kept)
    place = {label: k for k, label in enumerate(classes)} | {"": UNLABELED}
    groups = [written(row.group) for row in rows]
    return make_table(
        written(path.stem),
        images,
        [written(row.name) for row in rows],
        np.array([place[row.label] for row in rows], np.int64),
        [written(name) for name in classes],
        test=test,
        groups=groups if any(groups) else (),
        notes=[*notes, *settled],
        quarantine={written(name): written(reason) for name, reason in aside.items()},
        problems=[written(problem) for problem in problems],
        lost=lost,
    )
