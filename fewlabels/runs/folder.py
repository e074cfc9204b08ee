"""The folder of a run: its configuration, and whether a new command continues it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml

from fewlabels.errors import UserError
from fewlabels.files import replace_text

FORMAT = 1
RUNS = Path("runs")

# What may differ between a run and the command that continues it.
_FREE = ("format", "version", "why", "where")


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

    def begin(self, config: dict[str, Any]) -> bool:
        """Write the configuration, or check that the folder has the same one; tell whether it was there.

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
        self._must_equal(self.config(), config)
        return True

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
            raise UserError(f"{path} has format {found}; this fewlabels reads up to {FORMAT}. Install a newer one.")
        return cast(dict[str, Any], config)

    def _must_be_empty(self) -> None:
        ours = ".config.yaml.part"  # left by a kill at the very start
        if self.path.exists() and (not self.path.is_dir() or any(p.name != ours for p in self.path.iterdir())):
            raise UserError(f"{self.path} exists and is no run of fewlabels; give another --out")

    def _must_equal(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        old, new = dict(_leaves(before)), dict(_leaves(now))
        differences = [
            f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
            for name in [*old, *(n for n in new if n not in old)]
            if name.split(".")[0] not in _FREE and old.get(name) != new.get(name)
        ]
        if differences:
            raise UserError(
                f"{self.path} is a run of another configuration ({'; '.join(differences[:8])}). Give another --out, "
                "or the same options to continue it."
            )

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        replace_text(self / name, json.dumps(plain(value), indent=2) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file that `write_json` wrote; None where there is none."""
        path = self / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
