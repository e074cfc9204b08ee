"""Targets that begin with propagated labels, against a slow reference, in each method that takes it."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fewlabels.classify.preparation import begin
from fewlabels.inputs.feed import PropagatedTargets
from fewlabels.methods import method_class, method_names
from fewlabels.methods.parts.forward import target_logits
from fewlabels.methods.parts.targets import with_propagated
from fewlabels.training.loop import update
from tests.conftest import assert_same, parameters_of
from tests.eager import eager
from tests.methods.test_methods_and_their_oracles import CASES, TOLERANCE, K, M, Twins, by_path
from tests.oracles import basics, network

TAKE = [name for name in method_names() if method_class(name).takes_propagated]
SECOND = {"mean_teacher": 1}  # the view that makes its targets; of the others it is the first
BOTH = ("mixmatch",)  # both of its views do


@dataclasses.dataclass(frozen=True)
class PropagatedModel(network.Model):
    """The network, which mixes propagated labels into what it says of some images."""

    images: tuple = ()
    propagated: object = None
    seen: dict = dataclasses.field(default_factory=dict)

    def features(self, images):
        found = super().features(images)
        if any(images is each for each in self.images):
            self.seen[id(found)] = found
        return found

    def classify(self, features):
        logits = super().classify(features)
        if id(features) not in self.seen:
            return logits
        mixed = np.zeros_like(logits)
        for i, row in enumerate(logits):
            p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
            share = sum(self.propagated[i])
            for k in range(len(row)):
                mixed[i, k] = np.log((1 - share) * p[k] + self.propagated[i, k])
        return mixed


def propagated_of(step, share):
    """Distributions of M rows, times a share that not all rows have alike."""
    rng = np.random.default_rng(step)
    return share * rng.uniform(0.5, 1, (M, 1)) * rng.dirichlet(np.full(K, 0.4), M)


def with_table(model, images, propagated):
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    teacher = fields.pop("teacher")
    followed = None if teacher is None else with_table(teacher, images, propagated)
    return PropagatedModel(**fields, teacher=followed, images=images, propagated=propagated)


def test_the_mixture_is_that_of_a_slow_reference(float64):
    rng = np.random.default_rng(0)
    logits, propagated = 3 * rng.standard_normal((7, 4)), rng.dirichlet(np.ones(4), 7) * rng.uniform(0, 1, (7, 1))
    propagated[2] = 0
    propagated[3] /= propagated[3].sum()
    found = with_propagated(torch.tensor(logits), torch.tensor(propagated)).softmax(1).numpy()
    for i, row in enumerate(logits):
        p, share = basics.softmax(row[None])[0], sum(propagated[i])
        for k, value in enumerate(p):
            assert found[i, k] == pytest.approx((1 - share) * value + propagated[i, k], rel=1e-9, abs=1e-15)


def test_without_propagated_labels_nothing_changes():
    logits = torch.randn(5, 3)
    assert with_propagated(logits, None) is logits
    torch.testing.assert_close(with_propagated(logits, torch.zeros(5, 3)).softmax(1), logits.softmax(1))


def test_a_class_that_neither_allows_has_no_infinite_loss():
    found = with_propagated(torch.tensor([[200.0, -200.0]]), torch.tensor([[0.5, 0.0]]))
    assert torch.isfinite(found).all() and found.softmax(1)[0, 0] == 1


def test_no_gradient_flows_through_propagated_labels(small_job):
    state, _ = begin(small_job(), eager("fixmatch"))
    features, propagated = torch.randn(4, 16, requires_grad=True), torch.full((4, 10), 0.05, requires_grad=True)
    assert not target_logits(state.learner.network, features, propagated).requires_grad


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [name for name in TAKE if name in CASES])
def test_every_method_with_a_reference_makes_its_targets_of_the_mixture(name):
    """Losses, row weights, memories and the gradient, over consecutive steps, as without propagated labels."""
    twins = Twins(name, {}, {})
    for step in range(4):
        propagated = propagated_of(step, 1 - step / 4)
        batch, before = (
            dataclasses.replace(twins.batch(step), propagated=torch.tensor(propagated)),
            copy.deepcopy(twins.oracle),
        )
        arrays = twins.as_arrays(batch)
        targets = arrays.unlabeled if name in BOTH else arrays.unlabeled[SECOND.get(name, 0) :][:1]
        moving, still = twins.model(), with_table(twins.model(), targets, propagated)
        out = twins.method(twins.net, batch)
        expected = twins.oracle.step(arrays, still, moving)
        shared = set(out) & set(expected)
        if not np.any(expected["row_weight"]):
            shared.discard("target")
        for key in shared:
            np.testing.assert_allclose(out[key].detach(), expected[key], err_msg=f"{key} at {step}", **TOLERANCE)
        for ours, theirs in twins.case.memories.items():
            mine, other = by_path(twins.method, ours), by_path(twins.oracle, theirs)
            np.testing.assert_allclose(mine, other, err_msg=f"{ours} at {step}", **TOLERANCE)
        out["loss"].backward()
        own, reference = derivatives(twins, arrays, before, still)
        np.testing.assert_allclose(own, reference, rtol=1e-5, atol=1e-7, err_msg=f"derivative at {step}")
        twins.move([-p.grad if p.grad is not None else torch.zeros_like(p) for p in twins.parameters()], 0.1)
        for parameter in twins.parameters():
            parameter.grad = None


def derivatives(twins, arrays, before, still):
    """The method's along a random direction of all parameters, and the reference's."""
    torch.manual_seed(arrays.t)
    direction, losses = [torch.randn_like(p) for p in twins.parameters()], []
    for sign in (1, -1):
        twins.move(direction, sign * 1e-6)
        losses.append(copy.deepcopy(before).step(arrays, still, twins.model())["loss"])
        twins.move(direction, -sign * 1e-6)
    pairs = zip(twins.parameters(), direction, strict=True)
    return float(sum((p.grad * d).sum() for p, d in pairs if p.grad is not None)), (losses[0] - losses[1]) / 2e-6


def propagated_table(job, until=0.7):
    table = torch.zeros(len(job.table), 10)
    table[torch.arange(len(table)), torch.arange(len(table)) % 10] = 1.0
    return PropagatedTargets(table, until)


@pytest.mark.parametrize("name", TAKE)
def test_every_method_that_takes_it_learns_from_it_and_from_nothing_else_at_the_end(small_job, name):
    """While it counts it makes another training; when its time is over, the same."""
    job = small_job(steps=4)
    endings = {}
    for propagated in ("none", "all along", "before the run"):
        table = None if propagated == "none" else propagated_table(job, 1.0 if propagated == "all along" else 1e-9)
        state, feed = begin(job, eager(name), propagated=table)
        update(state, dataclasses.replace(feed.batch(0, state.step), propagated=None))
        for step in range(1, 4):
            found = update(state, feed.batch(step, state.step))
        assert all(torch.isfinite(value).all() for value in found.values())
        endings[propagated] = torch.cat([p.detach().flatten() for p in state.learner.network.parameters()])
    assert not torch.allclose(endings["none"], endings["all along"], atol=1e-4)
    torch.testing.assert_close(endings["none"], endings["before the run"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", [name for name in method_names() if name not in TAKE])
def test_other_methods_do_not_look_at_it(small_job, name):
    job, endings = small_job(steps=3), []
    for propagated in (None, propagated_table(job)):
        state, feed = begin(job, eager(name), propagated=propagated)
        for step in range(3):
            update(state, feed.batch(step, state.step))
        endings.append(parameters_of(state))
    assert_same(*endings)
