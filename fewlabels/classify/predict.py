"""Predictions of a run for new images."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fewlabels.classify.outputs import abstentions, check_out, said_columns, say, write_table
from fewlabels.classify.reference import NAME, Reference
from fewlabels.classify.run import load
from fewlabels.classify.sort import Sorter
from fewlabels.data.sources.folders import images_in
from fewlabels.data.sources.vector_files import read_vectors
from fewlabels.data.sources.walk import is_within, written
from fewlabels.data.vectors import VectorRows
from fewlabels.errors import UserError
from fewlabels.inputs.kinds import VECTORS, inputs_for
from fewlabels.models.classifier import EVALUATED, Classifier


class _Given(NamedTuple):
    """What is meant.

    Attributes:
        rows: image files, or vectors.
        names: of the rows.
        under: what to call each file under a folder that they are sorted into; vectors have none.
        aside: other files, and why they are none.
    """

    rows: Sequence[Any]
    names: list[str]
    under: list[Path]
    aside: dict[str, str]


def predict(
    run: Path,
    images: Sequence[Path],
    out: Path | None,
    device: str = "cpu",
    batch: int = EVALUATED,
    into: Path | None = None,
    min_confidence: float = 0.0,
) -> None:
    """Classify image files, or all in folders: print a line each, write them to a file, or sort copies of them.

    Images that cannot be read are named at the end; the others are classified all the same.

    Args:
        run: folder of a trained run.
        images: files and folders; of a run on vectors, files of these (.npz, .csv, .tsv, .parquet).
        out: the .parquet or .csv file to write, with the columns of `said_columns`.
        device: where the network works.
        batch: images through the network at a time; as in `Classifier.classified`.
        into: a folder that gets a copy of each image, in a folder named by its decision.
        min_confidence: probability below which the decision is `unsure`.

    Raises:
        UserError: no trained run, no images, or none that can be read; a batch below 1; a confidence that is no
            probability; a folder to sort into that lies within one to read, or was sorted otherwise.
        OSError: a file cannot be copied.
    """
    if not 0 <= min_confidence <= 1:
        raise UserError(f"--min-confidence is {min_confidence:g}; give a probability, 0 to 1")
    if out is not None:
        check_out(out)
    if into is not None:
        _check_apart(into, images)
    classifier = load(run, device=device)
    reference = Reference.load(run / NAME) if (run / NAME).is_file() else None
    form = classifier.card.form
    found = _find(images) if inputs_for(form).are_pictures else _vectors(images, form)
    if into is not None and not found.under:
        raise UserError("--into sorts image files, and this run takes vectors; give --out FILE")
    decisions = (*abstentions(classifier.card.classes), *classifier.card.classes)
    sorter = None if into is None else Sorter(into, decisions, run, min_confidence)
    counts: Counter[str] = Counter()
    parts = _columns(classifier, reference, found, batch, min_confidence, sorter, counts)
    if out is not None:
        write_table(out, parts)
    else:
        for part in parts:
            if sorter is None:
                _print(part)
    _summarize(out, sorter, counts, form.what, len(found.aside))
    if min_confidence and not classifier.card.scale:
        print(
            f"this run's probabilities are not calibrated: of images with {min_confidence:g} fewer may be right",
            file=sys.stderr,
        )
    for name, reason in found.aside.items():
        print(f"set aside: {written(name)}: {reason}", file=sys.stderr)


def _print(part: dict[str, Any]) -> None:
    for name, decision, probability in zip(part["path"], part["decision"], part["probability"], strict=True):
        print(f"{name}\t{decision}\t{probability:.3f}")


def _summarize(out: Path | None, sorter: Sorter | None, counts: Counter[str], what: str, aside: int) -> None:
    """Say how many rows there were of each decision, where not every one of them was printed."""
    said = f"{counts.total()} {what}" + (f", {aside} set aside" if aside else "")
    said += "; " + ", ".join(f"{number} {decision}" for decision, number in sorted(counts.items()))
    if sorter is not None:
        there = f", {sorter.there} were there" if sorter.there else ""
        print(f"{sorter.folder}: {said} ({sorter.copied} copied{there})")
    if out is not None:
        print(f"{out}: {said}")


def _columns(
    classifier: Classifier,
    reference: Reference | None,
    given: _Given,
    batch: int,
    least: float,
    sorter: Sorter | None,
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """Give the columns of one part after the other and sort its images; add to `aside` what cannot be read."""
    first_broken = ""
    for first, outputs, broken in classifier.classified(given.rows, batch):
        for place, reason in broken.items():
            first_broken = first_broken or f"{given.names[first + place]}: {reason}"
            given.aside[given.names[first + place]] = reason
        count = len(outputs.logits) + len(broken)
        here = [first + place for place in range(count) if place not in broken]
        if here:
            columns = said_columns(classifier.card.classes, say(classifier, outputs), reference, least)
            counts.update(columns["decision"])
            if sorter is not None:
                for place, decision in zip(here, columns["decision"], strict=True):
                    sorter.copy(Path(given.names[place]), given.under[place], decision)
            yield {"path": [written(given.names[place]) for place in here]} | columns
    if not counts:
        said = "files can be read as an image" if given.under else "vectors can be read"
        raise UserError(f"none of the {len(given.names)} {said}; the first, {first_broken}")


def _check_apart(into: Path, images: Sequence[Path]) -> None:
    """Refuse to sort into a folder whose images would be read the next time."""
    inside = [path for path in images if path.is_dir() and is_within(os.path.realpath(into), os.path.realpath(path))]
    if inside:
        raise UserError(f"--into {into} lies within {inside[0]}: its copies would be images too; give another folder")


def _vectors(files: Sequence[Path], form: Any) -> _Given:
    """Read the vectors of files; nothing is set aside yet."""
    if not files:
        raise UserError("no vectors are given; give files of them (.npz, .csv, .tsv, .parquet)")
    read = [read_vectors(path, form.columns) for path in files]
    several = len(files) > 1
    names = [
        f"{path}: {name}" if several else name for path, (_, found) in zip(files, read, strict=True) for name in found
    ]
    parts = [VECTORS.listed(rows, form).matrix for rows, _ in read]
    return _Given(VectorRows(np.concatenate(parts), form.columns), names, [], {})


def _find(images: Sequence[Path]) -> _Given:
    missing = [str(path) for path in images if not path.exists()]
    if missing:
        raise UserError(f"no such file or folder: {', '.join(missing[:5])}")
    paths: list[Path] = []
    under: list[Path] = []
    aside: dict[str, str] = {}
    for path in images:
        found, others = images_in(path) if path.is_dir() else ([path], {})
        paths += found
        under += [each.relative_to(path) if path.is_dir() else Path(each.name) for each in found]
        aside |= others
    if not paths:
        where = f"no images in {', '.join(map(str, images))}" if images else "no images are given"
        raise UserError(f"{where}; give image files or folders of them")
    return _Given(paths, [str(path) for path in paths], under, aside)
