"""A short real training of each method: finite, rows are kept, and it learns."""

import math

import pytest

from fewlabels.data.table import Labels
from fewlabels.methods import method_names
from fewlabels.runs.job import begin
from fewlabels.runs.train import predict_rows
from fewlabels.training.loop import run
from tests.eager import OWN_LABELED_LOSS, eager


def hidden_accuracy(job, state) -> float:
    chosen: Labels = job.rows.hidden
    return float((predict_rows(state.averaged, job.rows, chosen).argmax(1) == job.rows.truth[chosen]).mean())


@pytest.mark.parametrize("name", method_names())
def test_a_short_training_on_digits_learns(small_job, name):
    # Of images of 8 pixels strong and mixed views leave little: at the others' rate ReMixMatch collapses to a class.
    steps, lr = (240, 0.03) if name == "remixmatch" else (120, 0.1)
    job = small_job(steps=steps, batch=16, unlabeled_batch=32, ema_memory=6.0, batch_norm_memory=6.0, lr=lr)
    state, feed = begin(job, eager(name))
    seen = []
    run(state, feed, 0, steps, watch=lambda _, __, metrics: seen.append({k: float(v) for k, v in metrics.items()}))
    assert all(math.isfinite(value) for line in seen for value in line.values())
    labeled = [line.get("labeled_loss", line["loss"]) for line in seen]
    if name not in OWN_LABELED_LOSS:
        assert sum(labeled[-20:]) < 0.7 * sum(labeled[:20])
    if name != "supervised":
        assert sum(line.get("kept", 1.0) for line in seen) > 0  # where images are mixed, all are kept
        assert sum(line["unlabeled_loss"] for line in seen) > 0
    assert hidden_accuracy(job, state) > 0.5  # chance is 0.1
