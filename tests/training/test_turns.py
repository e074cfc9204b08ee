"""Several turns in a step, on something that is no classifier: an autoencoder of numbers and its critic."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.training.feed import Feed
from fewlabels.training.learner import Learner, Turn
from fewlabels.training.loop import State, run, update
from fewlabels.training.recipe import OptimizerRecipe, Recipe
from tests.conftest import assert_same

pytestmark = pytest.mark.versions

STEPS, LATE = 8, 3


@dataclass
class Numbers:
    """A batch of sequences [n, 6]."""

    x: torch.Tensor

    def parts(self, count):
        return [Numbers(x) for x in self.x.tensor_split(count)]


class Sequences(Feed[Numbers]):
    def __init__(self, seed=7):
        self.key = Key(seed)

    def batch(self, step, now, branch=0):
        (x,) = self.inputs(step, branch)
        return Numbers(x)

    def inputs(self, step, branch=0):
        return (self.key.fold(branch, step).fold(torch.arange(8)[:, None]).fold(torch.arange(6)[None]).uniform(),)

    def batch_of(self, inputs, now, branch=0):
        return Numbers(*inputs)


class Pair(Learner[Numbers]):
    """The coder learns to restore; the critic, by turns, to tell which sequences were restored badly."""

    turns = (
        Turn("coder", moves=("coder.",)),
        Turn("critic", ("critic.",), OptimizerRecipe("adamw", 0.02, 0.0, schedule="constant"), from_step=LATE),
    )

    def __init__(self):
        super().__init__()
        self.coder, self.critic = nn.Sequential(nn.Linear(6, 2), nn.Linear(2, 6)), nn.Linear(6, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch, turn):
        restored = self.coder(batch.x)
        error = (restored - batch.x).square().mean(1)
        told = self.critic(restored).squeeze(1)
        if turn == "coder":
            return {"loss": error.mean() + 0.1 * told.mean(), "error": error.mean()}
        return {"loss": (told - error).square().mean()}  # its gradient reaches the coder too, and must not move it

    def after_step(self, step):
        self.seen += 1


def pair(**changes):
    torch.manual_seed(0)
    optimizer = OptimizerRecipe("sgd", 0.1, 0.01)
    return State(Pair(), Recipe(**{"steps": STEPS, "optimizer": optimizer, "ema_memory": 4.0} | changes))


def ran(state, first=0, last=STEPS, feed=None, **arguments):
    """Run a segment; return the metrics of its steps."""
    lines = []
    run(state, feed or Sequences(), first, last, watch=lambda _, __, found: lines.append(found), **arguments)
    return lines


def by_hand():
    """Train the pair by two plain optimizers."""
    torch.manual_seed(0)
    learner, feed = Pair(), Sequences()
    matrices = [p for p in learner.coder.parameters() if p.ndim > 1]
    biases = [p for p in learner.coder.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": biases, "weight_decay": 0.0}]
    first = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    second = torch.optim.AdamW(learner.critic.parameters(), lr=0.02, weight_decay=0.0)
    for step in range(STEPS):
        for group in first.param_groups:
            group["lr"] = 0.1 * float(torch.cos(torch.tensor(7 * torch.pi / 16 * step / STEPS)))
        for turn, optimizer in (("coder", first), ("critic", second)):
            if turn == "coder" or step >= LATE:
                learner.zero_grad()
                learner(feed.batch(step, None), turn)["loss"].backward()
                optimizer.step()
    return learner


def test_turns_are_those_of_two_optimizers_by_hand():
    state = pair()
    ran(state)
    for name, parameter in by_hand().named_parameters():
        torch.testing.assert_close(state.learner.get_parameter(name), parameter, rtol=1e-4, atol=1e-5, msg=name)
    assert int(state.learner.seen) == int(state.step) == STEPS


def test_a_turn_begins_with_its_step_and_the_metrics_say_whose_they_are():
    state = pair()
    before = state.learner.critic.weight.clone()
    early = ran(state, 0, LATE)
    assert torch.equal(before, state.learner.critic.weight)
    assert all(line.keys() == {"loss", "coder_loss", "coder_error"} for line in early)
    late = ran(state, LATE)
    assert not torch.equal(before, state.learner.critic.weight)
    for line in late:
        assert line.keys() == {"loss", "coder_loss", "coder_error", "critic_loss"}
        assert line["loss"] == line["coder_loss"] + line["critic_loss"]


@pytest.mark.parametrize("stop", [1, LATE, 6])
def test_stopped_and_continued_it_ends_in_the_same_bytes(stop):
    whole = pair()
    ran(whole)
    first, second = pair(), pair()
    ran(first, 0, stop)
    second.load({name: tensor.clone() for name, tensor in first.tensors().items()})
    ran(second, stop)
    assert_same(whole.tensors(), second.tensors())
    assert {name.partition("/")[0] for name in whole.tensors()} == {
        "learner", "ema", "loop", "optimizer.coder", "optimizer.critic"
    }  # fmt: skip


def test_in_parts_it_is_the_same_training():
    whole, parts = pair(), pair(accumulate=4)
    ran(whole)
    ran(parts)
    for name, parameter in whole.learner.named_parameters():
        torch.testing.assert_close(parts.learner.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)


def test_compiled_it_is_the_same_training_with_a_graph_for_each_turn(graphs):
    plain, compiled = pair(), pair(compile=True)
    ran(plain)
    feed = Sequences()
    ran(compiled, 0, 5, feed)
    ran(compiled, 5, feed=feed)
    assert len(graphs) == 2
    for name, parameter in plain.learner.named_parameters():
        torch.testing.assert_close(compiled.learner.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)


def test_a_compiled_step_is_of_its_feed_and_of_what_was_loaded(graphs):
    outcomes = []
    for compile_it in (False, True):
        state = pair(compile=compile_it)
        before = {name: tensor.clone() for name, tensor in state.tensors().items()}
        ran(state, 0, 5)
        state.load(before)
        ran(state, 0, 5, Sequences(seed=8))
        outcomes.append(dict(state.learner.named_parameters()))
    for name, parameter in outcomes[0].items():
        torch.testing.assert_close(outcomes[1][name], parameter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ((Turn("a"), Turn("a")), "need a name each"),
        ((Turn("a"), Turn()), "need a name each"),
        ((Turn("a/b"),), "without a slash"),
        ((Turn("a", from_step=1),), "no turn takes part from step 0 on"),
        ((), "no turn takes part"),
    ],
)
def test_turns_that_cannot_be_are_refused(turns, said, monkeypatch):
    monkeypatch.setattr(Pair, "turns", turns)
    with pytest.raises(UserError, match=said):
        pair()


def test_branches_see_other_batches():
    first, second = pair(), pair()
    assert ran(first, branch=1)[0]["loss"] != ran(second, branch=2)[0]["loss"]


def test_a_feed_that_gives_nothing_to_a_compiled_step_says_so():
    class Plain(Feed[Numbers]):
        key = Key(0)

        def batch(self, step, now, branch=0):
            return Numbers(torch.zeros(2, 6))

    with pytest.raises(UserError, match="Plain gives no batches to a compiled step; leave --compile yes out"):
        run(pair(compile=True), Plain(), 0, 1, watch=lambda *_: None)


def test_layers_with_rates_of_their_own_are_the_learners_to_name():
    with pytest.raises(UserError, match="Pair has no layers"):
        pair(optimizer=OptimizerRecipe("sgd", 0.1, 0.0, layer_decay=0.5))


def test_one_update_takes_all_turns():
    state = pair()
    assert "critic_loss" in update(state, Sequences().batch(0, state.step))


def episodes(state, stop=None):
    """Train two copies on branches of their own, four steps at a time, and go on from their mean.

    With a `stop` all is saved after so many steps of the second copy in the second episode, and loaded into new states.
    """
    for number, first in enumerate(range(0, STEPS, 4)):
        copies = []
        for branch in (1, 2):
            copy = pair()
            copy.load(state.tensors())
            if (number, branch) == (1, 2) and stop is not None:
                ran(copy, first, first + stop, branch=branch)
                saved = [{n: t.clone() for n, t in each.tensors().items()} for each in (state, *copies, copy)]
                state, *copies, copy = loaded = [pair() for _ in saved]
                for each, tensors in zip(loaded, saved, strict=True):
                    each.load(tensors)
                ran(copy, first + stop, first + 4, branch=branch)
            else:
                ran(copy, first, first + 4, branch=branch)
            copies.append(copy)
        state.take_mean(copies)
    return state


def test_two_branches_are_averaged_and_train_on_and_stopped_within_it_is_the_same():
    whole = episodes(pair())
    assert int(whole.step) == STEPS
    for stop in range(5):
        assert_same(whole.tensors(), episodes(pair(), stop).tensors())
    alone = pair()
    ran(alone, branch=1)
    assert not torch.equal(whole.learner.coder[0].weight, alone.learner.coder[0].weight)


def test_the_mean_of_copies_is_that_of_all_that_they_have():
    start, first, second = pair(), pair(), pair()
    ran(first, 0, 5, branch=1)
    ran(second, 0, 5, branch=2)
    start.take_mean([first, second])
    for name, found in start.tensors().items():
        one, other = first.tensors()[name], second.tensors()[name]
        expected = (one + other) / 2 if found.is_floating_point() else one
        torch.testing.assert_close(found, expected, msg=name)


def test_the_mean_of_one_copy_is_the_copy():
    start, copy = pair(), pair()
    ran(copy, 0, 5)
    start.take_mean([copy])
    assert_same(start.tensors(), copy.tensors())
