"""Wide ResNets as the field of semi-supervised learning uses them (Zagoruyko and Komodakis 2016; LeakyReLU 0.1)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["batch", "group"]


def _norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(8, channels)


class Block(nn.Module):
    """Two 3x3 convolutions, each after its norm and activation, beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int, norm: Norm, activate_shortcut: bool) -> None:
        super().__init__()
        self.norm1 = _norm(norm, channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.norm2 = _norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride, bias=False)
        self.activate_shortcut = activate_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map [n, C, H, W] to [n, width, H / stride, W / stride]."""
        active = F.leaky_relu(self.norm1(x), 0.1)
        out = self.conv1(active)
        out = self.conv2(F.leaky_relu(self.norm2(out), 0.1))
        residual: Tensor = self.shortcut(active if self.activate_shortcut else x)
        return residual + out


class WideResNet(nn.Sequential):
    """Features of a Wide ResNet.

    Args:
        channels: of the input.
        widths: channels of the stages.
        blocks: blocks a stage.
        first_stride: of the first stage; the others have 2.
        norm: "batch" (the field's), or "group" (8 groups), which has no statistics of the batch.
    """

    def __init__(
        self, channels: int, widths: tuple[int, ...], blocks: int = 4, first_stride: int = 1, norm: Norm = "batch"
    ) -> None:
        parts: dict[str, nn.Module] = {"stem": nn.Conv2d(channels, 16, 3, padding=1, bias=False)}
        before = 16
        for i, width in enumerate(widths):
            strides = [first_stride if i == 0 else 2] + [1] * (blocks - 1)
            # Only the network's very first block takes its shortcut after the activation, as FixMatch's code does.
            stage = [
                Block(before if j == 0 else width, width, stride, norm, activate_shortcut=i == j == 0)
                for j, stride in enumerate(strides)
            ]
            parts[f"stage{i + 1}"] = nn.Sequential(*stage)
            before = width
        super().__init__(OrderedDict(parts | {"norm": _norm(norm, before)}))
        self.num_features = before
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, input: Tensor) -> Tensor:
        """Map images [n, C, H, W] to features [n, D]: the mean over the last map."""
        return torch.mean(F.leaky_relu(super().forward(input), 0.1), (2, 3))


def wrn_28_2(channels: int, norm: Norm = "batch") -> WideResNet:
    """1.47 million parameters; CIFAR-10 and SVHN."""
    return WideResNet(channels, (32, 64, 128), norm=norm)


def wrn_28_8(channels: int, norm: Norm = "batch") -> WideResNet:
    """23.4 million parameters; CIFAR-100."""
    return WideResNet(channels, (128, 256, 512), norm=norm)


def wrn_37_2(channels: int, norm: Norm = "batch") -> WideResNet:
    """5.9 million parameters, a fourth stage, stride 2 from the first on; STL-10."""
    return WideResNet(channels, (32, 64, 128, 256), first_stride=2, norm=norm)
