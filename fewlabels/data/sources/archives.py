"""Which tar files a text names."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from fewlabels.data.image import SUFFIXES, reason_of
from fewlabels.data.sources.walk import listed
from fewlabels.errors import UserError

_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_PACKED_STARTS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, Zstandard
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000  # of one pattern: more is a slip of the pen


def shard_paths(text: str) -> list[Path]:
    """Find the tar files that a text names.

    Args:
        text: a .tar file; a folder that holds such and no folders of images; a pattern like `data/train-{000..009}.tar`
            or `data/*.tar`.

    Returns:
        The files in order, packed ones too; none where the text names something else.

    Raises:
        UserError: some of the files that braces name are missing.
    """
    path = Path(text)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_tar(p) and p.is_file() and not p.name.startswith("."))
        return [] if found and _has_folder_of_images(path) else found
    if path.exists() or not _is_tar(path):
        return [path] if _is_tar(path) else []
    return _expand(text)


def _is_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", *_PACKED))


def _has_folder_of_images(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.glob("*/**/*"))


def _expand(text: str) -> list[Path]:
    found: list[Path] = []
    missing: list[str] = []
    for name in _alternatives(text):
        # Path.glob refuses some patterns that a shell takes.
        there = glob.glob(name) if glob.has_magic(name) else [name]  # noqa: PTH207
        there = sorted(path for path in map(Path, there) if path.is_file())
        found += there
        missing += [] if there else [name]
    if missing and "{" in text:
        raise UserError(f"{text} names files that are not there ({len(missing)}): {listed(missing, 5)}")
    return found


def _alternatives(text: str) -> list[str]:
    """Write out the first braces, and then those behind them: {000..009} or {a,b}."""
    braces = _BRACES.search(text)
    if braces is None:
        return [text]
    bounds = _RANGE.fullmatch(braces[1])
    middles = braces[1].split(",")
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        if not 0 <= last - first < _MOST_SHARDS:
            raise UserError(
                f"{text}: {braces[0]} is no range of files; give the lower number first, as in {{000..009}}"
            )
        middles = [f"{place:0{len(bounds[1])}}" for place in range(first, last + 1)]
    rests = _alternatives(text[braces.end() :])
    return [text[: braces.start()] + middle + rest for middle in middles for rest in rests]


def refuse_packed(shards: Sequence[Path]) -> None:
    """Refuse compressed archives.

    Raises:
        UserError: one is compressed, or cannot be read.
    """
    packed: list[str] = []
    for path in shards:
        try:
            with path.open("rb") as file:
                start = file.read(6)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
        if path.name.lower().endswith(_PACKED) or start.startswith(_PACKED_STARTS):
            packed.append(str(path))
    if packed:
        raise UserError(
            f"compressed archives cannot be read: {listed(packed, 5)}. Images are read from any place of an archive, "
            "and in a compressed one all before that would have to be unpacked each time. Decompress each once to a "
            "plain .tar (gunzip, unxz, ...); images are compressed already, so that it grows little."
        )
