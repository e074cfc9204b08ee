"""The views of an image task: uint8 in, normalized float out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewlabels.inputs.batch import KINDS, Kind
from fewlabels.inputs.images.operations import Strengths, strength_ranges
from fewlabels.inputs.images.strong import cutout, rand_augment
from fewlabels.inputs.images.weak import Flip, weak_view
from fewlabels.keys import Key


class Normalize(nn.Module):
    """Turn uint8 [n, C, H, W] into float32 with channel mean 0 and standard deviation 1.

    In memory the channels come last, as convolutions like it on GPUs and CPUs.

    Args:
        mean, std: channel statistics of pixels in 0..1.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        pairs = [(1 / (255 * s), -m / s) for m, s in zip(mean, std, strict=True)]
        self.scale_and_shift = nn.Buffer(torch.tensor(pairs, dtype=torch.float32).T, persistent=False)  # [2, C]

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalized images, float32 [n, C, H, W]."""
        n, channels, height, width = images.shape
        scale, shift = self.scale_and_shift.repeat(1, width)
        # As bytes into the wanted order, then line by line: few channels alone make too short a loop.
        lines = images.permute(0, 2, 3, 1).reshape(n * height, width * channels).to(torch.float32)
        return lines.mul_(scale).add_(shift).view(n, height, width, channels).permute(0, 3, 1, 2)


class ImageViews(nn.Module):
    """Makes the views that a method asks for, on the device that this module is on.

    Args:
        mean, std: channel statistics of pixels in 0..1.
        flip: which mirror images count as the same class.
        operations: RandAugment's operations in a strong view (the FixMatch paper 2, a popular library 3); a medium view
            has one, and no cutout.
        strengths: whose ranges they are drawn from.
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        flip: Flip = "none",
        operations: int = 2,
        strengths: Strengths = "fixmatch",
    ) -> None:
        super().__init__()
        self.flip: Flip = flip
        self.operations = operations
        self.normalize = Normalize(mean, std)
        self.ranges = nn.Buffer(strength_ranges(strengths), persistent=False)

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
        of_views = key.fold("view")
        keys = torch.cat([of_views.fold(number).tensor for number in order])
        images = weak_view(images.repeat(len(kinds), 1, 1, 1), Key(keys).fold("weak"), self.flip)
        if sizes[0] < len(images):
            weak, medium, strong = images.split(sizes)
            _, of_medium, of_strong = (Key(part).fold("randaugment") for part in keys.split(sizes))
            if len(medium):
                medium = rand_augment(medium, of_medium, self.ranges, 1)
            if len(strong):
                strong = rand_augment(strong, of_strong, self.ranges, self.operations)
                strong = cutout(strong, Key(keys[-len(strong) :]).fold("cutout"))
            images = torch.cat([weak, medium, strong])
        seen = self.normalize(images).tensor_split(len(kinds))
        return tuple(seen[order.index(number)] for number in range(len(kinds)))
