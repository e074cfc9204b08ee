"""Predictions of a run for new images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewlabels.data.decode import decode_all
from fewlabels.data.sources import images_in
from fewlabels.errors import UserError
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
    paths = _paths(images)
    card = classifier.card
    pixels, broken = decode_all(paths, card.channels, card.size, card.resize)
    if not len(pixels):
        raise UserError(f"none of the {len(paths)} files can be read as an image; the first, {paths[0]}: {broken[0]}")
    probabilities = classifier.probabilities(pixels).numpy()
    names = [str(path) for i, path in enumerate(paths) if i not in broken]
    columns = {"path": names} | class_columns(card.classes, probabilities.argmax(1), probabilities)
    if out is None:
        for name, label, probability in zip(names, columns["label"], columns["probability"], strict=True):
            print(f"{name}\t{label}\t{probability:.3f}")
    else:
        write_table(out, columns)
        counts = np.unique(columns["label"], return_counts=True)
        print(f"{out}: {len(names)} images; " + ", ".join(f"{n} {label}" for label, n in zip(*counts, strict=True)))
    for i, reason in broken.items():
        print(f"set aside: {paths[i]}: {reason}", file=sys.stderr)


def _paths(images: Sequence[Path]) -> list[Path]:
    missing = [str(path) for path in images if not path.exists()]
    if missing:
        raise UserError(f"no such file or folder: {', '.join(missing[:5])}")
    paths = [file for path in images for file in (images_in(path) if path.is_dir() else [path])]
    if not paths:
        raise UserError(f"no images in {', '.join(map(str, images)) or 'nothing'}; give image files or folders of them")
    return paths
