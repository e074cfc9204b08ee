"""The feed: a batch is a function of the key, the branch and the step, however many processes share it."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from fewlabels.data.samplers import Epochs
from fewlabels.inputs.batch import Views
from fewlabels.inputs.feed import RowFeed
from fewlabels.inputs.images.store import ResidentImages
from fewlabels.inputs.images.views import ImageViews
from fewlabels.keys import Key
from fewlabels.processes import Process

PLAIN = ImageViews((0.0,), (1.0,))
WANTED = Views(("weak", "strong"), ("weak", "strong", "strong"))
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1])
NOISE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 1, 16, 16), np.uint8))
ROW_NUMBERS = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 8, 8).contiguous()


def feed_of(images=NOISE, **changes):
    options = {
        "labeled": np.flatnonzero(LABELS >= 0), "unlabeled": np.flatnonzero(LABELS < 0), "batch": 6,
        "unlabeled_batch": 10, "steps": 50, "wanted": WANTED, "views": PLAIN, "key": Key(7),
    } | changes  # fmt: skip
    for stream, batch in (("labeled", "batch"), ("unlabeled", "unlabeled_batch")):
        size = options.pop(batch)
        if not isinstance(options[stream], Epochs):
            options[stream] = Epochs(options[stream], size, options["key"], stream)
    return RowFeed(ResidentImages(images), LABELS, **options)


def batch_of(feed, step=3, branch=0):
    return feed.batch(step, torch.tensor(step), branch)


def tensors_of(batch):
    return [*batch.labeled, batch.labels, *batch.unlabeled, batch.rows]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(tensors_of(first), tensors_of(second), strict=True))


def numbers_shown(view):
    """Read the row number off images that show nothing else; a weak view keeps it."""
    return (view[:, 0, 0, 0] * 255).round().long()


@pytest.mark.parametrize("step", [0, 3, 40])
@pytest.mark.parametrize("world", [2, 1])
def test_the_shares_put_under_each_other_are_the_whole_batch(step, world):
    whole = batch_of(feed_of(), step)
    shares = [batch_of(feed_of(process=Process(rank, world)), step) for rank in range(world)]
    for part, tensor in zip(zip(*map(tensors_of, shares), strict=True), tensors_of(whole), strict=True):
        assert len(part[0]) == len(tensor) / world
        assert torch.equal(torch.cat(part), tensor)


def test_shares_cover_a_batch_that_does_not_divide():
    slots = [np.arange(7)[Process(rank, 2).slots(7)] for rank in range(2)]
    assert np.concatenate(slots).tolist() == list(range(7))


def test_views_and_labels_are_those_of_the_rows():
    feed = feed_of(ROW_NUMBERS)
    for step in range(6):
        batch = batch_of(feed, step)
        shown = numbers_shown(batch.labeled[0])
        assert torch.equal(batch.labels, torch.from_numpy(LABELS)[shown])
        assert (batch.labels >= 0).all()
        assert torch.equal(numbers_shown(batch.unlabeled[0]), batch.rows)
        assert (torch.from_numpy(LABELS)[batch.rows] == -1).all()


def test_an_epoch_shows_each_row_once():
    feed = feed_of(ROW_NUMBERS, batch=4, unlabeled_batch=6)
    labeled = torch.cat([numbers_shown(batch_of(feed, step).labeled[0]) for step in range(2)])
    unlabeled = torch.cat([batch_of(feed, step).rows for step in range(2)])
    assert labeled.sort().values.tolist() == list(range(8))
    assert unlabeled.sort().values.tolist() == list(range(8, 20))


def test_the_views_are_as_many_and_of_the_shape_that_were_asked_for():
    batch = batch_of(feed_of())
    assert [tuple(view.shape) for view in batch.labeled] == [(6, 1, 16, 16)] * 2
    assert [tuple(view.shape) for view in batch.unlabeled] == [(10, 1, 16, 16)] * 3
    assert {view.dtype for view in batch.labeled + batch.unlabeled} == {torch.float32}


def test_a_batch_does_not_depend_on_those_asked_for_before():
    used = feed_of()
    for step in (9, 2, 5, 2):
        assert same(batch_of(used, step), batch_of(feed_of(), step))


def test_each_step_has_other_rows_and_other_views():
    feed = feed_of(unlabeled=np.array([8]))
    first, second = batch_of(feed, 0), batch_of(feed, 1)
    assert not torch.equal(batch_of(feed_of(), 0).rows, batch_of(feed_of(), 1).rows)
    assert not torch.equal(first.unlabeled[0], second.unlabeled[0])


@pytest.mark.parametrize("change", [{"key": Key(8)}, {}], ids=["another seed", "another branch"])
def test_another_seed_and_another_branch_have_other_rows_and_other_views(change):
    branch = 0 if change else 1
    assert not torch.equal(batch_of(feed_of(**change), branch=branch).rows, batch_of(feed_of()).rows)
    one_row = {"labeled": np.array([2]), "unlabeled": np.array([9])}
    other, first = batch_of(feed_of(**one_row, **change), branch=branch), batch_of(feed_of(**one_row))
    for mine, theirs in zip(other.labeled + other.unlabeled, first.labeled + first.unlabeled, strict=True):
        assert not torch.equal(mine, theirs)


def test_branches_do_not_disturb_each_other():
    used = feed_of()
    batch_of(used, branch=1)
    assert same(batch_of(used, branch=0), batch_of(feed_of(), branch=0))
    assert same(batch_of(used, branch=1), batch_of(feed_of(), branch=1))


def test_the_labeled_and_the_unlabeled_stream_draw_apart():
    rows = np.arange(8)
    feed = feed_of(ROW_NUMBERS, labeled=rows, unlabeled=rows, batch=8, unlabeled_batch=8)
    batch = batch_of(feed, 0)
    assert not torch.equal(numbers_shown(batch.labeled[0]), batch.rows)
    one = np.array([0])
    batch = batch_of(feed_of(labeled=one, unlabeled=one, batch=8, unlabeled_batch=8))
    assert not torch.equal(batch.labeled[0], batch.unlabeled[0])
    assert not torch.equal(batch.labeled[1], batch.unlabeled[1])


def test_a_row_that_comes_twice_in_a_batch_is_seen_differently():
    batch = batch_of(feed_of(labeled=np.array([0]), unlabeled=np.array([9])))
    for view in (batch.labeled[1], batch.unlabeled[1]):
        assert len(view.flatten(1).unique(dim=0)) == len(view)
    for weak in (batch.labeled[0], batch.unlabeled[0]):
        assert len(weak.flatten(1).unique(dim=0)) > 1


def test_two_strong_views_of_a_row_differ():
    batch = batch_of(feed_of())
    same_views = (batch.unlabeled[1] == batch.unlabeled[2]).flatten(1).all(1)
    assert not same_views.any()


@pytest.mark.parametrize("process", [Process(), Process(1, 2)])
def test_without_unlabeled_rows_the_views_are_there_and_empty(process):
    batch = batch_of(feed_of(unlabeled=np.zeros(0, np.int64), process=process))
    assert [tuple(view.shape) for view in batch.unlabeled] == [(0, 1, 16, 16)] * 3
    assert batch.rows.shape == (0,)
    assert batch.rows.dtype == torch.int64
    assert len(batch.labels) == 6 // process.world_size


def test_a_method_that_asks_for_no_unlabeled_views_gets_no_unlabeled_rows():
    batch = batch_of(feed_of(wanted=Views(("weak",), ())))
    assert batch.unlabeled == ()
    assert len(batch.rows) == 0


def test_the_labeled_part_does_not_depend_on_the_unlabeled_rows():
    alone = batch_of(feed_of(unlabeled=np.zeros(0, np.int64)))
    beside = batch_of(feed_of())
    assert torch.equal(alone.labels, beside.labels)
    assert all(torch.equal(a, b) for a, b in zip(alone.labeled, beside.labeled, strict=True))


def test_a_batch_knows_its_step_and_the_share_of_the_run():
    batch = batch_of(feed_of(steps=50), step=20)
    assert int(batch.step) == 20
    assert float(batch.progress) == pytest.approx(0.4)


def test_what_a_method_draws_is_not_what_the_views_drew():
    batch = batch_of(feed_of())
    assert len({float(batch_of(feed_of(), step).key.uniform()) for step in range(5)}) == 5
    views_key = Key(7).fold(0, "views").fold(torch.tensor(3))
    streams = [views_key.fold(name).uniform() for name in ("labeled", "unlabeled")]
    assert all(float(batch.key.uniform()) != float(draw) for draw in streams)


@pytest.fixture
def idle_core(monkeypatch):
    monkeypatch.setattr("fewlabels.inputs.feed.cores", lambda: 2)


@pytest.mark.parametrize("prepared", [4, 3, 0])
def test_a_batch_made_ahead_is_the_same_and_another_one_is_not_taken(idle_core, prepared):
    feed = feed_of()
    feed.prepare(prepared)
    assert feed._coming is not None
    assert same(batch_of(feed, 4), batch_of(feed_of(), 4))
    assert feed._coming is None
    assert same(batch_of(feed, 5, branch=1), batch_of(feed_of(), 5, branch=1))


def test_nothing_is_made_ahead_where_no_core_is_idle(monkeypatch):
    monkeypatch.setattr("fewlabels.inputs.feed.cores", lambda: 1)
    feed = feed_of()
    feed.prepare(4)
    assert feed._coming is None


def test_what_fails_ahead_fails_where_it_is_wanted(idle_core, monkeypatch):
    feed = feed_of()
    monkeypatch.setattr(feed.store, "take", lambda rows: 1 / 0)
    for wanted in (4, 5):
        feed.prepare(4)
        with pytest.raises(ZeroDivisionError) if wanted == 4 else nullcontext():
            batch_of(feed, wanted)
        monkeypatch.undo()


def test_a_batch_from_tensors_is_the_same_and_its_key_draws_on_their_device():
    feed = feed_of()
    mine, theirs = batch_of(feed, 4), feed.batch_of(feed.inputs(4), torch.tensor(4))
    assert same(mine, theirs)
    assert torch.equal(mine.key.uniforms(3), theirs.key.uniforms(3))


def test_another_sampler_of_labeled_rows_is_asked_for_each_step_and_branch():
    class Second(Epochs):
        """Chooses one row again and again."""

        def step(self, step, branch=0):
            return np.full(self.batch, self.rows[step + 4 * branch])

    feed = feed_of(labeled=Second(np.flatnonzero(LABELS >= 0), 6, Key(7), "labeled"))
    for step, branch in ((0, 0), (2, 0), (1, 1)):
        found = feed.batch(step, torch.tensor(step), branch)
        assert found.places.tolist() == [step + 4 * branch] * 6
