"""The views of an image task: uint8 in, normalized float out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewlabels.keys import Key
from fewlabels.views.batch import Kind
from fewlabels.views.constant import constant
from fewlabels.views.operations import Strengths
from fewlabels.views.strong import cutout, rand_augment
from fewlabels.views.weak import Flip, weak_view


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn uint8 [n, C, H, W] into float32 with the given channel mean and deviation (of pixels in 0..1).

    In memory the channels come last, as convolutions like it on GPUs and CPUs.
    """
    scale = _channel_constant(tuple(1 / (255 * each) for each in std), images.device)
    shift = _channel_constant(tuple(-m / s for m, s in zip(mean, std, strict=True)), images.device)
    return images.to(torch.float32).mul_(scale).add_(shift).contiguous(memory_format=torch.channels_last)


@constant
def _channel_constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Give values [1, C, 1, 1]."""
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)


@dataclass(frozen=True)
class ImageViews:
    """Makes the views that a method asks for.

    Attributes:
        mean, std: channel statistics of pixels in 0..1.
        flip: which mirror images count as the same class.
        operations: RandAugment's operations in a strong view (the FixMatch paper 2, a popular library 3).
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
        return tuple(self._view(images, kind, key.fold("view", number)) for number, kind in enumerate(kinds))

    def _view(self, images: Tensor, kind: Kind, key: Key) -> Tensor:
        images = weak_view(images, key.fold("weak"), self.flip)
        if kind == "strong":
            images = rand_augment(images, key.fold("randaugment"), self.operations, self.strengths)
            images = cutout(images, key.fold("cutout"))
        return normalize(images, self.mean, self.std)
