"""A batch in parts: the gradient of the whole, and what happens where the memory is too small."""

import io
import json

import pytest
import torch
from rich.console import Console

from fewlabels import UserError
from fewlabels.classify.preparation import begin, stage_of
from fewlabels.console import Show
from fewlabels.inputs.batch import Batch
from fewlabels.keys import Key
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.supervised import Supervised
from fewlabels.training import checkpoint
from fewlabels.training.loop import run, update
from fewlabels.training.rehearsal import Rehearsal
from tests.conftest import assert_same
from tests.prepared import train


def batch_of(labeled=8, unlabeled=12):
    def view(count, start):
        return start + torch.arange(count, dtype=torch.float32).view(count, 1, 1, 1)

    return Batch(
        labeled=(view(labeled, 0),),
        labels=torch.arange(labeled),
        places=torch.arange(labeled) + 20,
        unlabeled=(view(unlabeled, 100), view(unlabeled, 200)),
        rows=torch.arange(unlabeled) + 50,
        step=torch.tensor(3),
        progress=torch.tensor(0.5),
        key=Key(7),
    )


@pytest.mark.parametrize("count", [2, 4])
def test_the_parts_put_under_each_other_are_the_batch(count):
    whole, parts = batch_of(), batch_of().parts(count)
    assert len(parts) == count
    for name in ("labels", "places", "rows"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    for name in ("labeled", "unlabeled"):
        for views in zip(getattr(whole, name), *(getattr(part, name) for part in parts), strict=True):
            assert torch.equal(torch.cat(views[1:]), views[0])
    for part in parts:
        assert torch.equal(part.labeled[0].flatten().long(), part.labels)
        assert torch.equal(part.unlabeled[1].flatten().long() - 150, part.rows)
        assert (int(part.step), float(part.progress)) == (3, 0.5)


def test_each_part_draws_on_its_own():
    draws = {float(part.key.uniform()) for part in [*batch_of().parts(2), *batch_of().parts(4)[2:], batch_of()]}
    assert len(draws) == 5
    assert batch_of().parts(1)[0].key.seed() == batch_of().key.seed()


def test_a_batch_without_unlabeled_rows_has_parts_without():
    assert [len(part.rows) for part in batch_of(unlabeled=0).parts(2)] == [0, 0]


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("method", [lambda: FixMatch(threshold=0.12), Supervised], ids=["fixmatch", "supervised"])
def test_the_gradient_in_parts_is_that_of_the_whole(small_job, parts, method):
    """On a network without batch statistics; the sums differ in their order alone."""
    outcomes = []
    for accumulate in (1, parts):
        state, feed = begin(small_job(norm="group", accumulate=accumulate), method())
        batch = feed.batch(0, state.step)
        metrics = update(state, batch)
        outcomes.append((metrics, {name: p.detach().clone() for name, p in state.learner.network.named_parameters()}))
    (whole, first), (in_parts, second) = outcomes
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in whole.items():
        torch.testing.assert_close(in_parts[name], value, rtol=1e-4, atol=1e-5, msg=name)
    start, _ = begin(small_job(norm="group"), method())
    assert any(not torch.equal(first[name], p) for name, p in start.learner.network.named_parameters())


# --- out of memory ---


class Heavy(FixMatch):
    """Needs more memory than there is for parts of more than `most` labeled images."""

    most: int = 2

    def forward(self, net, batch):
        if len(batch.labels) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(net, batch)


class HeavyLater(Heavy):
    """Needs it from the seventh step on, as fragments pile up."""

    def forward(self, net, batch):
        return super().forward(net, batch) if int(batch.step) >= 6 else FixMatch.forward(self, net, batch)


class Heard(Show):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(Console(file=io.StringIO(), width=10_000))

    def __call__(self):
        return self.console.file.getvalue()


def learned(training):
    return training.state.averaged.classifier.state_dict()


def notes_of(folder):
    return checkpoint.load(folder / "checkpoint").notes


def test_where_the_memory_is_too_small_the_batch_goes_in_more_parts(small_job, tmp_path):
    job = small_job(norm="group")
    said = Heard()
    trained = train(job, Heavy(threshold=0.12), "heavy", tmp_path, said)
    assert said().count("out of memory") == 2  # 8 labeled images, then 4, then 2
    assert "heavy: out of memory. Each batch now goes through the network in 2 parts of 4 and 8 rows" in said()
    assert "in 4 parts of 2 and 4 rows" in said()
    assert notes_of(tmp_path)["accumulate"] == 4 and notes_of(tmp_path)["step"] == 12
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))
    given = train(small_job(norm="group", accumulate=4), Heavy(threshold=0.12), "heavy", tmp_path / "given")
    assert_same(learned(trained), learned(given))


def test_a_run_that_ran_out_on_the_way_goes_on_from_its_checkpoint_and_keeps_the_parts(small_job, tmp_path):
    job = small_job(norm="group", steps=20)
    said = Heard()
    train(job, HeavyLater(threshold=0.12, most=4), "heavy", tmp_path, said)
    assert "heavy: continued from step 6" in said()
    assert notes_of(tmp_path)["accumulate"] == 2


def test_a_run_that_is_given_again_keeps_its_parts(small_job, tmp_path):
    """Though the memory would now be large enough: the parts decide the outcome."""
    stops = iter([False] * 6 + [True])
    job = small_job(norm="group")
    with pytest.raises(Exception, match="saved at step 7 of 12"):
        train(job, Heavy(threshold=0.12, most=4), "heavy", tmp_path, stop=lambda: next(stops))
    seen = []

    class Light(Heavy):
        def forward(self, net, batch):
            seen.append(len(batch.labels))
            return FixMatch.forward(self, net, batch)

    again = train(small_job(norm="group"), Light(threshold=0.12, most=4), "heavy", tmp_path)
    assert set(seen) == {4}
    assert notes_of(tmp_path)["accumulate"] == 2
    whole = train(small_job(norm="group", accumulate=2), FixMatch(threshold=0.12), "whole", tmp_path / "whole")
    assert_same(learned(again), learned(whole))


def test_the_method_that_was_given_is_not_changed_by_what_was_given_up(small_job, tmp_path):
    method = Heavy(threshold=0.12)
    train(small_job(norm="group"), method, "heavy", tmp_path)
    state, feed = begin(small_job(norm="group", accumulate=4), method)
    run(state, feed, 0, 1, watch=lambda *_: None)


def test_where_not_even_one_image_fits_it_stops_with_what_to_do(small_job, tmp_path):
    with pytest.raises(UserError, match=r"out of memory with 8 and 16 rows a step .*smaller --batch"):
        train(small_job(), Heavy(most=0), "heavy", tmp_path)


def test_the_estimate_survives_a_small_memory_too(small_job):
    assert Rehearsal(stage_of(small_job(norm="group"), Heavy(), "heavy", None)).seconds(1) > 0
