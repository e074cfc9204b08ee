"""What follows a backbone whose features are trained on: modules that take its features, from images on."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewlabels.models.feature_mlp import FeatureMLP


class Mirrored(nn.Module):
    """A backbone whose features are the mean over an image and its mirror image.

    Args:
        backbone: maps images [n, C, H, W] to features [n, D].
        dimensions: D.
    """

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone, self.num_features = backbone, dimensions

    def forward(self, x: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, D]."""
        return (self.backbone(x) + self.backbone(x.flip(-1))) / 2


class UnitCentered(nn.Module):
    """A backbone whose features have the length 1, less a mean, and the length 1 again.

    It is the space of training-free classifiers (`classify.training_free.space.unit_centered`).

    Args:
        backbone: maps what it takes to features [n, D].
        dimensions: D.
    """

    mean: Tensor

    def __init__(self, backbone: nn.Module, dimensions: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.zeros(dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Map what the backbone takes to features [n, D]."""
        return F.normalize(F.normalize(self.backbone(x), eps=1e-30) - self.mean, eps=1e-30)


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
