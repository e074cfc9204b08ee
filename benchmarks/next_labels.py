"""What labels chosen by `fewlabels next` are worth: accuracy over rounds of labeling, against labels drawn at random.

    python benchmarks/next_labels.py digits fashion_mnist.npz trashnet --seeds 0-4

Each seed draws a test split and one label a class. In each round a linear classifier on principal components of the
pixels learns from the labels so far, and as many images as there are classes are labeled: drawn at random, those with
the smallest margin, or those that `fewlabels next` would name. The JSON goes to benchmarks/results/, the picture to
docs/figures/.
"""

from __future__ import annotations

import time
import tracemalloc
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import tyro
from accuracy import machine
from outcome import say
from pages import save
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fewlabels.classify.baselines import Features
from fewlabels.classify.choose_next import choose_next, uncertainty
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import UNLABELED, Chosen, Labels, Table
from fewlabels.inputs.images.components import pixel_features
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages, decode_all
from fewlabels.runs.compare import mean_of, p_value

HERE = Path(__file__).parent
ROUNDS = 5
DEVELOPMENT = 1000  # and up are the seeds to choose by
TEST = 0.3  # of the rows
MOST = 5000  # training rows
SIDE = 32  # images are brought to, at most
HOW = {"random": "at random", "margin": "smallest margin", "next": "fewlabels next"}


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[tuple[str, ...]]
    """what `fewlabels train` takes, wholly labeled"""
    seeds: str = "0-4"
    """first and last; 1000 and up are for development"""


@dataclass(frozen=True)
class Rows:
    """Training rows and test rows, as features with labels."""

    x: Features
    y: Labels
    x_test: Features
    y_test: Labels


def main(question: Question) -> None:
    """Simulate, and write what came out."""
    first, _, last = question.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    found: dict[str, Any] = {}
    for data in question.data:
        table = open_table(data)
        rows = {seed: drawn(table, seed) for seed in seeds}
        found[table.name] = {how: {seed: simulate(rows[seed], how, seed) for seed in seeds} for how in HOW}
        print(
            table.name, {how: np.mean([*each.values()], 0).round(3).tolist() for how, each in found[table.name].items()}
        )
    if seeds[0] >= DEVELOPMENT:
        return
    result = {
        "question": {"seeds": question.seeds, "rounds": ROUNDS},
        "where": machine(),
        "accuracy": found,
        "saved": {name: saved(each) for name, each in found.items()},
        "cost": cost(),
    }
    say(result, HERE / "results" / "next_labels.json")
    draw(found)


def drawn(table: Table, seed: int) -> Rows:
    """Draw training and test rows of a wholly labeled set, as principal components of small images."""
    labels = np.where(table.labels == UNLABELED, table.truth, table.labels)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(labels != UNLABELED))
    train, test = np.split(order[: int(MOST / (1 - TEST))], [min(MOST, int((1 - TEST) * len(order)))])
    pixels, broken = decode_all(Chosen(table.contents, np.concatenate([train, test])), ImageForm(3, (SIDE, SIDE)))
    assert not broken
    x = pixel_features(ResidentImages(pixels), np.arange(len(train)))
    x = np.asarray(StandardScaler().fit(x[: len(train)]).transform(x), np.float32)
    return Rows(x[: len(train)], labels[train], x[len(train) :], labels[test])


def simulate(rows: Rows, how: str, seed: int) -> list[float]:
    """Label in rounds; give the test accuracy before each and after the last."""
    generator = np.random.default_rng(seed)
    classes = int(rows.y.max()) + 1
    labeled = np.array([generator.choice(np.flatnonzero(rows.y == k)) for k in range(classes)])
    found = []
    for _ in range(ROUNDS + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = LogisticRegression(max_iter=1000).fit(rows.x[labeled], rows.y[labeled])
        found.append(float(model.score(rows.x_test, rows.y_test)))
        labeled = np.concatenate([labeled, chosen(rows, model, labeled, how, classes, generator)])
    return found


def chosen(rows: Rows, model: Any, labeled: Labels, how: str, count: int, generator: np.random.Generator) -> Labels:
    """Choose the rows to label next."""
    free = np.setdiff1d(np.arange(len(rows.y)), labeled)
    if how == "random":
        return generator.choice(free, count, replace=False)
    p = model.predict_proba(rows.x).astype(np.float32)
    if how == "margin":
        return free[np.argsort(-uncertainty(p[free]), kind="stable")[:count]]
    return choose_next(rows.x, p, labeled, free, count)


def saved(found: dict[str, dict[int, list[float]]]) -> dict[str, Any]:
    """Say how many labels a class random choice needs for what ours reaches with fewer, in the mean over seeds."""
    ours, random = (np.mean([*found[how].values()], 0) for how in ("next", "random"))
    at = int(np.searchsorted(ours, random[-1]))  # rounds after which ours is where random choice ends
    gains = [100 * (a[-1] - b[-1]) for a, b in zip(found["next"].values(), found["random"].values(), strict=True)]
    mean = mean_of(gains)
    return {
        "labels a class at random": ROUNDS + 1, "ours": at + 1,
        "points after the last round": [mean.value, mean.low, mean.high], "p": p_value(gains),
    }  # fmt: skip


def cost(rows: int = 100_000, features: int = 384, count: int = 500) -> dict[str, Any]:
    """Measure choosing from many vectors, of which 1,000 have a label: seconds, and the most memory beside them."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, features)).astype(np.float32)
    p = generator.dirichlet(np.ones(10), rows).astype(np.float32)
    labeled = np.arange(0, rows, rows // 1000)
    free = np.setdiff1d(np.arange(rows), labeled)
    tracemalloc.start()
    start = time.perf_counter()
    choose_next(x, p, labeled, free, count)
    seconds, most = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "rows": rows, "features": features, "chosen": count, "seconds": round(seconds, 2),
        "peak_mb": round(most / 1e6), "vectors_mb": round(x.nbytes / 1e6),
    }  # fmt: skip


def draw(found: dict[str, dict[str, dict[int, list[float]]]]) -> None:
    """Draw accuracy over labels a class, means with the least and the most of the seeds."""
    figure, grid = plt.subplots(1, len(found), figsize=(9.5, 3.0), layout="constrained")
    for axes, (name, each) in zip(np.atleast_1d(grid), found.items(), strict=True):
        for how, color in (("random", "gray"), ("margin", "C1"), ("next", "C3")):
            values = 100 * np.array([*each[how].values()])
            at = np.arange(1, ROUNDS + 2)
            axes.plot(at, values.mean(0), color=color, label=HOW[how])
            axes.fill_between(at, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
        axes.set_title(name)
        axes.set_xlabel("labels a class, in the mean")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(grid)[0].set_ylabel("test accuracy, %")
    np.atleast_1d(grid)[0].legend(frameon=False)
    save(figure, "next_labels")


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
