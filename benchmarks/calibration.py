"""Are probabilities as often right as they say: without calibration, on held-out labels, and cross-fitted.

    python benchmarks/calibration.py digits --labels-per-class 4 10 25 50 100 --seeds 0-4
    python benchmarks/calibration.py fashion_mnist.npz --rows 5000 --labels-per-class 10 50 --seeds 0-2

The expected calibration error (ECE) is of the test split; `best` is the temperature that the test split itself would
choose, which nobody knows. The JSON goes to benchmarks/results/; each run keeps its folder under --work, and the same
command goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from accuracy import HERE, machine, subset
from outcome import say

import fewlabels
from fewlabels.classify.calibration import calibrate
from fewlabels.classify.run import ClassifierRun
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import apply_split

HOW = ("held_out", "cross")
FEWEST = {"held_out": 5, "cross": 2}  # labels a class


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    """digits, or an .npz file"""
    labels_per_class: tuple[int, ...] = (4, 10, 25, 50, 100)
    """labels that are kept"""
    seeds: str = "0-4"
    """first and last; 1000 and up are for development"""
    rows: int | None = None
    """take so many unlabeled rows of the training split, drawn by the seed"""
    method: str = "layermatch"
    """as of `fewlabels train`"""
    work: Path = Path("runs/benchmarks/calibration")
    """where the runs are kept"""


def main(question: Question) -> None:
    """Train, and write what came out."""
    first, _, last = question.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    whole = open_table(question.data)
    found: list[dict[str, Any]] = []
    for labels in question.labels_per_class:
        for how in (how for how in HOW if labels >= FEWEST[how]):
            for seed in seeds:
                found.append(one(question, whole, labels, how, seed))
                print(found[-1], flush=True)
    if seeds[0] < 1000:
        say(
            {
                "question": vars(question) | {"data": Path(question.data).name, "work": None},
                "where": machine(),
                "runs": found,
            },
            HERE / "results" / f"calibration-{whole.name}.json",
        )


def one(question: Question, whole: Any, labels: int, how: str, seed: int) -> dict[str, Any]:
    """Train one run, or read it where it is finished."""
    table = whole if question.rows is None else subset(whole, question.rows, labels, seed)
    run = fewlabels.fit(
        table,
        model="small_cnn",
        propagate=0.0,
        method=question.method,
        labels_per_class=labels,
        classify_calibrate=how,
        seed=seed,
        baseline=False,
        device="cpu",
        threads=1,
        out=question.work / f"{whole.name}-{labels}-{how}-{seed}",
    )
    made = run.summary["calibration"]
    return {
        "labels": labels, "how": how, "seed": seed, "accuracy": run.accuracy, "rows": made["rows"],
        "kind": made["kind"], "temperature": made["temperature"],
        "raw": made["raw"]["ece"], "calibrated": made["calibrated"]["ece"], "best": best(run, table),
    }  # fmt: skip


def best(run: ClassifierRun, table: Any) -> float:
    """Give the temperature that the test split would choose."""
    rows = apply_split(table, run.path / "split.csv")
    images = [rows.images[int(i)] for i in rows.test_rows]
    logits = np.log(run.classifier.predict(images)[1].astype(np.float64) + 1e-12)
    return calibrate(logits, rows.labels[rows.test_rows]).temperature * run.summary["calibration"]["temperature"]


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
