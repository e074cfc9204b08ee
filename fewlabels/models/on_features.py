"""What follows a backbone whose features are trained on: modules that take its features, from images on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.feature_mlp import FeatureMLP

STRIDES = (8, 16)  # of the stages that `Staged` looks at: measured with EfficientNet-Lite0 (docs/LOG.md)


class Staged(nn.Module):
    """A backbone whose features are followed by the means over all places of what its stages of `STRIDES` give.

    The last features are those of what was trained on; earlier ones know more of colors, textures and materials.

    Args:
        backbone: a convolutional network of timm, maps images [n, C, H, W] to features [n, D].
        dimensions: D.

    Attributes:
        parts: D and the channels of each of these stages.
    """

    def __init__(self, backbone: Any, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        stages = [(place, of) for place, of in enumerate(backbone.feature_info) if of["reduction"] in STRIDES]
        self.places = [place for place, _ in stages]
        self.parts: tuple[int, ...] = (dimensions, *(of["num_chs"] for _, of in stages))
        self.num_features = sum(self.parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, sum of the parts]."""
        last, stages = self.backbone.forward_intermediates(x, indices=self.places)
        return torch.cat([self.backbone.forward_head(last), *(stage.mean((2, 3)) for stage in stages)], 1)


class Mirrored(nn.Module):
    """A backbone whose features are the mean over an image and its mirror image.

    Args:
        backbone: maps images [n, C, H, W] to features [n, D].
        dimensions: D.
    """

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone, self.num_features = backbone, dimensions
        self.parts = parts_of(backbone, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, D]."""
        return (self.backbone(x) + self.backbone(x.flip(-1))) / 2


class UnitCentered(nn.Module):
    """A backbone whose features have the length 1, less a mean, and the length 1 again; each part of them by itself.

    It is the space of training-free classifiers (`classify.training_free.space.unit_centered`).

    Args:
        backbone: maps what it takes to features [n, D].
        dimensions: D.
    """

    mean: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.parts = parts_of(backbone, dimensions)
        self.register_buffer("mean", torch.zeros(dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Map what the backbone takes to features [n, D]."""
        parts = zip(self.backbone(x).split(self.parts, 1), self.mean.split(self.parts), strict=True)
        centered = [F.normalize(F.normalize(part, eps=1e-30) - mean, eps=1e-30) for part, mean in parts]
        return torch.cat(centered, 1) * len(self.parts) ** -0.5


class OnFeatures(nn.Module):
    """A backbone whose features, standardized, go through a `FeatureMLP`: what is trained on features, from images on.

    Args:
        backbone: maps what it takes to features [n, D].
        dimensions: D.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("scale", torch.ones(dimensions))
        self.mlp = FeatureMLP(dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Map what the backbone takes to features [n, H]."""
        return self.mlp((self.backbone(x) - self.mean) * self.scale)


def parts_of(backbone: nn.Module, dimensions: int) -> tuple[int, ...]:
    """Return how many features [D] of a backbone are of which part: those of `Staged`, or one part."""
    return getattr(backbone, "parts", (dimensions,))
