"""Which files the paths of a sheet mean: one name a file, and why some are no rows."""

from __future__ import annotations

import os
import posixpath
import stat
from pathlib import Path

from fewlabels.data.image import reason_of
from fewlabels.data.sources.walk import is_within, slashed, why_no_image


class Files:
    """The files that a sheet can name.

    Paths are handled as text: `Path` is slow for 50,000 of them.

    Args:
        folder: where the sheet lies, to which its paths are relative.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inside = os.path.realpath(folder)
        self._homes = (os.path.abspath(folder), self.inside)  # noqa: PTH100
        self._parents: dict[str, str] = {}  # where folders really are; each is looked at once

    def name(self, text: str) -> str:
        """Give one name to all ways of writing a path, relative where the file lies in the folder; "" for none."""
        if not text.strip():
            return ""
        if "\\" in text and (os.sep == "\\" or not os.path.exists(self._file(text))):
            text = text.replace("\\", "/")
        name = posixpath.normpath(text)
        if os.path.isabs(name) and is_within(self.real(name), self.inside):  # noqa: PTH117
            for home in self._homes:
                if is_within(name, home):
                    return slashed(os.path.relpath(name, home))
        return name

    def real(self, name: str) -> str:
        """Give where a file really is; of what cannot be a path the text."""
        file = self._file(name)
        parent, last = os.path.split(file)
        try:
            if last in (".", "..") or os.path.islink(file):  # noqa: PTH114
                return os.path.realpath(file)
            if parent not in self._parents:
                self._parents[parent] = os.path.realpath(parent)
        except (OSError, ValueError):
            return file
        return os.path.join(self._parents[parent], last)  # noqa: PTH118

    def why_aside(self, name: str) -> str | None:
        """Say why a file cannot be a row, if it cannot."""
        try:
            if not os.path.isabs(name):  # noqa: PTH117
                real = self.real(name)
                if not is_within(real, self.inside):
                    return f"a path that leads outside of {self.folder} (to {real})"
            return self._unusable(self._file(name))
        except (OSError, ValueError) as error:
            return reason_of(error)

    def _file(self, name: str) -> str:
        return os.path.join(self.folder, name)  # noqa: PTH118

    def _unusable(self, file: str) -> str | None:
        mode = os.stat(file).st_mode  # noqa: PTH116
        if stat.S_ISDIR(mode):
            return "a folder, not a file"
        return why_no_image(file) if stat.S_ISREG(mode) else "not a file, but a pipe or a device"
