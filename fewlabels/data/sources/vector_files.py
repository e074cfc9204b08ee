"""Vectors without labels, of a file: what is to be classified, or more unlabeled rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fewlabels.data.sources.arrays import array_names, read_npz
from fewlabels.data.sources.vector_sheets import read_vector_sheet
from fewlabels.data.vectors import VectorRows, are_vectors, as_matrix
from fewlabels.errors import UserError

SUFFIXES = (".npz", ".csv", ".tsv", ".parquet")


def read_vectors(path: Path, columns: Sequence[str] = ()) -> tuple[VectorRows, list[str]]:
    """Read the vectors of an .npz (its x) or of a sheet, and the names of their rows; labels are not needed.

    Args:
        path: of the file.
        columns: of a sheet, that make the vectors.

    Raises:
        UserError: there are no vectors in it, or no such columns.
    """
    if not path.exists():
        raise UserError(f"no such file: {path}")
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path} is no file of vectors; give one that ends in {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".npz":
        arrays = read_npz(path)
        if "x" not in arrays or not are_vectors(arrays["x"]):
            found = f"x of shape {list(arrays['x'].shape)}" if "x" in arrays else f"{', '.join(arrays) or 'nothing'}"
            raise UserError(f"{path} holds {found} where vectors are wanted; give x [n, D]")
        rows = VectorRows(as_matrix(arrays["x"], f"{path}: x"))
        return rows, array_names("x", len(rows))
    sheet = read_vector_sheet(path, columns)
    if sheet is None:
        raise UserError(f"{path} names images where vectors are wanted; give a column vector, or columns of numbers")
    return sheet.rows, sheet.names
