"""Backbones for feature vectors: one hidden layer, alone or on what another backbone gives."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


class FeatureMLP(nn.Sequential):
    """Features of vectors [n, D]: one layer of ReLU after a layer norm.

    It has no statistics of the batch: in few rows these would be noise, and of several processes each would have its
    own. On development seeds it was as good or better (docs/LOG.md).

    Args:
        dimensions: D.
        hidden: size of the features.
    """

    def __init__(self, dimensions: int, hidden: int = 256) -> None:
        linear = nn.Linear(dimensions, hidden, bias=False)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layer = nn.Sequential(linear, nn.LayerNorm(hidden), nn.ReLU())
        super().__init__(OrderedDict(layer1=layer))
        self.num_features = hidden


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
