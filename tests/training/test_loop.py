"""The loop: it never waits for the device, it continues bit for bit, and processes share it."""

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode

from fewlabels.averaging.batch_norm import batch_norms
from fewlabels.classify.preparation import begin
from fewlabels.errors import UserError
from fewlabels.inputs.feed import RowFeed
from fewlabels.inputs.images.store import ResidentImages
from fewlabels.methods import method_class, method_names
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.layermatch import LayerMatch
from fewlabels.methods.supervised import Supervised
from fewlabels.training.loop import run, update
from tests.conftest import assert_same, parameters_of
from tests.eager import MIXES, ON_IMAGES, OTHER, WITH_UNLABELED, eager
from tests.prepared import train
from tests.training import two_processes
from tests.training.together import CAN_FORK, together

pytestmark = pytest.mark.versions

READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "unique", "_unique2", "item"}


class NoReads(TorchDispatchMode):
    """Fails where a tensor's value is read by the host, or decides a shape."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        assert name not in READS, f"{name} reads a value to the host"
        if name in ("index", "index_put", "index_put_") and len(args) > 1:
            assert not any(i is not None and i.dtype == torch.bool for i in args[1]), "a mask decides a shape"
        return func(*args, **(kwargs or {}))


class NoCopies(NoReads):
    """Fails also where a value of the host becomes a tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not func.__name__.startswith("lift_fresh"), "copies a value from the host"
        return super().__torch_dispatch__(func, types, args, kwargs)


POLICY = {"head": 0.5, "backbone.stage2": 0.25, "backbone.stage1.0": 0.0}


def with_rule(job, policy=None):
    return replace(job, policy=policy, center_memory=0.5)


@pytest.mark.parametrize("name", [*method_names(), *OTHER, "layermatch all"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_reads_nothing_to_the_host(small_job, as_on_a_gpu, name, optimizer):
    job, method = small_job(optimizer=optimizer), eager(name)
    if name == "layermatch all":
        job, method = with_rule(job, POLICY), LayerMatch(threshold="soft", outputs="averaged")
    state, feed = begin(job, method)
    for step in range(2):
        with NoReads():
            update(state, feed.batch(step, state.step))


CAPTURED = [pytest.param(name, "sgd", id=name) for name in (*method_names(), *OTHER)]
CAPTURED += [pytest.param("layermatch", "adamw")]


@pytest.mark.parametrize(("name", "optimizer"), CAPTURED)
def test_a_captured_step_copies_nothing_from_the_host(small_job, as_on_a_gpu, name, optimizer):
    """A graph may hold no copy from the host: `torch.tensor` makes one, and a number folded into a key too."""
    job, options = small_job(optimizer=optimizer), {"outputs": "averaged"} if name == "layermatch" else {}
    state, feed = begin(job if name.split()[0] in MIXES else with_rule(job), eager(name, **options))
    for step in range(3):
        inputs = feed.inputs(step)
        with NoCopies() if step else nullcontext():  # the optimizer makes its memories in the first
            update(state, feed.batch_of(inputs, state.step))


def test_a_step_from_tensors_alone_is_the_same_step(small_job):
    outcomes = []
    for make in (lambda feed, state, step: feed.batch(step, state.step),
                 lambda feed, state, step: feed.batch_of(feed.inputs(step), state.step)):  # fmt: skip
        state, feed = begin(small_job(), LayerMatch())
        for step in range(3):
            update(state, make(feed, state, step))
        outcomes.append(parameters_of(state))
    assert_same(*outcomes)


@pytest.mark.parametrize("passes", ["one", "two", "three"])
def test_a_compiled_run_is_compiled_once_and_equals_the_other(small_job, passes, graphs, monkeypatch):
    if passes != "one":  # the views are the same
        monkeypatch.setattr(RowFeed, "compile", lambda feed: None)
    policy = POLICY if passes == "three" else None
    plain, feed = begin(with_rule(small_job(steps=5), policy), LayerMatch(passes=passes, outputs="averaged"))
    run(plain, feed, 0, 5, watch=lambda *_: None)
    job = with_rule(small_job(steps=5, compile=True), policy)
    state, feed = begin(job, LayerMatch(passes=passes, outputs="averaged"))
    counts = []
    run(state, feed, 0, 3, watch=lambda *_: counts.append(len(graphs)))
    run(state, feed, 3, 5, watch=lambda *_: counts.append(len(graphs)))
    assert counts == [2 if passes == "one" else 1] * 5  # the method, and the views
    for mine, theirs in zip(state.learner.parameters(), plain.learner.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


# In CI a missing compiler is a failure, not a skip.
NO_COMPILER = shutil.which(os.environ.get("CXX", "g++")) is None and "CI" not in os.environ


@pytest.mark.machine_code
@pytest.mark.skipif(NO_COMPILER, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("rows", ["vectors", pytest.param("images", marks=pytest.mark.slow)])
def test_a_training_in_machine_code_equals_the_other(small_job, vector_job, rows):
    """By the whole of `torch.compile`; the tests above leave its second half out, which takes minutes."""
    outcomes = []
    for compiled in (False, True):
        job = {"images": small_job, "vectors": vector_job}[rows](steps=5, compile=compiled)
        torch.compiler.reset()
        state, feed = begin(job, LayerMatch(outputs="averaged"))
        run(state, feed, 0, 5, watch=lambda *_: None)
        outcomes.append(parameters_of(state))
    for name, value in outcomes[0].items():
        torch.testing.assert_close(outcomes[1][name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_many_compiled_trainings_one_after_another(vector_job, graphs, tmp_path, monkeypatch):
    """A compiler refuses the ninth form of one function, here the third; each training is to begin anew."""
    monkeypatch.setattr(torch.compiler.config, "recompile_limit", 2)
    for seed in range(3):
        train(vector_job(steps=2, compile=True, seed=1000 + seed), Supervised(), "supervised", tmp_path / str(seed))
    assert len(graphs) == 2 * 3


def test_what_cannot_be_compiled_is_said(vector_job, graphs, tmp_path):
    class Reads(FixMatch):
        def forward(self, net, batch):
            out = super().forward(net, batch)
            return out if out["loss"].item() > 0 else {}

    with pytest.raises(UserError, match="leave --compile yes out"):
        train(vector_job(steps=2, compile=True), Reads(), "reads", tmp_path)


def broken(*_):
    raise RuntimeError("a bug in saving")


def test_what_fails_outside_of_the_compiled_step_is_no_fault_of_the_compiler(vector_job, graphs, tmp_path, monkeypatch):
    monkeypatch.setattr("fewlabels.training.checkpoint.save", broken)
    with pytest.raises(RuntimeError, match="a bug in saving"):
        train(vector_job(steps=2, compile=True), Supervised(), "supervised", tmp_path)


LOST = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


@pytest.mark.parametrize("error", [RuntimeError(LOST), torch.OutOfMemoryError("no room")])
def test_a_lost_process_and_a_small_memory_are_no_fault_of_the_compiler(vector_job, graphs, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("fewlabels.training.loop.update", fails)
    state, feed = begin(vector_job(steps=2, compile=True), Supervised())
    with pytest.raises(type(error), match=str(error)[-9:]):
        run(state, feed, 0, 2, watch=lambda *_: None)


COMPILED = [name for name in (*WITH_UNLABELED, *OTHER) if name != "layermatch"]
# One method for each set of views: these are most of what a compiler has to read.
FIRST_OF_VIEWS = {(name.split()[0] in ON_IMAGES, eager(name).views()): name for name in reversed(COMPILED)}.values()
MOST_VIEWS = ("remixmatch", "regmixmatch")  # so many views that a compiler reads them for half a minute


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.machine_code) if n in MOST_VIEWS else n for n in COMPILED]
)
def test_every_method_compiles_to_the_same_step(small_job, vector_job, name, graphs, monkeypatch):
    if name not in FIRST_OF_VIEWS:
        monkeypatch.setattr(RowFeed, "compile", lambda feed: None)
    make = small_job if name.split()[0] in ON_IMAGES else vector_job
    plain, feed = begin(make(steps=5), eager(name))
    run(plain, feed, 0, 3, watch=lambda *_: None)
    state, feed = begin(make(steps=5, compile=True), eager(name))
    run(state, feed, 0, 3, watch=lambda *_: None)
    assert len(graphs) == (2 if name in FIRST_OF_VIEWS else 1)  # the method, and the views
    for mine, theirs in zip(state.learner.parameters(), plain.learner.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_captured_run_equals_the_other_on_a_gpu(small_job, optimizer):
    def job(**recipe):
        made = small_job(steps=12, optimizer=optimizer, **recipe)
        store = ResidentImages(made.store.images.cuda())
        return replace(made, store=store, views=made.views.cuda())

    outcomes = []
    for recipe in ({}, {"compile": True}):
        state, feed = begin(with_rule(job(**recipe), POLICY), LayerMatch(outputs="averaged"))
        losses = []
        run(state, feed, 0, 12, watch=lambda state, step, found, losses=losses: losses.append(found["loss"].item()))
        outcomes.append(losses)
    assert np.allclose(*outcomes, rtol=1e-3, atol=1e-4)


def test_the_guard_sees_a_read():
    with NoCopies(), pytest.raises(AssertionError, match="copies"):
        torch.tensor(1.0)
    with NoReads(), pytest.raises(AssertionError, match="host"):
        bool(torch.ones(()) > 0)
    with NoReads(), pytest.raises(AssertionError, match="mask"):
        torch.ones(3)[torch.tensor([True, False, True])]


@pytest.mark.parametrize(
    ("method", "optimizer"),
    [("layermatch", "sgd"), ("freematch", "adamw"), ("supervised", "sgd")],
)
def test_a_run_that_stopped_at_any_step_continues_to_the_same_bytes(small_job, method, optimizer):
    job = with_rule(small_job(steps=8, optimizer=optimizer), POLICY if method == "layermatch" else None)
    options = {"outputs": "averaged"} if method == "layermatch" else {}
    steps = job.recipe.steps
    whole, feed = begin(job, method_class(method)(**options))
    run(whole, feed, 0, steps, watch=lambda *_: None)
    for stop in range(1, steps):
        first, feed = begin(job, method_class(method)(**options))
        run(first, feed, 0, stop, watch=lambda *_: None)
        saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
        second, feed = begin(job, method_class(method)(**options))
        torch.manual_seed(stop)  # what the framework drew before must not matter
        second.load(saved)
        run(second, feed, stop, steps, watch=lambda *_: None)
        assert_same(whole.tensors(), second.tensors())


@pytest.mark.parametrize("name", [*WITH_UNLABELED, *OTHER])
def test_what_a_method_remembers_is_saved_with_the_run(small_job, vector_job, name):
    # Of a teacher with batch norm it matters whether it is as in training.
    make = small_job if name.split()[0] in (*ON_IMAGES, "mean_teacher", "simmatch") else vector_job
    whole, feed = begin(make(), eager(name))
    run(whole, feed, 0, 9, watch=lambda *_: None)
    first, feed = begin(make(), eager(name))
    run(first, feed, 0, 5, watch=lambda *_: None)
    evaluated = first.averaged.classifier.eval()  # between two steps; a teacher is none the worse for it
    assert not evaluated.training
    second, feed = begin(make(), eager(name))
    second.load({name: tensor.clone() for name, tensor in first.tensors().items()})
    run(second, feed, 5, 9, watch=lambda *_: None)
    assert_same(whole.tensors(), second.tensors())
    run(first, feed, 5, 9, watch=lambda *_: None)
    assert_same(whole.tensors(), first.tensors())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_a_checkpoint_laid_out_anew_continues_to_the_same_bytes(small_job, optimizer):
    """A file holds tensors in one order of memory; parameters of convolutions lie in another."""
    job = small_job(steps=6, optimizer=optimizer)
    whole, feed = begin(job, LayerMatch())
    run(whole, feed, 0, 6, watch=lambda *_: None)
    first, feed = begin(job, LayerMatch())
    run(first, feed, 0, 3, watch=lambda *_: None)
    saved = {name: tensor.contiguous().clone() for name, tensor in first.tensors().items()}
    assert any(tensor.stride() != saved[name].stride() for name, tensor in first.tensors().items())
    second, feed = begin(job, LayerMatch())
    second.load(saved)
    run(second, feed, 3, 6, watch=lambda *_: None)
    assert_same(whole.tensors(), second.tensors())


def test_dropout_is_a_function_of_the_step(small_job):
    job = small_job(steps=4)
    outcomes = []
    for seed in (1, 2):
        state, feed = begin(job, FixMatch())
        state.learner.network.classifier.backbone.stage2.append(torch.nn.Dropout(0.5))
        torch.manual_seed(seed)
        run(state, feed, 0, 4, watch=lambda *_: None)
        outcomes.append(parameters_of(state))
    assert_same(*outcomes)


def test_a_branch_sees_other_batches(small_job):
    job = small_job(steps=4)
    outcomes = []
    for branch in (0, 1):
        state, feed = begin(job, FixMatch())
        run(state, feed, 0, 4, branch=branch, watch=lambda *_: None)
        outcomes.append(state.learner.network.classifier.head.weight.detach().clone())
    assert not torch.equal(*outcomes)


def test_the_average_is_what_is_evaluated_and_differs_from_the_last_parameters(small_job):
    state, feed = begin(small_job(), FixMatch())
    run(state, feed, 0, 12, watch=lambda *_: None)
    assert not torch.equal(state.averaged.classifier.head.weight, state.learner.network.classifier.head.weight)
    assert not state.averaged.classifier.head.weight.requires_grad


def test_each_step_enters_the_average(small_job):
    state, feed = begin(small_job(ema_memory=3.0), FixMatch())
    expected = state.learner.network.classifier.head.weight.detach().clone()
    for step in range(5):
        update(state, feed.batch(step, state.step))
        kept = min(2 / 3, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * state.learner.network.classifier.head.weight.detach()
        torch.testing.assert_close(state.averaged.classifier.head.weight, expected)


@pytest.mark.parametrize(("memory", "momentum"), [(4.0, 0.25), (None, 0.1)])
def test_running_statistics_remember_what_the_recipe_says_or_what_the_network_has(small_job, memory, momentum):
    state, _ = begin(small_job(batch_norm_memory=memory), FixMatch())
    assert {norm.momentum for norm in batch_norms(state.learner.network)} == {momentum}


def test_norms_and_biases_do_not_decay(small_job):
    state, _ = begin(small_job(weight_decay=0.1), FixMatch())
    (optimizer,) = state.optimizers.values()
    for group in optimizer.optimizer.param_groups:
        decays = {p.ndim > 1 for p in group["params"]}
        assert decays == {group["weight_decay"] > 0}


@pytest.mark.skipif(not CAN_FORK, reason="the second process is a fork")
def test_two_processes_equal_one(tmp_path):
    """The same global batch, a network without batch statistics: parameters agree to 1e-5 after 5 steps."""
    two_processes.main(str(tmp_path / "one"))
    assert together(lambda rank: two_processes.main(str(tmp_path / "two")), join=False) == [None, None]
    for method in two_processes.METHODS:
        one, two, other = (load_file(tmp_path / f"{name}.safetensors") for name in (
            f"one-{method}-0", f"two-{method}-0", f"two-{method}-1"
        ))  # fmt: skip
        assert_same(two, other)
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=f"{method}: {name}")
