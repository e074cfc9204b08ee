"""Accuracy over wall time: CIFAR-10 with 40 labels, the field's Wide ResNet, the ema on all test images.

    python benchmarks/cifar10_40.py cifar10.npz --steps 20000 --json benchmarks/results/cifar10-40.json

The data is an .npz file with x, y, x_test and y_test, or `cifar10` for the published files below data/. Stopped, by
Ctrl-C or by --minutes, and given again it continues; its clock runs while it works, start and evaluations included.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from accuracy import machine
from outcome import say

from fewlabels.training.record import read_lines

NOTED = 20.0  # seconds


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    method: str = "layermatch"
    seed: int = 0
    steps: int = 20_000
    model: str = "wrn_28_2"
    batch: int = 64
    unlabeled_ratio: int = 7
    lr: float = 0.03
    warm_up: int = 0
    optimizer: str = "sgd"
    compile: str = "yes"
    minutes: float | None = None
    """stop after so long; the same command goes on"""
    work: Path = Path("runs/benchmarks/cifar10-40")
    """where the run is kept"""
    json: Path | None = None


def words(question: Question, out: Path) -> list[str]:
    """Give the command."""
    given = {
        "method": question.method, "labels-per-class": 4, "seed": question.seed, "steps": question.steps,
        "model": question.model, "batch": question.batch, "unlabeled-ratio": question.unlabeled_ratio,
        "lr": question.lr, "warm-up": question.warm_up, "optimizer": question.optimizer, "compile": question.compile,
        "images.flip": "horizontal", "propagate": 0, "out": out,
    }  # fmt: skip
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "fewlabels", "train", question.data, *options, "--no-baseline"]


class Clock:
    """The points measured so far, over all sittings: seconds, and step and accuracy where there was an evaluation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.points: list[dict[str, float]] = read_lines(path)
        self._before = self.points[-1]["seconds"] if self.points else 0.0
        self._began = time.perf_counter()

    @property
    def sitting(self) -> float:
        """Seconds since this sitting began."""
        return time.perf_counter() - self._began

    @property
    def since_noted(self) -> float:
        """Seconds since the last point: a kill loses them."""
        return self._before + self.sitting - (self.points[-1]["seconds"] if self.points else 0.0)

    @property
    def evaluations(self) -> list[dict[str, float]]:
        """The points with an accuracy."""
        return [point for point in self.points if "accuracy" in point]

    def note(self, **found: float) -> None:
        """Add a point."""
        self.points.append({"seconds": round(self._before + self.sitting, 1), **found})
        with open(self.path, "a") as file:
            file.write(json.dumps(self.points[-1]) + "\n")


def sit(command: list[str], metrics: Path, clock: Clock, log: Path, minutes: float | None) -> int:
    """Run the command until it ends or the time is over; tell each evaluation. Give its exit code."""
    with open(log, "a") as said:
        # A session of its own: Ctrl-C is passed on once, and not twice, which would stop it at once.
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while process.poll() is None and (minutes is None or clock.sitting < 60 * minutes):
                time.sleep(0.5)
                _tell(metrics, clock)
                if clock.since_noted > NOTED:
                    clock.note()
        except KeyboardInterrupt:
            pass
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait()
    _tell(metrics, clock)
    clock.note()  # what went by since the last evaluation
    return code


def _tell(metrics: Path, clock: Clock) -> None:
    seen = [line for line in read_lines(metrics) if "test_accuracy" in line]
    for line in seen[len(clock.evaluations) :]:
        clock.note(step=line["step"], accuracy=line["test_accuracy"])
        seconds = clock.points[-1]["seconds"]
        print(f"{seconds:7.0f} s  step {line['step']:6.0f}  {100 * line['test_accuracy']:.2f} %", flush=True)


def main(question: Question) -> None:
    """Train, and tell the accuracy whenever it has been measured."""
    told = " ".join(words(question, Path())[3:])  # another command is another run
    name = f"{question.method}-{question.seed}-{question.steps}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
    out, log = question.work / name, question.work / f"{name}.txt"
    question.work.mkdir(parents=True, exist_ok=True)
    clock = Clock(question.work / f"{name}.jsonl")
    command = words(question, out)
    code = sit(command, out / "metrics.jsonl", clock, log, question.minutes)
    if code not in (0, 130):
        raise SystemExit(f"{' '.join(command)} ended with {code}; see {log}")
    result: dict[str, Any] = {
        "where": machine(torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"),
        "question": {k: str(v) for k, v in vars(question).items() if k not in ("json", "work", "minutes")},
        "finished": code == 0,
        "accuracy_over_time": clock.evaluations,
    }
    say(result, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
