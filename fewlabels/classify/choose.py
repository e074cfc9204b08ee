"""The automatic choices of a run, each with its reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeVar, cast

import numpy as np
import torch

from fewlabels.averaging.horizon import horizon
from fewlabels.classify.recipe import ClassifierRecipe
from fewlabels.config import Calibrate, FeaturesFirst, Options
from fewlabels.data.image import ImageLike, reason_of
from fewlabels.data.splits import TEST_SHARE, fewest_apart
from fewlabels.data.table import Table, spread
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import WHITE, Form, Resize
from fewlabels.inputs.images.look import Look, highest_level, look, white_level
from fewlabels.inputs.images.weak import Flip
from fewlabels.inputs.kinds import AnyForm
from fewlabels.models.build import OF_VECTORS, OWN, brings_statistics
from fewlabels.training.recipe import OptimizerRecipe

# Measured on development seeds (docs/LOG.md).
LOOKED_AT = 200  # images
DEEP_LOOKED_AT = 50  # of those with more than 8 bits, each decoded
MOST_CUT = 1 / 3  # of the typical image, above which nothing is cropped
MOST_RESIDENT = 1 << 30  # bytes of images in the memory of a CPU
TINY = 16  # pixels; smaller images are enlarged to it
STEPS = {"quick": 300, "normal": 1200, "full": 12_000}
FEW_ROWS = 2000
SMALL = 40  # pixels
TINY_SHARE = 0.5  # tiny images learn in half of them
PAPER_EMA = 1000.0  # steps: the papers' .999
PAPER_BATCH_NORM = 1000.0  # steps: the papers' momentum of .001

HELD_OUT_FROM = 50  # labels a class, from which on a fifth of them is spared for the calibration

FOR_IMAGES = ("size", "resize", "flip", "operations", "strengths", "pretrained", "feed", "cache", "features")  # options
FOR_VECTORS = ("noise", "replaced", "mixed")

GIVEN = "given"  # the reason of a choice that is the user's

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """A run's resolved choices. Each has a reason in `why` (name -> reason)."""

    model: str
    form: AnyForm
    recipe: ClassifierRecipe
    threads: int
    calibrate: Calibrate
    why: dict[str, str]


@dataclass(frozen=True)
class ImagePlan(Plan):
    """The choices of a run on images."""

    form: Form
    flip: Flip
    operations: int
    features: FeaturesFirst


def choose_device(name: str) -> torch.device:
    """Give the device of that name; "auto" is the GPU where there is one.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        local = os.environ.get("LOCAL_RANK", "0")  # set by torchrun: each process has a device of its own
        name = f"cuda:{local}" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"--device {name}: {first}. Give cpu, cuda, cuda:1 or mps, or leave it out.") from error
    return device


class Reasons:
    """Takes what the user gave or else what follows from the data, and keeps the reason."""

    def __init__(self) -> None:
        self.why: dict[str, str] = {}

    def pick(self, name: str, given: T | Literal["auto"] | None, automatic: T, reason: str) -> T:
        """Choose one value."""
        is_given = given is not None and given != "auto"
        self.why[name] = GIVEN if is_given else reason
        return cast(T, given) if is_given else automatic


def refuse(options: Options, names: Sequence[str], data: str) -> None:
    """Refuse options that mean nothing for this data.

    Raises:
        UserError: some of `names` were given.
    """
    given = [f.name for f in fields(options) if f.name in names and getattr(options, f.name) != f.default]
    if given:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"{data}: {listed} means nothing for these; leave it out")


def make_plan(options: Options, table: Table, device: torch.device) -> ImagePlan:
    """Choose what the user left open, for images.

    Raises:
        UserError: none of the images that were tried can be read, or options for vectors.
    """
    refuse(options, FOR_VECTORS, f"{table.name} holds images")
    reasons = Reasons()
    looks = _looks(table)
    seen = list(looks.values())
    native = int(np.median([each.height for each in seen])), int(np.median([each.width for each in seen]))
    side = max(native)
    model = reasons.pick("model", options.model, *_model(options, table, side, device))
    size = reasons.pick("size", _square(options.size), *_size(native, model))
    form = Form(
        channels=_channels(options, max(each.channels for each in seen), reasons),
        size=size,
        resize=reasons.pick("resize", options.resize, *_resize(seen, size)),
        white=reasons.pick("white", None, *_white(table, looks)),
    )
    return ImagePlan(
        model=model,
        form=form,
        flip=reasons.pick("flip", options.flip, *_flip(table)),
        operations=reasons.pick("operations", options.operations, *_operations(side)),
        features=reasons.pick("features", options.features, *_features(options)),
        recipe=make_recipe(options, table, model, device, reasons, _steps(options, side)),
        calibrate=reasons.pick("calibrate", options.calibrate, *choose_calibration(options, table)),
        threads=reasons.pick("threads", options.threads, torch.get_num_threads(), "as many as the machine gives"),
        why=reasons.why,
    )


def _square(size: int | None) -> tuple[int, int] | None:
    return None if size is None else (size, size)


def _looks(table: Table) -> dict[int, Look]:
    """Look at some images; give what is seen, by their rows."""
    looks: dict[int, Look] = {}
    reasons: list[str] = []
    for row in spread(np.arange(len(table)), LOOKED_AT):
        try:
            looks[int(row)] = look(table.images[row])
        except Exception as error:  # set aside by name when it is decoded
            reasons.append(f"{table.names[row]}: {reason_of(error)}")
    if not looks:
        raise UserError(
            f"none of the images of {table.name} that were tried can be read ({'; '.join(reasons[:3])}). "
            "Give image files, or arrays [n, H, W] or [n, H, W, C] of uint8 or of floats in 0..1."
        )
    return looks


def _channels(options: Options, colors: int, reasons: Reasons) -> int:
    if brings_statistics(options.model, options.pretrained, options.weights) and colors <= 3:
        return reasons.pick("channels", None, 3, "pretrained networks saw colors")
    said = {1: "the images looked at are gray", 3: "there are images in color"}
    return reasons.pick("channels", None, colors, said.get(colors, "as many as the arrays have"))


def _resize(looks: list[Look], size: tuple[int, int]) -> tuple[Resize, str]:
    wanted = size[1] / size[0]
    aspects = np.array([each.width / each.height for each in looks]) / wanted
    lost = float(np.median(1 - np.minimum(aspects, 1 / aspects)))
    if lost > MOST_CUT:
        return "pad", f"a crop would cut {100 * lost:.0f} % off the typical image"
    if lost == 0:
        return "crop", "the typical image has the wanted shape: nothing is cut off"
    return "crop", f"it cuts only {100 * lost:.0f} % off the typical image"


def _white(table: Table, looks: dict[int, Look]) -> tuple[float, str]:
    deep = [table.images[row] for row, each in looks.items() if each.deep][:DEEP_LOOKED_AT]
    highest = max(map(_highest, deep), default=0.0)
    if not highest:
        return WHITE, "no image looked at has more than 8 bits"
    white = white_level(highest)
    return white, f"the highest level of images with more than 8 bits is {highest:g} ({len(deep)} looked at)"


def _highest(image: ImageLike) -> float:
    try:
        return highest_level(image)
    except Exception:  # set aside by name when it is decoded
        return 0.0


def choose_feed(
    options: Options, bytes_of_all: int, device: torch.device
) -> tuple[Literal["resident", "streamed"], str]:
    """Choose where the images are while training, with the reason; it changes nothing in the outcome."""
    if options.feed != "auto":
        return options.feed, GIVEN
    room = torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else MOST_RESIDENT
    size, limit = f"{bytes_of_all / 1e6:,.0f} MB", f"{room / 1e6:,.0f} MB"
    if bytes_of_all <= room:
        return "resident", f"all images take {size}, less than {limit}"
    return "streamed", f"all images take {size}, more than {limit}"


def _model(options: Options, table: Table, side: int, device: torch.device) -> tuple[str, str]:
    if options.pretrained:
        return "resnet18", "the smallest of the usual pretrained networks; vit_small_patch16_224 is a stronger one"
    if side <= TINY:
        return "small_cnn", f"images of {side} pixels need no larger one"
    if device.type == "cpu":
        return (
            "small_cnn",
            "on a CPU a Wide ResNet takes over a hundred times the arithmetic; --model wrn_28_2 takes it",
        )
    if len(table) < FEW_ROWS:
        return "small_cnn", f"{len(table)} rows are soon learned by heart by a larger one"
    if side <= SMALL:
        return "wrn_28_2", f"images of {side} pixels, {len(table)} rows: the field's network for CIFAR-10"
    return "wrn_37_2", f"images of {side} pixels: the field's network for STL-10"


def _size(native: tuple[int, int], model: str) -> tuple[tuple[int, int], str]:
    side = max(native)
    if side < TINY:
        larger = round(native[0] * TINY / side), round(native[1] * TINY / side)
        return larger, f"enlarged from {native[0]}x{native[1]}: strong views destroy so coarse an image"
    most = 64 if model in OWN else 224
    if side <= most:
        return native, "the images' own"
    return (most, most), f"the images are larger; {most} is what {model} can use at bearable cost"


def _flip(table: Table) -> tuple[Flip, str]:
    if all(len(name) == 1 or name.isdigit() for name in table.classes):
        shown = ", ".join(table.classes[:3])
        return "none", (
            f"classes are named {shown}, ... or have no names: a mirrored digit or letter would be another one; "
            "--flip horizontal if they are not characters"
        )
    return "horizontal", "a mirrored photo shows the same thing; --flip none if left and right matter here"


def _operations(side: int) -> tuple[int, str]:
    return (1, f"images of {side} pixels hold too little for two") if side <= TINY else (2, "FixMatch's")


def _features(options: Options) -> tuple[FeaturesFirst, str]:
    if not begins_with_weights(options):
        return "no", "the backbone begins with nothing"
    if options.budget == "quick" and options.steps is None:
        return "only", "budget quick ends with the features; --budget normal also trains the backbone"
    return "first", "the backbone begins with weights"


def begins_with_weights(options: Options) -> bool:
    """Tell whether the backbone has learned something before."""
    return options.pretrained or options.weights is not None


def make_recipe(
    options: Options, table: Table, model: str, device: torch.device, reasons: Reasons, steps_of: tuple[int, str]
) -> ClassifierRecipe:
    """Choose the numbers of the training; `steps_of` is how many steps, where the user does not say it, and why."""
    pick, small = reasons.pick, device.type == "cpu"
    tuned = options.pretrained or options.weights is not None
    accumulate = pick("accumulate", options.accumulate, 1, "the whole batch at once, unless the memory is too small")
    steps = pick("steps", options.steps, *steps_of)
    labeled = len(table.labeled_rows)
    batch = 40 if small else 64
    batch = pick(
        "batch",
        options.batch,
        batch,
        f"the papers' on a GPU, less on a CPU; each labeled row is seen {steps * batch / labeled:.0f} times",
    )
    ratio = pick(
        "unlabeled_ratio", options.unlabeled_ratio, 3 if small else 7, "the papers' 7 on a GPU, 3 where steps are dear"
    )
    kind = cast(Literal["sgd", "adamw"], pick("optimizer", options.optimizer, *_optimizer(tuned)))
    adamw = kind == "adamw"
    transformer = 0.65 if options.pretrained and any(word in model for word in ("vit", "deit", "beit")) else None
    bf16 = fast_bfloat16(device) and model not in OF_VECTORS
    return ClassifierRecipe(
        steps=steps,
        batch=batch,
        unlabeled_batch=batch * ratio,
        optimizer=OptimizerRecipe(
            kind=kind,
            lr=pick("lr", options.lr, *_lr(adamw, model)),
            weight_decay=pick("weight_decay", options.weight_decay, 5e-4, "the papers' for CIFAR-10 and its like"),
            layer_decay=pick(
                "layer_decay",
                options.layer_decay,
                transformer,
                "pretrained transformers: lower layers change less" if transformer else "for pretrained transformers",
            ),
            schedule=pick("schedule", options.schedule, "cosine", "FixMatch's"),
            warm_up=pick(
                "warm_up", options.warm_up, steps // 40 if adamw else 0, "the papers': a fortieth with adamw, else none"
            ),
            clip_norm=pick("clip_norm", options.clip_norm, None, "none of the papers clips gradients"),
        ),
        ema_memory=pick(
            "ema_memory", options.ema_memory, horizon(PAPER_EMA, steps), "the papers' .999, scaled to the run"
        ),
        batch_norm_memory=pick(
            "batch_norm_memory",
            options.batch_norm_memory,
            None if tuned else horizon(PAPER_BATCH_NORM, steps),
            "the papers' .001, scaled to the run; the network's own where it begins with weights",
        ),
        precision=pick(
            "precision",
            options.precision,
            "bfloat16" if bf16 else "float32",
            "the device multiplies it fast" if bf16 else "the device is not faster with bfloat16 for this network",
        ),
        accumulate=accumulate,
        compile=pick(
            "compile",
            {"auto": None, "yes": True, "no": False}[options.compile],
            False,
            "on a CPU the compiled step is slower, and on a GPU it is not measured yet; --compile yes compiles",
        ),
    )


def choose_calibration(options: Options, table: Table) -> tuple[Calibrate, str]:
    """Choose how probabilities are calibrated, with the reason.

    Raises:
        UserError: what was given needs more labels than there are.
    """
    labeled = table.labeled_rows
    fewest = int(np.bincount(table.labels[labeled], minlength=len(table.classes)).min())
    apart, what = fewest_apart(table, labeled), "groups" if table.groups else "labels"
    needed = {"held_out": TEST_SHARE, "cross": 2}.get(options.calibrate, 0)
    if apart < needed:
        raise UserError(
            f"--calibrate {options.calibrate} needs {needed} {what} of each class, and one has {apart}; leave it out"
        )
    if apart < TEST_SHARE and fewest >= HELD_OUT_FROM:
        return "no", f"the labels of a class are of {apart} groups, which stay whole: none can be spared"
    if fewest >= HELD_OUT_FROM:
        return "held_out", f"a class has {fewest} labels or more, so a fifth of them can be spared"
    return "no", f"a class has {fewest} labels, too few to spare any; --calibrate cross trains twice more instead"


def fast_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies bfloat16 faster than float32: GPUs, and CPUs with matrix units."""
    if device.type == "cpu":
        return bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _steps(options: Options, side: int) -> tuple[int, str]:
    if side <= TINY:
        return round(STEPS[options.budget] * TINY_SHARE), f"budget {options.budget}, less for images this small"
    return STEPS[options.budget], f"budget {options.budget}"


def _optimizer(tuned: bool) -> tuple[Literal["sgd", "adamw"], str]:
    return ("adamw", "begun with weights") if tuned else ("sgd", "the papers', from scratch")


def _lr(adamw: bool, model: str) -> tuple[float, str]:
    if adamw:
        return 5e-4, "usual for adamw"
    if model in OF_VECTORS:
        return 0.1, "on vectors 0.1 learns more in short runs than the papers' 0.03"
    if model.startswith("small_cnn"):
        return 0.1, "in short runs of this network 0.1 learns more than the papers' 0.03"
    return 0.03, "the papers'"
