"""The average of a module: what is averaged, by which rule, and what is taken as it is."""

import numpy as np
import pytest
import torch
from torch import nn

from fewlabels.averaging.ema import Ema, averaged_tensors
from fewlabels.averaging.horizon import delay, horizon, momentum


class Learner(nn.Module):
    """A layer, a batch norm, and what a method remembers."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.memory = nn.Buffer(torch.arange(4.0))
        self.constant = nn.Buffer(torch.ones(2), persistent=False)

    def forward(self, x):
        return self.norm(self.layer(x))


def changed(learner, step):
    """Change everything there is, as a step does."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for tensor in (*learner.parameters(), *learner.buffers()):
            if tensor.is_floating_point() and tensor is not learner.constant:
                tensor += torch.rand(tensor.shape, generator=generator)
    learner.norm.num_batches_tracked += 1


def test_parameters_and_running_statistics_are_averaged_and_all_else_is_copied():
    learner = Learner()
    ema, expected = Ema(learner, memory=8.0), {}
    averaged = {"layer.weight", "layer.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"}
    expected = {name: tensor.numpy().astype(np.float64) for name, tensor in learner.state_dict().items()}
    for step in range(30):
        changed(learner, step)
        ema.update(learner, torch.tensor(step))
        m = min(1 - 1 / 8, (1 + step) / (10 + step))
        for name, tensor in learner.state_dict().items():
            now = tensor.numpy().astype(np.float64)
            expected[name] = m * expected[name] + (1 - m) * now if name in averaged else now
    assert ema.copied == ["memory", "norm.num_batches_tracked"]  # no constants
    for name, tensor in ema.module.state_dict().items():
        np.testing.assert_allclose(tensor, expected[name], rtol=1e-5, err_msg=name)


def test_the_average_is_a_copy_that_does_not_learn():
    learner = Learner()
    before = [tensor.clone() for tensor in averaged_tensors(learner)]
    ema = Ema(learner, memory=8.0)
    assert not any(p.requires_grad for p in ema.parameters()) and all(p.requires_grad for p in learner.parameters())
    changed(learner, 0)
    assert all(torch.equal(a, b) for a, b in zip(averaged_tensors(ema.module), before, strict=True))
    ema.update(learner, torch.tensor(0))
    assert not any(torch.equal(a, b) for a, b in zip(averaged_tensors(ema.module), before, strict=True))


def test_a_batch_norm_without_running_statistics_has_only_parameters_to_average():
    norm = nn.BatchNorm1d(3, track_running_stats=False)
    assert [id(t) for t in averaged_tensors(norm)] == [id(t) for t in norm.parameters()]


@pytest.mark.parametrize(
    ("paper_steps", "steps", "expected"),
    [
        (1000, 2**20, 1000),  # at the paper's length what the paper says
        (1000, 600, 30),  # a twentieth of a shorter run
        (10, 600, 10),  # unless the paper's own is less
        (2**19, 600, 300),  # or its share of a run is more
        (2**20, 600, 600),
        (0, 600, 1),  # of less than one step there is no memory
        (1000, 4, 1),
    ],
)
def test_the_memory_of_a_shorter_run(paper_steps, steps, expected):
    assert horizon(paper_steps, steps) == pytest.approx(expected)
    assert delay(paper_steps, steps) == pytest.approx(expected if paper_steps else 0)


@pytest.mark.parametrize(("start", "first"), [(10.0, 0.1), (2.0, 0.5)])
def test_momentum_rises_to_that_of_its_memory(start, first):
    steps = torch.arange(2000)
    found = momentum(100.0, steps, start)
    assert found[0] == pytest.approx(first) and found[-1] == pytest.approx(0.99)
    assert found[50] == pytest.approx(51 / (50 + start)) and (found.diff() >= 0).all()


def test_by_default_the_start_is_10():
    assert momentum(100.0, torch.tensor(0)) == pytest.approx(0.1)
    assert Ema(nn.Linear(1, 1), 100.0).start == 10


def test_with_a_start_of_2_the_average_is_the_mean_of_all():
    values, mean = torch.tensor([3.0, -1.0, 4.0, 8.0]), torch.tensor(0.0)
    for step, value in enumerate([0.0, *values]):
        m = 0.0 if step == 0 else momentum(100.0, torch.tensor(step - 1), 2.0)
        mean = m * mean + (1 - m) * value
    assert mean == pytest.approx(14 / 5)  # of the start too, which is the first of five
