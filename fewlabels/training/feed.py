"""Where the loop gets its batches from."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, TypeVar

from torch import Tensor

from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.training.learner import Divisible

B_co = TypeVar("B_co", bound=Divisible, covariant=True)


class Feed(Protocol[B_co]):
    """Makes the batch of a step, a function of the key, the branch and the step alone.

    A class that is derived from this one has to make batches; all else is for speed.
    """

    key: Key
    rows: int = 1
    """that a step sees, in all processes together"""

    @abstractmethod
    def batch(self, step: int, now: Tensor, branch: int = 0) -> B_co:
        """Make the batch of `step`, a number that is also given as a 0-dim tensor on the device."""
        ...

    def prepare(self, step: int, branch: int = 0) -> None:
        """Begin to make the batch of `step` meanwhile, where that costs nothing else."""

    def inputs(self, step: int, branch: int = 0) -> tuple[Tensor, ...]:
        """Choose what a compiled step sees, on the device.

        Raises:
            UserError: steps on these batches cannot be compiled.
        """
        raise UserError(f"{type(self).__name__} gives no batches to a compiled step; leave --compile yes out")

    def batch_of(self, inputs: tuple[Tensor, ...], now: Tensor, branch: int = 0) -> B_co:
        """Make the batch of these inputs from tensors alone; equal to `batch`."""
        raise NotImplementedError

    def compile(self) -> None:
        """Let `batch_of` be compiled."""
