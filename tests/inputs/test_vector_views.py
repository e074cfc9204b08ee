"""The views of vectors: their distribution, draws of their own, and nothing that depends on who makes them."""

import numpy as np
import pytest
import torch
from scipy import stats

from fewlabels.data.samplers import Epochs
from fewlabels.inputs.batch import Views
from fewlabels.inputs.feed import RowFeed
from fewlabels.inputs.vectors.store import Vectors, vector_statistics
from fewlabels.inputs.vectors.views import Standardize, Strength, VectorViews
from fewlabels.keys import Key
from fewlabels.processes import Process

ALL = ("weak", "weak", "medium", "strong", "strong")
N, D = 400, 50


def keys(n=N, *parts):
    return Key(1).fold(*parts).fold(torch.arange(n))


def views_of(weak=(0.1, 0, 0), strong=(0.3, 0.2, 0.4), pool=None):
    pool = torch.full((8, D), 100.0) if pool is None else pool
    return VectorViews(pool, (0.0,) * D, (1.0,) * D, Strength(*weak), Strength(*strong))


def seen(kind="strong", rows=None, **options):
    rows = torch.zeros(N, D) if rows is None else rows
    (view,) = views_of(**options).make(rows, (kind,), keys(len(rows)))
    return view


# --- numbers --------------------------------------------------------------------------------------------


def test_standardized_rows_have_mean_0_and_deviation_1_and_constant_columns_are_0():
    x = np.random.default_rng(0).normal(3, [0, 1e-3, 1, 1e4], (300, 4)).astype(np.float32)
    x[:, 0] = 0.1  # in float64 the mean of these differs from them
    vectors, rows = Vectors(torch.from_numpy(x)), np.arange(0, 300, 2)
    mean, std = vector_statistics(vectors, rows)
    out = Standardize(mean, std)(vectors.take(rows)).numpy()
    assert std[0] == 0
    np.testing.assert_array_equal(out[:, 0], 0)
    np.testing.assert_allclose(out[:, 1:].mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(out[:, 1:].std(0), 1, rtol=1e-3)
    np.testing.assert_allclose(mean, x[rows].mean(0, dtype=float), rtol=1e-9)
    other = torch.tensor([[9.0, 3.0, 3.0, 3.0]])  # what the training never saw counts for nothing
    assert Standardize(mean, std)(other)[0, 0] == 0


def test_views_without_strength_are_the_standardized_rows():
    rows = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    nothing = VectorViews(rows, (0.5,) * D, (2.0,) * D, Strength(0), Strength(0))
    for view in nothing.make(rows, ALL, keys()):
        torch.testing.assert_close(view, (rows - 0.5) / 2)


# --- distributions --------------------------------------------------------------------------------------


def test_noise_is_normal_with_the_given_deviation():
    noise = seen("weak", weak=(0.25, 0, 0)).numpy()
    assert stats.kstest(noise.ravel() / 0.25, "norm").pvalue > 0.01
    correlations = np.corrcoef(noise.T) - np.eye(D)
    assert np.abs(correlations).max() < 5 / N**0.5
    assert np.isfinite(noise).all()


def test_so_many_entries_are_replaced_each_by_that_of_a_row_of_its_own():
    pool = 1.0 + torch.arange(30.0)[:, None].expand(30, D) + 100.0 * torch.arange(D)
    view = seen(strong=(0, 0.3, 0), pool=pool)
    replaced = view != 0
    assert replaced.float().mean() == pytest.approx(0.3, abs=0.02)
    assert replaced.float().mean(0).std() == pytest.approx((0.3 * 0.7 / N) ** 0.5, rel=0.4)
    which = (view - 100.0 * torch.arange(D) - 1)[replaced]
    assert ((which >= 0) & (which < 30)).all()  # of the same dimension
    assert stats.chisquare(np.bincount(which.long().numpy(), minlength=30)).pvalue > 0.01
    first = view[replaced.sum(1) > 1][0]
    assert len((first - 100.0 * torch.arange(D))[first != 0].unique()) > 1


def test_a_row_is_mixed_with_one_other_up_to_the_given_share():
    pool = torch.tensor([[1.0], [-1.0]]).expand(2, D)
    view = seen(strong=(0, 0, 0.4), pool=pool)
    assert torch.equal(view, view[:, :1].expand(N, D))
    assert stats.kstest(view[:, 0].abs().numpy() / 0.4, "uniform").pvalue > 0.01
    assert (view[:, 0] > 0).float().mean() == pytest.approx(0.5, abs=0.1)


def test_a_medium_view_stands_between_the_others():
    far = [float(seen(kind, rows=torch.zeros(N, D), pool=torch.randn(64, D)).std()) for kind in ("weak", "medium")]
    far.append(float(seen("strong", pool=torch.randn(64, D)).std()))
    assert far[0] < far[1] < far[2]


# --- draws ----------------------------------------------------------------------------------------------


def test_all_views_of_one_call_differ_and_those_of_the_same_key_do_not():
    rows = torch.zeros(N, D)
    first, second = (views_of().make(rows, ALL, keys()) for _ in range(2))
    for i, view in enumerate(first):
        assert torch.equal(view, second[i])
        assert not any((view == other).all(1).any() for other in first[:i])
    (other,) = views_of().make(rows, ("weak",), keys(N, "another step"))
    assert not torch.equal(other, first[0])


def test_each_row_of_a_batch_has_draws_of_its_own():
    for kind in ("weak", "strong"):
        assert len(seen(kind).unique(dim=0)) == N


def test_a_view_does_not_depend_on_what_else_is_asked_for():
    rows = torch.randn(N, D)
    (alone,) = views_of().make(rows, ("weak",), keys())
    assert torch.equal(alone, views_of().make(rows, ALL, keys())[0])


def test_no_rows_and_no_views():
    assert [tuple(view.shape) for view in views_of().make(torch.zeros(0, D), ALL, keys(0))] == [(0, D)] * 5
    assert views_of().make(torch.zeros(3, D), (), keys(3)) == ()


@pytest.mark.parametrize("world", [2, 5])
def test_the_shares_of_processes_put_under_each_other_are_the_whole_batch(world):
    x = torch.randn(60, D, generator=torch.Generator().manual_seed(0))
    labels = np.where(np.arange(60) < 20, np.arange(60) % 3, -1)

    def batch(process):
        key = Key(3)
        feed = RowFeed(
            Vectors(x),
            labels,
            labeled=Epochs(np.arange(20), 10, key, "labeled"),
            unlabeled=Epochs(np.arange(20, 60), 30, key, "unlabeled"),
            steps=9,
            wanted=Views(("weak", "strong"), ALL),
            views=views_of(pool=x),
            key=key,
            process=process,
        ).batch(4, torch.tensor(4))
        return [*feed.labeled, feed.labels, *feed.unlabeled, feed.rows]

    parts = [batch(Process(rank, world)) for rank in range(world)]
    for part, whole in zip(zip(*parts, strict=True), batch(Process()), strict=True):
        assert torch.equal(torch.cat(part), whole)
