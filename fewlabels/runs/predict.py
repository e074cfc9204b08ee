"""Predictions of a run for new images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.images import CHUNK, ResidentImages, decode_all
from fewlabels.data.sources.folders import images_in
from fewlabels.data.sources.walk import written
from fewlabels.errors import UserError
from fewlabels.models.classifier import Classifier
from fewlabels.runs.outputs import check_suffix, class_columns, write_table
from fewlabels.runs.run import load


def predict(run: Path, images: Sequence[Path], out: Path | None, device: str = "cpu") -> None:
    """Classify image files, or all in folders: print a line each, or write them to a .parquet or .csv file.

    Images that cannot be read are named at the end; the others are classified all the same.

    Raises:
        UserError: no trained run, no images, or none that can be read.
    """
    if out is not None:
        check_suffix(out)
    classifier = load(run, device=device)
    paths, aside = _paths(images)
    probabilities, broken = _classified(classifier, paths)
    if not len(probabilities):
        raise UserError(f"none of the {len(paths)} files can be read as an image; the first, {paths[0]}: {broken[0]}")
    names = [written(str(path)) for i, path in enumerate(paths) if i not in broken]
    columns = {"path": names} | class_columns(classifier.card.classes, probabilities.argmax(1), probabilities)
    if out is None:
        for name, label, probability in zip(names, columns["label"], columns["probability"], strict=True):
            print(f"{name}\t{label}\t{probability:.3f}")
    else:
        write_table(out, columns)
        counts = np.unique(columns["label"], return_counts=True)
        print(f"{out}: {len(names)} images; " + ", ".join(f"{n} {label}" for label, n in zip(*counts, strict=True)))
    for name, reason in (aside | {str(paths[i]): reason for i, reason in broken.items()}).items():
        print(f"set aside: {written(name)}: {reason}", file=sys.stderr)


def _classified(classifier: Classifier, paths: Sequence[Path]) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Give probabilities of those that can be read, and for the others the reason; few images are held at a time."""
    found: list[NDArray[np.float32]] = []
    broken: dict[int, str] = {}
    for start in range(0, len(paths), CHUNK):
        pixels, reasons = decode_all(paths[start : start + CHUNK], classifier.card.form)
        broken |= {start + place: reason for place, reason in reasons.items()}
        found.append(classifier.probabilities(ResidentImages(pixels), np.arange(len(pixels))).numpy())
    return np.concatenate(found), broken


def _paths(images: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Give the files that are meant, and why others in the folders are none."""
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
    return paths, aside
