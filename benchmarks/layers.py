"""Do pseudo-labels benefit all layers? Four experiments on one data set, with paired differences over seeds.

    python benchmarks/layers.py digits --labels-per-class 1 --seeds 1000-1019
    python benchmarks/layers.py fashion_mnist.npz --rows 5000 --labels-per-class 4 --seeds 1000-1002 --parts thresholds

noise: pseudo-labels of which a known share is wrong, as any other class (uniform) or as the next one (confused), reach
    all layers, the backbone alone, or the head alone.
clusters: how features cluster over time, with class centers averaged over parts of the run.
probes: the layer probe over time, with and without Grad-ReLU.
thresholds: three thresholds, each with none, one and both of LayerMatch's strategies.

Stopped and given again it continues: each training leaves a small file under --work, and several commands with parts of
the seeds may share the work; one with all of them then writes the result of all. The JSON goes to benchmarks/results/;
`python benchmarks/draw_layers.py` makes the plots and tables of docs/layers.md from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accuracy import interval, machine, subset
from numpy.typing import NDArray
from outcome import unwatched
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from fewlabels.classify.layer_probe import Probed
from fewlabels.classify.preparation import Preparation, begin, predict_rows, probe_of
from fewlabels.classify.prepare import prepare
from fewlabels.classify.split import with_split
from fewlabels.config import Fraction, NotNegative, Options
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import UNLABELED, Labels, Table, spread
from fewlabels.files import replace_text
from fewlabels.inputs.batch import Batch, Views
from fewlabels.keys import Key
from fewlabels.methods.base import Method
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.parts.forward import logits_of
from fewlabels.methods.parts.losses import consistency
from fewlabels.methods.supervised import Supervised
from fewlabels.models.classifier import Classifier
from fewlabels.models.layers import PRESETS
from fewlabels.models.network import Network
from fewlabels.training.loop import run

HERE = Path(__file__).parent
POINTS = 10  # measurements over a run
FITTED = 2000  # hidden rows that features are judged on
CENTERS = 0.05  # share of the run, where the memory of the centers is not the question
MEMORIES = (0.0, 0.01, 0.05, 0.2, 1.0)
NOISES = (0.0, 0.2, 0.4, 0.6)
THRESHOLDS = ("fixed", "self_adaptive", "soft")
STRATEGIES: dict[str, tuple[str, float]] = {
    "none": ("all", 0.0),
    "grad_relu": ("grad_relu", 0.0),
    "centers": ("all", CENTERS),
    "both": ("grad_relu", CENTERS),
}

SHARES = ("accuracy", "hidden", "nearest_center", "linear", "kept", "wrong")  # given in points

Part = Literal["noise", "clusters", "probes", "thresholds"]


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    """digits, or an .npz file"""
    labels_per_class: int = 1
    seeds: str = "1000-1019"
    """first and last seed; 1000 and up are for development, 0 and up to report"""
    parts: tuple[Part, ...] = ("noise", "clusters", "probes", "thresholds")
    rows: int | None = None
    """take so many unlabeled rows of the training split, drawn by the seed"""
    steps: int | None = None
    """of a training; None as `fewlabels train` chooses"""
    cells: tuple[str, ...] = ()
    """only cells whose name begins with one of these"""
    work: Path = Path("runs/benchmarks/layers")
    """where finished trainings are noted"""


@dataclass(frozen=True)
class Cell:
    """One training of an experiment, for every seed."""

    name: str
    make: Callable[[], Method]
    policy: str
    center_memory: float = 0.0
    watches: Literal["accuracy", "features", "probe"] = "accuracy"


class GivenTargets(Method):
    """Targets are the true classes, of which a known share was replaced by others; each row always has the same.

    ::

        y^ = y, or with the probability `noise` another class           [M]
        loss = mean CE(z, y) + weight * mean CE(logits(strong(u)), y^)
    """

    noise: Fraction = 0.0
    """share of wrong targets"""
    kind: Literal["uniform", "confused"] = "uniform"
    """what a wrong target is: any other class, or always the next one"""
    weight: NotNegative = 1.0
    """factor on the unlabeled loss"""

    def know(self, truth: Labels, classes: int, seed: int) -> None:
        """Draw the targets of all rows, once."""
        rows, key = torch.arange(len(truth)), Key(seed).fold("noise")
        right, wrong = torch.from_numpy(truth), key.fold("whether").fold(rows).uniform() < self.noise
        others = 1 if self.kind == "confused" else classes - 1
        other = (right + 1 + (key.fold("which").fold(rows).uniform() * others).long()) % classes
        self.register_buffer("targets", torch.where(wrong, other, right))

    def views(self) -> Views:
        """Ask for a weak and a strong view, as FixMatch does."""
        return Views(labeled=("weak",), unlabeled=("weak", "strong"))

    def forward(self, net: Network, batch: Batch) -> dict[str, Tensor]:
        """Give `loss` and its parts."""
        (labeled,), (weak, strong) = batch.labeled, batch.unlabeled
        z, _, z_s = logits_of(net, labeled, weak, strong, "three")
        labeled_loss = F.cross_entropy(z, batch.labels)
        unlabeled_loss = consistency(z_s, self.get_buffer("targets")[batch.rows], z_s.new_ones(len(z_s)))
        return {"loss": labeled_loss + self.weight * unlabeled_loss, "unlabeled_loss": unlabeled_loss}


def _noises() -> list[tuple[Literal["uniform", "confused"], float, str, str]]:
    """Give kind, share, policy and name of each training with wrong targets."""
    kinds: tuple[Literal["uniform", "confused"], ...] = ("uniform", "confused")
    return [
        (kind, noise, policy, f"{'noise' if kind == 'uniform' else kind}-{noise:g}-{policy}")
        for kind in kinds
        for noise in NOISES
        for policy in ("all", "backbone_only", "head_only")
        if noise or kind == "uniform"
    ]


def cells_of(part: Part) -> list[Cell]:
    """List the trainings of an experiment."""
    if part == "noise":
        supervised = Cell("supervised", Supervised, "all", 0.0, "features")
        return [supervised] + [
            Cell(name, lambda noise=noise, kind=kind: GivenTargets(noise=noise, kind=kind), policy, 0.0, "features")
            for kind, noise, policy, name in _noises()
        ]
    if part == "clusters":
        return [Cell(f"memory-{share:g}", LayerMatch, "grad_relu", share, "features") for share in MEMORIES]
    if part == "probes":
        return [
            Cell(
                f"probe-{threshold}-{policy}",
                lambda threshold=threshold: LayerMatch(threshold=threshold),
                policy,
                watches="probe",
            )
            for threshold in ("fixed", "self_adaptive")
            for policy in ("all", "grad_relu")
        ]
    return [
        Cell(f"{threshold}-{name}", lambda threshold=threshold: LayerMatch(threshold=threshold), policy, share)
        for threshold in THRESHOLDS
        for name, (policy, share) in STRATEGIES.items()
    ]


class Trainings:
    """The trainings of one seed, which share their data."""

    def __init__(self, question: Question, table: Table, seed: int) -> None:
        self.question, self.table, self.seed = question, table, seed
        self.place = question.work / "-".join(
            map(str, (table.name, question.labels_per_class, question.rows or "all", question.steps or "auto"))
        )

    @cached_property
    def preparation(self) -> Preparation:
        """What each training needs."""
        question, chosen = self.question, self.table
        if question.rows is not None:
            chosen = subset(self.table, question.rows, question.labels_per_class, self.seed)
        options = Options(
            labels_per_class=question.labels_per_class,
            seed=self.seed,
            steps=question.steps,
            model="small_cnn",
            propagate=0.0,
        )
        return prepare(with_split(chosen, options), options, None, torch.device("cpu"))[0]

    def outcome(self, cell: Cell) -> dict[str, Any]:
        """Train, or read what was found where that is done."""
        path = self.place / f"{cell.name}-{self.seed}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps({"points": self._points(cell)}))
        found = json.loads(path.read_text())
        print(f"{self.place.name} {cell.name} seed {self.seed}: {100 * last(found)['accuracy']:.2f} %", flush=True)
        return found

    def _points(self, cell: Cell) -> list[dict[str, float]]:
        """Train, and measure over the run."""
        prepared = replace(self.preparation, policy=PRESETS[cell.policy], center_memory=cell.center_memory)
        method = cell.make()
        if isinstance(method, GivenTargets):
            table = prepared.table
            truth = np.where(table.truth == UNLABELED, table.labels, table.truth)
            method.know(truth, len(np.unique(truth)), self.seed)
        state, feed = begin(prepared, method)
        ends = [prepared.recipe.steps * (i + 1) // POINTS for i in range(POINTS)]
        points = []
        for first, end in pairwise([0, *ends]):
            run(state, feed, first, end, watch=unwatched)
            points.append({"step": end} | measured(state.averaged.classifier, prepared, cell.watches == "features"))
            if cell.watches == "probe":
                points[-1] |= flat(probe_of(prepared, method)(state.learner.network, state.learner.method, state.step))
        return points


def last(found: dict[str, Any]) -> dict[str, float]:
    """Give what was measured after the last step."""
    return found["points"][-1]


def measured(classifier: Classifier, prepared: Preparation, features_too: bool) -> dict[str, float]:
    """Give accuracies on the test split and on hidden labels, and what the features are worth."""
    table, store, test, hidden = prepared.table, prepared.store, prepared.test, prepared.hidden
    found = {
        name: float((predict_rows(classifier, store, chosen).argmax(1) == truth[chosen]).mean())
        for name, chosen, truth in (("accuracy", test, table.labels), ("hidden", hidden, table.truth))
    }
    if features_too:
        some = spread(hidden, FITTED)
        features = [classifier.outputs(store, chosen).features.double().numpy() for chosen in (some, test)]
        found |= judged(features[0], table.truth[some], features[1], table.labels[test])
    return found


def flat(probed: Probed) -> dict[str, float]:
    """Give what a layer probe found as numbers under names; what is not known is nan."""
    found = {"kept": probed.kept, "wrong": probed.wrong}
    for layer in probed.layers:
        found |= {f"{name} {layer.layer}": getattr(layer, name) for name in ("cosine_kept", "cosine_all", "ratio")}
    return {name: float("nan") if value is None else value for name, value in found.items()}


def judged(train: NDArray[Any], truth: Labels, test: NDArray[Any], tested: Labels) -> dict[str, float]:
    """Judge features by true labels: their scatter, nearest class centers, and a linear classifier."""
    classes = np.unique(truth)
    centers = np.stack([train[truth == k].mean(0) for k in classes])
    of_row = centers[np.searchsorted(classes, truth)]
    between, within = ((of_row - train.mean(0)) ** 2).sum(), ((train - of_row) ** 2).sum()
    nearest = classes[((test[:, None] - centers[None]) ** 2).sum(2).argmin(1)]
    scaler = StandardScaler().fit(train)
    linear = LogisticRegression(max_iter=300).fit(scaler.transform(train), truth)
    return {
        "scatter": float(between / within),
        "nearest_center": float((nearest == tested).mean()),
        "linear": float(linear.score(scaler.transform(test), tested)),
    }


def summed(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Give mean and interval of each number after the last step, and means over time."""
    names = [name for name in last(runs[0]) if name != "step"]
    of = {name: np.array([[point[name] for point in found["points"]] for found in runs]) for name in names}
    accuracy = of["accuracy"]
    return {
        **{name: _interval(each[:, -1], name in SHARES) for name, each in of.items()},
        "last_fifth": interval(list(accuracy[:, -1] - accuracy[:, int(0.8 * POINTS) - 1])),
        "over_time": {name: _means(each) for name, each in of.items()},
        "steps": [point["step"] for point in runs[0]["points"]],
        "each": accuracy[:, -1].round(5).tolist(),
    }


def _means(each: NDArray[Any]) -> list[float | None]:
    """Give means over runs [n, points]; a number that no run knows is None."""
    known = [column[~np.isnan(column)] for column in each.T]
    return [round(float(column.mean()), 4) if len(column) else None for column in known]


def _interval(values: NDArray[Any], points: bool) -> dict[str, float] | None:
    """Give mean and interval of the numbers that are known, shares in points; None of fewer than two."""
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return None
    found = interval(list(known))
    return found if points else {k: value if k == "n" else round(value / 100, 4) for k, value in found.items()}


def differences(found: Mapping[str, list[dict[str, Any]]], pairs: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """Give paired differences of the accuracy on the test split, in points."""
    return {
        name: interval(
            [last(a)["accuracy"] - last(b)["accuracy"] for a, b in zip(found[first], found[second], strict=True)]
        )
        for name, (first, second) in pairs.items()
        if first in found and second in found
    }


def pairs_of(part: Part) -> dict[str, tuple[str, str]]:
    """Name the differences that answer the question."""
    if part == "noise":
        return {
            f"{name} - all": (name, name.replace(policy, "all")) for _, _, policy, name in _noises() if policy != "all"
        }
    if part == "probes":
        return {f"{t}: grad_relu - all": (f"probe-{t}-grad_relu", f"probe-{t}-all") for t in ("fixed", "self_adaptive")}
    if part == "clusters":
        return {f"memory {share:g} - none": (f"memory-{share:g}", "memory-0") for share in MEMORIES[1:]}
    return {f"{t}: {s} - none": (f"{t}-{s}", f"{t}-none") for t in THRESHOLDS for s in STRATEGIES if s != "none"}


def main(question: Question) -> None:
    """Answer the question and write the result."""
    torch.set_num_threads(1)
    begin_at, _, end_at = question.seeds.partition("-")
    table = open_table(question.data)
    seeds = [Trainings(question, table, seed) for seed in range(int(begin_at), int(end_at or begin_at) + 1)]
    for part in question.parts:
        cells = [cell for cell in cells_of(part) if not question.cells or cell.name.startswith(question.cells)]
        # Seed by seed, so that what is there at any moment can be compared.
        by_seed = [{cell.name: trainings.outcome(cell) for cell in cells} for trainings in seeds]
        found = {cell.name: [outcomes[cell.name] for outcomes in by_seed] for cell in cells}
        result = {
            "question": {
                "part": part,
                "data": table.name,
                "labels_per_class": question.labels_per_class,
                "unlabeled": question.rows,
                "seeds": question.seeds,
                "steps": question.steps,
                "cells": question.cells,
            },
            "where": machine(),
            "differences": differences(found, pairs_of(part)),
            "cells": {name: summed(runs) for name, runs in found.items()},
        }
        name = f"layers-{part}-{table.name}-{question.labels_per_class}-{question.seeds}"
        replace_text(HERE / "results" / f"{name}.json", json.dumps(result, indent=2) + "\n")
        print(json.dumps(result["differences"], indent=2))


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
