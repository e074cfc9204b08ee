"""Predictions of a run for new images."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from fewlabels.data.decode import Form
from fewlabels.data.sources.folders import images_in
from fewlabels.data.sources.vector_files import read_vectors
from fewlabels.data.sources.walk import written
from fewlabels.data.vectors import VectorForm, VectorRows
from fewlabels.errors import UserError
from fewlabels.models.classifier import EVALUATED, Classifier, Outputs
from fewlabels.models.inputs import listed_rows
from fewlabels.runs.outputs import check_suffix, class_columns, write_table
from fewlabels.runs.run import load


def predict(
    run: Path, images: Sequence[Path], out: Path | None, device: str = "cpu", batch: int | Literal["auto"] = EVALUATED
) -> None:
    """Classify image files, or all in folders: print a line each, or write them to a .parquet or .csv file.

    Images that cannot be read are named at the end; the others are classified all the same.

    Args:
        run: folder of a trained run.
        images: files and folders; of a run on vectors, files of these (.npz, .csv, .tsv, .parquet).
        out: the file to write, or None to print.
        device: where the network works.
        batch: images through the network at a time; as in `Classifier.classified`.

    Raises:
        UserError: no trained run, no images, or none that can be read; a batch below 1.
    """
    if out is not None:
        check_suffix(out)
    classifier = load(run, device=device)
    form = classifier.card.form
    given, names, aside = _paths(images) if isinstance(form, Form) else _vectors(images, form)
    counts: Counter[str] = Counter()
    parts = _columns(classifier.classified(given, batch), classifier, names, aside, counts)
    if out is None:
        for part in parts:
            for name, label, probability in zip(part["path"], part["label"], part["probability"], strict=True):
                print(f"{name}\t{label}\t{probability:.3f}")
    else:
        write_table(out, parts)
        said = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
        unread = f", {len(aside)} set aside" if aside else ""
        print(f"{out}: {counts.total()} {form.what}{unread}; {said}")
    for name, reason in aside.items():
        print(f"set aside: {written(name)}: {reason}", file=sys.stderr)


def _columns(
    classified: Iterable[tuple[int, Outputs, dict[int, str]]],
    classifier: Classifier,
    names: Sequence[str],
    aside: dict[str, str],
    counts: Counter[str],
) -> Iterator[dict[str, Any]]:
    """Give the columns of one part after the other; count the labels, and add to `aside` what cannot be read."""
    first_broken = ""
    for first, outputs, broken in classified:
        probabilities = classifier.calibrated(outputs.logits)
        for place, reason in broken.items():
            first_broken = first_broken or f"{names[first + place]}: {reason}"
            aside[names[first + place]] = reason
        here = names[first : first + len(probabilities) + len(broken)]
        read = [written(name) for place, name in enumerate(here) if place not in broken]
        if read:
            columns = class_columns(classifier.card.classes, probabilities.argmax(1).numpy(), probabilities.numpy())
            counts.update(columns["label"].tolist())
            yield {"path": read} | columns
    if not counts:
        said = "files can be read as an image" if isinstance(classifier.card.form, Form) else "vectors can be read"
        raise UserError(f"none of the {len(names)} {said}; the first, {first_broken}")


def _vectors(files: Sequence[Path], form: VectorForm) -> tuple[VectorRows, list[str], dict[str, str]]:
    """Give the vectors of files and their names; nothing is set aside yet."""
    read = [read_vectors(path, form.columns) for path in files]
    several = len(files) > 1
    names = [
        f"{path}: {name}" if several else name for path, (_, found) in zip(files, read, strict=True) for name in found
    ]
    parts = [cast(VectorRows, listed_rows(rows, form)).matrix for rows, _ in read]
    return VectorRows(np.concatenate(parts), form.columns), names, {}


def _paths(images: Sequence[Path]) -> tuple[list[Path], list[str], dict[str, str]]:
    """Give the files that are meant, their names, and why others in the folders are none."""
    missing = [str(path) for path in images if not path.exists()]
    if missing:
        raise UserError(f"no such file or folder: {', '.join(missing[:5])}")
    paths: list[Path] = []
    aside: dict[str, str] = {}
    for path in images:
        found, others = images_in(path) if path.is_dir() else ([path], {})
        paths += found
        aside |= others
    if not paths:
        where = f"no images in {', '.join(map(str, images))}" if images else "no images are given"
        raise UserError(f"{where}; give image files or folders of them")
    return paths, [str(path) for path in paths], aside
