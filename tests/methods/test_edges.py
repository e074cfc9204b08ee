"""Methods at the edges of what they are made for: two classes, one row, as many outputs as there are turns."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fewlabels.classify.preparation import begin
from fewlabels.errors import UserError
from fewlabels.methods.parts.heads import auxiliary_head
from tests.eager import eager


@pytest.mark.parametrize("name", ["crmatch", "remixmatch"])
def test_the_head_for_turns_has_an_output_for_each_quarter(small_job, name):
    state, _ = begin(small_job(), eager(name))
    *_, last = (module for module in state.learner.method.turn_head.modules() if isinstance(module, torch.nn.Linear))
    assert last.out_features == 4


def shrink_loss(state, rows, classes):
    """The loss of ShrinkMatch's auxiliary head on random rows."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(rows, state.learner.network.classifier.head.in_features, generator=generator)
    p = torch.randn(rows, classes, generator=generator).softmax(1)
    return state.learner.method._shrink_loss(features, p, torch.zeros(rows), torch.tensor(0))


def test_where_no_class_can_be_left_out_shrinkmatch_has_no_loss_for_that(small_job):
    state, _ = begin(small_job(), eager("shrinkmatch", threshold=0.95))
    assert shrink_loss(state, 1, 10) == 0  # batch norm has no variance of one row
    state.learner.method.auxiliary[-1] = torch.nn.Linear(state.learner.method.auxiliary[-1].in_features, 2)
    assert shrink_loss(state, 8, 2) == 0


def test_a_run_of_two_classes_has_a_finite_loss(small_job, digits_rows):
    labels = np.where(digits_rows.table.test | (digits_rows.labels < 2), digits_rows.labels, -1)
    job = small_job(rows=digits_rows.with_(labels=labels))
    state, feed = begin(job, eager("shrinkmatch"))
    assert state.learner.method(state.learner.network, feed.batch(0, state.step))["loss"].isfinite()


def test_freematch_takes_a_clip_of_one_value_and_none_that_is_upside_down():
    assert eager("freematch", clip=(0.9, 0.9)).clip == (0.9, 0.9)
    with pytest.raises(UserError, match="lowest"):
        eager("freematch", clip=(0.95, 0.9))


@pytest.mark.parametrize(("name", "option", "value"), [("fixmatch", "threshold", 1.5), ("vat", "weight", -1.0)])
def test_an_option_that_is_not_allowed_is_refused_by_name(name, option, value):
    with pytest.raises(UserError, match=f"{option}.*{value}"):
        eager(name, **{option: value})


def test_the_auxiliary_head_narrows_to_a_quarter_and_to_no_less_than_one():
    def sizes(head):
        return [module.out_features for module in head if isinstance(module, torch.nn.Linear)]

    assert sizes(auxiliary_head(64, 10)) == [16, 16, 10]
    assert sizes(auxiliary_head(3, 2)) == [1, 1, 2]


@pytest.mark.parametrize("name", ["mixmatch", "remixmatch", "regmixmatch"])
def test_tables_of_constants_are_in_no_checkpoint(small_job, name):
    state, _ = begin(small_job(), eager(name))
    constants = {buffer for buffer, tensor in state.learner.method.named_buffers() if tensor.shape == (4097,)}
    assert constants and constants.isdisjoint(state.learner.method.state_dict())
    assert not any(tensor.shape == (4097,) for tensor in state.tensors().values())


TRUST = {  # UDA's share of the way from 1/K to 1 up to which a labeled row counts, at a part t of the run
    "linear": lambda t: t,
    "log": lambda t: 1 - math.exp(-5 * t),
    "exp": lambda t: math.exp(5 * (t - 1)),
}


@pytest.mark.parametrize("annealing", TRUST)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_uda_trains_on_labeled_rows_that_are_not_yet_told_too_surely(small_job, annealing, t):
    state, feed = begin(small_job(), eager("uda", annealing=annealing))
    logits, labels = torch.linspace(-9, 9, 5000)[:, None] * F.one_hot(torch.tensor(3), 10), torch.full((5000,), 3)
    told = logits.softmax(1)[:, 3]
    counts = told <= 0.1 + 0.9 * TRUST[annealing](t)
    assert 0 < counts.sum() < 5000
    batch = dataclasses.replace(feed.batch(0, state.step), labels=labels, progress=torch.tensor(t))
    expected = -told[counts].log().mean()
    torch.testing.assert_close(state.learner.method._labeled_loss(logits, batch), expected, rtol=1e-5, atol=1e-6)
