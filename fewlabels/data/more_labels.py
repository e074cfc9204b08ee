"""Labels that are given later, to rows that had none."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import all_of

_MEND = "Mend these lines and try again; nothing was changed."
_NAMED = 3  # rows named in a problem


class NewLabels(NamedTuple):
    """Classes by names of rows; and rows that got several different ones, with these, which count for none."""

    agreed: dict[str, str]
    contested: dict[str, list[str]]


def with_new_labels(table: Table, new: NewLabels, source: str) -> Table:
    """Give a table with the labels that are agreed on, and a note of those that are not; errors as `with_labels`."""
    table = with_labels(table, new.agreed, source)
    if not new.contested:
        return table
    said = [f"{name} as {' and '.join(labels)}" for name, labels in new.contested.items()]
    more = f", and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return table.with_note(f"left out of {source}, labeled differently: {', '.join(said[:_NAMED])}{more}")


def with_labels(table: Table, given: Mapping[str, str], source: str) -> Table:
    """Give a table in which these rows of the training split have these labels; labels that there are never change.

    Args:
        table: of the rows.
        given: classes by names of rows.
        source: where they come from, for messages.

    Raises:
        UserError: rows that the table does not have or of its test split, classes it does not have, or another label
            than a row has; all at once.
    """
    row_of = {name: row for row, name in enumerate(table.names)}
    class_of = {name: k for k, name in enumerate(table.classes)}
    given = {_known(name, row_of): _known(label, class_of) for name, label in given.items()}
    strangers = [name for name in given if name not in row_of]
    unknown = sorted({label for label in given.values() if label not in class_of})
    there = {row_of[name]: class_of.get(label, UNLABELED) for name, label in given.items() if name in row_of}
    tested = [table.names[row] for row in there if table.test[row]]
    changed = [
        f"{table.names[row]} is {table.classes[table.labels[row]]} and would be {given[table.names[row]]}"
        for row, k in there.items()
        if table.labels[row] not in (UNLABELED, k) and not table.test[row]
    ]
    problems: list[str] = []
    if not given:
        problems.append("no row has a label; fill in the column label")
    if strangers:
        near = difflib.get_close_matches(strangers[0], table.names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else f"; its rows are named as {table.names[0]}"
        problems.append(f"{_counted(strangers)} of {table.name} that it does not have{hint}")
    if unknown:
        problems.append(
            f"no class is named {', '.join(unknown[:_NAMED])}; there are {', '.join(table.classes)}. For a new class "
            "put images of it into the data and train anew"
        )
    if tested:
        problems.append(f"{_counted(tested)} of the test split, which only reports")
    if changed:
        problems.append(f"labels that there are never change: {'; '.join(changed[:_NAMED])}")
    if problems:
        raise all_of(source, problems, _MEND)
    labels, truth = table.labels.copy(), table.truth.copy()
    rows = np.array([*there], np.int64)
    new = rows[labels[rows] == UNLABELED]
    labels[rows] = [*there.values()]
    truth[new] = UNLABELED
    return table.with_note(
        f"labels added from {source}: {len(new)}",
        labels=labels,
        truth=truth,
        added=table.added | {table.names[row] for row in new},
    )


def _known(word: str, known: Mapping[str, int]) -> str:
    """Give a name that is known as it stands, or else without the blanks around it: a sheet has more of these."""
    return word if word in known else word.strip()


def _counted(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
    return f"{len(names)} row{'s' if len(names) > 1 else ''} ({shown})"
