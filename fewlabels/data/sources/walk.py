"""Which files of a folder are images, and why the others are none. Links out of the folder are never followed."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewlabels.data.image import SUFFIXES, reason_of
from fewlabels.errors import UserError

# What computers leave in folders of photos, beside hidden files.
_LEFT_BEHIND = frozenset(["thumbs.db", "desktop.ini", "__macosx"])
_RAW = frozenset([".cr2", ".nef", ".arw", ".dng"])
_HEIC = frozenset([".heic", ".heif"])
# How images begin: JPEG, PNG, GIF, WebP, TIFF, BMP (four bytes of it are kept zero), PPM, JPEG 2000, AVIF.
_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]|BM.{4}\0{4}|P[1-6]\s+[\d#]"
    rb"|\0{3}\x0cjP  |.{4}ftypavi[fs]",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab, newline and carriage return


@dataclass
class Found:
    """What lies in a folder and below, by paths relative to it, in order of path.

    Attributes:
        images: image files.
        folders: that could be read.
        refused: links that are not followed and what cannot be read, with the reason.
        others: files that are no images, with the reason.
        links: the images that are links, with the paths they really lead to.
        lost: how many of the refused would be images by their names.
    """

    images: dict[str, Path] = field(default_factory=dict[str, Path])
    folders: list[str] = field(default_factory=list[str])
    refused: dict[str, str] = field(default_factory=dict[str, str])
    others: dict[str, str] = field(default_factory=dict[str, str])
    links: dict[str, str] = field(default_factory=dict[str, str])
    lost: int = 0

    def refuse(self, name: str, path: str, reason: str) -> None:
        """Set an entry aside."""
        self.refused[name] = reason
        self.lost += _suffix(name) in SUFFIXES and not os.path.isdir(path)  # noqa: PTH112


def walk(folder: Path) -> Found:
    """Find all files in a folder and below; hidden ones and what systems leave behind are passed over.

    Raises:
        UserError: the folder cannot be read.
    """
    found = Found()
    inside = os.path.realpath(folder)
    start = len(os.path.join(folder, ""))  # noqa: PTH118 - entries carry text, and Path is slow for 50,000 of them
    try:
        left = _entries(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {reason_of(error)}; give a folder of images") from error
    while left:
        entry = left.pop()
        left += _place(entry, slashed(entry.path[start:]), found, folder, inside)
    return found


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Give what lies in a folder, the last first, to be taken from the end."""
    with os.scandir(folder) as entries:
        shown = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _LEFT_BEHIND]
    return sorted(shown, key=lambda entry: entry.name, reverse=True)


def _place(entry: os.DirEntry[str], name: str, found: Found, folder: Path, inside: str) -> list[os.DirEntry[str]]:
    """Put an entry where it belongs; of a folder give what lies in it."""
    try:
        refused = _refused_link(entry.path, folder, inside) if entry.is_symlink() else None
        if refused:
            found.refuse(name, entry.path, refused)
        elif entry.is_dir(follow_symlinks=False):
            below = _entries(entry.path)
            found.folders.append(name)
            return below
        elif not entry.is_file():
            found.refuse(name, entry.path, "not a file, but a pipe or a device")
        elif reason := why_no_image(entry.path):
            found.others[name] = reason
        else:
            found.images[name] = Path(entry.path)
            if entry.is_symlink():
                found.links[name] = slashed(os.path.relpath(os.path.realpath(entry.path), inside))
    except OSError as error:
        found.refuse(name, entry.path, reason_of(error))
    return []


def _refused_link(path: str, folder: Path, inside: str) -> str | None:
    if not os.path.exists(path):
        return "a link to nothing"
    target = outside(path, inside)
    if target:
        return f"a link that leads outside of {folder} (to {target})"
    # Its files are found where they lie; to follow it could lead in a circle.
    return "a link to another folder of the data" if os.path.isdir(path) else None  # noqa: PTH112


def outside(path: str | Path, inside: str) -> str | None:
    """Give where a path really leads if that is not within the folder `inside`, itself a real path."""
    target = os.path.realpath(path)
    return None if is_within(target, inside) else target


def is_within(path: str, folder: str) -> bool:
    """Tell whether an absolute path lies in a folder, by their text alone."""
    try:
        return os.path.normcase(os.path.commonpath([path, folder])) == os.path.normcase(folder)
    except ValueError:  # on another drive
        return False


def slashed(path: str) -> str:
    """Write a path with /, as names of rows are on every system."""
    return path.replace(os.sep, "/")


def twice(names: Sequence[str], links: Mapping[str, str]) -> dict[str, str]:
    """Find the links among these names whose file has another of them already, and say so."""
    first = {name: name for name in names if name not in links}
    return {
        name: "a link to another file of the data"
        for name in names
        if name in links and first.setdefault(links[name], name) != name
    }


def why_no_image(path: str | Path) -> str | None:
    """Say why a file is no image: by its suffix, or by its first bytes where that says nothing.

    Raises:
        OSError: it cannot be read.
    """
    suffix = _suffix(path)
    if suffix in SUFFIXES:
        return None
    if suffix in _RAW:  # some begin as TIFF does, with a small preview
        return f"camera raw ({suffix}) is not read; convert it to JPEG"
    with open(path, "rb") as file:
        start = file.read(16)
    if _IMAGE.match(start):
        return None
    if suffix in _HEIC:
        return "HEIC is not read; convert it to JPEG"
    return f"not an image file ({suffix or 'no suffix'})"


def _suffix(path: str | Path) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122


def written(name: str) -> str:
    """Write a name so that every format can hold it, and no terminal obeys it.

    What is no UTF-8 is written out, and so are control characters but tab, newline and carriage return.
    """
    text = name.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda control: f"\\x{ord(control[0]):02x}", text)


def listed(names: Sequence[str], most: int = 10) -> str:
    """List names in a message, at most so many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(written, names[:most])) + more


def beside(path: Path, is_wanted: Callable[[Path], bool]) -> list[str]:
    """Find what lies beside a path that is not there, and has a similar name; for a message."""
    try:
        around = {other.name.casefold(): other for other in path.parent.iterdir() if is_wanted(other)}
    except OSError:
        return []
    return [written(str(around[name])) for name in difflib.get_close_matches(path.name.casefold(), around)]
