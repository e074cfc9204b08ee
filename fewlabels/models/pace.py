"""How many images go through a network at a time."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle, islice
from typing import Literal

from fewlabels.errors import UserError

SIZES = (32, 64, 128, 256)
TRIES = 2  # of each size; in the first a library may prepare itself for it


class Pace:
    """A number of images at a time: a given one, or the fastest, found by the work itself.

    The sizes take turns on what is to be done anyway, then the fastest is kept. Another size may move the last digits
    of an outcome, since a library multiplies other shapes in another order.

    Args:
        given: images at a time, or "auto" to find it.

    Raises:
        UserError: less than one.
    """

    def __init__(self, given: int | Literal["auto"] = "auto") -> None:
        if given != "auto" and (type(given) is not int or given < 1):
            raise UserError(f"batch is {given!r}; give a whole number, at least 1, or auto")
        self.size = SIZES[0] if given == "auto" else given
        self._trials = islice(cycle(SIZES), 1, TRIES * len(SIZES)) if given == "auto" else None
        self._seconds: dict[int, list[float]] = defaultdict(list)

    def took(self, images: int, seconds: float) -> None:
        """Take in that `images` took so long; less than half of the size says nothing."""
        if self._trials is None or images < self.size / 2:
            return
        self._seconds[self.size].append(seconds / images)
        self.size = next(self._trials, 0)
        if not self.size:
            self.size, self._trials = min(self._seconds, key=lambda size: min(self._seconds[size])), None

    def halve(self) -> None:
        """Stay at half of the size, since the memory is too small for it."""
        self.size, self._trials = self.size // 2, None
