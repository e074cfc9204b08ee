"""The loop. It knows a task by a feed that makes batches, a learner that makes losses, and a watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from fewlabels.averaging.copies import combine, combined
from fewlabels.averaging.ema import Ema
from fewlabels.errors import UserError
from fewlabels.processes import is_lost, mean_gradients, this_process
from fewlabels.training.captured import Captured
from fewlabels.training.feed import Feed
from fewlabels.training.learner import Divisible, Learner, Turn
from fewlabels.training.optimizer import TurnOptimizer
from fewlabels.training.recipe import Recipe

Step: TypeAlias = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]
"""from what a feed chose for a step to the record of its metrics"""

L = TypeVar("L", bound=Learner[Any])


class State(Generic[L]):
    """All that a step changes: parameters, memories, the averages, the optimizers, the step number.

    Args:
        learner: what is trained, on its device.
        recipe: the numbers of the training.

    Raises:
        UserError: turns without names of their own, or none that takes part from the start.

    Attributes:
        averaged: the learner with averaged parameters: what is evaluated and saved.
    """

    def __init__(self, learner: L, recipe: Recipe) -> None:
        _check_turns(learner.turns)
        self.learner, self.recipe = learner.train(), recipe
        self.ema = Ema(learner, recipe.ema_memory)
        self.averaged = cast(L, self.ema.module)
        self.step = torch.zeros((), dtype=torch.int64, device=next(learner.parameters()).device)
        captured = recipe.compile and self.step.device.type == "cuda"
        self.optimizers = {
            turn: TurnOptimizer(learner, turn, recipe.optimizer, capturable=captured) for turn in learner.turns
        }
        self.compiled: dict[tuple[Feed[Any], int, tuple[Turn, ...]], Step] = {}
        """the compiled step of each feed and branch, for the turns that take part"""

    def finite(self) -> bool:
        """Read from the device whether all parameters are finite numbers."""
        return bool(torch.stack([p.isfinite().all() for p in self.learner.parameters()]).all())

    def tensors(self) -> dict[str, Tensor]:
        """Return everything under flat names, for a checkpoint."""
        parts = {"learner": self.learner.state_dict(), "ema": self.ema.state_dict(), "loop": {"step": self.step}}
        parts |= {_part_of(turn): optimizer.tensors() for turn, optimizer in self.optimizers.items()}
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
        self.learner.load_state_dict(parts["learner"])
        self.ema.load_state_dict(parts["ema"])
        for turn, optimizer in self.optimizers.items():
            optimizer.load(parts.get(_part_of(turn), {}))
        self.step.copy_(parts["loop"]["step"])
        self.compiled.clear()  # a captured step writes to what the optimizers had

    def take_mean(self, copies: Sequence[State[L]]) -> None:
        """Become the mean of copies that parted from this state and did a segment each, on branches of their own.

        Parameters, averages and what the optimizers remember are averaged, memories combine by their own rules; see
        `averaging.copies`. The copies are as many steps further, and so is this state then.
        """
        self.learner.load_state_dict(combined(self.learner, [copy.learner for copy in copies]))
        self.ema.load_state_dict(combined(self.ema, [copy.ema for copy in copies]))
        for turn, optimizer in self.optimizers.items():
            remembered = [copy.optimizers[turn].tensors() for copy in copies]
            optimizer.load(
                {name: combine("mean", t, [r[name] for r in remembered]) for name, t in remembered[0].items()}
            )
        self.step.copy_(copies[0].step)
        self.compiled.clear()


def _check_turns(turns: Sequence[Turn]) -> None:
    names = [turn.name for turn in turns]
    named = len(turns) == 1 or all(names)
    if not named or len({*names}) < len(names) or any("/" in name for name in names):
        raise UserError(f"turns need a name each, without a slash; these are {', '.join(map(repr, names))}")
    if min((turn.from_step for turn in turns), default=1) > 0:
        raise UserError("no turn takes part from step 0 on: in a step without one there is no loss")


def _part_of(turn: Turn) -> str:
    return f"optimizer.{turn.name}" if turn.name else "optimizer"


Watch: TypeAlias = Callable[[State[L], int, dict[str, Tensor]], None]


def run(state: State[L], feed: Feed[Any], first_step: int, last_step: int, *, branch: int = 0, watch: Watch[L]) -> None:
    """Do the steps `first_step` to `last_step` - 1, and show each to `watch`.

    A segment of a run is a run: steps depend on the state and the step number alone.
    """
    state.learner.train()
    state.ema.module.train()  # as a teacher it is normalized by the batch, like who learns from it
    for step in range(first_step, last_step):
        # What the framework draws itself (dropout, drop path) is a function of the step too.
        _seed(feed.key.fold(branch, "framework", step, this_process().rank).seed(), state.step.device)
        turns = tuple(turn for turn in state.learner.turns if turn.from_step <= step)
        if state.recipe.compile:
            metrics = _compiled_step(state, feed, branch, turns)(feed.inputs(step, branch))
        else:
            coming = partial(feed.prepare, step + 1, branch) if step + 1 < last_step else _nothing
            metrics = update(state, feed.batch(step, state.step, branch), coming, turns)
        watch(state, step + 1, metrics)


class CompiledStepError(Exception):
    """A compiled step failed, in the compiler or in what it made; the cause says how."""


def _nothing() -> None:
    pass


def _compiled_step(state: State[L], feed: Feed[Any], branch: int, turns: tuple[Turn, ...]) -> Step:
    """Compile batch, forward and backward pass, once for a state; on a GPU the whole step becomes one graph."""
    if not state.compiled:
        state.learner.compile(dynamic=False, fullgraph=True)
    if (feed, branch, turns) not in state.compiled:
        feed.compile()

        def step_of(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
            try:
                return update(state, feed.batch_of(inputs, state.step, branch), turns=turns)
            except RuntimeError as error:
                # The compiler's errors have no public type. Whether this is one, a training without it tells.
                if isinstance(error, torch.OutOfMemoryError) or is_lost(error):
                    raise
                raise CompiledStepError from error

        state.compiled[feed, branch, turns] = Captured(step_of) if state.step.device.type == "cuda" else step_of
    return state.compiled[feed, branch, turns]


def _seed(number: int, device: torch.device) -> None:
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` looks for other devices, 100 times as long
    else:
        torch.manual_seed(number)


def update(
    state: State[L],
    batch: Divisible,
    meanwhile: Callable[[], None] = _nothing,
    turns: Sequence[Turn] | None = None,
) -> dict[str, Tensor]:
    """Do one step on a batch; return its metrics, without gradients.

    The metrics of a turn with a name begin with it, and `loss` is then the sum of all turns' losses.

    Args:
        state: is changed.
        batch: of the step.
        meanwhile: is called before the first backward pass: that one alone leaves Python free for another thread.
        turns: that take part, all by default.
    """
    found: dict[str, Tensor] = {}
    for turn in state.learner.turns if turns is None else turns:
        metrics = _losses(state, batch, turn, meanwhile)
        mean_gradients(state.optimizers[turn].parameters)
        state.optimizers[turn].step(state.step, state.recipe.steps)
        state.learner.zero_grad(set_to_none=True)  # also of what another turn moves
        meanwhile = _nothing
        if turn.name:
            found["loss"] = found.get("loss", 0) + metrics["loss"]
            metrics = {f"{turn.name}_{name}": value for name, value in metrics.items()}
        found |= metrics
    state.learner.after_step(state.step)
    state.ema.update(state.learner, state.step)
    state.step += 1
    return found


def _losses(state: State[L], batch: Divisible, turn: Turn, meanwhile: Callable[[], None]) -> dict[str, Tensor]:
    """Compute the gradients of a turn's loss; return its metrics."""
    count = state.recipe.accumulate
    metrics: dict[str, Tensor] = {}
    for number, part in enumerate(batch.parts(count)):
        found: dict[str, Tensor] = state.learner(part, turn.name)
        if number == 0:
            meanwhile()
        (found["loss"] / count).backward()
        for name, value in found.items():
            if value.ndim == 0:  # others are of each row, for the layer probe
                mean = value.detach() / count
                metrics[name] = metrics[name] + mean if name in metrics else mean
    return metrics
