"""What every kind of input has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewlabels.data.table import Labels

CHUNK = 256  # rows that are looked at together
MOST_TEST = 2000  # test rows that are looked at for near copies
MOST_TRAIN = 100_000  # training rows that they are compared with

Number = TypeVar("Number", bound=np.generic)


class Provider(Protocol):
    """Gives what a run keeps of its rows: images, uint8 [n, C, H, W], or vectors, float32 [n, D]."""

    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """N, then the shape of one row."""
        ...

    def take(self, rows: Labels) -> Tensor:
        """Give these rows on the training device."""
        ...

    def expect(self, *coming: Labels) -> None:
        """Say which rows are taken next, so that they can be read while the device works."""
        ...


def chunks(rows: NDArray[Number], size: int = CHUNK) -> Iterator[NDArray[Number]]:
    """Give rows in parts of at most `size`: what is done to a whole set is done so, whatever its size."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, eq=False)
class NearCopies:
    """What was found.

    Attributes:
        test: test rows with a near copy among the training rows, int64 [n].
        train: the most alike training row of each, int64 [n].
        looked_at: number of test rows that were compared.
    """

    test: Labels
    train: Labels
    looked_at: int
