"""The other side of the benchmarks: views as the field makes them, image by image in worker processes.

torchvision's transforms on Pillow images (crop with reflect padding, flip, RandAugment, cutout, tensor, normalize), as
in the popular libraries. Written to win: where there is a choice (order, a tensor or a Pillow operation), the faster
one is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms as v1
from torchvision.transforms import v2

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


class Cutout:
    """Fill a square in a Pillow image with gray; by pasting, which is faster than a loop over pixels."""

    def __init__(self, largest: float = 0.5) -> None:
        self.largest = largest

    def __call__(self, image: Image.Image) -> Image.Image:
        """Fill it in place."""
        side, x, y = np.random.random(3)
        half = side * self.largest * min(image.size) / 2
        box = [round(v) for v in (x * image.width - half, y * image.height - half)]
        corner = [round(v) for v in (x * image.width + half, y * image.height + half)]
        image.paste((127, 127, 127) if image.mode == "RGB" else 127, (*box, *corner))
        return image


def transforms(kind: str, size: int, version: Any = v1, channels: int = 3) -> Callable[[Any], Tensor]:
    """Give the weak or strong view of a Pillow image, with torchvision's first or second transforms."""
    steps = [version.RandomCrop(size, padding=size // 8, padding_mode="reflect"), version.RandomHorizontalFlip()]
    if kind == "strong":
        steps += [version.RandAugment(), Cutout()]
    steps += [version.PILToTensor(), version.ConvertImageDtype(torch.float32)]
    return version.Compose([*steps, version.Normalize(MEAN[:channels], STD[:channels])])


def batched_v2(kind: str, size: int) -> Callable[[Tensor], Tensor]:
    """Give the same on a batch of uint8 tensors: fast, but each draw is one for the whole batch."""
    steps = [v2.RandomCrop(size, padding=size // 8, padding_mode="reflect"), v2.RandomHorizontalFlip()]
    if kind == "strong":
        steps += [v2.RandAugment()]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


def pillow(images: np.ndarray) -> list[Image.Image]:
    """Give Pillow images of uint8 [n, C, H, W]."""
    return [Image.fromarray(i[0] if len(i) == 1 else np.ascontiguousarray(i.transpose(1, 2, 0))) for i in images]


class Viewed(Dataset[tuple[Tensor, ...]]):
    """The views of each image, in memory as torchvision's CIFAR keeps it: an array that becomes a Pillow image."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, views: Sequence[Callable[[Any], Tensor]]) -> None:
        last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.images = last[..., 0] if last.shape[-1] == 1 else last
        self.labels, self.views = labels, views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        image = Image.fromarray(self.images[row])
        return (*(view(image) for view in self.views), int(self.labels[row]))


class Endless(Sampler[int]):
    """Rows in random order, again and again, so that no epoch ends and no worker starts anew."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self.rows).tolist()


def loader(data: Viewed, batch: int, workers: int) -> Iterator[list[Tensor]]:
    """Give batches without end from persistent worker processes."""
    return iter(
        DataLoader(
            data,
            batch_size=batch,
            sampler=Endless(len(data)),
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
        )
    )


def _one_thread(worker: int) -> None:
    del worker
    torch.set_num_threads(1)
