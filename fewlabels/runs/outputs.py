"""What a run says of each image, as Parquet or CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from fewlabels.data.table import UNLABELED, Table
from fewlabels.errors import UserError
from fewlabels.files import replace_file, safe_cell

_WRITERS: dict[str, Callable[..., Any]] = {".parquet": pyarrow.parquet.write_table, ".csv": pyarrow.csv.write_csv}
PREFIX = "p_"  # of the columns with a class's probability


def write_predictions(path: Path, table: Table, probabilities: NDArray[np.float32]) -> None:
    """Write one line a row: path, split, source (given or predicted), label, probability, and one of each class.

    A given label stays as it was given; its probabilities are the network's.
    """
    given = (table.labels != UNLABELED) & ~table.test
    labels = np.where(given, table.labels, probabilities.argmax(1))
    columns: dict[str, Any] = {
        "path": list(table.names),
        "split": np.where(table.test, "test", "train"),
        "source": np.where(given, "given", "predicted"),
    }
    write_table(path, columns | class_columns(table.classes, labels, probabilities))


def class_columns(
    classes: Sequence[str], labels: NDArray[np.int64], probabilities: NDArray[np.float32]
) -> dict[str, Any]:
    """Make the columns label, probability (of that label) and one of each class."""
    names = np.asarray(classes)
    of_class = {f"{PREFIX}{name}": probabilities[:, k] for k, name in enumerate(classes)}
    return {"label": names[labels], "probability": probabilities[np.arange(len(labels)), labels], **of_class}


def check_suffix(path: Path) -> None:
    """Refuse a file that is neither .parquet nor .csv."""
    if path.suffix not in _WRITERS:
        raise UserError(f"{path} ends in {path.suffix or 'nothing'}; give a name that ends in .parquet or .csv")


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Write columns as .parquet or .csv, whole or not at all.

    Raises:
        UserError: another suffix, or a place that cannot be written.
    """
    check_suffix(path)
    if path.suffix == ".csv":
        columns = {safe_cell(name): _safe(values) for name, values in columns.items()}
    try:
        replace_file(path, partial(_WRITERS[path.suffix], pa.table(columns)))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def _safe(values: Any) -> Any:
    texts = len(values) and isinstance(values[0], str)
    return list(map(safe_cell, values)) if texts else values
