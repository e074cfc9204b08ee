"""The cells of a sheet as text: .csv and .tsv of any usual separator, and .parquet."""

from __future__ import annotations

import codecs
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from fewlabels.data.image import reason_of
from fewlabels.data.sources.roles import nearest
from fewlabels.data.sources.walk import listed
from fewlabels.errors import UserError, all_of

_csv: Any = pyarrow.csv  # made at import, so that no type checker knows what it has

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
    cells = TextCells(path, [*needed, *optional], ",".join(needed))
    chosen = choose_columns(path, cells.header, needed, optional)
    columns = {name: cells.column(place).to_pylist() for name, place in chosen.items()}
    blank = {name: [""] * len(cells.lines) for name in optional}
    return Sheet(blank | columns, cells.lines, "line", _not_read(cells.header, chosen))


class TextCells:
    """The cells of a .csv or .tsv, all as text; lines without any are no rows.

    Attributes:
        header: the names of the columns.
        lines: where rows begin, from 1: a quoted cell can hold several.

    Args:
        path: of the text.
        known: columns that tell the separator.
        wanted: columns, in words for the user.

    Raises:
        UserError: it is empty or not UTF-8, or a quote does not end.
    """

    def __init__(self, path: Path, known: Sequence[str], wanted: str) -> None:
        encoded = _utf8(path)
        texts = {separator: _without_first_spaces(encoded, separator) for separator in (b",", b";", b"\t")}
        headers = {separator: _header(text, separator) for separator, text in texts.items()}
        known_in = {by: sum(name.strip().casefold() in known for name in names) for by, names in headers.items()}
        separator = max(headers, key=lambda by: (known_in[by], len(headers[by])))
        data, self.header = texts[separator], headers[separator]
        lines = _lines(path, data, separator)
        if not len(lines):
            raise UserError(f"{path} is empty; its first line names the columns, {wanted}")
        table, odd = _parsed(data, separator, len(self.header))
        places = [row.number - 1 for row in odd]
        self._path = path
        self._table = table.slice(1)
        self._ragged = [(lines[place], row.actual_columns) for place, row in zip(places, odd, strict=True)]
        self.lines: list[int] = np.delete(lines, places)[1:].tolist()

    def column(self, place: int) -> Any:
        """Give a column of all rows.

        Raises:
            UserError: some rows have not as many cells as the header.
        """
        if self._ragged:
            problems = [
                f"line {line} has another number of fields, {count}, than the header, {len(self.header)}"
                for line, count in self._ragged
            ]
            raise all_of(
                str(self._path), problems, 'Put fields that hold the separator into "quotes", and keep empty fields.'
            )
        return self._table.column(place)


def _utf8(path: Path) -> bytes:
    encoded = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        encoded.decode()
    except UnicodeDecodeError as error:
        line = encoded[: error.start].count(b"\n") + 1
        raise UserError(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error
    return encoded


# A cell in quotes, and where it begins; the group is there where it does not end, or goes on behind its end.
_BEGIN, _QUOTED = rb"(?<![^%b\r\n])", rb'"[^"]*+(?:""[^"]*+)*+(?:"(?![^%b\r\n])|("?))'
_ROW = rb"(?:" + _BEGIN + _QUOTED + rb'|[^"\r\n]++|")++'


def _header(data: bytes, separator: bytes) -> list[str]:
    """Give the cells of the first row that is not blank; none where a quote does not end."""
    row = re.search(_ROW % (separator, separator), data)
    if row is None or row[1] is not None:
        return []
    options = _csv.ParseOptions(delimiter=separator.decode(), newlines_in_values=True)
    cells = row[0] + b"\n"
    return _csv.read_csv(pa.BufferReader(cells), _csv.ReadOptions(block_size=len(cells)), options).column_names


def _without_first_spaces(data: bytes, separator: bytes) -> bytes:
    """Take away the spaces before cells, behind which pyarrow would see no quote, and in a blank line a cell."""
    if b" " not in data or not any(mark + b" " in b"\n" + data for mark in (separator, b"\n", b"\r")):
        return data  # the usual, and quickly
    return re.sub((_BEGIN + rb'(?=[ "]) *+(' + _QUOTED + rb")?") % (separator, separator), rb"\1", data)


def _lines(path: Path, data: bytes, separator: bytes) -> NDArray[np.int64]:
    """Give the lines, from 1, where rows begin that are not blank."""
    if b'"' not in data:
        return np.flatnonzero([*map(bool, data.splitlines())]) + 1
    rows = [*re.finditer(_ROW % (separator, separator), data)]
    ends = np.cumsum([len(line) for line in data.splitlines(keepends=True)])
    lines = np.searchsorted(ends, [row.start() for row in rows], side="right") + 1
    if wrong := [line for line, row in zip(lines, rows, strict=True) if row[1] is not None]:
        raise UserError(
            f"{path}, line {wrong[0]}: is there a quote that does not end, or one within quotes that is not doubled?"
        )
    return lines


def _parsed(data: bytes, separator: bytes, columns: int) -> tuple[Any, list[Any]]:
    """Give a table of the rows of so many columns, and the others, which know their numbers among all."""
    odd: list[Any] = []

    def skip(row: Any) -> str:
        odd.append(row)
        return "skip"

    names = [str(place) for place in range(columns)]
    table = _csv.read_csv(
        pa.BufferReader(data),
        # In one block, up to what pyarrow can hold: a row lies in two blocks at most.
        _csv.ReadOptions(use_threads=False, column_names=names, block_size=min(len(data) + 1, 2**31 - 1)),
        _csv.ParseOptions(delimiter=separator.decode(), newlines_in_values=True, invalid_row_handler=skip),
        _csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
    )
    return table, odd


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
