"""The feed: gives the batch of a step."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from fewlabels.data.samplers import Sampler
from fewlabels.data.table import Labels
from fewlabels.inputs.base import Provider, cores
from fewlabels.inputs.batch import Batch, Kind, Viewer, Views
from fewlabels.keys import Key
from fewlabels.processes import ALONE, Process
from fewlabels.training.feed import Feed


class StepRows(NamedTuple):
    """What the host chooses for a step: rows, int64 [B] and [M], and what is kept of them, as a `Provider` gives it."""

    labeled_rows: Tensor
    labeled: Tensor
    unlabeled_rows: Tensor
    unlabeled: Tensor


@dataclass(frozen=True, eq=False)
class PropagatedTargets:
    """Propagated labels that targets begin with, and how long they count.

    Attributes:
        table: float32 [N, K], a distribution of each row that is learned from without its label.
        until: the fraction of the run after which nothing of it is left.
    """

    table: Tensor
    until: float

    def of(self, rows: Tensor, progress: Tensor) -> Tensor:
        """Return a times the distributions of these rows [M, K], where a falls from 1 to 0: max(1 - t / until, 0)."""
        return (1 - progress / self.until).clamp(min=0) * self.table[rows]


_Seen: TypeAlias = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""the views of labeled and of unlabeled rows"""


class RowFeed(Feed[Batch]):
    """Batches of rows.

    Args:
        store: of all rows.
        labels: int64 [N], -1 unlabeled.
        labeled, unlabeled: choose the rows to learn from with and without labels, B and M a step.
        steps: length of the run.
        wanted: the views that the method asks for.
        views: makes them.
        key: the run's key.
        process: which of the run's this is: it makes its part of the batch.
        propagated: what targets begin with.
    """

    def __init__(
        self,
        store: Provider,
        labels: Labels,
        *,
        labeled: Sampler,
        unlabeled: Sampler,
        steps: int,
        wanted: Views,
        views: Viewer,
        key: Key,
        process: Process = ALONE,
        propagated: PropagatedTargets | None = None,
    ) -> None:
        self.store, self.propagated = store, propagated
        self.labels = torch.from_numpy(labels).to(store.device)
        places = torch.zeros(len(labels), dtype=torch.int64)
        places[torch.from_numpy(labeled.rows)] = torch.arange(len(labeled.rows))
        self.places = places.to(store.device)
        self.steps, self.wanted, self.views, self.key = steps, wanted, views, key
        self.process = process
        self._labeled, self._unlabeled = labeled, unlabeled
        self.rows = labeled.batch + unlabeled.batch * bool(wanted.unlabeled)
        self._compiled: Callable[[StepRows, Tensor, int], _Seen] | None = None
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._coming: tuple[tuple[int, int], Future[tuple[StepRows, _Seen]]] | None = None

    def batch(self, step: int, now: Tensor, branch: int = 0) -> Batch:
        """Make the batch of `step` (given as a number and as a 0-dim tensor on the device) of a branch."""
        coming, self._coming = self._coming, None
        if coming is not None:
            wait([coming[1]])  # also where it is not wanted: two at once would share samplers
        made = coming[1].result() if coming and coming[0] == (step, branch) else self._make(step, branch)
        drawn = step if self.store.device.type == "cpu" else now  # so that methods draw on the device
        return self._put_together(*made, now, self._key(drawn, branch))

    def prepare(self, step: int, branch: int = 0) -> None:
        """Begin to make the batch of `step` in another thread; it will be the same.

        Where the network works with one thread and a core is idle: more threads and this one wait for each other.
        """
        if self.store.device.type == "cpu" and torch.get_num_threads() == 1 and self.process.world_size < cores():
            self._coming = (step, branch), self._ahead.submit(self._make, step, branch)

    def inputs(self, step: int, branch: int = 0) -> StepRows:
        """Choose what a step sees, on the device."""
        labeled, unlabeled = map(self._mine, self._rows(step, branch))
        device = self.store.device
        chosen = StepRows(
            torch.from_numpy(labeled).to(device, non_blocking=True),
            self.store.take(labeled),
            torch.from_numpy(unlabeled).to(device, non_blocking=True),
            self.store.take(unlabeled),
        )
        self.store.expect(*map(self._mine, self._rows(step + 1, branch)))
        return chosen

    def batch_of(self, inputs: tuple[Tensor, ...], now: Tensor, branch: int = 0) -> Batch:
        """Make the batch of what `inputs` gave from tensors alone, as a captured step needs it; it equals `batch`."""
        chosen = StepRows(*inputs)
        see = self._see_at if self._compiled is None else self._compiled
        return self._put_together(chosen, see(chosen, now, branch), now, self._key(now, branch))

    def compile(self) -> None:
        """Let `batch_of` make its views by one compiled function."""
        if self._compiled is None:
            self._compiled = torch.compile(self._see_at, dynamic=False, fullgraph=True)

    def _make(self, step: int, branch: int) -> tuple[StepRows, _Seen]:
        inputs = self.inputs(step, branch)
        # A number folds as a tensor does, and on the host, where it costs nothing.
        return inputs, self._see_at(inputs, step, branch)

    def _see_at(self, inputs: StepRows, step: int | Tensor, branch: int) -> _Seen:
        key = self._key(step, branch)
        return (
            self._see(inputs.labeled, self.wanted.labeled, key.fold("labeled"), self._labeled.batch),
            self._see(inputs.unlabeled, self.wanted.unlabeled, key.fold("unlabeled"), self._unlabeled.batch),
        )

    def _see(self, taken: Tensor, kinds: tuple[Kind, ...], key: Key, batch: int) -> tuple[Tensor, ...]:
        first = self.process.slots(batch).start
        return self.views.make(taken, kinds, key.each(range(first, first + len(taken)), taken.device))

    def propagated_of(self, rows: Tensor, progress: Tensor) -> Tensor | None:
        """Return the weighted propagated labels of these rows [M, K] at this progress; None without any."""
        return None if self.propagated is None else self.propagated.of(rows, progress)

    def _put_together(self, inputs: StepRows, seen: _Seen, step_tensor: Tensor, key: Key) -> Batch:
        progress = step_tensor.to(torch.float32) / self.steps
        return Batch(
            labeled=seen[0],
            labels=self.labels[inputs.labeled_rows],
            places=self.places[inputs.labeled_rows],
            unlabeled=seen[1],
            rows=inputs.unlabeled_rows,
            step=step_tensor,
            progress=progress,
            key=key.fold("method"),
            propagated=self.propagated_of(inputs.unlabeled_rows, progress),
        )

    def _key(self, step: int | Tensor, branch: int) -> Key:
        return self.key.fold(branch, "views").fold(step)

    def _rows(self, step: int, branch: int) -> tuple[Labels, Labels]:
        wanted = self.wanted.unlabeled
        unlabeled = self._unlabeled.step(step, branch) if wanted else self._unlabeled.rows[:0]
        return self._labeled.step(step, branch), unlabeled

    def _mine(self, rows: Labels) -> Labels:
        return rows[self.process.slots(len(rows))]
