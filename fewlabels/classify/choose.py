"""The automatic choices of a run, each with its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch

from fewlabels.averaging.horizon import horizon
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.config import Calibrate, FeaturesFirst, Options
from fewlabels.data.splits import TEST_SHARE, fewest_apart
from fewlabels.data.table import Table
from fewlabels.errors import UserError
from fewlabels.inputs.base import Form, Inputs, Reasons, Size, refuse
from fewlabels.inputs.kinds import IMAGES, other_options
from fewlabels.models.build import TAKES, brings_statistics, wanted_by
from fewlabels.models.embedded import DEFAULT, EMBEDDED, weights_file
from fewlabels.training.recipe import OptimizerRecipe

F = TypeVar("F", bound=Form)

# Measured on development seeds (docs/LOG.md).
FEW_ROWS = 2000
SMALL = 40  # pixels
TINY_SHARE = 0.5  # tiny images learn in half of the steps
PAPER_EMA = 1000.0  # steps: the papers' .999
PAPER_BATCH_NORM = 1000.0  # steps: the papers' momentum of .001

PROPAGATE = 0.7  # of the run
PROPAGATE_TO = 4  # labels per class

HELD_OUT_FROM = 50  # labels a class, from which on a fifth of them is spared for the calibration


def resolve(
    options: Options, table: Table, inputs: Inputs[F], device: torch.device
) -> tuple[Options, F, dict[str, str]]:
    """Choose what the user left open.

    Returns:
        The options with every value resolved, the form of the rows, and the reason of each choice.

    Raises:
        UserError: nothing can be read, or options that are for other data.
    """
    refuse(options, other_options(inputs), f"{table.name} holds {inputs.many}")
    reasons = Reasons()
    pick = reasons.pick
    size = inputs.look(table)
    model = pick("model", options.model, *_model(options, table, inputs, size, device))
    options = replace(options, model=model)
    trained = brings_statistics(model, begins_with_weights(options), options.weights)
    form, chosen = inputs.choose(options, table, size, reasons, wanted_by(model, trained=trained))
    if inputs is IMAGES:
        chosen["classify_features"] = pick("classify_features", options.classify_features, *_features(options))
    chosen |= {
        "model": model,
        "propagate": pick("propagate", options.propagate, *_propagate(options, table)),
        "classify_calibrate": pick(
            "classify_calibrate", options.classify_calibrate, *choose_calibration(options, table)
        ),
        **_numbers(options, table, model, device, reasons, _steps(options, inputs, size)),
    }
    return replace(options, **chosen), form, reasons.why


def _model(options: Options, table: Table, inputs: Inputs[Any], size: Size, device: torch.device) -> tuple[str, str]:
    if not inputs.are_pictures:
        return "mlp", "vectors need no larger one: 256 features after one hidden layer"
    if options.pretrained:
        return "resnet18", "the smallest of the usual pretrained networks; vit_small_patch16_224 is a stronger one"
    if size.tiny:
        return "small_cnn", f"images of {size.side} pixels hold too little for a network that was trained on photos"
    if options.weights is None and weights_file(DEFAULT) is not None and size.channels <= 3:
        return DEFAULT, (
            "trained on ImageNet, and installed: with few labels its features are worth more than a network from "
            "scratch; --model small_cnn trains one"
        )
    if device.type == "cpu":
        return (
            "small_cnn",
            "on a CPU a Wide ResNet takes over a hundred times the arithmetic; --model wrn_28_2 takes it",
        )
    if len(table) < FEW_ROWS:
        return "small_cnn", f"{len(table)} rows are soon learned by heart by a larger one"
    if size.side <= SMALL:
        return "wrn_28_2", f"images of {size.side} pixels, {len(table)} rows: the field's network for CIFAR-10"
    return "wrn_37_2", f"images of {size.side} pixels: the field's network for STL-10"


def _propagate(options: Options, table: Table) -> tuple[float, str]:
    """Choose how long targets have something of label propagation: where it was measured to add, or not at all."""
    if begins_with_weights(options) or options.start is not None:
        return 0.0, "the method as published: beginning with propagated labels was measured from scratch alone"
    labels = table.labels[table.labeled_rows]
    most = int(np.bincount(labels, minlength=len(table.classes)).max())
    if most > PROPAGATE_TO:
        return 0.0, f"the method as published: a class has {most} labels, and with few of them alone a graph knows more"
    return PROPAGATE, f"a class has {most} labels at most: at first a graph of like rows knows more than the network"


def _steps(options: Options, inputs: Inputs[Any], size: Size) -> tuple[int, str]:
    steps = inputs.steps[options.budget]
    if size.tiny:
        return round(steps * TINY_SHARE), f"budget {options.budget}, less for images this small"
    return steps, f"budget {options.budget}{'' if inputs.are_pictures else ', fewer for vectors than for images'}"


def _features(options: Options) -> tuple[FeaturesFirst, str]:
    if not begins_with_weights(options):
        return "no", "the backbone begins with nothing"
    if options.model in EMBEDDED:
        return "only", (
            "training the whole network takes hours on a CPU, and lost accuracy where it was measured; "
            "--classify.features first trains it"
        )
    if options.budget == "quick" and options.steps is None:
        return "only", "budget quick ends with the features; --budget normal also trains the backbone"
    return "first", "the backbone begins with weights"


def begins_with_weights(options: Options) -> bool:
    """Tell whether the backbone has learned something before; the model is resolved."""
    return options.pretrained or options.weights is not None or options.model in EMBEDDED


def _numbers(
    options: Options, table: Table, model: str, device: torch.device, reasons: Reasons, steps_of: tuple[int, str]
) -> dict[str, Any]:
    """Choose the numbers of the training; `steps_of` is how many steps, where the user does not say it, and why."""
    pick, small = reasons.pick, device.type == "cpu"
    tuned = begins_with_weights(options)
    steps = pick("steps", options.steps, *steps_of)
    labeled = len(table.labeled_rows)
    batch = 40 if small else 64
    seen = f"the papers' on a GPU, less on a CPU; each labeled row is seen {steps * batch / labeled:.0f} times"
    kind = cast(Literal["sgd", "adamw"], pick("optimizer", options.optimizer, *_optimizer(tuned)))
    adamw = kind == "adamw"
    transformer = 0.65 if options.pretrained and any(word in model for word in ("vit", "deit", "beit")) else None
    bf16 = fast_bfloat16(device) and TAKES.get(model, "images") == "images"
    automatic: dict[str, tuple[Any, str]] = {
        "accumulate": (1, "the whole batch at once, unless the memory is too small"),
        "batch": (batch, seen),
        "unlabeled_ratio": (3 if small else 7, "the papers' 7 on a GPU, 3 where steps are dear"),
        "lr": _lr(adamw, model),
        "weight_decay": (5e-4, "the papers' for CIFAR-10 and its like"),
        "layer_decay": (
            transformer,
            "pretrained transformers: lower layers change less" if transformer else "for pretrained transformers",
        ),
        "schedule": ("cosine", "FixMatch's"),
        "warm_up": (steps // 40 if adamw else 0, "the papers': a fortieth with adamw, else none"),
        "clip_norm": (None, "none of the papers clips gradients"),
        "averaging_ema_memory": (horizon(PAPER_EMA, steps), "the papers' .999, scaled to the run"),
        "averaging_batch_norm_memory": (
            None if tuned else horizon(PAPER_BATCH_NORM, steps),
            "the papers' .001, scaled to the run; the network's own where it begins with weights",
        ),
        "precision": (
            "bfloat16" if bf16 else "float32",
            "the device multiplies it fast" if bf16 else "the device is not faster with bfloat16 for this network",
        ),
        "compile": (
            "no",
            "on a CPU the compiled step is slower, and on a GPU it is not measured yet; --compile yes compiles",
        ),
    }
    chosen = {name: pick(name, getattr(options, name), *found) for name, found in automatic.items()}
    return chosen | {"steps": steps, "optimizer": kind}


def recipe_of(options: Options) -> ClassifierRecipe:
    """Return the recipe that resolved options say."""
    found: Any = options  # none of its values is open any more
    return ClassifierRecipe(
        steps=found.steps,
        batch=found.batch,
        unlabeled_batch=found.batch * found.unlabeled_ratio,
        optimizer=OptimizerRecipe(
            kind=found.optimizer,
            lr=found.lr,
            weight_decay=found.weight_decay,
            layer_decay=found.layer_decay,
            schedule=found.schedule,
            warm_up=found.warm_up,
            clip_norm=found.clip_norm,
        ),
        ema_memory=found.averaging_ema_memory,
        batch_norm_memory=found.averaging_batch_norm_memory,
        precision=found.precision,
        accumulate=found.accumulate,
        compile=found.compile == "yes",
    )


def choose_calibration(options: Options, table: Table) -> tuple[Calibrate, str]:
    """Choose how probabilities are calibrated, with the reason.

    Raises:
        UserError: what was given needs more labels than there are.
    """
    labeled = table.labeled_rows
    fewest = int(np.bincount(table.labels[labeled], minlength=len(table.classes)).min())
    apart, what = fewest_apart(table, labeled), "groups" if table.groups else "labels"
    needed = {"held_out": TEST_SHARE, "cross": 2}.get(options.classify_calibrate, 0)
    if apart < needed:
        raise UserError(
            f"--classify.calibrate {options.classify_calibrate} needs {needed} {what} of each class, and one has "
            f"{apart}; leave it out"
        )
    if apart < TEST_SHARE and fewest >= HELD_OUT_FROM:
        return "no", f"the labels of a class are of {apart} groups, which stay whole: none can be spared"
    if fewest >= HELD_OUT_FROM:
        return "held_out", f"a class has {fewest} labels or more, so a fifth of them can be spared"
    return (
        "no",
        f"a class has {fewest} labels, too few to spare any; --classify.calibrate cross trains twice more instead",
    )


def fast_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 faster than float32: GPUs, and CPUs with matrix units."""
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _optimizer(tuned: bool) -> tuple[Literal["sgd", "adamw"], str]:
    return ("adamw", "begun with weights") if tuned else ("sgd", "the papers', from scratch")


def _lr(adamw: bool, model: str) -> tuple[float, str]:
    if adamw:
        return 5e-4, "usual for adamw"
    if TAKES.get(model) == "vectors":
        return 0.1, "on vectors 0.1 learns more in short runs than the papers' 0.03"
    if model.startswith("small_cnn"):
        return 0.1, "in short runs of this network 0.1 learns more than the papers' 0.03"
    return 0.03, "the papers'"
