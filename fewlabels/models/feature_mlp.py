"""A backbone for feature vectors: one hidden layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


class FeatureMLP(nn.Sequential):
    """Features of vectors [n, D]: one layer of ReLU, with a norm before it.

    Args:
        dimensions: D.
        hidden: size of the features.
    """

    def __init__(self, dimensions: int, hidden: int = 256) -> None:
        linear = nn.Linear(dimensions, hidden, bias=False)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        layer = nn.Sequential(linear, nn.BatchNorm1d(hidden), nn.ReLU())
        super().__init__(OrderedDict(layer1=layer))
        self.num_features = hidden
