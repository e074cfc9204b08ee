"""What follows a backbone whose features are trained on: modules that take its features, from images on."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.feature_mlp import FeatureMLP

STRIDES = (8, 16)  # of the stages that `EarlierStages` looks at: measured with EfficientNet-Lite0 (docs/LOG.md)
SHORTEST = 1e-6  # what is shorter after a mean of rows of length 1 was subtracted is rounding error


class EarlierStages(nn.Module):
    """A backbone whose features are followed by the global average pooling of its stages of `STRIDES`.

    The last features tell the classes that the backbone was trained for, earlier ones colors, textures and materials.

    Args:
        backbone: a convolutional network of timm, maps images [n, C, H, W] to features [n, D].
        dimensions: D.

    Attributes:
        widths: D and the channels of each of these stages.
    """

    def __init__(self, backbone: Any, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        stages = [(place, of) for place, of in enumerate(backbone.feature_info) if of["reduction"] in STRIDES]
        self.places = [place for place, _ in stages]
        self.widths: tuple[int, ...] = (dimensions, *(of["num_chs"] for _, of in stages))
        self.num_features = sum(self.widths)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, sum of the widths]."""
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
        self.widths = widths_of(backbone, dimensions)

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, D]."""
        return (self.backbone(x) + self.backbone(x.flip(-1))) / 2


class UnitCentered(nn.Module):
    """A backbone whose features have the length 1, less a mean, and the length 1 again; each stage by itself.

    It is the space of training-free classifiers (`classify.training_free.space.unit_centered`).

    Args:
        backbone: maps what it takes to features [n, D].
        dimensions: D.
    """

    mean: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.widths = widths_of(backbone, dimensions)
        self.register_buffer("mean", torch.zeros(dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Map what the backbone takes to features [n, D]."""
        features, ends = self.backbone(x), list(accumulate(self.widths))
        places = [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]
        moved = [F.normalize(features[:, place], eps=1e-30) - self.mean[place] for place in places]
        return torch.cat([F.normalize(part, eps=SHORTEST) for part in moved], 1) * len(self.widths) ** -0.5


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


def widths_of(backbone: nn.Module, dimensions: int) -> tuple[int, ...]:
    """Return how many of the features [D] of a backbone are of which stage; `EarlierStages` has more than one."""
    return backbone.widths if isinstance(backbone, EarlierStages | Mirrored) else (dimensions,)
