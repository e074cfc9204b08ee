"""The folder of a run: its configuration, and whether a new command continues it."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from filelock import FileLock, Timeout

from fewlabels.config import with_paths
from fewlabels.errors import UserError, all_of
from fewlabels.files import read_csv, replace_text

# 4 had the optimizer's numbers among the recipe's; 3 warnings without an id; 2 no calibration; 1 no word of what was
# given, and other names of layers.
FORMAT = 5
RUNS = Path("runs")
LOCK = ".lock"
BEGUN_WITH = "begun_with"  # what the user gave to begin with, told from others
OWN_FILE = "method_file_digest"  # of the user's own file that the method was read from; `given` says which it was

# What may differ between a run and the command that continues it.
_FREE = ("format", "version", "why", "where", "given")


def given_options(config: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Give the options of a run's configuration, and the words that open its data where there are such."""
    given = with_paths(config["given"])
    return given, given.pop("data")


def plain(value: Any) -> Any:
    """Turn options into what YAML and JSON hold: dataclasses to mappings, paths to text, tuples to lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


class RunFolder:
    """Where a run writes.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def begin(self, config: dict[str, Any], names: Sequence[str] = ()) -> bool:
        """Write the configuration, or check that the folder has the same one; tell whether it was there.

        Args:
            config: of the run.
            names: of the rows, to say which came or went where the folder is of other data.

        Raises:
            UserError: the folder is of another configuration (the differences are named), of a newer format, or
                holds something that is no run.
        """
        path = self / "config.yaml"
        if not path.exists():
            self._must_be_empty()
            try:
                replace_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100))
            except OSError as error:
                raise UserError(f"the run cannot be written to {self.path}: {error}. Give another --out.") from error
            return False
        self._must_equal(self.config(), config, names)
        return True

    def check_free(self) -> None:
        """Check that there is a run here, or nothing: before work is done that would be in vain.

        Raises:
            UserError: something else is here.
        """
        if not (self / "config.yaml").exists():
            self._must_be_empty()

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep other commands out of the folder; the system frees it where a command is killed.

        Raises:
            UserError: another command is at work here.
        """
        lock = FileLock(self / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout as error:
            raise UserError(
                f"another command is at work in {self.path}: wait until it ends, or give another --out"
            ) from error
        except (OSError, NotImplementedError):
            pass  # a file system without locks, or read-only: what is written says so
        try:
            yield
        finally:
            if not (self / "config.yaml").exists():  # nothing came of it: leave no trace
                with suppress(OSError):
                    (self / LOCK).unlink(missing_ok=True)
                    self.path.rmdir()
            lock.release()

    def threads(self) -> int | None:
        """Give the number of threads that the run was begun with; None where there is no run yet."""
        if not (self / "config.yaml").is_file():
            return None
        try:
            return int(self.config()["where"]["threads"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self / 'config.yaml'} is damaged: it has no threads. Give another --out.") from error

    def config(self) -> dict[str, Any]:
        """Read the configuration.

        Raises:
            UserError: there is none, it is damaged, or of a newer format.
        """
        path = self / "config.yaml"
        if not path.is_file():
            raise UserError(f"{self.path} is no run: it has no config.yaml. Runs are made by `fewlabels train`.")
        try:
            config = yaml.safe_load(path.read_text(encoding="utf-8"))
            found = int(config["format"])
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged: {error}. Give another --out.") from error
        if found > FORMAT:
            raise UserError(f"{path} has format {found}; this fewlabels reads {FORMAT}. Install a newer one.")
        if found < FORMAT:
            raise UserError(
                f"{path} has format {found}, of an earlier fewlabels; this one reads {FORMAT}. Train anew, in another "
                "folder."
            )
        return cast(dict[str, Any], config)

    def _must_be_empty(self) -> None:
        ours = (LOCK, ".config.yaml.part")  # the latter is left by a kill at the very start
        if self.path.exists() and (not self.path.is_dir() or any(p.name not in ours for p in self.path.iterdir())):
            raise UserError(f"{self.path} exists and is no run of fewlabels; give another --out")

    def _must_equal(self, before: dict[str, Any], now: dict[str, Any], names: Sequence[str]) -> None:
        old, new = dict(_leaves(before)), dict(_leaves(now))
        differences = [
            name
            for name in [*old, *(n for n in new if n not in old)]
            if name.split(".")[0] not in _FREE and old.get(name) != new.get(name)
        ]
        if not differences:
            return
        problems = [
            f"{name.split('.')[-1]} was {old.get(name)!r} and is {new.get(name)!r} now"
            for name in differences
            if name not in (OWN_FILE, BEGUN_WITH) and (not name.startswith("data.") or name == "data.name")
        ]
        if BEGUN_WITH in differences:
            problems.append("it was begun with other parameters, from another run or with another backbone")
        if OWN_FILE in differences:
            problems.insert(0, _method_difference(before, now))
        if {"data.rows", "data.content"} & set(differences):
            problems.insert(0, self._data_difference(names))
        raise all_of(
            f"{self.path} is a run of another configuration",
            problems,
            "Give another --out, or the same data, method and options to continue it.",
        )

    def _data_difference(self, names: Sequence[str]) -> str:
        """Say how the data differs from the data that the run was begun with."""
        path = self / "split.csv"
        before = set(read_csv(path, "name")) if path.is_file() else set[str]()
        gone, new = sorted(before - set(names)), sorted(set(names) - before)
        said = [
            f"{how} rows: {len(which)} ({', '.join(which[:3])}{', ...' if len(which) > 3 else ''})"
            for which, how in ((gone, "missing"), (new, "new"))
            if which and before
        ]
        return f"the data is not the same: {' and '.join(said) or 'labels, splits or pixels of some images differ'}"

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        replace_text(self / name, json.dumps(plain(value), indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file that `write_json` wrote; None where there is none."""
        path = self / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _method_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say how a method's file is another one."""
    was, is_now = before["given"]["method"], now["given"]["method"]
    if OWN_FILE not in before or OWN_FILE not in now:
        return f"the method was {was} and is {is_now} now"
    file = was.rpartition(":")[0]
    if file == is_now.rpartition(":")[0]:
        return f"{file} has changed since the run was begun with its method"
    return f"the method was read from {file} and is read from another file now"


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
