"""The cells of a sheet as text: .csv and .tsv of any usual separator, and .parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from fewlabels.data.image import reason_of
from fewlabels.data.sources.roles import nearest
from fewlabels.data.sources.walk import listed
from fewlabels.errors import UserError, all_of

# What people call these columns.
MEANT = {
    "path": ("filename", "file", "file_name", "filepath", "file_path", "image", "image_path", "img", "images", "name"),
    "label": ("class", "target", "category", "class_name", "label_name", "y", "annotation", "diagnosis"),
}


@dataclass(frozen=True)
class Sheet:
    """The columns of a sheet as text, "" where there is nothing.

    Attributes:
        columns: each by its name; one that is optional and not there is empty.
        lines: of the rows, in the file.
        unit: what these count, line or row.
        notes: what was not read, in words for the user.
    """

    columns: dict[str, list[str]]
    lines: Sequence[int]
    unit: str
    notes: list[str]

    def where(self, lines: Sequence[int], most: int = 3) -> str:
        """Name lines in a message."""
        return f"{self.unit}{'s' if len(lines) > 1 else ''} {listed([str(line) for line in lines], most)}"


def read_sheet(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Sheet:
    """Read the columns of these names, without regard to case.

    Raises:
        UserError: the file cannot be read, is not UTF-8, has rows of other lengths than its header, or lacks a column.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path, needed, optional)
        return _read_text(path, needed, optional)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error


def choose_columns(path: Path, header: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    """Find the place of each wanted column that is there.

    Raises:
        UserError: one that is needed is missing, or comes twice.
    """
    folded = [name.strip().casefold() for name in header]
    problems = [
        f"{folded.count(name)} columns are called {name}; keep one"
        for name in (*needed, *optional)
        if folded.count(name) > 1
    ]
    problems += [_missing(name, header) for name in needed if name not in folded]
    if problems:
        raise all_of(str(path), problems)
    return {name: folded.index(name) for name in (*needed, *optional) if name in folded}


def _missing(name: str, header: Sequence[str]) -> str:
    meant = next((column for column in header if column.strip().casefold() in MEANT[name]), nearest(name, header))
    hint = f" (rename {meant} to {name}?)" if meant else ""
    return f"there is no column {name}{hint}; found are {listed([column or '(no name)' for column in header])}"


def _not_read(header: Sequence[str], chosen: dict[str, int]) -> list[str]:
    others = [name or "(no name)" for i, name in enumerate(header) if i not in chosen.values()]
    return [f"columns that are not read: {listed(others)}"] if others else []


# --- text -----------------------------------------------------------------------------------------------


def _read_text(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Sheet:
    header, rows = records_of(path, [*needed, *optional], ",".join(needed))
    chosen = choose_columns(path, header, needed, optional)
    check_lengths(path, header, rows)
    columns = {name: [cells[place] for _, cells in rows] for name, place in chosen.items()}
    blank = {name: [""] * len(rows) for name in optional}
    return Sheet(blank | columns, [line for line, _ in rows], "line", _not_read(header, chosen))


def records_of(path: Path, known: Sequence[str], wanted: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the header of a text, and the cells of each row with its line.

    Args:
        path: of the text.
        known: columns that tell the separator.
        wanted: columns, in words for the user.

    Raises:
        UserError: it is empty or not UTF-8.
    """
    records = _records(path, _separated(_decoded(path), known))
    if not records:
        raise UserError(f"{path} is empty; its first line names the columns, {wanted}")
    (_, header), *rows = records
    return header, rows


def check_lengths(path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> None:
    """Check that all rows have as many cells as the header.

    Raises:
        UserError: some have not.
    """
    ragged = [(line, len(cells)) for line, cells in rows if len(cells) != len(header)]
    if ragged:
        problems = [
            f"line {line} has another number of fields, {count}, than the header, {len(header)}"
            for line, count in ragged
        ]
        raise all_of(str(path), problems, 'Put fields that hold the separator into "quotes", and keep empty fields.')


def _decoded(path: Path) -> str:
    encoded = path.read_bytes()
    try:
        return encoded.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = encoded[: error.start].count(b"\n") + 1
        raise UserError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error


def _separated(text: str, known: Sequence[str]) -> Callable[[], Any]:
    """Give a reader for the separator that makes most sense of the header."""

    def reader(separator: str) -> Any:
        lines = io.StringIO(text, newline="")
        return csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)

    def sense(separator: str) -> tuple[int, int]:
        try:
            header = next((cells for cells in reader(separator) if any(cells)), [])
        except csv.Error:
            return 0, 0
        return sum(name.strip().casefold() in known for name in header), len(header)

    best = max(",;\t", key=sense)
    return lambda: reader(best)


def _records(path: Path, separated: Callable[[], Any]) -> list[tuple[int, list[str]]]:
    """Read all rows that are not blank, with the line on which each begins: a quoted field can hold several."""
    records: list[tuple[int, list[str]]] = []
    reader, line = separated(), 1
    try:
        for cells in reader:
            if cells and cells != [""]:
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {line}: {error}; is there a quote that does not end?") from error
    return records


# --- Parquet --------------------------------------------------------------------------------------------


def _read_parquet(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Sheet:
    with not_parquet(path), parquet.ParquetFile(path) as file:
        header: list[str] = file.schema_arrow.names
        chosen = choose_columns(path, header, needed, optional)
        table = file.read(columns=[header[place] for place in chosen.values()])
        cells = {name: table.column(header[place]) for name, place in chosen.items()}
        columns = {name: texts_of(path, name, column) for name, column in cells.items()}
    blank = {name: [""] * table.num_rows for name in optional}
    return Sheet(blank | columns, range(1, table.num_rows + 1), "row", _not_read(header, chosen))


@contextmanager
def not_parquet(path: Path) -> Generator[None]:
    """Say in the words of a `UserError` that a file cannot be read as Parquet."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{path} is not a readable Parquet file: {reason_of(error)}") from error


def texts_of(path: Path, name: str, column: Any) -> list[str]:
    """Give the cells of a column of Parquet as text.

    Raises:
        UserError: it holds neither text nor, where that will do, numbers.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if not is_text and (name == "path" or not (is_number or pa.types.is_boolean(kind))):
        raise UserError(f"{path}: column {name} holds {kind}; give text" + (" or numbers" if name != "path" else ""))
    return [_text(value) for value in column.to_pylist()]


def _text(value: object) -> str:
    if value is None or value != value:  # not a number: pandas' gap
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
