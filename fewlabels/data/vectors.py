"""Feature vectors - of text, of sound, of the rows of a sheet - as float32 [N, D]."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, TypeAlias, cast, overload

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.table import Labels, Takeable
from fewlabels.errors import UserError

Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class VectorForm:
    """What the vectors of a run are.

    Attributes:
        dimensions: D.
        columns: names of the dimensions, where they are columns of a sheet; else empty.
    """

    what: ClassVar[str] = "vectors"

    dimensions: int
    columns: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one vector."""
        return (self.dimensions,)

    @property
    def words(self) -> str:
        """What it says, for a message."""
        return f"vectors of {self.dimensions} numbers"


class VectorRows(Takeable):
    """The vectors of a table's rows, in memory.

    Args:
        matrix: float32 [N, D].
        columns: as in `VectorForm`.
    """

    def __init__(self, matrix: Matrix, columns: tuple[str, ...] = ()) -> None:
        self.matrix, self.columns = matrix, columns

    @property
    def dimensions(self) -> int:
        """D."""
        return self.matrix.shape[1]

    @property
    def form(self) -> VectorForm:
        """What a classifier that is trained on them expects."""
        return VectorForm(self.dimensions, self.columns)

    def __len__(self) -> int:
        return len(self.matrix)

    @overload
    def __getitem__(self, place: int) -> Matrix: ...
    @overload
    def __getitem__(self, place: slice) -> VectorRows: ...
    def __getitem__(self, place: int | slice) -> Matrix | VectorRows:
        return VectorRows(self.matrix[place], self.columns) if isinstance(place, slice) else self.matrix[place]

    def take(self, rows: Labels) -> VectorRows:
        """Return the vectors of these rows."""
        return VectorRows(self.matrix[rows], self.columns)


def are_vectors(x: Any) -> bool:
    """Tell vectors - an array [n, D], or a list of rows [D] - from images, by their shape."""
    if hasattr(x, "shape"):
        return len(x.shape) == 2
    if not isinstance(x, list | tuple) or not x:
        return False
    first: Any = cast("Sequence[Any]", x)[0]
    if isinstance(first, list | tuple):
        return len(cast("Sequence[Any]", first)) > 0 and isinstance(first[0], Real)
    return len(getattr(first, "shape", ())) == 1


def as_matrix(x: Any, what: str = "x") -> Matrix:
    """Give vectors, as `are_vectors` knows them, as float32 [n, D].

    Raises:
        UserError: vectors of different lengths or of none, or entries that are no numbers.
    """
    lengths = [] if hasattr(x, "shape") else sorted({len(row) for row in x})
    if len(lengths) > 1:
        short = next(i for i, row in enumerate(x) if len(row) != len(x[0]))
        raise UserError(
            f"{what} has vectors of different lengths, {len(x[0])} in the first and {len(x[short])} at {short}; give "
            "all the same"
        )
    try:
        rows = x if hasattr(x, "shape") else [_array(row) for row in x]
        array = _array(rows)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} has entries that are no numbers ({error}); give floats or whole numbers") from error
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not array.shape[1]:
        raise UserError(
            f"{what} has shape {list(array.shape)} and type {array.dtype}; vectors are [n, D], floats or whole numbers"
        )
    with np.errstate(over="ignore"):  # what is too large for float32 is set aside by name
        return np.ascontiguousarray(array, np.float32)


def _array(x: Any) -> NDArray[Any]:
    return x.detach().cpu().double().numpy() if isinstance(x, Tensor) else np.asarray(x)


def not_finite(rows: VectorRows) -> dict[int, str]:
    """Name the rows that hold something else than finite numbers, and where."""
    bad = ~np.isfinite(rows.matrix)
    reasons: dict[int, str] = {}
    for row in np.flatnonzero(bad.any(1)).tolist():
        places = np.flatnonzero(bad[row])
        first = f"in the column {rows.columns[places[0]]}" if rows.columns else f"at {places[0]}"
        value = rows.matrix[row, places[0]]
        said = "no number" if np.isnan(value) else "an infinite number"
        reasons[row] = said + f" {first}" + (f" and in {len(places) - 1} more" if len(places) > 1 else "")
    return reasons


def digests_of(rows: VectorRows) -> tuple[str, ...]:
    """Hash each vector."""
    return tuple(hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows.matrix)
