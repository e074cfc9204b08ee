"""The feed: gives the batch of a step."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fewlabels.data.images import Images
from fewlabels.data.samplers import Sampler
from fewlabels.data.table import Labels
from fewlabels.keys import Key
from fewlabels.views.batch import Batch, Kind, Views
from fewlabels.views.images import ImageViews


@dataclass(frozen=True)
class Share:
    """Which part of the global batch this process makes: process `rank` of `world`."""

    rank: int = 0
    world: int = 1

    def of(self, count: int) -> slice:
        """Give the slots of a global batch of `count` that are this process's."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)


WHOLE = Share()


class _Seen(NamedTuple):
    """The rows of a step and their views."""

    labeled_rows: Tensor
    labeled: tuple[Tensor, ...]
    unlabeled_rows: Tensor
    unlabeled: tuple[Tensor, ...]


class ImageFeed:
    """Batches of images.

    Args:
        images: of all rows.
        labels: int64 [N], -1 unlabeled.
        labeled, unlabeled: row numbers to learn from with and without labels.
        batch, unlabeled_batch: B and M, of all processes together.
        steps: length of the run.
        wanted: the views that the method asks for.
        views: makes them.
        key: the run's key.
        share: this process's part.
    """

    def __init__(
        self,
        images: Images,
        labels: Labels,
        *,
        labeled: Labels,
        unlabeled: Labels,
        batch: int,
        unlabeled_batch: int,
        steps: int,
        wanted: Views,
        views: ImageViews,
        key: Key,
        share: Share = WHOLE,
    ) -> None:
        self.images = images
        self.labels = torch.from_numpy(labels).to(images.device)
        self.steps, self.wanted, self.views, self.key = steps, wanted, views, key
        self.share = share
        self._labeled = (labeled, batch)
        self._unlabeled = (unlabeled if wanted.unlabeled else unlabeled[:0], unlabeled_batch)
        self._samplers: dict[int, tuple[Sampler, Sampler]] = {}
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="views")
        self._coming: tuple[tuple[int, int], Future[_Seen]] | None = None

    def batch(self, step: int, step_tensor: Tensor, branch: int = 0) -> Batch:
        """Make the batch of `step` (given as a number and as a 0-dim tensor on the device) of a branch."""
        coming, self._coming = self._coming, None
        made = coming[1].result() if coming else None  # also one that is not wanted: two at once would share samplers
        if made is None or coming is None or coming[0] != (step, branch):
            made = self._make(step, branch, step_tensor)
        return Batch(
            labeled=made.labeled,
            labels=self.labels[made.labeled_rows],
            unlabeled=made.unlabeled,
            rows=made.unlabeled_rows,
            step=step_tensor,
            share=step_tensor.to(torch.float32) / self.steps,
            key=self._key(step, branch, step_tensor).fold("method"),
        )

    def prepare(self, step: int, step_tensor: Tensor, branch: int = 0) -> None:
        """Begin to make the batch of `step` in another thread, where a core is idle; it will be the same."""
        if self.images.device.type == "cpu" and torch.get_num_threads() < (os.cpu_count() or 1):
            self._coming = (step, branch), self._ahead.submit(self._make, step, branch, step_tensor)

    def _make(self, step: int, branch: int, step_tensor: Tensor) -> _Seen:
        labeled, unlabeled = self._rows(step, branch)
        key = self._key(step, branch, step_tensor)
        seen = _Seen(
            *self._stream(labeled, self.wanted.labeled, key.fold("labeled")),
            *self._stream(unlabeled, self.wanted.unlabeled, key.fold("unlabeled")),
        )
        self.images.expect(*(self._mine(rows) for rows in self._rows(step + 1, branch)))
        return seen

    def _key(self, step: int, branch: int, step_tensor: Tensor) -> Key:
        # As a number on a CPU: it folds the same, outside of tensors. On a GPU a captured step reads the tensor.
        now = step if self.images.device.type == "cpu" else step_tensor
        return self.key.fold(branch, "views").fold(now)

    def _rows(self, step: int, branch: int) -> tuple[Labels, Labels]:
        labeled, unlabeled = self._samplers_of(branch)
        return labeled.step(step), unlabeled.step(step)

    def _mine(self, rows: Labels) -> Labels:
        return rows[self.share.of(len(rows))]

    def _samplers_of(self, branch: int) -> tuple[Sampler, Sampler]:
        if branch not in self._samplers:
            key = self.key.fold(branch, "sampler")
            self._samplers[branch] = (
                Sampler(*self._labeled, key.fold("labeled")),
                Sampler(*self._unlabeled, key.fold("unlabeled")),
            )
        return self._samplers[branch]

    def _stream(self, rows: Labels, kinds: tuple[Kind, ...], key: Key) -> tuple[Tensor, tuple[Tensor, ...]]:
        device = self.images.device
        mine = self.share.of(len(rows))
        here = rows[mine]
        slots = key.each(range(mine.start, mine.stop), device)
        views = self.views.make(self.images.take(here), kinds, slots)
        return torch.from_numpy(here).to(device, non_blocking=True), views
