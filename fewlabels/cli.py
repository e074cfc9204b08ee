"""The command line: each command a few lines over the API, and no torch before work starts."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fewlabels.cli_task import CLASSIFY, check_none_failed, grouped, run_task, task_of
from fewlabels.cli_words import check_renamed, split_method_words
from fewlabels.config import Budget, Fraction, MaybePath, Options
from fewlabels.errors import Interrupted, UserError
from fewlabels.version import __version__

_KEPT_BACK = 10.0  # seconds that a process with a wrong command waits for the first of its machine to say so


@dataclass(frozen=True)
class Train(Options):
    """Train a classifier from few labels and many unlabeled images.

    The options of a method are shown by `fewlabels methods NAME` and given as --method.OPTION VALUE. Another task than
    this one is given as --task path/to/file.py:CLASS, and has options of its own.
    """

    data: tyro.conf.Positional[str]
    """a folder DIR/<class>/* with optional unlabeled/ and test/, a sheet (.csv, .tsv, .parquet) of paths and labels,
    or of vectors and labels, an .npz of either, tar shards, a saved dataset of Hugging Face, or a name: digits, ..."""


@dataclass(frozen=True, kw_only=True)
class Bench(Options):
    """Compare methods on the same data over seeds: means, paired differences, and which are larger than the noise.

    All other options are those of `fewlabels train`, for each run. The same command goes on where it was stopped.
    """

    data: tyro.conf.Positional[str]
    """what `fewlabels train` takes"""
    methods: str
    """parted by commas; each a name, or path/to/file.py:CLASS, with options as fixmatch:threshold=0.9:weight=2"""
    seeds: str = "5"
    """how many, from 0 on; or the first and the last, as 10-19"""
    out: MaybePath = None
    """folder of the runs and of bench.md and bench.json (runs/bench-DATA)"""
    json: MaybePath = None
    """write bench.json here too"""
    choose: str = "method"
    """as of `fewlabels train`; what is compared is each method's network"""
    propagate: Literal["auto"] | Fraction = 0.0
    """as of `fewlabels train`; 0 is each method as published"""
    # What `bench` itself sets for each run is no option here.
    method: Annotated[str, tyro.conf.Fixed, tyro.conf.Suppress] = "auto"
    seed: Annotated[int, tyro.conf.Fixed, tyro.conf.Suppress] = 0
    baseline: Annotated[bool, tyro.conf.Fixed, tyro.conf.Suppress] = False


@dataclass(frozen=True)
class Predict:
    """Classify images with a trained run."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """image files, or folders of them; of a run on vectors, files of these (.npz, .csv, .tsv, .parquet)"""
    out: Path | None = None
    """write a .parquet or .csv file instead of lines"""
    into: Path | None = None
    """copy each image into a folder in this one, named by its class, unsure or unknown (unlike every class: a hint)"""
    min_confidence: float = 0.0
    """probability below which an image is unsure"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps"""
    batch: int = 256
    """images through the network at a time; fewer where the memory is too small for them"""


@dataclass(frozen=True)
class Next:
    """Say which images to label next: those whose labels would help a run most, the best first."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    count: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 20
    """how many images"""
    out: Path | None = None
    """write a .csv file to fill in, instead of lines"""


@dataclass(frozen=True)
class AddLabels:
    """Go on from a finished run with more labels, in a folder of its own; labels that it had never change."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    labels: tyro.conf.Positional[Path]
    """a sheet with the columns path and label, as `fewlabels next RUN --out FILE` makes it, or Label Studio's .json"""
    data: str | None = None
    """what the run was made from, where it lies elsewhere now"""
    unlabeled: MaybePath = None
    """likewise, the folder of more images"""
    root: MaybePath = None
    """likewise, where the files of a set known by name lie"""
    budget: Budget | None = None
    """how much work to spend; the run's by default"""
    out: MaybePath = None
    """folder of the new run (the run's name with the number of labels)"""


@dataclass(frozen=True)
class Export:
    """Write a run as ONNX, as a folder for the Hugging Face Hub, as tasks for Label Studio, or what it says of its rows
    as a sheet; several at once work.
    """

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    onnx: MaybePath = None
    """write an .onnx file, and beside it as FILE.json what it takes and gives"""
    hub: MaybePath = None
    """write a folder with the classifier and a model card"""
    push: str | None = None
    """with --hub: bring the folder to this repository of the Hub, as USER/NAME; a new one is private"""
    label_studio: MaybePath = None
    """write a .json file of the unlabeled images with the run's guesses, those to label next first"""
    csv: MaybePath = None
    """write what the run says of each of its rows, predictions.parquet, as a .csv file"""
    url_prefix: str | None = None
    """with --label-studio: what stands before a row's name in the address of its image (files that Label Studio itself
    serves from their folder)"""


@dataclass(frozen=True)
class Probe:
    """Say how far pseudo-labels agree with true labels in each layer of a run, at its newest checkpoint."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    data: str | None = None
    """what the run was made from, where it lies elsewhere now"""
    unlabeled: MaybePath = None
    """likewise, the folder of more images"""
    root: MaybePath = None
    """likewise, where the files of a set known by name lie"""
    method: str | None = None
    """likewise, the file of a method of your own, as path/to/file.py:CLASS"""
    json: MaybePath = None
    """write what was found here, with what --probe-every noted while training"""
    device: str | None = None
    """cpu, cuda, cuda:1, mps; where the run was made, if that is here, by default"""


@dataclass(frozen=True)
class Methods:
    """List the methods, or show one with its options."""

    name: tyro.conf.Positional[str | None] = None
    """the method to show; one of your own is path/to/file.py:CLASS"""


@dataclass(frozen=True)
class Models:
    """List the networks for images: which begin with weights, which are at hand, and what each costs."""


@dataclass(frozen=True)
class Data:
    """Say what is in a data set: rows of each class and split, sizes of the images."""

    data: tyro.conf.Positional[str]
    """what `fewlabels train` takes"""
    unlabeled: MaybePath = None
    """a folder of more images without labels"""
    root: MaybePath = None
    """where the files of a set known by name lie (data)"""


Command = (
    Annotated[grouped(Train), tyro.conf.subcommand("train")]
    | Annotated[grouped(Bench), tyro.conf.subcommand("bench")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Next, tyro.conf.subcommand("next")]
    | Annotated[AddLabels, tyro.conf.subcommand("add-labels")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Methods, tyro.conf.subcommand("methods")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[Data, tyro.conf.subcommand("data")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code: 0 done, 2 the user's to mend, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"fewlabels {__version__}")
        return 0
    try:
        task, others = task_of(words)
        if task != CLASSIFY:
            run_task(task, others, _parse)
            return 0
        check_renamed(others)
        rest, method_words = split_method_words(others)
        command = _parse(Command, rest, "fewlabels", "Learning from few labels.")
        from fewlabels.data.image import ignore_warnings_of_pillow

        ignore_warnings_of_pillow()  # the process is ours
        _RUNNERS[type(command)](command, method_words)
    except UserError as error:
        _say(f"{error}")
        return 2
    except Interrupted as error:
        _say(f"{error}. To go on, give the same command again{_again(words)}")
        return 130
    except FileNotFoundError as error:
        _say(f"{error}. Look whether the path is right.")
        return 2
    except OSError as error:
        _say(f"{error}. Make room or give a place that can be read and written, then try again.")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    return 0


def _parse(kind: Any, words: list[str], prog: str, description: str | None = None) -> Any:
    """Parse words by a dataclass; where `torchrun` started several processes, the first of a machine speaks."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    try:
        return tyro.cli(kind, prog=prog, args=words, description=description, console_outputs=first)
    except SystemExit as end:
        if not first and end.code:
            time.sleep(_KEPT_BACK)  # torchrun ends all as soon as one has ended
        raise


def _say(text: str) -> None:
    rank = os.environ.get("RANK") if "LOCAL_RANK" in os.environ else None  # set by torchrun: each process speaks
    print(f"fewlabels{f' (process {rank})' if rank else ''}: {text}", file=sys.stderr, flush=True)


def _again(words: list[str]) -> str:
    """Name the command, where it is known: `torchrun` has taken its own words away."""
    return "." if "LOCAL_RANK" in os.environ else f":\n  {shlex.join(['fewlabels', *words])}"


def _train(command: Train, method_words: list[str]) -> None:
    method = _method_of(command.method, method_words)

    from fewlabels.classify.fit import fit
    from fewlabels.console import Show, console

    options = {key: value for key, value in asdict(command).items() if key not in ("data", "method")}
    fit(command.data, method=method, show=Show(console()), **options)


def _method_of(name: str, words: list[str]) -> Any:
    """Make the method with its options, or give "auto", which has none yet."""
    from fewlabels.classify.choose_method import AUTO

    if name == AUTO:
        if words:
            raise UserError(f"{words[0]}: with --method auto it is not known yet which method that is for; name one")
        return AUTO
    from fewlabels.methods import method_class

    # Every option of a method has a value, as --method.align False: a flag would take the next word for it.
    kind = make_dataclass("Own", [("method", method_class(name))])
    return _parse(tyro.conf.FlagConversionOff[kind], words, f"fewlabels methods {name}").method


def _bench(command: Bench, words: list[str]) -> None:
    if words:
        raise UserError(f"{words[0]}: in `fewlabels bench` options go with the method, as fixmatch:threshold=0.9")
    _check_json(command.json)

    from fewlabels.classify.bench import OF_ONE_RUN, bench
    from fewlabels.console import Show, console
    from fewlabels.files import replace_text

    options = {name: value for name, value in asdict(command).items() if name not in ("json", *OF_ONE_RUN)}
    result = bench(options.pop("data"), show=Show(console()), **options)
    if command.json is not None:
        replace_text(command.json, result.as_json())
    check_none_failed(result.failed)


def _check_json(path: Path | None) -> None:
    if path is not None and path.is_dir():
        raise UserError(f"--json {path} is a folder; give the name of a file")


def _no_method(words: list[str]) -> None:
    if words:
        raise UserError(f"{words[0]}: options of a method go with `fewlabels train`")


def _predict(command: Predict, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.classify.predict import predict

    try:
        predict(**vars(command))
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the lines has enough; Python itself would complain once more when it closes its output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _next(command: Next, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.classify.next_labels import show_next

    show_next(command.run, command.count, command.out)


def _add_labels(command: AddLabels, words: list[str]) -> None:
    _no_method(words)

    from fewlabels.classify.add_labels import add_labels
    from fewlabels.console import Show, console

    options = {name: value for name, value in asdict(command).items() if value is not None}
    add_labels(options.pop("run"), options.pop("labels"), show=Show(console()), **options)


def _export(command: Export, words: list[str]) -> None:
    _no_method(words)
    for option, needed, value in (
        ("--push", "--hub DIR", command.hub is None and command.push),
        ("--url-prefix", "--label-studio FILE", command.label_studio is None and command.url_prefix),
    ):
        if value:
            raise UserError(f"{option} {value} goes with {needed}")
    if not any((command.onnx, command.hub, command.label_studio, command.csv)):
        raise UserError("nothing to write: give --onnx FILE, --hub DIR, --label-studio FILE or --csv FILE, or several")

    from fewlabels.classify.export import export_csv, export_hub, export_label_studio, export_onnx

    if command.onnx is not None:
        print(export_onnx(command.run, command.onnx))
    if command.hub is not None:
        print(export_hub(command.run, command.hub, command.push))
    if command.label_studio is not None:
        print(export_label_studio(command.run, command.label_studio, command.url_prefix))
    if command.csv is not None:
        print(export_csv(command.run, command.csv))


def _probe(command: Probe, words: list[str]) -> None:
    _no_method(words)

    from fewlabels.classify.probe import probe
    from fewlabels.console import Show, console
    from fewlabels.files import replace_text

    _check_json(command.json)
    found = probe(
        command.run,
        command.data,
        unlabeled=command.unlabeled,
        root=command.root,
        method=command.method,
        device=command.device,
        show=Show(console()),
    )
    if command.json is not None:
        replace_text(command.json, json.dumps(found, indent=2, allow_nan=False) + "\n")


def _methods(command: Methods, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.methods.describe import describe_method, list_methods

    print(list_methods() if command.name is None else describe_method(command.name))


def _models(command: Models, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.models.describe import list_models

    print(list_models())


def _data(command: Data, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.classify.describe_data import describe_data

    print(describe_data(command.data, command.unlabeled, command.root))


_RUNNERS: dict[type, Callable[[Any, list[str]], None]] = {
    Train: _train,
    Bench: _bench,
    Predict: _predict,
    Next: _next,
    AddLabels: _add_labels,
    Export: _export,
    Probe: _probe,
    Methods: _methods,
    Models: _models,
    Data: _data,
}
