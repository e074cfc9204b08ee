"""The folder of a run: its configuration, and whether a new command continues it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from filelock import FileLock, Timeout

from fewlabels.errors import UserError, all_of
from fewlabels.files import replace_text
from fewlabels.version import __version__

# 5 had the choices apart from the options; 4 the optimizer's numbers among the recipe's; 3 warnings without an id; 2 no
# calibration; 1 no word of what was given, and other names of layers.
FORMAT = 9  # 8 had no features of earlier stages
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the former is many times as fast
RUNS = Path("runs")
LOCK = ".lock"

# What may differ between a run and the command that continues it.
_MAY_DIFFER = ("format", "version", "why", "where", "given", "identity")


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

    def is_finished(self, identity: Mapping[str, Any]) -> bool:
        """Tell whether a run of this identity is finished here, without a look at its data."""
        if not identity or not (self / "config.yaml").is_file() or not (self / "summary.json").is_file():
            return False
        return self.config().get("identity") == plain(identity)

    def begin(
        self,
        config: Mapping[str, Any],
        identity: Mapping[str, Any],
        say: Callable[[Mapping[str, Any], Sequence[str]], list[str]],
    ) -> bool:
        """Write the configuration, or check that the folder has the same one; tell whether it was there.

        Args:
            config: of the run.
            identity: by which it is recognized when it is finished.
            say: says how an earlier configuration differs, given the names of the values that do.

        Raises:
            UserError: the folder is of another configuration (the differences are named), of another format, or
                holds something that is no run.
        """
        config, path = (
            plain({"format": FORMAT, "version": __version__, **config, "identity": identity}),
            self / "config.yaml",
        )
        there = path.exists()
        if there:
            before = self.config()
            if differences := _differences(before, config):
                raise all_of(
                    f"{self.path} is a run of another configuration",
                    say(before, differences),
                    "Give another --out, or the same data, method and options to continue it.",
                )
            if before.get("identity") == config["identity"]:
                return True
            config = before | {"identity": config["identity"]}  # it is the same, and lies elsewhere or was touched
        else:
            self._must_be_empty()
        try:
            replace_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100))
        except OSError as error:
            if (self / "summary.json").is_file():
                return there  # a finished run can be read all the same
            raise UserError(f"the run cannot be written to {self.path}: {error}. Give another --out.") from error
        return there

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
            config = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - both are safe
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

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        replace_text(self / name, json.dumps(plain(value), indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file that `write_json` wrote; None where there is none."""
        path = self / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name the values of two configurations that decide what a run is, and differ."""
    old, new = dict(leaves(before)), dict(leaves(now))
    names = [*old, *(name for name in new if name not in old)]
    return [n for n in names if n.split(".")[0] not in _MAY_DIFFER and old.get(n) != new.get(n)]


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values within mappings by their names, parted by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
