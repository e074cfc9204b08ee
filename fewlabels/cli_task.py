"""`fewlabels train` and `fewlabels bench` for any task: the options on the command line are those of the task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, field, fields, make_dataclass
from typing import Annotated, Any, get_type_hints

import tyro

from fewlabels.config import GROUPS, flag_of
from fewlabels.errors import UserError

CLASSIFY = "classify"
_FLAG = "--task"

Parse = Callable[[Any, list[str], str], Any]


def task_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the task that a command names, and the other words; classify where it names none.

    Raises:
        UserError: it names an empty one.
    """
    rest, named, waits = list[str](), CLASSIFY, False
    for word in words:
        if waits:
            named, waits = word, False
        elif word == _FLAG:
            waits = True
        elif word.startswith(f"{_FLAG}="):
            named = word.partition("=")[2]
        else:
            rest.append(word)
    if waits or not named:
        raise UserError(f"{_FLAG} has no value: give {CLASSIFY}, or path/to/file.py:CLASS")
    return named, rest


def grouped(kind: type) -> type:
    """Give the options of a group their flags, such as --images.size."""
    hints = get_type_hints(kind, include_extras=True)
    for option in fields(kind):
        if option.name.partition("_")[0] in GROUPS:
            flag: Any = Annotated[hints[option.name], tyro.conf.arg(name=flag_of(option.name)[2:])]
            option.type = kind.__annotations__[option.name] = flag
    return kind


def check_none_failed(names: Sequence[str]) -> None:
    """End a bench with an error where a variant failed.

    Raises:
        UserError: one did.
    """
    if names:
        raise UserError(f"{', '.join(names)} failed; the lines above say why")


def run_task(name: str, words: list[str], parse: Parse) -> None:
    """Train or bench a task.

    Args:
        name: of the task, or path/to/file.py:CLASS.
        words: of the command, `train` or `bench` first.
        parse: makes an object of a class of words.

    Raises:
        UserError: no such task, or another command.
    """
    if not words or words[0] not in ("train", "bench"):
        raise UserError(f"--task goes with `fewlabels train` and `fewlabels bench`, not with {' '.join(words[:1])!r}")

    from fewlabels.console import Show, console
    from fewlabels.runs.bench import bench
    from fewlabels.runs.fit import fit
    from fewlabels.runs.task import find_task

    task, show = find_task(name), Show(console())
    command, *rest = words
    own: list[Any] = [("data", Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="as the task takes it")])]
    if command == "bench":
        own += [
            ("variants", Annotated[str, tyro.conf.arg(help="names with options, as slow:lr=0.01,fast:lr=0.1")]),
            (
                "seeds",
                Annotated[str, tyro.conf.arg(help="a number of seeds, or a list such as 3,4,9")],
                field(default="5"),
            ),
        ]
    kind = grouped(make_dataclass("Command", own, bases=(task.options_type,), frozen=True, kw_only=True))
    values = asdict(parse(kind, rest, f"fewlabels {command} {_FLAG} {name}"))
    data, variants, seeds = (values.pop(each, None) for each in ("data", "variants", "seeds"))
    options = task.options_type(**values)
    if command == "train":
        fit(task(data, options), show)
    else:
        check_none_failed(bench(task, data, options, variants, seeds, show).failed)
