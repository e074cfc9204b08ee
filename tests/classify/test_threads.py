"""How many threads a run takes."""

import pytest
import torch
import yaml

import fewlabels
from fewlabels.classify.preparation import stage_of
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.runs.host import host_settings_kept
from fewlabels.training import rehearsal

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = {"labels_per_class": 4, "steps": 4, "batch": 8, "unlabeled_ratio": 2, "device": "cpu", "baseline": False}


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("one", "two", "chosen"), [(0.010, 0.030, 1), (0.010, 0.009, 1), (0.010, 0.007, 2)])
def test_more_threads_must_be_a_fifth_faster(small_job, two_threads, monkeypatch, one, two, chosen):
    clock = Clock(one, two)
    monkeypatch.setattr(rehearsal.time, "perf_counter", clock)
    threads, reason = rehearsal_of(small_job()).fastest_threads(lambda: False)
    assert threads == chosen
    assert (
        reason == f"measured: 10 ms a step with 1 thread, {1000 * two:.0f} with 2; more threads must be a fifth faster"
    )
    assert torch.get_num_threads() == 2


class Clock:
    """Goes on by a step's time whenever it is read."""

    def __init__(self, one, two):
        self.one, self.two, self.now = one, two, 0.0

    def __call__(self):
        self.now += self.one if torch.get_num_threads() == 1 else self.two
        return self.now


def rehearsal_of(preparation):
    return rehearsal.Rehearsal(stage_of(preparation, FixMatch(), "fixmatch", None))


def test_one_thread_is_not_measured(small_job):
    assert rehearsal_of(small_job()).fastest_threads(lambda: False) == (1, "as many as the machine gives")


class EnoughError(Exception):
    """What follows the training is left out."""


def test_a_run_keeps_the_threads_it_was_begun_with(tmp_path, two_threads, monkeypatch, few_digits):
    monkeypatch.setattr(rehearsal.Rehearsal, "fastest_threads", lambda self, stop: (2, "measured"))
    fewlabels.fit(few_digits, out=tmp_path / "run", **SMALL)
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["where"]["threads"], config["why"]["threads"]) == (2, "measured")
    assert torch.get_num_threads() == 2
    (tmp_path / "run/summary.json").unlink()  # as if it were not finished
    monkeypatch.setattr(rehearsal.Rehearsal, "fastest_threads", None)  # not asked again
    seen = []

    def train(*_):
        seen.append(torch.get_num_threads())
        raise EnoughError

    monkeypatch.setattr("fewlabels.runs.fit.train", train)
    with pytest.raises(EnoughError):
        fewlabels.fit(few_digits, out=tmp_path / "run", **SMALL)
    assert seen == [2]


def test_a_run_leaves_the_settings_of_the_program_that_calls_it(tmp_path, two_threads, monkeypatch, few_digits):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = torch.get_rng_state()
    fewlabels.fit(few_digits, method="fixmatch", out=tmp_path / "run", threads=1, **SMALL)
    assert torch.get_num_threads() == 2
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ZeroDivisionError), host_settings_kept():
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        torch.set_num_threads(1)
        torch.manual_seed(torch.initial_seed() + 1)
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2 and torch.equal(before, torch.get_rng_state())
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (False, True)
