"""Accuracy on vectors over seeds, beside what is free: how the automatic choices for vectors were made.

    python benchmarks/vectors.py digits wine breast_cancer fashion_mnist.npz --seeds 1000-1009
    python benchmarks/vectors.py digits --settings vectors_noise=0.6 vectors_replaced=0.4:vectors_mixed=0

Each setting is options of `fewlabels train`, parted by colons; "auto" is none. The accuracy is that on hidden labels of
unlabeled rows. Images (of an .npz) count as vectors of 64 principal components. The JSON goes to
benchmarks/results/.
"""

from __future__ import annotations

import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from accuracy import HERE, interval, machine
from outcome import unwatched
from sklearn import datasets
from sklearn.decomposition import PCA

from fewlabels.classify.baselines import training_free_baselines
from fewlabels.classify.preparation import Preparation, begin, predict_rows, propagated_targets
from fewlabels.classify.prepare import prepare
from fewlabels.config import Options, make_options
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.data.table import Table
from fewlabels.methods import make_method
from fewlabels.training.loop import run

CPU = torch.device("cpu")
LOADERS = {"digits": datasets.load_digits, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer}


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[tuple[str, ...]]
    """digits, wine, breast_cancer, or .npz files"""
    settings: tuple[str, ...] = ("propagate=0",)
    """options, as vectors_noise=0.6:vectors_replaced=0.4"""
    methods: tuple[str, ...] = ("supervised", "fixmatch", "layermatch")
    """which are trained with each setting"""
    labels_per_class: int = 4
    """labels that are kept"""
    rows: int = 6000
    """rows of a set at most"""
    seeds: str = "1000-1004"
    """first and last seed; 1000 and up are for development"""
    budget: str = "normal"
    """as of `fewlabels train`"""
    name: str = "vectors"
    """of the JSON"""


def opened(question: Question, name: str) -> Table:
    """Give a set as vectors."""
    if name in LOADERS:
        x, y = LOADERS[name](return_X_y=True)
        return open_table((x, y))
    with np.load(name) as file:
        x, y = file["x"][: question.rows], file["y"][: question.rows]
    flat = x.reshape(len(x), -1) / 255
    return open_table((PCA(64, random_state=0).fit_transform(flat), y))


def read(setting: str, **given: Any) -> Options:
    """Make options of a setting in words."""
    pairs = [] if setting == "auto" else [pair.split("=") for pair in setting.split(":")]
    return make_options(Options, given | dict(pairs))


def right(prepared: Preparation, predicted: np.ndarray) -> float:
    """Give the accuracy of predictions of the hidden rows."""
    return float((predicted == prepared.table.truth[prepared.hidden]).mean())


def one(question: Question, table: Table, setting: str, seed: int) -> dict[str, float]:
    """Train by each method; with the first setting also the training-free baselines."""
    options = read(setting, seed=seed, budget=question.budget, threads=1)
    table = draw_split(table, question.labels_per_class, seed)
    prepared = prepare(table, options, None, CPU)[0]
    store, hidden = prepared.store, prepared.hidden
    found: dict[str, float] = {}
    for method in question.methods:
        start = time.process_time()
        made = make_method(method)
        state, feed = begin(prepared, made, propagated=propagated_targets(prepared, made, None))
        run(state, feed, 0, prepared.recipe.steps, watch=unwatched)
        predicted = predict_rows(state.averaged.classifier, store, hidden).argmax(1)
        found[f"{method}, {setting}"] = right(prepared, predicted)
        found[f"seconds of {method}, {setting}"] = time.process_time() - start
    if setting == question.settings[0]:
        train = np.concatenate([prepared.labeled, prepared.unlabeled])
        features = prepared.inputs.features_of(store, train)
        baselines = training_free_baselines(features, prepared.table.labels, train, hidden, lengths_count=True)
        found |= {each.name: right(prepared, each.predicted) for each in baselines}
    return found


def main(question: Question) -> None:
    """Answer the question and write the result."""
    torch.set_num_threads(1)
    first, _, last = question.seeds.partition("-")
    result: dict[str, Any] = {"question": vars(question), "where": machine(), "accuracy": {}, "seconds": {}, "each": {}}
    for data in question.data:
        table, name = opened(question, data), Path(data).stem
        each: dict[str, list[float]] = {}
        for seed in range(int(first), int(last or first) + 1):
            for setting in question.settings:
                for key, value in one(question, table, setting, seed).items():
                    each.setdefault(key, []).append(value)
        seconds = {key: values for key, values in each.items() if key.startswith("seconds")}
        result["each"][name] = {key: values for key, values in each.items() if key not in seconds}
        result["accuracy"][name] = {key: interval(values) for key, values in result["each"][name].items()}
        result["seconds"][name] = {key[11:]: round(float(np.median(values)), 2) for key, values in seconds.items()}
        print(name, json.dumps(result["accuracy"][name], indent=1), json.dumps(result["seconds"][name]), flush=True)
    out = HERE / "results" / f"{question.name}.json"
    out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Question))
