"""Which rows are labeled, unlabeled and test: drawn by a seed, written down, given back."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import StratifiedGroupKFold

from fewlabels.data.more_labels import with_labels
from fewlabels.data.table import UNLABELED, Labels, Table, split_groups
from fewlabels.errors import UserError, all_of
from fewlabels.files import csv_text, plain_cell
from fewlabels.keys import Key

TEST_SHARE = 5  # a fifth of each class
ADDED = "added"  # the column that tells labels that were given later, and its word


def draw_split(table: Table, labels_per_class: int | None, seed: int) -> Table:
    """Set a test split apart and hide labels where the user asked for it and the data can afford it.

    A fully labeled table without a test split has a fifth of each class set apart as one, and with
    `labels_per_class` all its other labels hidden. A table that is not fully labeled gives up none of its labels.

    Raises:
        UserError: labels are to be hidden and the table is not fully labeled, or a class has too few rows.
    """
    fully = len(table.unlabeled_rows) == 0
    if labels_per_class is not None and not fully:
        raise UserError(
            f"--labels-per-class hides labels of a fully labeled set; {table.name} has "
            f"{len(table.unlabeled_rows)} unlabeled rows already. Leave the option out."
        )
    if fully and not table.test.any():
        table = _set_test_apart(table, seed)
    return table if labels_per_class is None else _hide_labels(table, labels_per_class, seed)


def _shuffled(rows: Labels, key: Key) -> Labels:
    """Order rows at random by a key; a row's place depends on the key and the row alone."""
    return rows[torch.argsort(key.fold(torch.from_numpy(rows)).uniform(), stable=True).numpy()]


def _of_class(table: Table, rows: Labels, seed: int, stream: str) -> list[Labels]:
    key = Key(seed).fold("split", stream)
    return [_shuffled(rows[table.labels[rows] == k], key) for k in range(len(table.classes))]


def _set_test_apart(table: Table, seed: int) -> Table:
    of_class = _of_class(table, table.labeled_rows, seed, "test")
    fifths = [rows[: len(rows) // TEST_SHARE] for rows in of_class]
    parts = _whole_groups(table, of_class) if table.groups else fifths
    chosen = np.concatenate(parts)
    if not len(chosen):
        return table
    test = table.test.copy()
    test[chosen] = True
    note = f"a fifth of each class ({len(chosen)} rows) is set apart as the test split"
    note += ", of whole groups" if table.groups else ""
    few = [name for name, part in zip(table.classes, parts, strict=True) if not len(part)]
    note += f"; too few images to spare one: {', '.join(few)}" if few else ""
    return table.with_note(note, test=test)


def hold_out(table: Table, seed: int) -> Labels:
    """Choose a fifth of each class's labeled training rows, of whole groups where there are such, to train without."""
    of_class = _of_class(table, table.labeled_rows, seed, "held out")
    parts = _whole_groups(table, of_class) if table.groups else [rows[: len(rows) // TEST_SHARE] for rows in of_class]
    return np.sort(np.concatenate(parts))


def fewest_apart(table: Table, rows: Labels) -> int:
    """Count how many parts labeled rows can be put into with each class in every part.

    These are the rows of the smallest class; where there are groups, which stay whole, its groups.
    """
    apart = {(int(table.labels[row]), (table.groups and table.groups[row]) or row) for row in rows.tolist()}
    found = Counter(k for k, _ in apart)
    return min(found[k] for k in range(len(table.classes)))


def parted(table: Table, rows: Labels, count: int, seed: int) -> list[Labels]:
    """Part labeled rows, each part with about as many rows of every class, and groups whole.

    None are given where a part would hold a class whole: what is trained without it could not judge it.
    """
    if count < 2:
        return []
    if table.groups:
        groups = [table.groups[row] or f"row {row}" for row in rows.tolist()]
        folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(rows, table.labels[rows], groups)
        parts = [np.sort(rows[part]) for _, part in folds]
    else:
        of_class = _of_class(table, rows, seed, "parts")
        parts = [np.sort(np.concatenate([part[place::count] for part in of_class])) for place in range(count)]
    classes = np.unique(table.labels[rows])
    whole = any(len(np.unique(table.labels[np.setdiff1d(rows, part)])) < len(classes) for part in parts)
    return [] if whole else parts


def _whole_groups(table: Table, of_class: list[Labels]) -> list[Labels]:
    """Choose whole groups as test rows, so that no class gives more than a fifth of its rows; one list a class.

    A row without a group is a group of its own. Groups come in the random order of their first rows.
    """
    members: dict[object, list[int]] = {}
    for row in np.concatenate(of_class).tolist():
        members.setdefault(table.groups[row] or row, []).append(row)
    left = np.array([len(rows) // TEST_SHARE for rows in of_class])
    chosen: list[int] = []
    for rows in members.values():
        taken = np.bincount(table.labels[rows], minlength=len(left))
        if (taken <= left).all():
            left -= taken
            chosen += rows
    labels = table.labels[chosen]
    return [np.array(chosen, np.int64)[labels == k] for k in range(len(of_class))]


def _hide_labels(table: Table, count: int, seed: int) -> Table:
    parts = _of_class(table, table.labeled_rows, seed, "labeled")
    short = [f"{name} has {len(rows)}" for name, rows in zip(table.classes, parts, strict=True) if len(rows) < count]
    if count < 1 or short:
        raise UserError(
            f"--labels-per-class {count}: give a whole number from 1 to {min(map(len, parts))}"
            + (f", since of its training rows {', '.join(short)}" if short else "")
        )
    return hide_all_but(table, np.concatenate([rows[:count] for rows in parts]))


def hide_all_but(table: Table, keep: Labels) -> Table:
    """Hide the labels of all training rows but `keep`; they stay known as `truth`, to report on."""
    hidden = np.setdiff1d(table.labeled_rows, keep)
    labels, truth = table.labels.copy(), table.truth.copy()
    truth[hidden] = labels[hidden]
    labels[hidden] = UNLABELED
    note = f"{len(hidden)} labels are hidden, {len(keep)} are kept; the hidden ones only report"
    return table.with_note(note, labels=labels, truth=truth)


def split_text(table: Table, digests: Sequence[str] = ()) -> str:
    """Write a split as CSV: name, label (empty: unlabeled or hidden), split, and whether the label was added later.

    Args:
        table: with its split.
        digests: of what the rows hold, for a column `content`; none for a split without it.
    """
    columns = {
        "name": table.names,
        "label": [table.classes[k] if k != UNLABELED else "" for k in table.labels],
        "split": ["test" if test else "train" for test in table.test],
        ADDED: [ADDED if name in table.added else "" for name in table.names],
    } | ({"content": digests} if digests else {})
    return csv_text(tuple(columns), zip(*columns.values(), strict=True))


def apply_split(table: Table, path: Path) -> Table:
    """Give back a split that `split_text` wrote: the same test rows, and only the labels it shows, also added ones.

    Raises:
        UserError: the file is missing or is no split, names other rows than the table has, or shows a label that
            the data contradicts.
    """
    shown = _read_split(path)
    _check_names(table, shown, path)
    test = np.array([shown[name].test for name in table.names])
    later = {name: each.label for name, each in shown.items() if each.added}
    given = ["" if name in later else shown[name].label for name in table.names]
    wrong = [
        f"{name} is {label} there and {table.classes[k] if k != UNLABELED else 'unlabeled'} in the data"
        for name, label, k in zip(table.names, given, table.labels, strict=True)
        if label and (k == UNLABELED or table.classes[k] != label)
    ]
    wrong += [
        f"{name} is a test row without a label"
        for name, y, k in zip(table.names, test, table.labels, strict=True)
        if y and k == UNLABELED
    ]
    wrong += split_groups(table.groups, test)
    if wrong:
        raise UserError(
            f"{path} contradicts the data in {len(wrong)} rows: {'; '.join(wrong[:3])}. Mend one of the two."
        )
    table = replace(table, test=test)
    keep = np.flatnonzero([bool(label) for label in given] & ~test)
    table = table if len(keep) == len(table.labeled_rows) else hide_all_but(table, keep)
    table = with_labels(table, later, path.name) if later else table
    return table.with_note(f"the split was read from {path.name}")


class _Shown(NamedTuple):
    """What a split says of a row."""

    label: str
    test: bool
    added: bool


def _read_split(path: Path) -> dict[str, _Shown]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise UserError(f"no split at {path}; give the split.csv of a run") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the split {path} cannot be read: {error}") from error
    rows = [{key: plain_cell(value or "") for key, value in row.items() if key is not None} for row in rows]  # pyright: ignore[reportUnnecessaryComparison]
    if not rows or not {"name", "label", "split"} <= set(rows[0]):
        raise UserError(f"{path} is no split: it needs the columns name, label and split, as split.csv of a run has")
    odd = sorted({row["split"] or "nothing" for row in rows} - {"train", "test"})
    if odd:
        raise UserError(f"{path}: a split is train or test, not {', '.join(odd)}")
    names = Counter(row["name"] for row in rows)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise UserError(f"{path} names {len(twice)} rows more than once, such as {twice[0]}; leave one line of each")
    return {row["name"]: _Shown(row["label"], row["split"] == "test", row.get(ADDED) == ADDED) for row in rows}


def _check_names(table: Table, shown: dict[str, _Shown], path: Path) -> None:
    missing = sorted(set(table.names) - set(shown))
    extra = sorted(set(shown) - set(table.names))
    problems = [f"it lacks {len(missing)} rows of the data, such as {missing[0]}"] if missing else []
    problems += [f"it names {len(extra)} rows that the data has not, such as {extra[0]}"] if extra else []
    if problems:
        raise all_of(
            f"{path} is a split of other rows",
            problems,
            "Give the data that it was made with, or train anew without it; --labels FILE adds labels that came later.",
        )
