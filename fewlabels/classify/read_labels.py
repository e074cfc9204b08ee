"""Labels that come later, from a sheet or from Label Studio."""

from __future__ import annotations

from pathlib import Path

from fewlabels.data.more_labels import NewLabels, with_new_labels
from fewlabels.data.sources.cells import read_sheet
from fewlabels.data.table import Table
from fewlabels.errors import UserError
from fewlabels.files import plain_cell


def read_labels(path: Path) -> NewLabels:
    """Read classes by names of rows: a sheet with the columns path and label (empty: none), or Label Studio's .json.

    Raises:
        UserError: the file cannot be read so, or gives one row two labels.
    """
    if path.suffix == ".json":
        from fewlabels.export.label_studio import read_annotations

        return read_annotations(path)
    sheet = read_sheet(path, needed=("path", "label"), optional=())
    found: dict[str, str] = {}
    for line, name, label in zip(sheet.lines, sheet.columns["path"], sheet.columns["label"], strict=True):
        name, label = plain_cell(name), plain_cell(label)
        if label.strip() and found.setdefault(name, label) != label:
            raise UserError(f"{path}: {name} has two labels, {found[name]} and {label} in line {line}; keep one")
    return NewLabels(found, {})


def with_more_labels(table: Table, path: Path) -> Table:
    """Give a table with the labels of a file added; errors as `read_labels` and `with_labels`."""
    return with_new_labels(table, read_labels(path), path.name)
