"""Writing files so that a reader sees the old or the new one whole, whatever happens in between."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, bring it to the disk, then rename it over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    try:
        write(aside)
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, as given) whole or not at all."""
    replace_file(path, lambda aside: aside.write_text(text, encoding="utf-8", newline=""))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write rows as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return out.getvalue()


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; Windows cannot open folders and needs no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
