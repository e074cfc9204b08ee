"""The cost of a layer probe in steps, measured in turn with steps.

    python benchmarks/probe.py digits
    python benchmarks/probe.py fashion_mnist.npz --rows 5000 --labels-per-class 4

Prints the ratios; --json PATH writes them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from accuracy import machine
from layers import Question as Setting
from layers import Trainings
from outcome import ratios, say, unwatched

from fewlabels.classify.preparation import begin, probe_of
from fewlabels.data.sources.open import open_table
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.training.loop import run

STEPS = 5  # that are timed before each probe


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    labels_per_class: int = 1
    rows: int | None = None
    pairs: int = 15
    json: Path | None = None


def main(question: Question) -> None:
    """Time a few steps and a probe, again and again."""
    torch.set_num_threads(1)
    setting = Setting(question.data, labels_per_class=question.labels_per_class, rows=question.rows)
    prepared, method = Trainings(setting, open_table(question.data), 1000).preparation, LayerMatch()
    state, feed = begin(prepared, method)
    probe = probe_of(prepared, method)
    run(state, feed, 0, 20, watch=unwatched)
    a_step, a_probe = [], []
    for number in range(question.pairs):
        start = time.perf_counter()
        first = 20 + STEPS * number
        run(state, feed, first, first + STEPS, watch=unwatched)
        middle = time.perf_counter()
        probe(state.learner.network, state.learner.method, state.step)
        a_step.append((middle - start) / STEPS)
        a_probe.append(time.perf_counter() - middle)
    result = {"data": question.data, "pairs": question.pairs, "a_probe_in_steps": ratios(a_step, a_probe)}
    say({"where": machine(), **result}, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
