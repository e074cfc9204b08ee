"""Sheets (.csv, .tsv, .parquet) whose rows are vectors: a column a dimension, or one column of lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from fewlabels.data.image import SUFFIXES, reason_of
from fewlabels.data.sources.cells import MEANT, Sheet, TextCells, choose_columns, not_parquet, texts_of
from fewlabels.data.sources.walk import listed
from fewlabels.data.vectors import VectorRows, as_matrix
from fewlabels.errors import UserError

VECTOR = "vector"  # the column of lists
SAYING = ("label", "split", "group", "name")  # columns that are no dimensions
_NOTHING = ("", "nan", "none", "null", "n/a", "na")

Numbers = NDArray[np.float64]
_compute: Any = pyarrow.compute  # made at import, so that no type checker knows what it has


@dataclass(frozen=True)
class VectorSheet:
    """What a sheet of vectors holds.

    Attributes:
        rows: the vectors; not a number where a cell holds nothing.
        says: the columns of `SAYING`.
    """

    rows: VectorRows
    says: Sheet

    @property
    def names(self) -> list[str]:
        """Of the rows: what the column name says, or else their places in the file."""
        given = [text.strip() for text in self.says.columns["name"]]
        return [name or f"{self.says.unit} {line}" for name, line in zip(given, self.says.lines, strict=True)]


class _Cells(Protocol):
    """A sheet whose columns can be read one by one."""

    unit: str

    @property
    def header(self) -> Sequence[str]:
        """The names of the columns."""
        ...

    @property
    def lines(self) -> Sequence[int]:
        """Of the rows, in the file."""
        ...

    def texts(self, name: str, place: int) -> list[str]:
        """Give a column as text, "" where there is nothing."""
        ...

    def numbers(self, place: int) -> Numbers | None:
        """Give a column [n], not a number where there is nothing; None where it is not of numbers."""
        ...

    def lists(self, place: int) -> Numbers | None:
        """Give a column of lists of one length [n, D], likewise."""
        ...


def read_vector_sheet(path: Path, columns: Sequence[str] = (), needed: Sequence[str] = ()) -> VectorSheet | None:
    """Read a sheet of vectors; give None where it names images.

    Args:
        path: of the sheet.
        columns: that make the vectors; where none are given, the column `vector`, or else all of numbers.
        needed: of `SAYING`, what must be there.

    Raises:
        UserError: the file cannot be read as a sheet, or lacks a column; lists of different lengths.
    """
    try:
        cells = _Parquet(path) if path.suffix.lower() == ".parquet" else _Text(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    found = _vectors(path, cells, columns)
    if found is None:
        return None
    rows, read = found
    places = choose_columns(path, cells.header, needed, [name for name in SAYING if name not in needed])
    texts = {name: cells.texts(name, place) for name, place in places.items()}
    read = {*read, *places.values()}
    others = [name or "(no name)" for place, name in enumerate(cells.header) if place not in read]
    notes = [f"columns that are not read: {listed(others)}"] if others else []
    if rows.columns and not columns:
        notes.append(f"a vector is made of the columns of numbers, of which there are {len(rows.columns)}: "
                     f"{listed(rows.columns)}")  # fmt: skip
    blank = {name: [""] * len(rows) for name in SAYING}
    return VectorSheet(rows, Sheet(blank | texts, cells.lines, cells.unit, notes))


def _vectors(path: Path, cells: _Cells, columns: Sequence[str]) -> tuple[VectorRows, list[int]] | None:
    """Give the vectors, and the places of the columns that they are made of; None where there are none."""
    folded = [name.strip().casefold() for name in cells.header]
    if columns:
        return _of_columns(path, cells, columns)
    if ({"path", *MEANT["path"]} - {*SAYING}) & {*folded}:
        return None
    if VECTOR in folded:
        return _of_lists(path, cells, folded.index(VECTOR))
    numbers = {place: cells.numbers(place) for place, name in enumerate(folded) if name not in SAYING}
    chosen = {place: found for place, found in numbers.items() if found is not None}
    if not chosen or any(_names_images(cells, place) for place in numbers.keys() - chosen.keys()):
        return None
    names = [cells.header[place].strip() for place in chosen]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path} has several columns called {listed(twice)}; give each a name of its own")
    return _joined(names, [*chosen.values()]), [*chosen]


def _names_images(cells: _Cells, place: int) -> bool:
    """Tell a column of paths that is called otherwise, by its first cell."""
    texts: list[str] = []
    with suppress(UserError):  # neither text nor numbers
        texts = cells.texts("", place)
    first = next((text.strip() for text in texts if text.strip()), "")
    return Path(first).suffix.lower() in SUFFIXES


def _of_columns(path: Path, cells: _Cells, columns: Sequence[str]) -> tuple[VectorRows, list[int]]:
    header = [name.strip() for name in cells.header]
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path} has no column {listed(missing)}; give the {len(columns)} columns of the training")
    places = [header.index(name) for name in columns]
    numbers = [cells.numbers(place) for place in places]
    if wrong := [name for name, found in zip(columns, numbers, strict=True) if found is None]:
        raise UserError(f"{path}: {listed(wrong)} holds no numbers; in training it did")
    return _joined(columns, cast("list[Numbers]", numbers)), places


def _joined(names: Sequence[str], numbers: Sequence[Numbers]) -> VectorRows:
    return VectorRows(as_matrix(np.stack(numbers, axis=1)), tuple(names))


def _of_lists(path: Path, cells: _Cells, place: int) -> tuple[VectorRows, list[int]]:
    found = cells.lists(place)
    if found is None:
        raise UserError(
            f"{path}: the column {VECTOR} holds no lists of numbers; give such in a .parquet, or a column for each "
            "dimension"
        )
    return VectorRows(as_matrix(found, f"{path}: {VECTOR}")), [place]


class _Text(TextCells):
    """A .csv or .tsv."""

    unit = "line"

    def __init__(self, path: Path) -> None:
        super().__init__(path, [*SAYING, VECTOR, "path"], "path,label, or of vectors the dimensions and label")

    def texts(self, name: str, place: int) -> list[str]:
        del name
        return self.column(place).to_pylist()

    def numbers(self, place: int) -> Numbers | None:
        texts = _compute.utf8_trim_whitespace(self.column(place))
        blank = _compute.is_in(_compute.utf8_lower(texts), pa.array(_NOTHING))
        if _compute.all(blank).as_py():
            return None
        try:
            return _as_numbers(_compute.if_else(blank, None, texts))
        except pa.ArrowInvalid:
            return None

    def lists(self, place: int) -> Numbers | None:
        del place
        return None


class _Parquet:
    """A .parquet."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self._path = path
        with not_parquet(path), parquet.ParquetFile(path) as file:
            self.header: Sequence[str] = file.schema_arrow.names
            self.lines = range(1, file.metadata.num_rows + 1)

    @cached_property
    def _table(self) -> Any:
        with not_parquet(self._path), parquet.ParquetFile(self._path) as file:
            return file.read()

    def texts(self, name: str, place: int) -> list[str]:
        return texts_of(self._path, name, self._table.column(place))

    def numbers(self, place: int) -> Numbers | None:
        column = self._table.column(place)
        return _as_numbers(column) if _is_number(column.type) and column.null_count < len(column) else None

    def lists(self, place: int) -> Numbers | None:
        column = self._table.column(place)
        if not _is_list(column.type) or not _is_number(column.type.value_type) or column.null_count == len(column):
            return None
        rows = np.flatnonzero(column.is_valid())
        lengths: NDArray[np.int64] = np.asarray(_compute.list_value_length(column.drop_null()), np.int64)
        others = np.flatnonzero(lengths != lengths[0])
        if len(others):
            raise UserError(
                f"{self._path}: {VECTOR} has lists of different lengths, {lengths[0]} at first and "
                f"{lengths[others[0]]} in row {rows[others[0]] + 1}; give all the same"
            )
        out = np.full((len(column), lengths[0]), np.nan)
        out[rows] = _as_numbers(_compute.list_flatten(column.drop_null())).reshape(len(rows), -1)
        return out


def _is_list(kind: Any) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    types = pa.types
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind)


def _as_numbers(column: Any) -> Numbers:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64(), safe=False).to_numpy()
