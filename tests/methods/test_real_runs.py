"""A real training of each method: does it use what it is given? Minutes; `make test-slow`."""

import json

import numpy as np
import pytest

import fewlabels
from fewlabels.methods import method_names
from fewlabels.runs.compare import mean_of
from tests.eager import WITH_UNLABELED

SEEDS = range(1000, 1003)
# On these digits they have to be 3 points above labels only; the others not below them beyond noise.
BY_THRESHOLD = (
    "fixmatch", "uda", "dash", "flexmatch", "freematch", "softmatch", "comatch", "simmatch", "refixmatch",
    "sequencematch", "shrinkmatch", "fullmatch", "regmixmatch", "debiaspl", "layermatch", "adamatch", "crmatch",
    "pseudo_label", "defixmatch",
)  # fmt: skip
# What they mix has no pseudo-label; their gradients are tested in test_gradients.
NOT_PROBED = ("supervised", "mixmatch", "remixmatch")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train a method with each seed, once: accuracies on hidden labels, and what was recorded."""
    done = {}

    def train(name):
        if name not in done:
            done[name] = [one(name, seed, tmp_path_factory.mktemp("runs")) for seed in SEEDS]
        return done[name]

    return train


def one(name, seed, folder):
    run = fewlabels.fit(
        "digits", method=name, labels_per_class=4, seed=seed, steps=400, baseline=False, threads=1, device="cpu",
        out=folder / "run",
    )  # fmt: skip
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return (
        run.summary["chosen"]["hidden"]["accuracy"],
        lines,
        None if name in NOT_PROBED else fewlabels.probe(run.path)["layers"],
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_UNLABELED)
def test_what_a_method_gains_on_digits(trained, name):
    points = [100 * (own[0] - base[0]) for own, base in zip(trained(name), trained("supervised"), strict=True)]
    gain = mean_of(points)
    assert gain.value is not None and gain.high is not None
    if name in BY_THRESHOLD:
        assert gain.value >= 3, points
    else:
        assert gain.high >= 0, points
    for _, lines, layers in trained(name):
        assert all(np.isfinite(value) for line in lines for value in line.values())
        assert sum(line["unlabeled_loss"] for line in lines) > 0
        assert sum(line.get("kept", 1.0) for line in lines) > 0  # where images are mixed, all are kept
        if name not in NOT_PROBED:
            assert all(layer["ratio"] > 0 for layer in layers), "no gradient of the unlabeled loss"


def test_all_methods_that_have_one_are_held_to_a_gain():
    assert set(BY_THRESHOLD) < set(method_names())
