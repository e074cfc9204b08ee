"""What a run says of each image, as Parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
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

_WRITERS: dict[str, Any] = {".parquet": pyarrow.parquet.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
GROUP = 1 << 10  # rows that are written together; more, held longer, would cut the heap into pieces
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
    write_table(path, [columns | class_columns(table.classes, labels, probabilities)])


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


def write_table(path: Path, parts: Iterable[dict[str, Any]]) -> None:
    """Write columns as .parquet or .csv, part by part as they come, whole or not at all.

    Raises:
        UserError: another suffix, or a place that cannot be written.
    """
    check_suffix(path)
    try:
        replace_file(path, partial(_write_parts, (_safe(part) if path.suffix == ".csv" else part for part in parts)))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def _write_parts(parts: Iterable[dict[str, Any]], aside: Path) -> None:
    kind = _WRITERS[aside.with_suffix("").suffix]  # of NAME.csv.part
    with ExitStack() as held:
        writer: Any = None
        for table in _grouped(map(pa.table, parts)):
            writer = writer or held.enter_context(kind(aside, table.schema))
            writer.write_table(table)


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    """Put small tables together: a Parquet file of many small groups is large and slow."""
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(len(each) for each in held) >= GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _safe(columns: dict[str, Any]) -> dict[str, Any]:
    return {safe_cell(name): list(map(safe_cell, v)) if _are_texts(v) else v for name, v in columns.items()}


def _are_texts(values: Any) -> bool:
    return len(values) > 0 and isinstance(values[0], str)
