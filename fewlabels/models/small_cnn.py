"""A small network for tiny images: three stages of two 3x3 convolutions, leaky ReLU, batch or group norm."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn


class SmallCNN(nn.Sequential):
    """Features of tiny images.

    One image costs 1.2 MFLOP at 16x16x1 and 4.1 MFLOP at 28x28x1 (a multiply-add is two).

    Args:
        channels: of the input.
        widths: channels of the stages; every stage halves the image.
        norm: "batch", or "group" (8 groups), which has no statistics of the batch.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...] = (16, 32, 64),
        norm: Literal["batch", "group"] = "batch",
    ) -> None:
        stages: dict[str, nn.Module] = {}
        for number, width in enumerate(widths, 1):
            first = Convolution(channels, width, norm, stride=2)
            stages[f"stage{number}"] = nn.Sequential(first, Convolution(width, width, norm))
            channels = width
        super().__init__(OrderedDict(stages))
        self.num_features = channels

    def forward(self, input: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, D]: the mean over the last map."""
        return super().forward(input).mean((2, 3))


class Convolution(nn.Sequential):
    """A 3x3 convolution with its norm and activation."""

    def __init__(self, channels: int, width: int, norm: Literal["batch", "group"], stride: int = 1) -> None:
        convolution = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
        normalization = nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(8, width)
        super().__init__(convolution, normalization, nn.LeakyReLU(0.1))
