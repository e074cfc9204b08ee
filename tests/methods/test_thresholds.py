"""Which rows count at the edges: a confidence that is exactly the threshold, no rows, one row, no variance."""

import pytest
import torch

from fewlabels.methods.parts.thresholds import (
    CurriculumThreshold,
    FixedThreshold,
    SelfAdaptiveThreshold,
    SoftWeight,
    at_least,
)

STEP = torch.tensor(0)
EXACT = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])  # numbers that a float holds exactly


def test_a_row_exactly_at_the_threshold_counts():
    assert at_least(EXACT, 0.75).tolist() == [1, 0, 1]
    assert FixedThreshold(0.75)(EXACT, STEP).tolist() == [1, 0, 1]
    assert at_least(EXACT, torch.tensor([0.75, 0.5, 0.9375])).tolist() == [1, 1, 0]


def test_a_row_exactly_at_the_threshold_of_its_class_counts():
    """With a memory of one step the means are those of the batch: tau 0.75, and both classes are as frequent."""
    threshold = SelfAdaptiveThreshold(2, memory=1.0)
    assert threshold(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), STEP).tolist() == [1, 1]
    assert threshold.tau == 0.75


def test_a_row_exactly_at_the_threshold_is_remembered_for_its_class():
    threshold = CurriculumThreshold(2, rows=3, unlabeled=3, threshold=0.75)
    threshold(EXACT, torch.arange(3))
    assert threshold.selected.tolist() == [0, -1, 1]


@pytest.mark.parametrize("rows", [0, 1])
def test_too_few_rows_for_a_mean_and_a_variance_leave_them_as_they_are(rows):
    """Of no row there is no mean, of one no variance: either would be NaN for the rest of the run."""
    weight = SoftWeight(2, memory=10.0)
    found = weight(EXACT[:rows], STEP)
    assert (float(weight.mean), float(weight.variance)) == (0.5, 1.0)
    assert found.tolist() == [1.0] * rows  # a confidence above the mean has the whole weight


def test_no_rows_leave_the_self_adaptive_threshold_as_it_is():
    threshold = SelfAdaptiveThreshold(2, memory=10.0)
    assert threshold(EXACT[:0], STEP).shape == (0,)
    assert threshold.tau == 0.5
    assert threshold.p_mean.tolist() == threshold.histogram.tolist() == [0.5, 0.5]
    threshold(EXACT[:1], STEP)
    assert threshold.tau > 0.5  # one row has a mean


def test_rows_that_are_all_as_confident_have_the_whole_weight():
    """Their variance is 0, and 0 / 0 is no weight."""
    weight = SoftWeight(2, memory=1.0)
    assert weight(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), STEP).tolist() == [1, 1]
    assert weight.variance == 0


def test_the_weight_falls_below_the_mean_and_never_rises_above_one():
    weight = SoftWeight(2, memory=1.0, sigmas=2.0)
    found = weight(torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.0, 1.0]]), STEP)
    assert (float(weight.mean), float(weight.variance)) == (pytest.approx(0.8), pytest.approx(0.04))
    assert found.tolist() == pytest.approx([2.718281828**-2, 1, 1])  # exp(-(0.2)^2 * 4 / (2 * 0.04))


def test_the_clipped_threshold_is_what_is_remembered():
    threshold = SelfAdaptiveThreshold(2, memory=1.0, clip=(0.8, 0.9))
    assert threshold(EXACT[:1], STEP).tolist() == [0] and threshold.tau == pytest.approx(0.8)
    assert threshold(torch.tensor([[1.0, 0.0]]), STEP).tolist() == [1] and threshold.tau == pytest.approx(0.9)
