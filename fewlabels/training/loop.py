"""The loop. It knows a task by a feed that gives batches, a method that gives losses, and a watch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from fewlabels.averaging.batch_norm import set_batch_norm_memory
from fewlabels.averaging.ema import Ema
from fewlabels.keys import Key
from fewlabels.methods.base import Method
from fewlabels.models.classifier import Classifier
from fewlabels.models.network import Network
from fewlabels.models.teacher import follow
from fewlabels.processes import is_lost, mean_gradients, this_process
from fewlabels.training.captured import Captured
from fewlabels.training.optimizer import ScheduledOptimizer
from fewlabels.training.recipe import Recipe
from fewlabels.training.schedule import cosine
from fewlabels.views.batch import Batch


class AnyFeed(Protocol):
    """Gives the batch of a step, as a function of the step alone."""

    key: Key

    def batch(self, step: int, step_tensor: Tensor, branch: int = 0) -> Batch:
        """Make the batch of `step` (a number, and the same as a 0-dim tensor on the device)."""
        ...

    def prepare(self, step: int, branch: int = 0) -> None:
        """Begin to make the batch of `step` meanwhile, where that costs nothing else."""
        ...

    def inputs(self, step: int, branch: int = 0) -> tuple[Tensor, ...]:
        """Choose what a step sees, on the device."""
        ...

    def batch_of(self, inputs: tuple[Tensor, ...], step_tensor: Tensor, branch: int = 0) -> Batch:
        """Make the batch of these inputs from tensors alone; equal to `batch`."""
        ...

    def compile(self) -> None:
        """Let `batch_of` be compiled."""
        ...


Watch: TypeAlias = Callable[["State", int, dict[str, Tensor]], None]


Step: TypeAlias = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]
"""from what a feed chose for a step to the method's record"""


class State:
    """All that a step changes: parameters, the method's memories, the averages, the optimizer, the step number.

    Args:
        network: what is trained.
        method: set up for the task, on the network's device.
        recipe: the numbers of the training.
    """

    def __init__(self, network: Network, method: Method, recipe: Recipe) -> None:
        if recipe.batch_norm_memory is not None:
            set_batch_norm_memory(network, recipe.batch_norm_memory)
        self.network, self.method, self.recipe = network, method, recipe
        self.learner = nn.ModuleDict({"network": network, "method": method}).train()
        self.ema = Ema(self.learner, recipe.ema_memory)
        for part, averaged in zip((network, method), self.ema.module.children(), strict=True):
            follow(part, averaged)
        self.optimizer = ScheduledOptimizer(self.learner, network.classifier.backbone, recipe)
        self.step = torch.zeros((), dtype=torch.int64, device=network.classifier.device)
        self.compiled: dict[int, Step] = {}
        """the compiled step of each branch"""

    @property
    def averaged(self) -> Classifier:
        """The classifier with averaged parameters: what is evaluated and saved."""
        network = self.ema.module.get_submodule("network")
        assert isinstance(network, Network)
        return network.classifier

    def finite(self) -> bool:
        """Read from the device whether all parameters are finite numbers."""
        return bool(torch.stack([p.isfinite().all() for p in self.learner.parameters()]).all())

    def tensors(self) -> dict[str, Tensor]:
        """Give everything under flat names, for a checkpoint."""
        parts = {
            "learner": self.learner.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.tensors(),
            "loop": {"step": self.step},
        }
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        parts: dict[str, dict[str, Tensor]] = {"learner": {}, "ema": {}, "optimizer": {}, "loop": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = tensor
        self.learner.load_state_dict(parts["learner"])
        self.ema.load_state_dict(parts["ema"])
        self.optimizer.load(parts["optimizer"])
        self.step.copy_(parts["loop"]["step"])


def run(state: State, feed: AnyFeed, first_step: int, last_step: int, *, branch: int = 0, watch: Watch) -> None:
    """Do the updates `first_step` to `last_step` - 1, and show each to `watch`.

    A segment of a run is a run: steps depend on the state and the step number alone.
    """
    state.learner.train()
    state.ema.module.train()  # as a teacher it is normalized by the batch, like who learns from it
    for step in range(first_step, last_step):
        # What the framework draws itself (dropout, drop path) is a function of the step too.
        _seed(feed.key.fold(branch, "framework", step, this_process().rank).seed(), state.step.device)
        if state.recipe.compile:
            metrics = _compiled_step(state, feed, branch)(feed.inputs(step, branch))
        else:
            coming = partial(feed.prepare, step + 1, branch) if step + 1 < last_step else _nothing
            metrics = update(state, feed.batch(step, state.step, branch), coming)
        watch(state, step + 1, metrics)


class CompiledStepError(Exception):
    """A compiled step failed, in the compiler or in what it made; the cause says how."""


def _nothing() -> None:
    pass


def _compiled_step(state: State, feed: AnyFeed, branch: int) -> Step:
    """Compile views, forward and backward pass, once for a state; on a GPU the whole step becomes one graph."""
    if branch not in state.compiled:
        feed.compile()
        state.method.compile(dynamic=False, fullgraph=True)

        def step_of(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
            try:
                return update(state, feed.batch_of(inputs, state.step, branch))
            except RuntimeError as error:
                # The compiler's errors have no public type. Whether this is one, a training without it tells.
                if isinstance(error, torch.OutOfMemoryError) or is_lost(error):
                    raise
                raise CompiledStepError from error

        state.compiled[branch] = Captured(step_of) if state.step.device.type == "cuda" else step_of
    return state.compiled[branch]


def _seed(number: int, device: torch.device) -> None:
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` looks for other devices, 100 times as long
    else:
        torch.manual_seed(number)


def update(state: State, batch: Batch, meanwhile: Callable[[], None] = _nothing) -> dict[str, Tensor]:
    """Do one update of the parameters and the averages; give the method's record, without gradients.

    `meanwhile` is called before the backward pass: that one alone leaves Python free for another thread.
    """
    recipe = state.recipe
    metrics: dict[str, Tensor] = {}
    for number, part in enumerate(batch.parts(recipe.accumulate)):
        found: dict[str, Tensor] = state.method(state.network, part)
        if number == 0:
            meanwhile()
        (found["loss"] / recipe.accumulate).backward()
        for name, value in found.items():
            if value.ndim:
                continue  # of each row: for the layer probe
            share_of_it = value.detach() / recipe.accumulate
            metrics[name] = metrics[name] + share_of_it if name in metrics else share_of_it
    mean_gradients(state.learner.parameters())
    state.optimizer.step(cosine(state.step, recipe.steps, recipe.warm_up))
    state.network.advance(state.step)
    state.ema.update(state.learner, state.step)
    state.step += 1
    return metrics
