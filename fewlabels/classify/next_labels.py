"""next_to_label.csv: the images whose labels would help most, the best first."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.baselines import Features
from fewlabels.classify.choose_next import choose_next
from fewlabels.classify.outputs import UNKNOWN
from fewlabels.data.table import Labels, Table
from fewlabels.errors import UserError
from fewlabels.files import csv_text, plain_cell, replace_text

NAME = "next_to_label.csv"
LISTED = 500  # images in the file; each stands for the labels of all before it
HEAD = ("path", "label", "guess", "probability", "or", "its probability", "unknown")


def write_next(
    folder: Path, table: Table, features: Features, probabilities: NDArray[np.float32], unknown: NDArray[np.bool_]
) -> Labels:
    """Choose and write the images to label next, with what the network takes them for; `label` is for the user.

    Args:
        folder: of the run.
        table: of all rows.
        features: [N, D], which say what images are alike.
        probabilities: [N, K], calibrated where the run could.
        unknown: [N], which are unlike every class: they may be worth no label, and may be worth a class of their own.

    Returns:
        Their rows, the best first.
    """
    chosen = choose_next(features, probabilities, table.labeled_rows, table.unlabeled_rows, LISTED)
    lines = []
    for row in chosen:
        first, second = np.argsort(-probabilities[row], kind="stable")[:2]
        guesses = ((table.classes[k], f"{probabilities[row, k]:.3f}") for k in (first, second))
        strange = UNKNOWN if unknown[row] else ""
        lines.append((table.names[row], "", *(word for guess in guesses for word in guess), strange))
    replace_text(folder / NAME, csv_text(HEAD, lines))
    return chosen


def next_lines(run: Path, count: int) -> list[dict[str, str]]:
    """Read the first images to label next, a line each by the columns `HEAD`; all where they are fewer.

    Raises:
        UserError: no finished run, a number below 1, or nothing left to label.
    """
    if count < 1:
        raise UserError(f"-n is {count}; give how many images you would label, 1 or more")
    lines = _lines(run)
    if not lines:
        raise UserError(f"{run / NAME} is empty: every image of the training split has a label")
    return lines[:count]


def listed_next(run: Path) -> list[str]:
    """Read the names of all rows that are listed, the best to label first.

    Raises:
        UserError: no finished run.
    """
    return [line["path"] for line in _lines(run)]


def _lines(run: Path) -> list[dict[str, str]]:
    path = run / NAME
    if not (run / "config.yaml").is_file():
        raise UserError(
            f"{run} is no run: it has no config.yaml. Give the folder of one, as `fewlabels train` makes it."
        )
    if not path.is_file():
        raise UserError(f"{run} has no {NAME}; its run is not finished: give the same command again.")
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: plain_cell(cell) for name, cell in line.items()} for line in csv.DictReader(file)]


def show_next(run: Path, count: int, out: Path | None) -> None:
    """Print the images to label next, or write them to a .csv file to fill in.

    Raises:
        UserError: as `next_lines`; a file that is no .csv, or is there already: it may hold labels.
    """
    lines = next_lines(run, count)
    if out is None:
        for line in lines:
            guesses = f"{line['guess']} {line['probability']}\t{line['or']} {line['its probability']}"
            print("\t".join(filter(None, (line["path"], guesses, line["unknown"] and "unlike every class"))))
        return
    if out.suffix != ".csv":
        raise UserError(f"{out} ends in {out.suffix or 'nothing'}; give a name that ends in .csv")
    if out.exists():
        raise UserError(f"{out} is there already, and may hold labels; give another name")
    replace_text(out, csv_text(HEAD, (list(line.values()) for line in lines)))
    print(f"{out}: {len(lines)} to label; fill in the column label")
