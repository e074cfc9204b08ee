"""A few steps on a state that is thrown away: what fails, and how long a step takes, is known before a run begins."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from fewlabels.console import Show
from fewlabels.errors import Interrupted
from fewlabels.processes import any_of
from fewlabels.training.learner import Learner
from fewlabels.training.loop import State, run
from fewlabels.training.stage import Stage
from fewlabels.training.train import fitted

TRIES = 3

L = TypeVar("L", bound=Learner[Any])


class Rehearsal(Generic[L]):
    """Steps of a stage, on a state of its own and not compiled, which would take longer than a few steps.

    Args:
        stage: to rehearse.

    Raises:
        UserError: the memory holds not even one part of a batch.
    """

    def __init__(self, stage: Stage[L]) -> None:
        self.stage = replace(stage, recipe=replace(stage.recipe, compile=False))
        # Too small a memory is said when the training begins.
        fitted(self.stage, Show(None), self._begin)

    def _begin(self, stage: Stage[L]) -> None:
        self.state, self.feed = stage.begin(stage.recipe)
        self.step = 0
        self._timed(1)  # in the first step all gets ready

    def seconds(self, tries: int = TRIES) -> float:
        """Return the median time of a step."""
        return statistics.median(self._timed(tries))

    def seconds_with(self, threads: int, tries: int = TRIES) -> float:
        """Return the median time of a step with so many threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return self.seconds(tries)
        finally:
            torch.set_num_threads(before)

    def fastest_threads(self, stop: Callable[[], bool], tries: int = TRIES) -> tuple[int, str]:
        """Measure a step with one thread and with all, in turn; return the better number and the figures.

        More threads must be a fifth faster: on a shared machine small differences are chance. Several processes measure
        together, since a step is theirs together; what each finds may differ.

        Raises:
            Interrupted: the run was asked to stop.
        """
        most = torch.get_num_threads()
        if any_of(most == 1 or self.state.step.device.type != "cpu"):
            return most, "as many as the machine gives"
        times: dict[int, list[float]] = {1: [], most: []}
        try:
            for _ in range(tries):
                for threads, taken in times.items():
                    torch.set_num_threads(threads)
                    self._timed(1)  # which this number of threads gets ready in
                    taken += self._timed(1)
                    if any_of(stop()):
                        raise Interrupted("stopped before the training; nothing is lost")
        finally:
            torch.set_num_threads(most)
        one, all_of_them = (statistics.median(taken) for taken in times.values())
        figures = f"measured: {1000 * one:.0f} ms a step with 1 thread, {1000 * all_of_them:.0f} with {most}"
        figures += "; more threads must be a fifth faster"
        return (most if all_of_them < 0.8 * one else 1), figures

    def _timed(self, count: int) -> list[float]:
        """Do `count` steps; return the seconds of each."""
        ends = [time.perf_counter()]

        def watch(state: State[L], step: int, metrics: dict[str, Tensor]) -> None:
            del state, step
            float(metrics["loss"])  # wait for the device
            ends.append(time.perf_counter())

        run(self.state, self.feed, self.step, self.step + count, watch=watch)
        self.step += count
        return [end - start for start, end in itertools.pairwise(ends)]
