"""How to repeat a run: the command, and what else decides the outcome."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fewlabels.config import Options, flag_of, option_values
from fewlabels.methods import has_default, method_class, method_names, option_fields
from fewlabels.report.page import Section


def repeat_section(folder: Path, summary: Mapping[str, Any]) -> Section | None:
    """Show the command that makes the same run; None where the folder has no configuration."""
    path = folder / "config.yaml"
    if not path.is_file():
        return None
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    said = command(config, f"{folder.resolve().name}-again")
    return Section("repeat", "How to repeat this run", "Repeat", {"command": said, "config": config})


def command(config: Mapping[str, Any], out: str) -> str:
    """Give what makes the same run again: a command, or a call where the data was in memory.

    Args:
        config: of the run, as in `config.yaml`.
        out: the folder to write to.
    """
    given = {name: value for name, value in config["given"].items() if name != "data"}
    defaults = option_values(Options())
    options = {name: value for name, value in given.items() if name in defaults and value != defaults[name]}
    options |= {"threads": config["where"]["threads"], "out": out}
    own = _method_options(config)
    if config["given"]["data"] is None:
        return _call(options, own, config["given"]["method"], config["options"]["model"])
    words = ["fewlabels", "train", config["given"]["data"]]
    for name, value in options.items():
        words += _option(name, value)
    for name, value in own.items():
        words += [f"--method.{name.replace('_', '-')}", *_values(value)]
    return shlex.join(words)


def _method_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Give the method's options that are not its defaults; of a user's own all, since its file may change."""
    options = {name: value for name, value in config["method"].items() if name != "name"}
    if config["method"]["name"] not in method_names():
        return options
    fields = {field.name: field for field in option_fields(method_class(config["method"]["name"]))}
    defaults = {name: field.default for name, field in fields.items() if has_default(field)}
    return {name: value for name, value in options.items() if _plain(defaults.get(name)) != value}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _option(name: str, value: Any) -> list[str]:
    flag = flag_of(name)
    if value is False:
        group, dot, rest = flag.removeprefix("--").rpartition(".")
        return [f"--{group}{dot}no-{rest}"]
    return [flag] if value is True else [flag, *_values(value)]


def _values(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]


def _call(options: Mapping[str, Any], own: Mapping[str, Any], method: str, model: str) -> str:
    """Give the call of `fewlabels.fit`: what was in memory is named, not shown."""
    words = ":".join([method, *(f"{name}={value}" for name, value in own.items())])
    arguments = {"method": words} | {name: value for name, value in options.items() if name not in ("method", "model")}
    shown = [f"{name}={value!r}" for name, value in arguments.items()]
    if model == "custom":
        shown.insert(1, "model=backbone")
    elif "model" in options:
        shown.insert(1, f"model={options['model']!r}")
    return f"fewlabels.fit(data, {', '.join(shown)})"
