"""Losses at the edges: few rows that count, or none."""

import pytest
import torch
from torch.nn import functional as F

from fewlabels.classify.preparation import begin
from fewlabels.methods import method_names
from fewlabels.methods.base import Method
from fewlabels.methods.parts.losses import consistency, fairness, mean_over, normalize
from tests.eager import eager

ONES, EVEN = torch.ones(3), torch.full((2,), 0.5)
Z = torch.tensor([[2.0, -1.0], [0.5, 0.0], [-1.0, 3.0]])


def fairness_by_hand(p_mean, histogram, z, row_weight):
    """Of kept rows alone: sum of a log b, with a and b normalized ratios of mean prediction and histogram."""
    p = z.softmax(1)[row_weight > 0]
    shares = torch.bincount(p.argmax(1), minlength=2) / len(p)
    b = torch.where(shares > 0, p.mean(0) / shares.where(shares > 0, 1.0), 0.0)
    a = p_mean / histogram
    return (a / a.sum() * (b / b.sum() + 1e-12).log()).sum()


@pytest.mark.parametrize("row_weight", [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
def test_fairness_is_that_of_the_rows_that_count_be_it_one(row_weight):
    weight, p_mean, histogram = torch.tensor(row_weight), torch.tensor([0.3, 0.7]), torch.tensor([0.4, 0.6])
    found = fairness(p_mean, histogram, Z, weight)
    torch.testing.assert_close(found, fairness_by_hand(p_mean, histogram, Z, weight), rtol=1e-4, atol=1e-4)


def test_fairness_without_a_row_that_counts_is_zero_and_has_no_gradient():
    z = Z.clone().requires_grad_()
    loss = fairness(EVEN, EVEN, z, torch.zeros(3))
    loss.backward()
    assert loss == 0 and torch.equal(z.grad, torch.zeros(3, 2))


def test_a_class_that_no_row_has_counts_nothing_in_fairness():
    histogram = torch.tensor([1.0, 0.0])
    assert fairness(EVEN, histogram, Z, ONES).isfinite()


def test_normalized_numbers_sum_to_one_and_none_stay_none():
    assert normalize(torch.tensor([1.0, 3.0])).tolist() == [0.25, 0.75]
    assert normalize(torch.zeros(2)).isfinite().all()


def test_the_mean_over_rows_that_count_differs_from_the_mean_over_all():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert mean_over(values, torch.tensor([1.0, 0.0, 1.0])) == 3.5
    assert mean_over(values, torch.zeros(3)) == 0
    target = torch.tensor([0, 0, 1])
    each = torch.nn.functional.cross_entropy(Z, target, reduction="none")
    weight = torch.tensor([1.0, 0.0, 0.5])
    torch.testing.assert_close(consistency(Z, target, weight), (each * weight).sum() / 3)  # over all, kept or not


@pytest.mark.parametrize("name", method_names())
def test_the_loss_of_labeled_rows_is_what_supervise_returns(small_job, name, monkeypatch):
    found = []
    for factor in (1.0, 2.0):

        def supervise(self, logits, target, reduction="mean", factor=factor):
            return factor * F.cross_entropy(logits, target, reduction=reduction)

        with monkeypatch.context() as patch:
            patch.setattr(Method, "supervise", supervise)
            state, feed = begin(small_job(), eager(name))
            metrics = state.learner(feed.batch(0, state.step))
            found.append(metrics.get("labeled_loss", metrics["loss"]).item())
    assert found[1] == pytest.approx(2 * found[0], rel=1e-6) and found[0] > 0
