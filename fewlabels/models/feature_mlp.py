"""A backbone for feature vectors: one hidden layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


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
