"""The options of a run, as plain dataclasses: the command line, the docs and the checks are made from them."""

from __future__ import annotations

import ast
import dataclasses
import numbers
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Optional,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from fewlabels.errors import UserError


class Interval(NamedTuple):
    """The allowed values of an option, both ends included."""

    low: float
    high: float = float("inf")


Fraction: TypeAlias = Annotated[float, Interval(0, 1)]
NotNegative: TypeAlias = Annotated[float, Interval(0)]
Positive: TypeAlias = Annotated[float, Interval(1e-6)]
Count: TypeAlias = Annotated[int, Interval(1)]

# Not `Path | None`: to check that form the command line's parser imports a library that takes a quarter of a second.
MaybePath: TypeAlias = Optional[Path]  # noqa: UP045

FeaturesFirst: TypeAlias = Literal["first", "only", "no"]
Calibrate: TypeAlias = Literal["held_out", "cross", "no"]
Budget: TypeAlias = Literal["quick", "normal", "full"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user may set of any run."""

    seed: Annotated[int, Interval(0, 2**31 - 1)] = 0
    """what is drawn at random is a function of this"""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps"""
    threads: Count | None = None
    """processor threads; measured at the start where none are given, and kept by the run"""
    out: MaybePath = None
    """folder of the run; one of the same configuration is continued"""

    def __post_init__(self) -> None:
        check_fields(self, "options")


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """What a user may set. None and "auto" are chosen from the data, each with its reason in `config.yaml`."""

    method: str = "layermatch"
    """how to learn: one that `fewlabels methods` lists, auto (chosen from the data, with the reason), or
    path/to/file.py:CLASS of your own; a method's options are --method.OPTION VALUE"""
    policy: str = "auto"
    """factor on the gradient of unlabeled images, by layer: all, grad_relu, backbone_only, head_only, or JSON such as
    '{"head": 0, "backbone.stage3": 0.5}' (auto: the method's own)"""
    propagate: Literal["auto"] | Fraction = "auto"
    """targets begin with what label propagation tells of the unlabeled images, and hand over to the network until this
    part of the run is done (auto: 0.7 from scratch with up to 4 labels per class, else 0: the method as published)"""
    classify_center_memory: Fraction | None = None
    """Avg-Clustering: unlabeled images are drawn to class centers averaged over this part of the run (0: not at all)"""
    model: str = "auto"
    """efficientnet_lite0 (trained on ImageNet, installed with this), small_cnn, wrn_28_2, wrn_28_8, wrn_37_2 (from
    scratch), or any timm name; of vectors mlp. `fewlabels models` lists what is at hand"""
    pretrained: bool = False
    """begin with timm's published weights"""
    weights: MaybePath = None
    """begin with the backbone in this .safetensors file"""
    classify_features: Literal["auto"] | FeaturesFirst = "auto"
    """embed each image once and train on these features, in seconds: before the network is trained (first), in its
    place (only), or not (auto: only for efficientnet_lite0 and its like, and with --budget quick for other backbones
    that begin with weights; else first for these)"""
    choose: str = "labels"
    """what a run on features hands over: the linear head of a blend of training-free classifiers unless labels that
    were left out say that the method's network is better (labels), the method's network (method), or the linear head of
    a training-free classifier, by the name of its row, or of their blend (blend)"""
    classify_freeze: bool = False
    """train the head alone"""
    images_size: Annotated[int, Interval(1, 4096)] | None = None
    """height and width in pixels that images are resized to"""
    images_resize: Literal["auto", "crop", "squash", "pad"] = "auto"
    """crop cuts to the middle, pad fills up, both keep the aspect; squash does not"""
    images_flip: Literal["auto", "none", "horizontal", "dihedral"] = "auto"
    """which mirror images count as the same class"""
    images_operations: Count | None = None
    """RandAugment operations in a strong view"""
    images_strengths: Literal["fixmatch", "torchvision"] = "fixmatch"
    """whose strengths these operations have"""
    vectors_noise: NotNegative | None = None
    """deviation of the noise on a strong view of a vector, in deviations of its dimensions"""
    vectors_replaced: Fraction | None = None
    """share of its entries that are replaced by those of other rows"""
    vectors_mixed: Fraction | None = None
    """largest share of another row that is mixed in"""
    unlabeled: MaybePath = None
    """a folder of more images without labels; of vectors an .npz or a sheet"""
    labels_per_class: Count | None = None
    """hide all other labels of a fully labeled set, to try methods where the truth is known"""
    root: MaybePath = None
    """where the files of a set known by name lie (data)"""
    split: MaybePath = None
    """draw no split: take this one (the split.csv of a run)"""
    labels: MaybePath = None
    """labels of more images: a sheet with the columns path and label, or what Label Studio exports as .json"""
    start: MaybePath = None
    """begin with the parameters that this run ended with, its head included"""
    classify_labeled_in_unlabeled: bool = True
    """labeled images also count as unlabeled ones, as in the papers"""
    budget: Budget = "normal"
    """the one dial: how much work to spend"""
    steps: Count | None = None
    """updates of the parameters"""
    batch: Annotated[int, Interval(1, 16_384)] | None = None
    """labeled images a step"""
    unlabeled_ratio: Count | None = None
    """unlabeled images a step, for each labeled one"""
    optimizer: Literal["auto", "sgd", "adamw"] = "auto"
    """sgd with Nesterov momentum .9, or adamw"""
    lr: Annotated[float, Interval(1e-12)] | None = None
    """highest learning rate"""
    weight_decay: NotNegative | None = None
    """not on norms and biases"""
    layer_decay: Annotated[float, Interval(1e-6, 1)] | None = None
    """factor on the learning rate from each layer to the one below"""
    schedule: Literal["auto", "cosine", "cosine_to_zero", "linear", "constant"] = "auto"
    """how the learning rate falls; cosine is FixMatch's, which ends at a fifth"""
    warm_up: Annotated[int, Interval(0)] | None = None
    """steps over which the learning rate first rises"""
    clip_norm: Positive | None = None
    """largest norm of the gradient of all parameters together, of the whole batch; larger ones are scaled down to it"""
    averaging_ema_memory: Annotated[float, Interval(1)] | None = None
    """steps that the average of the parameters remembers; it is what gets evaluated"""
    averaging_batch_norm_memory: Annotated[float, Interval(1)] | None = None
    """steps that running statistics of batch norm remember"""
    accumulate: Count | None = None
    """parts of a batch that go through the network one after another; more need less memory"""
    images_feed: Literal["auto", "resident", "streamed"] = "auto"
    """images in the device's memory, or read from disk as they come; the outcome is the same"""
    images_cache: MaybePath = None
    """folder for decoded images (the user's folder for caches, or $FEWLABELS_CACHE)"""
    classify_calibrate: Literal["auto"] | Calibrate = "auto"
    """fit probabilities to labels that were not trained on: a fifth of them held out (auto: from 50 a class on), or all
    of them, by two more trainings with half of them each"""
    probe_every: Count | None = None
    """steps from one layer probe to the next: how far pseudo-labels agree with true labels, in each layer; it looks at
    400 unlabeled images or more, costs about 1.6 steps for each batch of them, and changes nothing in the training"""
    baseline: bool = True
    """train the supervised baseline as well: the same network on the labels alone, for as many steps"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the arithmetic in the backbone; bfloat16 where the device multiplies it fast"""
    compile: Literal["auto", "yes", "no"] = "auto"
    """compile the step (auto: no): minutes at the start; meant for long runs on a GPU, on a CPU it is slower"""
    log: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    """write the metrics here too"""


GROUPS = ("images", "vectors", "averaging", "classify")
"""beginnings of the names of options that belong to a kind of input, to averaging, or to a task"""


def flag_of(name: str) -> str:
    """Return how an option is given on the command line: images_size as --images.size."""
    group, _, rest = name.partition("_")
    return f"--{f'{group}.{rest}' if group in GROUPS else name}".replace("_", "-")


def renamed() -> dict[str, str]:
    """Return the names that options had before they were grouped, with those they have now."""
    names = [field.name for field in dataclasses.fields(Options)]
    return {name.partition("_")[2]: name for name in names if name.partition("_")[0] in GROUPS}


def with_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn texts into paths where an option is one."""
    hints = get_type_hints(Options, include_extras=True)
    return {k: Path(v) if isinstance(v, str) and hints.get(k) == MaybePath else v for k, v in options.items()}


O = TypeVar("O", bound=RunOptions)  # noqa: E741 - of options


def make_options(kind: type[O], values: Mapping[str, Any]) -> O:
    """Make options of values, or of the words that say them.

    Raises:
        UserError: names that no option has, or values that are not allowed; all at once.
    """
    check_names(values, kind)
    hints = get_type_hints(kind, include_extras=True)
    read: dict[str, Any] = {n: read_word(hints[n], v) if isinstance(v, str) else v for n, v in values.items()}
    read |= {name: Path(v) for name, v in read.items() if isinstance(v, str) and hints[name] == MaybePath}
    return kind(**read)


def check_names(options: Mapping[str, Any], kind: type[RunOptions] = Options) -> None:
    """Check that there are options of these names.

    Raises:
        UserError: there are not; lists those there are.
    """
    there = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(options) - set(there))
    if old := {name: new for name, new in renamed().items() if name in unknown and new in there}:
        raise UserError(", ".join(f"the option {name} is now {new}" for name, new in old.items()))
    if unknown:
        raise UserError(f"no option is named {', '.join(unknown)}; there are {', '.join(there)}")


def option_values(options: Any) -> dict[str, Any]:
    """Give the fields of an options object, not those within them."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def check_fields(options: Any, name: str) -> None:
    """Check a dataclass's values against its annotations.

    Raises:
        UserError: values of another type, outside their interval or none of the allowed words; all at once.
    """
    hints = get_type_hints(type(options), include_extras=True)
    problems = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if not _allows(hints[field.name], value):
            problems.append(f"{field.name} is {value!r}; give {allowed_words(hints[field.name])}")
    if problems:
        raise UserError(f"{name}: {'; '.join(problems)}")


def read_word(hint: Any, word: str) -> Any:
    """Read the value of an option from text; text that the hint does not allow is left to `check_fields`."""
    readings: list[Any] = [word]
    with suppress(ValueError, SyntaxError):
        value = ast.literal_eval(word.capitalize() if word.lower() in ("true", "false", "none") else word.strip())
        readings.append(tuple(value) if isinstance(value, list) else value)
    return next((value for value in readings if _allows(hint, value)), readings[-1])


_NUMBERS: dict[type, type] = {float: numbers.Real, int: numbers.Integral}


def _allows(hint: Any, value: Any) -> bool:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        marks = [mark for mark in arguments[1:] if isinstance(mark, Interval)]
        return _allows(arguments[0], value) and value != float("inf") and all(m.low <= value <= m.high for m in marks)
    if origin is Literal:
        return any(value == word and type(value) is type(word) for word in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(arguments) and all(map(_allows, arguments, value))
    if arguments:  # a union
        return any(_allows(kind, value) for kind in arguments)
    if hint in _NUMBERS:  # also NumPy's; a truth value is none, though Python counts it among them
        return isinstance(value, _NUMBERS[hint]) and type(value) is not bool
    return isinstance(value, hint)


def allowed_words(hint: Any) -> str:
    """Return in words what a type hint allows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f", at least {mark.low:.10g}" if mark.high == float("inf") else f", {mark.low:.10g} to {mark.high:.10g}"
            for mark in arguments[1:]
            if isinstance(mark, Interval)
        ]
        return allowed_words(arguments[0]) + "".join(bounds)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple:
        return f"{len(arguments)} values ({'; '.join(map(allowed_words, arguments))})"
    if arguments:
        return " or ".join(map(allowed_words, arguments))
    words = {float: "a number", int: "a whole number", bool: "True or False", str: "text", Path: "a path"}
    return "None" if hint is type(None) else words.get(hint, getattr(hint, "__name__", str(hint)))
