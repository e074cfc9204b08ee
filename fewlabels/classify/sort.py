"""Copies of images in folders by what they are said to be. Nothing is moved, and nothing that is there is changed."""

from __future__ import annotations

import filecmp
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from fewlabels.data.sources.walk import written
from fewlabels.errors import UserError
from fewlabels.files import replace_file, replace_text

RECORD = ".fewlabels.json"
_LONGEST = 100  # letters of a folder's name: systems allow 255 bytes
_NO_NAME = re.compile(r'[\\/:*?"<>|\n\t\r]')  # what a folder's name may not have, on one system or another
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows


class Sorter:
    """Copies files into a folder for each decision.

    The same command can be given again, and goes on: what is there already is left as it is, and a different file of
    the same name gets a number.

    Args:
        folder: where to put them.
        decisions: all that there can be, the words for what is unsure and unknown first.
        run: the folder of the run that decides.
        least: the probability below which it is unsure.

    Raises:
        UserError: the folder was sorted by another run, or by another probability, or holds other things.
    """

    def __init__(self, folder: Path, decisions: Sequence[str], run: Path, least: float) -> None:
        self.folder = folder
        self._folders = dict(zip(decisions, folder_names(decisions), strict=True))
        self.copied = self.there = 0
        self._taken: set[Path] = set()
        self._begin({"model": _digest(run / "model.safetensors"), "min_confidence": least})

    def copy(self, source: Path, name: Path, decision: str) -> None:
        """Copy a file to where its decision belongs, under the name `name`, a relative path.

        Raises:
            OSError: it cannot be read or written; no half of it is left.
        """
        target = self._target(source, self.folder / self._folders[decision] / name)
        self._taken.add(target)
        if target.exists():
            self.there += 1
        else:
            replace_file(target, lambda aside: _copy(source, aside))
            self.copied += 1

    def _target(self, source: Path, wanted: Path) -> Path:
        """Give the first place that is free, or has this very file from an earlier command."""
        for number in count(1):
            target = wanted if number == 1 else wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
            if target not in self._taken and (not target.exists() or filecmp.cmp(source, target, shallow=False)):
                return target
        raise AssertionError

    def _begin(self, record: dict[str, str | float]) -> None:
        path = self.folder / RECORD
        text = json.dumps(record, indent=2) + "\n"
        if not path.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise UserError(f"{self.folder} is there, and was not sorted into: give a new folder, or an empty one")
            replace_text(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{self.folder} was sorted by another run, or with another --min-confidence, and an image would lie in "
                "two places; give a new folder"
            )


def folder_names(decisions: Sequence[str]) -> list[str]:
    """Give each decision a folder's name that every system allows, and that differs from the others but for case."""
    taken: set[str] = set()
    return [_unlike(_allowed(decision), taken) for decision in decisions]


def _allowed(text: str) -> str:
    name = _NO_NAME.sub("_", written(text)).encode()[:_LONGEST].decode(errors="ignore").rstrip(". ")
    if not name or name.startswith(".") or _RESERVED.fullmatch(name):
        name = f"_{name}"
    return name


def _unlike(name: str, taken: set[str]) -> str:
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    free = next(each for each in names if each.casefold() not in taken)
    taken.add(free.casefold())
    return free


def _copy(source: Path, aside: Path) -> None:
    shutil.copyfile(source, aside)
    with suppress(OSError):  # a file system may not know times
        shutil.copystat(source, aside)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
