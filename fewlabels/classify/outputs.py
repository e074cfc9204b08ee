"""What a run says of each image, as Parquet or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray
from scipy.special import entr, softmax

from fewlabels.classify.reference import Neighbors, Reference
from fewlabels.data.table import UNLABELED, Labels, Table
from fewlabels.errors import UserError
from fewlabels.files import check_place, replace_file, safe_cell
from fewlabels.models.classifier import Classifier, Outputs

_WRITERS: dict[str, Any] = {".parquet": pyarrow.parquet.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
GROUP = 1 << 10  # rows that are written together; more, held longer, would cut the heap into pieces
PREFIX = "p_"  # of the columns with a class's probability
RAW = "raw_"  # of those with what the network gave it, before calibration
UNSURE, UNKNOWN = "unsure", "unknown"


class Judgment(NamedTuple):
    """What a classifier says of rows: features [n, D], logits [n, K] and calibrated probabilities [n, K]."""

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


def say(classifier: Classifier, outputs: Outputs) -> Judgment:
    """Give what a classifier says, calibrated."""
    return Judgment(outputs.features.numpy(), outputs.logits.numpy(), classifier.calibrated(outputs.logits).numpy())


def write_predictions(path: Path, table: Table, said: Judgment, reference: Reference) -> NDArray[np.bool_]:
    """Write one line a row: path, split, source (given or predicted), and the columns of `said_columns`.

    A given label stays as it was given, and is never unknown; its probabilities are the network's.

    Returns:
        Which rows are unlike every class [N].
    """
    given = np.where(table.test, UNLABELED, table.labels)
    columns: dict[str, Any] = {
        "path": list(table.names),
        "split": np.where(table.test, "test", "train"),
        "source": np.where(given != UNLABELED, "given", "predicted"),
    }
    own = reference.places_of(table.names)
    columns |= said_columns(table.classes, said, reference, given=given, own=own)
    write_table(path, [columns])
    return columns["unknown"]


def said_columns(
    classes: Sequence[str],
    said: Judgment,
    reference: Reference | None,
    least: float = 0.0,
    given: Labels | None = None,
    own: Labels | None = None,
) -> dict[str, Any]:
    """Make the columns that say what rows are.

    ::

        label            the class
        decision         the same, or `unknown` where the row is unlike every class, or `unsure`
        probability      of the label, calibrated
        entropy          of the probabilities, in nats: from 0 to the logarithm of K
        unknown          whether it is unlike every class; a hint, see `Reference`
        neighbors        names of the labeled rows most alike, the most alike first
        speak_for_it     how many of these have the class of `label`
        p_CLASS          probability of each class, calibrated
        raw_CLASS        the same as the network gives it

    Without a reference there are no `unknown`, `neighbors` and `speak_for_it`. A class that is named unsure or
    unknown keeps its name; see `abstentions`.

    Args:
        classes: names.
        said: of n rows.
        reference: of the run.
        least: probability below which a row is unsure.
        given: int64 [n], labels that were given, else -1; such rows are what they were said to be.
        own: int64 [n], as in `Reference.neighbors`.
    """
    rows = np.arange(len(said.logits))
    given = np.full(len(rows), UNLABELED) if given is None else given
    unlabeled = given == UNLABELED
    labels = np.where(unlabeled, said.probabilities.argmax(1), given)
    probability = said.probabilities[rows, labels]
    unsure, unknown = abstentions(classes)
    names = np.asarray(classes, object)
    decision = np.where(unlabeled & (probability < least), unsure, names[labels])
    alike: dict[str, Any] = {}
    if reference is not None:
        found = reference.neighbors(said.features, own=own)
        strange = unlabeled & (found.strangeness > reference.cutoff)
        decision = np.where(strange, unknown, decision)
        agree = (reference.labels[found.places] == labels[:, None]) & np.isfinite(found.similarity)
        alike = {"unknown": strange, "neighbors": _named(found, reference.names), "speak_for_it": agree.sum(1)}
    raw = softmax(said.logits, axis=1)
    return {
        "label": names[labels].tolist(),
        "decision": decision.tolist(),
        "probability": probability,
        "entropy": entr(said.probabilities).sum(1),
        **alike,
        **{f"{PREFIX}{name}": said.probabilities[:, k] for k, name in enumerate(classes)},
        **{f"{RAW}{name}": raw[:, k] for k, name in enumerate(classes)},
    }


def abstentions(classes: Sequence[str]) -> tuple[str, str]:
    """Give the words for what is unsure and what is unknown: with underscores where a class has such a name."""
    taken = {name.casefold() for name in classes}
    words = (next(w for w in (word + "_" * n for n in count()) if w not in taken) for word in (UNSURE, UNKNOWN))
    return next(words), next(words)


def _named(found: Neighbors, names: Sequence[str]) -> list[list[str]]:
    there = np.isfinite(found.similarity)
    each = zip(found.places, there, strict=True)
    return [[names[place] for place in cast(list[int], places[kept].tolist())] for places, kept in each]


def check_out(path: Path) -> None:
    """Check that a table can be written there.

    Raises:
        UserError: the name ends neither in .parquet nor in .csv, or there is a file that is no such table.
    """
    if path.suffix not in _WRITERS:
        raise UserError(f"{path} ends in {path.suffix or 'nothing'}; give a name that ends in .parquet or .csv")
    check_place(path, _is_ours)


def write_table(path: Path, parts: Iterable[dict[str, Any]]) -> None:
    """Write columns as .parquet or .csv, part by part as they come, whole or not at all.

    Raises:
        UserError: another suffix, a place that cannot be written, or a file there that is no such table.
    """
    check_out(path)
    try:
        replace_file(path, partial(_write_parts, (_safe(part) if path.suffix == ".csv" else part for part in parts)))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def _is_ours(path: Path) -> bool:
    """Tell whether a file has our columns, so that nothing is lost with it: labels that were filled in, say."""
    try:
        if path.suffix == ".csv":
            with open(path, encoding="utf-8-sig") as file:
                names = next(csv.reader(file), [])
        else:
            names = pyarrow.parquet.read_schema(path).names
    except (OSError, ValueError, csv.Error):
        return False
    return {"path", "decision", "probability"} <= {*names}


def _write_parts(parts: Iterable[dict[str, Any]], aside: Path) -> None:
    kind = _WRITERS[aside.suffix]
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
    """Make columns that CSV can hold, and no spreadsheet runs: several texts in a cell are parted by `; `."""
    out: dict[str, Any] = {}
    for name, values in columns.items():
        if len(values) and isinstance(values[0], list):
            values = list(map("; ".join, values))
        is_text = len(values) > 0 and isinstance(values[0], str)
        out[safe_cell(name)] = list(map(safe_cell, values)) if is_text else values
    return out
