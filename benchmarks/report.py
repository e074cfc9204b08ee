"""How long the report of 10,000 images takes, and how large it gets: each case in a process of its own, n times.

    python benchmarks/report.py --json benchmarks/results/report.json

The runs are made up: what is drawn and listed costs, and not what it says. Pictures are noise, which no JPEG makes
small.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
import yaml

from fewlabels.classify.calibration import reliability
from fewlabels.classify.metrics import metrics_of
from fewlabels.classify.reference import Suspects
from fewlabels.classify.report.findings import Findings
from fewlabels.classify.report.health import warnings_of
from fewlabels.classify.report.write import write_report
from fewlabels.config import Options, option_values
from fewlabels.data.sources.open import from_arrays
from fewlabels.data.splits import hide_all_but
from fewlabels.data.table import Labels, Table
from fewlabels.inputs.kinds import IMAGES
from fewlabels.training.record import append_line, read_lines


@dataclass(frozen=True)
class Case:
    """A made-up run.

    Attributes:
        rows: images, a fifth of them the test split.
        classes: how many.
        side: of the images, in pixels.
        letters: of each class's and each file's name.
    """

    rows: int = 10_000
    classes: int = 10
    side: int = 64
    letters: int = 12


CASES = {
    "10 classes, 64 pixels": Case(),
    "200 classes, 224 pixels": Case(classes=200, side=224),
    "1000 classes, 512 pixels, long names": Case(classes=1000, side=512, letters=200),
}


class Noise:
    """Images that are made when they are asked for."""

    def __init__(self, rows: int, side: int) -> None:
        self.device = torch.device("cpu")
        self.shape = (rows, 3, side, side)

    def take(self, rows: Labels) -> torch.Tensor:
        """Give the images of these rows."""
        return torch.randint(0, 256, (len(rows), *self.shape[1:]), dtype=torch.uint8)

    def expect(self, *coming: Labels) -> None:
        """Do nothing."""


def made_up(case: Case) -> tuple[dict[str, Any], Findings]:
    """Make the summary and the findings of a run, of a network that is right half of the time."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(case.rows) % case.classes)
    test = np.arange(case.rows) >= case.rows * 4 // 5
    table = _table(case, labels, test)
    probabilities = rng.dirichlet(np.full(case.classes, 5 / case.classes), case.rows).astype(np.float32)
    probabilities[np.arange(case.rows), np.where(rng.random(case.rows) < 0.5, labels, 0)] += 1
    probabilities /= probabilities.sum(1, keepdims=True)
    order = rng.permutation(table.unlabeled_rows)
    unknown = np.zeros(case.rows, bool)
    unknown[order[:500]] = True
    findings = Findings(
        table, IMAGES, Noise(case.rows, case.side), probabilities, probabilities, unknown,
        Suspects(order[:200], labels[order[:200]]), order[200:700],
    )  # fmt: skip
    return _summary(findings), findings


def _table(case: Case, labels: Labels, test: np.ndarray) -> Table:
    pixels = np.zeros((case.rows, 1, 1), np.uint8)
    train = ~test
    names = [f"{'class ' * case.letters}"[: case.letters - 4] + f"{k:04}" for k in range(case.classes)]
    table = from_arrays(
        {"x": pixels[train], "y": labels[train], "x_test": pixels[test], "y_test": labels[test], "classes": names},
        "made_up",
    )
    table = hide_all_but(table, np.arange(4 * case.classes))
    files = tuple(f"{'folder/' * case.letters}"[: case.letters - 9] + f"{i:05}.jpg" for i in range(case.rows))
    return replace(table, names=files)


def _summary(findings: Findings) -> dict[str, Any]:
    table, p = findings.table, findings.probabilities
    test, hidden = table.test_rows, table.unlabeled_rows
    found = asdict(reliability(p[test], table.labels[test]) or 0)
    scores = {
        "test": metrics_of(p[test].argmax(1), table.labels[test]),
        "hidden": metrics_of(p[hidden].argmax(1), table.truth[hidden]),
    }
    kinds = {"supervised": "supervised", "knn": "training_free", "linear": "training_free", "layermatch": "method"}
    return {
        "task": "classify", "data": table.name, "rows_are": IMAGES.many, "method": "layermatch", "seed": 0,
        "model": "small_cnn", "steps": 1000, "policy": "grad_relu", "labeled": len(table.labeled_rows),
        "unlabeled": len(table.unlabeled_rows), "held_out": 0, "test": len(test), "set_aside": 3, "notes": ["made up"],
        "gain": {"value": 0.1, "standard_error": 0.01, "clear": True},
        "gain_over_training_free": None,
        "chosen": {"name": "layermatch", "why": None, "margin": None, "cross_validated": None, **scores},
        "rows": [{"name": name, "label": name, "kind": kind, **scores, "seconds": 1.0, "added": None}
                 for name, kind in kinds.items()],
        "calibration": {"kind": "temperature", "temperature": 1.5, "rows": 40, "how": "held out", "promised": False,
                        "raw": found, "calibrated": found},
        "unknown": int(findings.unknown.sum()),
    }  # fmt: skip


def write_run(folder: Path) -> None:
    """Write the configuration and the records that a report reads."""
    given = {name: str(v) if isinstance(v, Path) else v for name, v in option_values(Options()).items()}
    config = {
        "version": "0", "given": given | {"data": "made_up"}, "method": {"name": "layermatch", "confidence": 0.9},
        "options": {"model": "small_cnn"}, "where": {"device": "cpu", "threads": 1, "machine": "any", "torch": "any"},
    }  # fmt: skip
    (folder / "supervised").mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for i in range(100):
        line: dict[str, Any] = {"step": 10 * i + 10, "loss": 2 / (i + 1), "labeled_loss": 1 / (i + 1), "kept": i / 100}
        if i % 10 == 9:
            names = ("accuracy", "balanced_accuracy", "macro_f1")
            line |= {f"{split}_{name}": i / 100 for split in ("test", "hidden") for name in names}
            line |= {"kept_accuracy": 1 - i / 500}
        append_line(folder / "metrics.jsonl", line | {"unlabeled_loss": 1.0})
        append_line(folder / "supervised/metrics.jsonl", line)
    layers = [{"layer": f"stage{i}.{j}", "cosine_kept": 0.5, "cosine_all": -0.1, "ratio": 1.0}
              for i in range(3) for j in range(4)]  # fmt: skip
    for step in range(100, 1100, 100):
        probe = {"step": step, "against": "hidden", "kept": 0.5, "wrong": 0.1, "layers": layers}
        append_line(folder / "probe.jsonl", probe)


def once(case: Case) -> dict[str, float]:
    """Write the report of a case; give seconds with what is imported on the way, those of the processor, and bytes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_run(folder)
        summary, findings = made_up(case)
        start, worked = time.perf_counter(), time.process_time()
        summary["warnings"] = warnings_of(summary, read_lines(folder / "metrics.jsonl"), findings)
        write_report(folder, summary, findings)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - worked
        size = (folder / "report.html").stat().st_size
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": size}


@dataclass(frozen=True)
class Question:
    """What is measured."""

    repeats: int = 5
    json: Path | None = None
    case: str | None = None
    """do this one once, in this process"""


def main(question: Question) -> None:
    """Measure each case in turn."""
    if question.case is not None:
        print(json.dumps(once(CASES[question.case])))
        return
    from accuracy import machine  # beside this script; its cases are also those of the tests
    from outcome import say

    found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    for _ in range(question.repeats):
        for name, notes in found.items():
            words = [sys.executable, __file__, "--case", name]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            notes.append(json.loads(done.stdout))
    cases = {name: asdict(CASES[name]) | _summed(notes) for name, notes in found.items()}
    say({"where": machine("CPU"), "n": question.repeats, "cases": cases}, question.json)


def _summed(notes: list[dict[str, float]]) -> dict[str, Any]:
    times = {
        kind: {name: round(of(note[kind] for note in notes), 2) for name, of in (("median", median), ("most", max))}
        for kind in ("seconds", "cpu_seconds")
    }
    return times | {"bytes": max(int(note["bytes"]) for note in notes)}


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
