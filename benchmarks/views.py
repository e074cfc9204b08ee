"""How fast views are made: ours and the field's, in turn, microseconds an image for a weak and a strong view.

    python benchmarks/views.py --json benchmarks/results/views.json
    python benchmarks/views.py --device cuda --batch 16384

On a CPU all use one core. The ratio is the field's form, the faster of torchvision's two on Pillow images, over ours;
the other ratio also counts forms without cutout, so with less work. On a GPU only what runs there is measured. The
limit is the copy of what must be read and written.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro
from accuracy import machine
from field import MEAN, STD, batched_v2, pillow, transforms
from limits import copy_rate, synchronize
from outcome import medians, ratios, say
from torchvision import transforms as v1
from torchvision.transforms import v2

from fewlabels.inputs.images.views import ImageViews
from fewlabels.keys import Key


@dataclass(frozen=True)
class Question:
    """What is measured."""

    batch: int = 448
    size: int = 32
    repeats: int = 15
    device: str = "cpu"
    json: Path | None = None


def ours(question: Question, kinds: tuple[str, ...]) -> Callable[[], Any]:
    """Give a function that makes our views of random images."""
    device = torch.device(question.device)
    shape = question.batch, 3, question.size, question.size
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).to(device)
    views, slots = ImageViews(MEAN, STD, "horizontal").to(device), torch.arange(question.batch, device=device)
    make = views.make if device.type == "cpu" else torch.compile(views.make, dynamic=False, fullgraph=True)
    step = torch.zeros((), dtype=torch.int64, device=device)

    def run() -> None:
        make(images, kinds, Key(0).fold(step).fold(slots))  # pyright: ignore[reportArgumentType]
        step.add_(1)
        synchronize(device)

    return run


def field(question: Question) -> dict[str, Callable[[], Any]]:
    """Give the other sides."""
    shape = question.batch, 3, question.size, question.size
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    given, tensors = pillow(images), torch.from_numpy(images)
    sides: dict[str, Callable[[], Any]] = {}

    def by_image(weak: Any, strong: Any, items: Any) -> Callable[[], Any]:
        return lambda: [torch.stack([view(item) for item in items]) for view in (weak, strong)]

    for name, version in (("torchvision on Pillow", v1), ("torchvision v2 on Pillow", v2)):
        weak, strong = (transforms(kind, question.size, version) for kind in ("weak", "strong"))
        sides[name] = by_image(weak, strong, given)
    weak, strong = (batched_v2(kind, question.size) for kind in ("weak", "strong"))
    sides["torchvision v2 on tensors, by image, no cutout"] = by_image(weak, strong, tensors)
    sides["torchvision v2 on the batch, one draw for all, no cutout"] = lambda: (weak(tensors), strong(tensors))
    if importlib.util.find_spec("kornia"):
        sides["kornia, one draw of operations for all"] = _kornia(question, tensors.to(question.device))
    return sides


def _kornia(question: Question, tensors: torch.Tensor) -> Callable[[], Any]:
    from kornia import augmentation as K  # pyright: ignore[reportMissingImports]

    pad = question.size // 8
    first = (
        K.RandomCrop((question.size, question.size), padding=pad, padding_mode="reflect"),
        K.RandomHorizontalFlip(),
    )
    last = K.Normalize(MEAN, STD)
    weak = K.AugmentationSequential(*first, last)
    strong = K.AugmentationSequential(*first, K.auto.RandAugment(2, 9), K.RandomErasing(p=1.0), last)
    return lambda: (weak(tensors.float() / 255), strong(tensors.float() / 255))


def fastest_of(times: dict[str, list[float]], names: list[str]) -> list[float]:
    """Give the fastest of these sides in each repeat."""
    return [min(each) for each in zip(*(times[name] for name in names), strict=True)]


def main(question: Question) -> None:
    """Measure each side in turn."""
    torch.set_num_threads(1)
    sides = {"ours": ours(question, ("weak", "strong")), "ours, strong alone": ours(question, ("strong",))}
    sides |= field(question)
    if "cuda" in question.device:
        sides = {name: side for name, side in sides.items() if "torchvision" not in name}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(question.repeats + 1):
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            synchronize(torch.device(question.device))
            if repeat:  # the first is warm-up
                times[name].append(1e6 * (time.perf_counter() - start) / question.batch)
    others = [name for name in times if not name.startswith("ours") and "one draw" not in name]
    pixels, device = 3 * question.size**2, torch.device(question.device)
    # Each view reads bytes once and writes floats once; nothing can be faster than the copy of so much.
    limit = 1e6 * 2 * (1 + 4) * pixels / copy_rate(device)
    pillows = fastest_of(times, [name for name in others if "Pillow" in name])
    fastest = fastest_of(times, others)
    result: dict[str, Any] = {
        "where": machine(torch.cuda.get_device_name() if "cuda" in question.device else "CPU, one core"),
        "batch": question.batch,
        "size": question.size,
        "n": question.repeats,
        "microseconds_an_image": medians(times),
        "limit_microseconds_an_image": round(limit, 3),
        "strong_views_a_second": round(1e6 / median(times["ours, strong alone"])),
    }
    if pillows:
        result["ratio"] = ratios(times["ours"], pillows)
        result["ratio_to_the_fastest_with_draws_for_each_image"] = ratios(times["ours"], fastest)
    say(result, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
