"""Every method on the same splits: accuracy over seeds, what a step costs, what is remembered.

    python benchmarks/methods.py digits --labels-per-class 1 --seeds 0-9 --steps 800
    python benchmarks/methods.py digits --labels-per-class 4 --seeds 0-9 --steps 400
    python benchmarks/methods.py fashion_mnist.npz --rows 5000 --labels-per-class 4 --seeds 0-2 --steps 2400
    python benchmarks/methods.py digits --part cost

Stopped and given again it continues: each training leaves a small file under --work, all methods of a seed before the
next, so that every method has as many seeds as any other. A method that was changed since is trained again once its
files there are deleted. Several commands with parts of the seeds may work side by
side; one with all of them then writes the result of all. The JSON goes to benchmarks/results/;
`python benchmarks/write_methods.py` makes docs/methods.md of it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accuracy import COMMIT, machine, subset
from outcome import unwatched

import fewlabels
from fewlabels.classify.preparation import Preparation, begin
from fewlabels.classify.prepare import prepare
from fewlabels.classify.split import with_split
from fewlabels.config import Options
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.data.table import UNLABELED, Table
from fewlabels.files import replace_text
from fewlabels.methods import method_class, method_names
from fewlabels.methods.base import Sizes
from fewlabels.training.loop import run

HERE = Path(__file__).parent
DEVELOPMENT = 1000  # and up are the seeds to choose by
LAST = 0.8  # of the run: how much does what comes after it change?
TURNS, STEPS = 15, 10  # of the measurement of a step's cost
CIFAR10 = Sizes((4,) * 10, 128, 60_000, 50_000, 64, 448, 2**20)  # whose memory is counted


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    """digits, or an .npz file"""
    labels_per_class: int = 4
    seeds: str = "0-9"
    """first and last seed; 1000 and up are for development, 0 and up to report"""
    methods: tuple[str, ...] = tuple(method_names())
    rows: int | None = None
    """take so many unlabeled rows of the training split, drawn by the seed"""
    gamma: float = 1.0
    """how many times more rows the largest class has than the smallest, labeled and not; their sizes fall
    geometrically, from twice the labels a class"""
    steps: int = 400
    """of each training"""
    part: Literal["accuracy", "so_far", "cost"] = "accuracy"
    """train, and sum up; sum up what is there already; time the steps"""
    work: Path = Path("runs/benchmarks/methods")
    """where finished trainings are noted"""


def main(question: Question) -> None:
    """Answer the question and write the result."""
    table = open_table(question.data)
    if question.part == "cost":
        return write(costs(table, question), f"methods-cost-{table.name}")
    first, _, last = question.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    for seed, method in itertools.product(seeds, question.methods):
        if question.part == "accuracy" and not note_of(question, table, method, seed).exists():
            train(question, table, method, seed)
    found = {method: cells(question, table, method, seeds) for method in question.methods}
    tail = f"-gamma{question.gamma:g}" if question.gamma > 1 else ""
    development = "-development" if seeds[0] >= DEVELOPMENT else ""
    name = f"methods-{table.name}-{question.labels_per_class}{tail}{development}"
    return write(summed_up(question, table, found), name)


def note_of(question: Question, table: Table, method: str, seed: int) -> Path:
    """Give the file in which a training is noted."""
    rows = "all" if question.rows is None else str(question.rows)
    if question.gamma > 1:
        rows = f"gamma{question.gamma:g}" if question.rows is None else f"{rows}-gamma{question.gamma:g}"
    return question.work / f"{table.name}-{question.labels_per_class}-{rows}-{question.steps}-{method}-{seed}.json"


def cells(question: Question, table: Table, method: str, seeds: range) -> dict[int, dict[str, Any]]:
    """Read what the trainings of a method gave, by seed."""
    notes = {seed: note_of(question, table, method, seed) for seed in seeds}
    return {seed: json.loads(note.read_text()) for seed, note in notes.items() if note.exists()}


def train(question: Question, table: Table, method: str, seed: int) -> None:
    """Train a method, and note its accuracies at the end and when a fifth of the run was left."""
    labels, note = question.labels_per_class, note_of(question, table, method, seed)
    chosen = table if question.rows is None else subset(table, question.rows, labels, seed)
    if question.gamma > 1:
        chosen, labels = long_tailed(chosen, labels, question.gamma, seed), None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        done = fewlabels.fit(
            chosen, method=method, labels_per_class=labels, seed=seed, steps=question.steps, baseline=False,
            model="small_cnn", propagate=0.0, threads=1, device="cpu", out=out,
        )  # fmt: skip
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (row,) = [row for row in done.summary["rows"] if row["name"] == method]
    (before,) = [line["test_accuracy"] for line in lines if line["step"] == int(LAST * question.steps)]
    found = {"accuracy": row["test"]["accuracy"], "before": before, "seconds": row["seconds"], "commit": COMMIT}
    note.parent.mkdir(parents=True, exist_ok=True)
    replace_text(note, json.dumps(found) + "\n")
    print(note.name, found, flush=True)


def long_tailed(table: Table, labels: int, gamma: float, seed: int) -> Table:
    """Keep fewer rows of some classes, in an order drawn by the seed; the test split stays whole."""
    table = draw_split(table, None, seed)
    generator = np.random.default_rng(seed)
    kept, few = [], []
    for place, k in enumerate(generator.permutation(len(table.classes))):
        rows = generator.permutation(table.labeled_rows[table.labels[table.labeled_rows] == k])
        part = gamma ** (-place / (len(table.classes) - 1))
        count = max(1, round(2 * labels * part))
        few.append(rows[:count])
        kept.append(rows[: count + max(1, round((len(rows) - 2 * labels) * part))])
    hidden = np.setdiff1d(np.concatenate(kept), np.concatenate(few))
    known, truth = table.labels.copy(), table.truth.copy()
    known[hidden], truth[hidden] = UNLABELED, table.labels[hidden]
    return replace(table, labels=known, truth=truth).take(np.sort(np.concatenate([*kept, table.test_rows])))


def summed_up(question: Question, table: Table, found: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Put together what the trainings gave."""
    chosen = {"data": table.name, "labels_per_class": question.labels_per_class, "unlabeled": question.rows}
    chosen |= {"gamma": question.gamma} if question.gamma > 1 else {}
    every = [cell for seeds in found.values() for cell in seeds.values()]
    return {
        "question": chosen | {"seeds": question.seeds, "steps": question.steps},
        "where": machine() | {"commit": ", ".join(sorted({cell["commit"] for cell in every}))},
        "methods": {
            method: {
                "accuracy": {str(seed): cell["accuracy"] for seed, cell in seeds.items()},
                "before the last fifth": {str(seed): cell["before"] for seed, cell in seeds.items()},
                "median_seconds": round(statistics.median(cell["seconds"] for cell in seeds.values()), 1),
            }
            for method, seeds in found.items()
            if seeds
        },
    }


def costs(table: Table, question: Question) -> dict[str, Any]:
    """Time steps of each method and of the supervised baseline in turn; count what a method has beyond the network."""
    prepared = preparation_of(table, question)
    found: dict[str, Any] = {}
    for name in question.methods:
        sides = [begin(prepared, method_class(each)()) for each in (name, "supervised")]
        ratios = []
        for turn in range(TURNS + 1):
            times = []
            for state, feed in sides:
                began = time.perf_counter()
                run(state, feed, turn * STEPS, (turn + 1) * STEPS, watch=unwatched)
                times.append(time.perf_counter() - began)
            ratios.append(times[0] / times[1])
        ratios = sorted(ratios[1:])  # the first warms up
        found[name] = {
            "ratio": round(statistics.median(ratios), 2), "low": round(ratios[3], 2), "high": round(ratios[-4], 2),
            "bytes": remembered(name),
        }  # fmt: skip
        print(name, found[name], flush=True)
    sizes = {"batch": prepared.recipe.batch, "unlabeled_batch": prepared.recipe.unlabeled_batch}
    return {
        "question": {"data": table.name, "turns": TURNS, "steps": STEPS, **sizes},
        "where": machine(),
        "step": found,
    }


def preparation_of(table: Table, question: Question) -> Preparation:
    """Prepare a training as `fewlabels train` would."""
    options = Options(
        labels_per_class=question.labels_per_class, steps=question.steps, model="small_cnn", propagate=0.0
    )
    return prepare(with_split(table, options), options, None, torch.device("cpu"))[0]


def remembered(name: str) -> int:
    """Count the bytes of a method's own parameters and memories, for CIFAR-10 with 40 labels and a WRN-28-2."""
    method = method_class(name)()
    method.setup(CIFAR10)
    return sum(t.numel() * t.element_size() for t in [*method.parameters(), *method.buffers()])


def write(result: dict[str, Any], name: str) -> None:
    """Write a result."""
    replace_text(HERE / "results" / f"{name}.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(tyro.cli(Question))
