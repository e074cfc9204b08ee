"""The command line: each command a few lines over the API, and no torch before work starts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from fewlabels.config import Options
from fewlabels.errors import Interrupted, UserError

_METHOD_OPTION = "--method."


@dataclass(frozen=True)
class Train(Options):
    """Train a classifier from few labels and many unlabeled images.

    The options of a method are shown by `fewlabels methods NAME` and given as --method.OPTION VALUE.
    """

    data: tyro.conf.Positional[str]
    """digits, an .npz file, or a folder DIR/<class>/* with optional unlabeled/ and test/"""


@dataclass(frozen=True)
class Predict:
    """Classify images with a trained run."""

    run: tyro.conf.Positional[Path]
    """folder of the run"""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """image files, or folders of them"""
    out: Path | None = None
    """write a .parquet or .csv file instead of lines"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, mps"""


@dataclass(frozen=True)
class Methods:
    """List the methods, or show one with its options."""

    name: tyro.conf.Positional[str | None] = None
    """the method to show"""


@dataclass(frozen=True)
class Data:
    """Say what is in a data set: rows of each class and split, sizes of the images."""

    data: tyro.conf.Positional[str]
    """digits, an .npz file, or a folder"""
    unlabeled: Path | None = None
    """a folder of more images without labels"""


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Methods, tyro.conf.subcommand("methods")]
    | Annotated[Data, tyro.conf.subcommand("data")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; give the exit code: 0 done, 2 the user's to mend, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    rest, method_words = _split_method_words(words)
    try:
        command: Any = tyro.cli(Command, prog="fewlabels", args=rest, description="Learning from few labels.")  # pyright: ignore[reportArgumentType]
        _RUNNERS[type(command)](command, method_words)
    except UserError as error:
        print(f"fewlabels: {error}", file=sys.stderr)
        return 2
    except Interrupted as error:
        again = shlex.join(["fewlabels", *words])
        print(f"fewlabels: {error}. To go on, give the same command again:\n  {again}", file=sys.stderr)
        return 130
    except OSError as error:
        print(
            f"fewlabels: {error}. Make room or give a place that can be read and written, then try again.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("fewlabels: interrupted", file=sys.stderr)
        return 130
    return 0


def _split_method_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Part the method's own options, --method.OPTION VALUE or --method.OPTION=VALUE, from the others.

    Which options there are depends on the method, so the rest is parsed first and these second.
    """
    rest: list[str] = []
    own: list[str] = []
    waits = numeric = False  # whether the last option still waits for its value; whether its values are numbers
    for word in words:
        if word.startswith(_METHOD_OPTION):
            own.append("--" + word.removeprefix(_METHOD_OPTION))
            waits, numeric = "=" not in word, False
        elif waits or (numeric and _is_number(word)):
            own.append(word)
            waits, numeric = False, _is_number(word)
        else:
            rest.append(word)
            numeric = False
    return rest, own


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _train(command: Train, method_words: list[str]) -> None:
    from fewlabels.methods import method_class

    kind = method_class(command.method)
    method = tyro.cli(kind, prog=f"fewlabels train --method {command.method}", args=method_words)

    from rich.console import Console

    from fewlabels.runs.fit import fit
    from fewlabels.runs.show import Show

    options = {key: value for key, value in asdict(command).items() if key not in ("data", "method")}
    fit(command.data, method=method, show=Show(Console()), **options)


def _no_method(words: list[str]) -> None:
    if words:
        raise UserError(f"{words[0]}: options of a method go with `fewlabels train`")


def _predict(command: Predict, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.runs.predict import predict

    predict(command.run, command.images, command.out, command.device)


def _methods(command: Methods, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.methods.describe import describe_method, list_methods

    print(list_methods() if command.name is None else describe_method(command.name))


def _data(command: Data, words: list[str]) -> None:
    _no_method(words)
    from fewlabels.data.describe import describe_data

    print(describe_data(command.data, command.unlabeled))


_RUNNERS: dict[type, Callable[[Any, list[str]], None]] = {
    Train: _train,
    Predict: _predict,
    Methods: _methods,
    Data: _data,
}
