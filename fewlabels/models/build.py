"""From a name to a classifier: our own networks, any timm model, or a user's module."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn

from fewlabels.errors import UserError
from fewlabels.inputs.base import Form, Wanted
from fewlabels.inputs.kinds import inputs_for
from fewlabels.models.classifier import Card, Classifier, load_tensors
from fewlabels.models.embedded import EMBEDDED, load_embedded, timm_name
from fewlabels.models.feature_mlp import FeatureMLP
from fewlabels.models.on_features import EarlierStages, Mirrored, OnFeatures, UnitCentered
from fewlabels.models.small_cnn import SmallCNN
from fewlabels.models.wide_resnet import wrn_28_2, wrn_28_8, wrn_37_2

if TYPE_CHECKING:
    from fewlabels.keys import Key

CUSTOM = "custom"
OWN: dict[str, Callable[[int], nn.Module]] = {
    "small_cnn": SmallCNN,
    "small_cnn_group_norm": lambda channels: SmallCNN(channels, norm="group"),
    "wrn_28_2": wrn_28_2,
    "wrn_28_8": wrn_28_8,
    "wrn_37_2": wrn_37_2,
    "mlp": FeatureMLP,
}
"""made for images by the number of channels, and for vectors by that of dimensions"""
TAKES = {"mlp": "vectors"}
"""what is not listed takes images"""
SMALL, LARGE = 64, 224  # pixels that are bearable for our own networks, and for published ones
ADDITIONS: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "stages": EarlierStages,
    "mirrored": Mirrored,
    "mlp": OnFeatures,
    "unit": UnitCentered,
}
"""what follows the name of a backbone, as in efficientnet_lite0+mirrored+unit: modules that take its features"""


def build_classifier(
    card: Card,
    *,
    key: Key,
    pretrained: bool = False,
    weights: Path | None = None,
    backbone: nn.Module | None = None,
    freeze: bool = False,
) -> Classifier:
    """Make a classifier whose initial parameters are a function of `key`.

    Args:
        card: which network for which images, or vectors, and classes.
        key: where the initial parameters are drawn from.
        pretrained: take the backbone's embedded weights, or timm's (downloaded by timm, or found in its cache).
        weights: a safetensors file with the parameters of the backbone, or of a whole classifier of ours.
        backbone: a user's own module, where the card says "custom"; maps [n, C, H, W], or vectors, to [n, D].
        freeze: train the head alone.

    Raises:
        UserError: an unknown name (the nearest are listed), weights that do not fit, or a backbone that does
            not give features [n, D].
    """
    name, *additions = card.model.split("+")
    with torch.random.fork_rng():
        torch.manual_seed(key.seed())
        module = backbone if backbone is not None else _build_backbone(replace(card, model=name), pretrained)
        for addition in additions:
            module = ADDITIONS[addition](module, _feature_size(module, card))
        classifier = Classifier(module, _feature_size(module, card), card)
    if backbone is None and brings_statistics(card.model, pretrained, weights):
        classifier.card = replace(card, **pretrained_statistics(module))
    if weights is not None:
        load_backbone(classifier.backbone, weights)
    if freeze:
        classifier.freeze()
    return classifier


def brings_statistics(model: str, pretrained: bool, weights: Path | None) -> bool:
    """Tell whether the backbone was trained by timm's rules: on three channels, with statistics of its own."""
    return pretrained or (weights is not None and model not in OWN and model not in ("auto", CUSTOM))


def _build_backbone(card: Card, pretrained: bool) -> nn.Module:
    if card.model == CUSTOM:
        raise UserError(
            "this classifier has a backbone of your own: give it again, to `load` as backbone=..., to `fit` and "
            "`add_labels` as model=..."
        )
    form, takes = card.form, TAKES.get(card.model, "images")
    if takes != form.what:
        there = [name for name in OWN if TAKES.get(name, "images") == form.what]
        raise UserError(
            f"{card.model} is a model for {takes}, and this data holds {form.what}: leave --model out, or give "
            f"{', '.join(there)}"
        )
    if card.model in OWN:
        if pretrained:
            raise UserError(
                f"{card.model} has no published weights; --pretrained goes with a timm name, such as "
                "resnet18 or vit_small_patch16_224. For a file of your own there is --weights FILE."
            )
        return OWN[card.model](form.shape[0])
    return _build_timm(card.model, form, pretrained)


def check_model(name: str) -> None:
    """Check that there is a model of this name, so that a slip is said before other work is done.

    Raises:
        UserError: there is none; the nearest are named.
    """
    if name in OWN or name in EMBEDDED or name == CUSTOM:
        return
    import timm  # seconds to import, and needed by these models alone

    if not timm.is_model(name):
        there = [*OWN, *EMBEDDED]
        near = difflib.get_close_matches(name, [*there, *timm.list_models()], n=4)
        hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(there)} and timm's models"
        raise UserError(f"no model is named {name!r}; {hint}")


def _build_timm(name: str, form: Form, pretrained: bool) -> nn.Module:
    import timm

    check_model(name)
    channels, *size = form.shape
    if name in EMBEDDED:
        module = timm.create_model(timm_name(name), num_classes=0, in_chans=channels)
        if pretrained:
            load_embedded(name, module)
        return module
    try:
        try:
            return timm.create_model(
                name, pretrained=pretrained, num_classes=0, in_chans=channels, img_size=tuple(size)
            )
        except TypeError:  # only transformers have a size of their own
            return timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=channels)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"timm could not make {name} with pretrained={pretrained}: {error}. Without a network, give a "
            "downloaded file by --weights FILE, or leave --pretrained out."
        ) from error


def wanted_by(model: str, *, trained: bool) -> Wanted:
    """Return what a network wants to see; `trained`: whether it begins with weights, by timm's rules."""
    if not trained or model in OWN or model == CUSTOM:
        return Wanted(SMALL if model in OWN else LARGE)
    import timm

    try:
        config = timm.get_pretrained_cfg(timm_name(model), allow_unregistered=True)
    except RuntimeError:  # `check_model` says it better
        config = None
    if config is None:
        return Wanted(LARGE, trained=True, interpolation="bicubic")
    return Wanted(config.input_size[-1], True, "bilinear" if config.interpolation == "bilinear" else "bicubic")


def pretrained_statistics(module: nn.Module) -> dict[str, tuple[float, ...]]:
    """Give the channel statistics that a pretrained timm model was trained with."""
    from timm.data import resolve_model_data_config

    config = resolve_model_data_config(module)
    return {"mean": tuple(config["mean"]), "std": tuple(config["std"])}


def _feature_size(module: nn.Module, card: Card) -> int:
    was_training = module.training
    try:
        with torch.no_grad():
            features = module.eval()(torch.zeros(2, *card.form.shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        mend = " Another --images.size may fit." if inputs_for(card.form).are_pictures else ""
        raise UserError(f"{card.model} does not take {card.form.words}: {error}.{mend}") from error
    finally:
        module.train(was_training)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        shape = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise UserError(f"{card.model} gives {shape} for two {card.form.what}; a backbone gives features [2, D]")
    return features.shape[1]


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill a backbone from a safetensors file of its own parameters or of a whole classifier of ours.

    Raises:
        UserError: the file is missing or does not fit.
    """
    if _is_classifier(path):
        load_tensors(nn.ModuleDict({"backbone": backbone}), path, ignore=("head.",))
    else:
        load_tensors(backbone, path, ignore=_heads_of(backbone))


def _heads_of(backbone: nn.Module) -> tuple[str, ...]:
    """Name the layers of a published timm network that a backbone leaves out: its classifier."""
    named = getattr(backbone, "default_cfg", {}).get("classifier") or ()
    return tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))


def _is_classifier(path: Path) -> bool:
    if not path.is_file():
        return False  # the loader says it better
    try:
        with safe_open(path, framework="pt") as file:
            return any(name.startswith("backbone.") for name in file.keys())  # noqa: SIM118 - not a dictionary
    except SafetensorError:
        return False  # likewise


def flops(classifier: Classifier) -> int:
    """Count the floating-point operations of one row's forward pass (a multiply-add is two)."""
    from torch.utils.flop_counter import FlopCounterMode  # a tenth of a second to import

    card = classifier.card
    was_training = classifier.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        classifier.eval()(torch.zeros(1, *card.form.shape, device=classifier.device))
    classifier.train(was_training)
    return counter.get_total_flops()


def with_stages(classifier: Classifier) -> Classifier:
    """Return a classifier whose features are followed by those of earlier stages; the head is a new one."""
    module = EarlierStages(classifier.backbone, classifier.head.in_features)
    return Classifier(module, module.num_features, _card_with(classifier, "stages"))


def mirrored(classifier: Classifier) -> Classifier:
    """Return a classifier whose features are the mean over an image and its mirror image; the head is a new one."""
    module = Mirrored(classifier.backbone, classifier.head.in_features)
    return Classifier(module, module.num_features, _card_with(classifier, "mirrored"))


def _card_with(classifier: Classifier, addition: str) -> Card:
    return replace(classifier.card, model=f"{classifier.card.model}+{addition}")


def on_features(backbone: nn.Module, trained: Classifier, card: Card) -> Classifier:
    """Put together what was trained on a backbone's features with that backbone, to one classifier.

    Args:
        backbone: that gave the features.
        trained: a classifier of vectors, these features, by a `FeatureMLP`.
        card: of the backbone.
    """
    of = trained.card
    whole = OnFeatures(backbone, len(of.mean))
    with torch.no_grad():
        whole.mean.copy_(torch.tensor(of.mean))
        whole.scale.copy_(torch.tensor([1 / s if s else 0.0 for s in of.std]))
    whole.mlp.load_state_dict(trained.backbone.state_dict())
    both = Classifier(whole, trained.head.in_features, replace(card, model=f"{card.model}+mlp"))
    both.head.load_state_dict(trained.head.state_dict())
    return both.eval()


def linear_classifier(
    backbone: nn.Module, card: Card, center: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any]
) -> Classifier:
    """Put a linear head onto the features of a backbone in the space of `UnitCentered`.

    Args:
        backbone: maps what the card says to features [n, D].
        card: of the backbone.
        center: [D], the mean of each part at length 1.
        weight, bias: [K, D] and [K], of the head.
    """
    whole = UnitCentered(backbone, len(center))
    both = Classifier(whole, len(center), replace(card, model=f"{card.model}+unit"))
    with torch.no_grad():
        whole.mean.copy_(torch.tensor(center))
        both.head.weight.copy_(torch.tensor(weight))
        both.head.bias.copy_(torch.tensor(bias))
    return both.eval()


def digest_of_parameters(module: nn.Module) -> str:
    """Hash what a module holds."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(name.encode() + flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
