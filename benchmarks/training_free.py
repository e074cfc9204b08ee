r"""Accuracy of the training-free baselines over seeds, on the splits of `fewlabels train`; nothing is trained.

    python benchmarks/training_free.py digits --labels-per-class 1 --seeds 0-19
    python benchmarks/training_free.py fashion_mnist.npz --rows 5000 --labels-per-class 4 --seeds 0-2
    python benchmarks/training_free.py photos --labels-per-class 10 --seeds 1000-1004 --model efficientnet_lite0

With a model that begins with weights the features are its own, else those that cost nothing: principal components of
pixels, or the vectors themselves. The JSON goes to benchmarks/results/.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accuracy import HERE, interval, machine, subset

from fewlabels.classify.embedding import embedded
from fewlabels.classify.prepare import prepare
from fewlabels.classify.split import with_split
from fewlabels.classify.stages import fitted_training_free
from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import Table
from fewlabels.inputs.base import content_of


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    """as of `fewlabels train`"""
    labels_per_class: int = 1
    """labels that are kept"""
    seeds: str = "1000-1004"
    """first and last seed; 1000 and up are for development, 0 and up to report"""
    rows: int | None = None
    """take so many unlabeled rows of the training split, drawn by the seed"""
    model: str = "small_cnn"
    """backbone: one that begins with weights gives the features"""
    weights: Path | None = None
    """parameters of the backbone"""
    size: int | None = None
    """pixels, with --weights"""


def one(question: Question, table: Table, seed: int) -> list[dict[str, Any]]:
    """Fit the baselines on one split."""
    if question.rows is not None:
        table = subset(table, question.rows, question.labels_per_class, seed)
    options = Options(
        labels_per_class=question.labels_per_class, seed=seed, model=question.model, weights=question.weights,
        images_size=question.size, device="cpu", threads=1,
    )  # fmt: skip
    found, digests, _ = prepare(with_split(table, options), options, None, torch.device("cpu"))
    if found.options.classify_features != "no":
        found = replace(found, features=embedded(found, content_of(digests), Show(None)).last.features)
    return [each.row for each in fitted_training_free(found)]


def intervals(runs: list[list[dict[str, Any]]], split: str, name: str) -> dict[str, dict[str, float]]:
    """Return the mean of a metric of each row with its interval; of none that was not measured."""
    found = {
        row["name"]: [run[place][split][name] for run in runs if run[place][split]] for place, row in enumerate(runs[0])
    }
    return {row: interval(values) for row, values in found.items() if len(values) > 1}


def main(question: Question) -> None:
    """Answer the question and write the result."""
    torch.set_num_threads(1)
    first, _, last = question.seeds.partition("-")
    table = open_table(question.data)
    runs = [one(question, table, seed) for seed in range(int(first), int(last or first) + 1)]
    result: dict[str, Any] = {
        "question": {"data": table.name, "labels_per_class": question.labels_per_class, "unlabeled": question.rows}
        | {"seeds": question.seeds, "model": question.model, "size": question.size},
        "where": machine(),
    }
    for split in ("test", "hidden"):
        for name in ("accuracy", "balanced_accuracy"):
            known = intervals(runs, split, name)
            result[f"{split}_{name}"] = known
            for row, each in known.items():
                low, high, n = (each[key] for key in ("low", "high", "n"))
                print(f"{split} {name}: {row} {each['mean']:.1f} ({low:.1f} to {high:.1f}), n = {n}")
    result["seconds"] = {row["name"]: [round(run[i]["seconds"], 2) for run in runs] for i, row in enumerate(runs[0])}
    name = f"training-free-{table.name}-{question.labels_per_class}-{question.seeds}"
    name += f"-{question.model}" if question.model != "small_cnn" else ""
    (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
