"""A short real training of each method: finite, rows are kept, and it learns."""

import math

import pytest

from fewlabels.data.table import Labels
from fewlabels.methods import method_names
from fewlabels.runs.job import begin
from fewlabels.runs.train import predict_rows
from fewlabels.training.loop import run
from tests.eager import MIXES, OWN_LABELED_LOSS, eager


def hidden_accuracy(job, state) -> float:
    chosen: Labels = job.rows.hidden
    return float((predict_rows(state.averaged, job.rows, chosen).argmax(1) == job.rows.truth[chosen]).mean())


@pytest.mark.parametrize("name", method_names())
def test_a_short_training_on_digits_learns(small_job, name):
    job = small_job(steps=120, batch=16, unlabeled_batch=32, ema_memory=6.0, batch_norm_memory=6.0, lr=0.1)
    state, feed = begin(job, eager(name))
    seen = []
    run(state, feed, 0, 120, watch=lambda _, __, metrics: seen.append({k: float(v) for k, v in metrics.items()}))
    assert all(math.isfinite(value) for line in seen for value in line.values())
    labeled = [line.get("labeled_loss", line["loss"]) for line in seen]
    if name not in OWN_LABELED_LOSS:
        assert sum(labeled[-20:]) < 0.7 * sum(labeled[:20])
    if name != "supervised":
        assert sum(line.get("kept", 1.0) for line in seen) > 0  # where images are mixed, all are kept
        assert sum(line["unlabeled_loss"] for line in seen) > 0
    least = 0.4 if name in MIXES else 0.5  # chance is 0.1; mixed images are learned more slowly
    assert hidden_accuracy(job, state) > least
