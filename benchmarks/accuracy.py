"""Accuracy over seeds: the supervised baseline, FixMatch and LayerMatch on the same splits, with paired differences.

    python benchmarks/accuracy.py digits --labels-per-class 1 --seeds 0-19
    python benchmarks/accuracy.py fashion_mnist.npz --rows 5000 --labels-per-class 4 --seeds 0-2
    python benchmarks/accuracy.py digits --labels-per-class 1 --seeds 1000-1007 --methods layermatch --propagate 0.7
    python benchmarks/accuracy.py digits --seeds 1000-1019 --methods fixmatch fixmatch:passes=one fixmatch:passes=two

Stopped and given again it continues: each run keeps its folder under --work. Several commands with parts of the
seeds may work side by side; the last one that ends writes the whole result. The JSON goes to benchmarks/results/.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from scipy.stats import t as student

import fewlabels
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import Table
from fewlabels.keys import Key
from fewlabels.methods import method_class
from fewlabels.methods.base import Method

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    """digits, or an .npz file"""
    labels_per_class: int = 1
    """labels that are kept"""
    seeds: str = "0-4"
    """first and last seed; 1000 and up are for development, 0 and up to report"""
    methods: tuple[str, ...] = ("layermatch", "fixmatch")
    """each may have options, name:option=value; with the first the supervised baseline is trained too"""
    rows: int | None = None
    """take so many unlabeled rows of the training split, drawn by the seed"""
    budget: str = "normal"
    """as of `fewlabels train`"""
    propagate: float = 0.0
    """likewise; 0 is each method as published"""
    model: str = "small_cnn"
    """likewise"""
    work: Path = Path("runs/benchmarks")
    """where the runs are kept"""


def subset(table: Table, rows: int, labels: int, seed: int) -> Table:
    """Draw the labeled rows and `rows` unlabeled ones of the training split; the test split stays whole."""
    train = table.labeled_rows
    order = train[torch.argsort(Key(seed).fold("subset").fold(torch.from_numpy(train)).uniform()).numpy()]
    few = [order[table.labels[order] == k][:labels] for k in range(len(table.classes))]
    more = np.setdiff1d(order[: rows + labels * len(table.classes)], np.concatenate(few), assume_unique=True)[:rows]
    return table.take(np.sort(np.concatenate([*few, more, table.test_rows])))


def made(spec: str) -> Method:
    """Make a method from its name and text options."""
    name, _, given = spec.partition(":")
    return method_class(name)(**dict(pair.split("=", 1) for pair in given.split(",") if pair))


def one(question: Question, table: Table, method: str, seed: int) -> dict[str, Any]:
    """Train one run, or read it where it is finished."""
    first = method == question.methods[0]
    name = f"{table.name}-{question.labels_per_class}-{question.rows or 'all'}-{method}-{seed}"
    name = name.replace(":", "-").replace("=", "-") + (f"-propagate-{question.propagate}" if question.propagate else "")
    chosen = table if question.rows is None else subset(table, question.rows, question.labels_per_class, seed)
    run = fewlabels.fit(
        chosen,
        method=made(method),
        labels_per_class=question.labels_per_class,
        seed=seed,
        baseline=first,
        budget=question.budget,
        propagate=question.propagate,
        model=question.model,
        threads=1,
        device="cpu",
        out=question.work / name,
    )
    print(name, {row["name"]: row["test"]["accuracy"] for row in run.summary["rows"]}, flush=True)
    return run.summary


def interval(values: list[float], level: float = 0.95) -> dict[str, float]:
    """Give mean, deviation and Student's interval of the mean, in points; several values."""
    points = 100 * np.array(values)
    mean, deviation, n = float(points.mean()), float(points.std(ddof=1)), len(points)
    half = float(student.ppf((1 + level) / 2, n - 1)) * deviation / n**0.5
    rounded = {"mean": mean, "deviation": deviation, "low": mean - half, "high": mean + half}
    return {name: round(value, 2) for name, value in rounded.items()} | {"n": n}


def _commit() -> str:
    """Give the commit of the code, and whether the package differs from it."""
    commit, changed = (
        subprocess.run(["git", *words], cwd=HERE.parent, capture_output=True, text=True, check=False).stdout.strip()
        for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "fewlabels"])
    )
    return commit + "-dirty" * bool(changed)


COMMIT = _commit()  # now: what is measured later is of this code, whatever is committed meanwhile


def machine(device: str = "CPU, 1 thread a run") -> dict[str, str]:
    """Say where this was measured."""
    return {
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} cores",
        "device": device,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "fewlabels": fewlabels.__version__,
        "commit": COMMIT,
        "date": time.strftime("%Y-%m-%d"),
    }


def main(question: Question) -> None:
    """Answer the question and write the result."""
    first, _, last = question.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    table = open_table(question.data)
    found = {m: {seed: one(question, table, m, seed) for seed in seeds} for m in question.methods}

    accuracies: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for method, runs in found.items():
        for summary in runs.values():
            for row in summary["rows"]:
                own = row["name"].partition(" + ")[0] == method.partition(":")[0]
                if method == question.methods[0] or own:
                    accuracies.setdefault(method if own else row["name"], []).append(row["test"]["accuracy"])
                    seconds.setdefault(method if own else row["name"], []).append(row["seconds"])
    hidden = {m: [summary["chosen"]["hidden"]["accuracy"] for summary in runs.values()] for m, runs in found.items()}
    main_method = accuracies[question.methods[0]]
    result = {
        "question": {"data": table.name, "labels_per_class": question.labels_per_class, "unlabeled": question.rows}
        | {"seeds": question.seeds, "budget": question.budget, "propagate": question.propagate},
        "where": machine(),
        "accuracy": {name: interval(values) for name, values in accuracies.items()},
        "accuracy_on_hidden_labels": {name: interval(values) for name, values in hidden.items()},
        "median_seconds": {name: round(float(np.median(values)), 1) for name, values in seconds.items()},
        f"{question.methods[0]} minus": {
            name: interval([a - b for a, b in zip(main_method, values, strict=True)])
            for name, values in accuracies.items()
            if name != question.methods[0]
        },
        "each": accuracies,
        "each_on_hidden_labels": hidden,
    }
    about = "-passes" if any("passes" in method for method in question.methods) else ""
    about += f"-propagate-{question.propagate}" if question.propagate else ""
    out = HERE / "results" / f"accuracy-{table.name}-{question.labels_per_class}-{question.seeds}{about}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if not k.startswith("each")}, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Question))
