"""The sampler: every row once an epoch, in an order that is a function of the step and the key alone."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fewlabels.data.samplers import Epochs
from fewlabels.keys import Key

FEW = settings(deadline=None, max_examples=15)
seeds = st.integers(0, 2**31 - 1)
rows_of_tables = st.lists(st.integers(0, 10_000), min_size=1, max_size=30, unique=True).map(np.array)
batches = st.integers(1, 40)  # also larger than the set


def epochs(rows, batch, seed):
    return Epochs(rows, batch, Key(seed), "labeled")


def stream(sampler, steps):
    return np.concatenate([sampler.step(step) for step in range(steps)])


@FEW
@given(rows_of_tables, batches, seeds)
def test_each_row_comes_exactly_once_an_epoch(rows, batch, seed):
    seen = stream(epochs(rows, batch, seed), -(-3 * len(rows) // batch))
    for epoch in range(3):
        assert sorted(seen[epoch * len(rows) : (epoch + 1) * len(rows)]) == sorted(rows)


@FEW
@given(rows_of_tables, batches, seeds)
def test_each_step_gives_a_full_batch_of_the_sets_rows(rows, batch, seed):
    for step in (0, 1, 1000):
        drawn = epochs(rows, batch, seed).step(step)
        assert drawn.shape == (batch,)
        assert drawn.dtype == np.int64
        assert np.isin(drawn, rows).all()


@FEW
@given(rows_of_tables, batches, seeds, st.permutations(range(5)))
def test_a_step_does_not_depend_on_the_steps_asked_for_before(rows, batch, seed, order):
    used = epochs(rows, batch, seed)
    out_of_order = {step: used.step(step) for step in order}
    for step, drawn in out_of_order.items():
        assert np.array_equal(epochs(rows, batch, seed).step(step), drawn)


@FEW
@given(rows_of_tables, seeds, st.integers(1, 6), st.integers(1, 6))
def test_the_stream_does_not_depend_on_the_batch(rows, seed, batch, other):
    length = batch * other
    assert np.array_equal(
        stream(epochs(rows, batch, seed), other)[:length],
        stream(epochs(rows, other, seed), batch)[:length],
    )


@FEW
@given(batches, seeds, st.integers(0, 1000))
def test_an_empty_set_gives_no_rows(batch, seed, step):
    assert len(epochs(np.zeros(0, np.int64), batch, seed).step(step)) == 0


@FEW
@given(seeds, seeds)
def test_another_key_gives_another_order(seed, other):
    assume(seed != other)
    rows = np.arange(30)
    assert not np.array_equal(epochs(rows, 30, seed).step(0), epochs(rows, 30, other).step(0))


@FEW
@given(seeds)
def test_each_epoch_has_an_order_of_its_own(seed):
    sampler = epochs(np.arange(30), 30, seed)
    orders = [tuple(sampler.step(step)) for step in range(10)]
    assert len(set(orders)) == 10


def test_every_row_comes_first_equally_often():
    sampler = epochs(np.arange(5), 5, 0)
    first = np.bincount([sampler.step(step)[0] for step in range(1000)], minlength=5)
    assert first == pytest.approx(200, abs=50)  # four standard deviations


def test_the_caller_cannot_change_an_order():
    sampler = epochs(np.arange(9), 9, 0)
    before = sampler.step(0).copy()
    sampler.step(0)[:] = -5
    assert np.array_equal(sampler.step(0), before)
