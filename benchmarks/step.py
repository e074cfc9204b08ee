"""How fast a whole FixMatch step is: ours and the field's, in turn, the same network and batch.

    python benchmarks/step.py digits --json benchmarks/results/step-digits.json
    python benchmarks/step.py cifar --steps 3 --repeats 4 --json benchmarks/results/step-cifar.json
    python benchmarks/step.py classic --device cuda --compile --json benchmarks/results/step-classic.json

The field's form is two DataLoaders (one persistent worker for the labeled images, two for the unlabeled ones; more on
machines with more cores), torchvision's views on Pillow images, eager, all views in one pass, an ema by a loop over
parameters. On a CPU both sides get the better of one and all threads. The field's is measured as its users run it, and
also with our arithmetic (bfloat16, channels last). Beside it stands the limit: the arithmetic of the step over the
measured rate of a matrix product.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accuracy import machine
from field import MEAN, STD, Viewed, loader, transforms
from limits import matmul_rate, synchronize
from outcome import ratios, say, unwatched
from torch.nn import functional as F

from fewlabels.classify.choose import fast_bfloat16
from fewlabels.classify.preparation import Preparation, begin
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.config import Options
from fewlabels.data.table import UNLABELED, make_table
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages
from fewlabels.inputs.images.views import ImageViews
from fewlabels.inputs.kinds import IMAGES
from fewlabels.keys import Key
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.models.build import build_classifier, flops
from fewlabels.models.classifier import Card, Classifier
from fewlabels.training.loop import run
from fewlabels.training.recipe import OptimizerRecipe

ROWS, LABELED = 1000, 100
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Question:
    """What is measured."""

    task: tyro.conf.Positional[Literal["digits", "cifar", "classic"]]
    """digits: the small network, 16x16 gray, 40 + 120; cifar: WRN-28-2, 32x32 in color, 16 + 112; classic: 64 + 448"""
    steps: int = 20
    """in a timed piece, after eight that are not timed"""
    repeats: int = 5
    device: str = "cpu"
    compile: bool = False
    """ours compiled, on a GPU captured"""
    json: Path | None = None


@dataclass(frozen=True)
class Setting:
    """Random images of a shape, a network and a batch."""

    model: str
    channels: int
    size: int
    batch: int
    unlabeled_batch: int

    def images(self) -> np.ndarray:
        """Give uint8 [n, C, H, W]."""
        shape = ROWS, self.channels, self.size, self.size
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def labels(self) -> np.ndarray:
        """Give int64 [n]."""
        return np.arange(ROWS) % 10

    def classifier(self) -> Classifier:
        """Build the network."""
        card = Card(
            self.model, tuple("0123456789"), ImageForm(self.channels, (self.size, self.size)), *self.statistics()
        )
        return build_classifier(card, key=Key(0))

    def arithmetic(self) -> float:
        """Count the floating-point operations of a step: all views forward, labeled and strong ones backward too."""
        return flops(self.classifier()) * (3 * self.batch + 4 * self.unlabeled_batch)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Give the channels' mean and deviation."""
        return MEAN[: self.channels], STD[: self.channels]


SETTINGS = {"digits": Setting("small_cnn", 1, 16, 40, 120), "cifar": Setting("wrn_28_2", 3, 32, 16, 112)}
SETTINGS["classic"] = Setting("wrn_28_2", 3, 32, 64, 448)


def ours(
    setting: Setting, passes: Literal["one", "two", "three"], device: torch.device = CPU, compiled: bool = False
) -> Callable[[int], None]:
    """Give a function that does a number of our steps."""
    images, labels = setting.images(), np.where(np.arange(ROWS) < LABELED, setting.labels(), UNLABELED)
    table = make_table("random", list(images), [str(row) for row in range(ROWS)], labels, "0123456789")
    precision = "bfloat16" if fast_bfloat16(device) else "float32"
    recipe = ClassifierRecipe(
        steps=10**6, batch=setting.batch, unlabeled_batch=setting.unlabeled_batch,
        optimizer=OptimizerRecipe("sgd", lr=0.03, weight_decay=5e-4), ema_memory=1000.0, batch_norm_memory=1000.0,
        precision=precision, compile=compiled,
    )  # fmt: skip
    prepared = Preparation(
        table=table,
        inputs=IMAGES,
        store=ResidentImages(torch.from_numpy(images).to(device)),
        labeled=table.labeled_rows,
        held_out=table.labeled_rows[:0],
        options=Options(),
        recipe=recipe,
        classifier=setting.classifier(),
        views=ImageViews(*setting.statistics(), "horizontal").to(device),
        key=Key(0),
    )
    state, feed = begin(prepared, FixMatch(passes=passes))
    begun = itertools.count(0)

    def steps(count: int) -> None:
        first = next(begun) * 1000
        run(state, feed, first, first + count, watch=unwatched)
        synchronize(device)

    return steps


class Field:
    """The field's step."""

    def __init__(self, setting: Setting, our_arithmetic: bool, device: torch.device, compiled: bool) -> None:
        self.ours, self.device = our_arithmetic, device
        self.network = setting.classifier().train().to(device)
        self.ema = deepcopy(self.network)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=our_arithmetic
        )
        if our_arithmetic and compiled:
            self.network.compile()
        views = [transforms(kind, setting.size, channels=setting.channels) for kind in ("weak", "strong")]
        images, labels = setting.images(), setting.labels()
        self.labeled = loader(Viewed(images[:LABELED], labels[:LABELED], views[:1]), setting.batch, 1)
        workers = max(2, (os.cpu_count() or 2) - 2)
        self.unlabeled = loader(Viewed(images, labels, views), setting.unlabeled_batch, workers)
        self.workers = [w.pid for it in (self.labeled, self.unlabeled) for w in it._workers]  # pyright: ignore
        self.pause()

    def pause(self) -> None:
        """Stop the workers, so that they do not disturb the other side."""
        for pid in self.workers:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the workers work."""
        for pid in self.workers:
            os.kill(pid, signal.SIGCONT)

    def steps(self, count: int) -> None:
        """Do steps."""
        for _ in range(count):
            (x, y), (weak, strong, _) = next(self.labeled), next(self.unlabeled)
            y = y.to(self.device, non_blocking=True)
            inputs = torch.cat([part.to(self.device, non_blocking=True) for part in (x, weak, strong)])
            if self.ours:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            bfloat16 = self.ours and fast_bfloat16(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
                logits = self.network(inputs).float()
            z, z_w, z_s = logits.split([len(x), len(weak), len(strong)])
            p, target = torch.softmax(z_w.detach(), 1).max(1)
            loss = F.cross_entropy(z, y)
            loss = loss + (F.cross_entropy(z_s, target, reduction="none") * (p >= 0.95)).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                for mine, theirs in zip(self.ema.parameters(), self.network.parameters(), strict=True):
                    mine.mul_(0.999).add_(theirs, alpha=0.001)
        synchronize(self.device)


def name_of(device: torch.device) -> str:
    """Name the device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def main(question: Question) -> None:
    """Measure each side in turn."""
    setting = SETTINGS[question.task]
    device = torch.device(question.device)
    three, one = (ours(setting, passes, device, question.compile) for passes in ("three", "one"))
    torch.backends.cudnn.benchmark = True
    names = {"field": False, "field, our arithmetic": True}
    fields = {name: Field(setting, arithmetic, device, question.compile) for name, arithmetic in names.items()}
    most = torch.get_num_threads()
    times: dict[str, dict[int, list[float]]] = {}

    warm_up = 4 * max(2, (os.cpu_count() or 2) - 2)  # also what the workers have made in advance

    def measure(name: str, steps: Callable[[int], None], threads: int) -> None:
        torch.set_num_threads(threads)
        steps(warm_up)
        start = time.perf_counter()
        steps(question.steps)
        seconds = (time.perf_counter() - start) / question.steps
        times.setdefault(name, {}).setdefault(threads, []).append(1e3 * seconds)

    try:
        for _ in range(question.repeats):
            for threads in (1, most) if device == CPU else (most,):
                measure("ours, three passes", three, threads)
                measure("ours, one pass", one, threads)
                for name, field in fields.items():
                    field.go_on()
                    measure(name, field.steps, threads)
                    field.pause()
    finally:  # stopped workers could not end
        for field in fields.values():
            field.go_on()
    best = {name: min(by.values(), key=median) for name, by in times.items()}

    torch.set_num_threads(most)
    bfloat16 = torch.bfloat16 if fast_bfloat16(device) else torch.float32
    limit = 1e3 * setting.arithmetic() / matmul_rate(device, bfloat16)
    result: dict[str, Any] = {
        "where": machine(name_of(device)),
        "task": question.task,
        "n": question.repeats,
        "steps": question.steps,
        "milliseconds_a_step": {n: {t: round(median(v), 1) for t, v in by.items()} for n, by in times.items()},
        "limit_milliseconds": round(limit, 2),
        "share_of_the_limit": round(limit / median(best["ours, three passes"]), 3),
        "ratio": ratios(best["ours, three passes"], best["field"]),
        "ratio_one_pass": ratios(best["ours, one pass"], best["field"]),
        "ratio_same_arithmetic": ratios(best["ours, three passes"], best["field, our arithmetic"]),
        "ratio_one_pass_same_arithmetic": ratios(best["ours, one pass"], best["field, our arithmetic"]),
    }
    say(result, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
