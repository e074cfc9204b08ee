"""The views of an image task: uint8 in, normalized float out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabels.constant import constant
from fewlabels.keys import Key
from fewlabels.views.batch import KINDS, Kind
from fewlabels.views.operations import Strengths
from fewlabels.views.strong import cutout, rand_augment
from fewlabels.views.weak import Flip, weak_view


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn uint8 [n, C, H, W] into float32 with the given channel mean and deviation (of pixels in 0..1).

    In memory the channels come last, as convolutions like it on GPUs and CPUs.
    """
    n, channels, height, width = images.shape
    scale, shift = _pattern(mean, std, width, images.device)
    # As bytes into the wanted order, then line by line: few channels alone make too short a loop.
    lines = images.permute(0, 2, 3, 1).reshape(n * height, width * channels).to(torch.float32)
    return lines.mul_(scale).add_(shift).view(n, height, width, channels).permute(0, 3, 1, 2)


@constant
def _pattern(mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    """Give factor and offset of each channel, for all pixels of a line: [2, width * C]."""
    pairs = [(1 / (255 * s), -m / s) for m, s in zip(mean, std, strict=True)]
    return torch.tensor(pairs, dtype=torch.float32, device=device).T.repeat(1, width)


@dataclass(frozen=True)
class ImageViews:
    """Makes the views that a method asks for.

    Attributes:
        mean, std: channel statistics of pixels in 0..1.
        flip: which mirror images count as the same class.
        operations: RandAugment's operations in a strong view (the FixMatch paper 2, a popular library 3); a medium view
            has one, and no cutout.
        strengths: whose ranges they are drawn from.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: Flip = "none"
    operations: int = 2
    strengths: Strengths = "fixmatch"

    def make(self, images: Tensor, kinds: Sequence[Kind], key: Key) -> tuple[Tensor, ...]:
        """Make one view a kind, each drawn on its own: uint8 [n, C, H, W] -> float32 [n, C, H, W] each.

        `key` has one element an image (its slot in the global batch), so views do not depend on how many
        processes share the batch.
        """
        if not kinds:
            return ()
        order = tuple(sorted(range(len(kinds)), key=lambda number: KINDS.index(kinds[number])))
        sizes = [len(images) * kinds.count(kind) for kind in KINDS]
        # All views in one batch, the weak ones first: few large operations instead of many small ones.
        state = key.fold("view").each(order, images.device).state
        assert isinstance(state, Tensor)
        keys = state.flatten()
        images = weak_view(images.repeat(len(kinds), 1, 1, 1), Key(keys).fold("weak"), self.flip)
        if sizes[0] < len(images):
            weak, medium, strong = images.split(sizes)
            _, of_medium, of_strong = (Key(part).fold("randaugment") for part in keys.split(sizes))
            if len(medium):
                medium = rand_augment(medium, of_medium, 1, self.strengths)
            if len(strong):
                strong = rand_augment(strong, of_strong, self.operations, self.strengths)
                strong = cutout(strong, Key(keys[-len(strong) :]).fold("cutout"))
            images = torch.cat([weak, medium, strong])
        seen = normalize(images, self.mean, self.std).tensor_split(len(kinds))
        return tuple(seen[order.index(number)] for number in range(len(kinds)))
