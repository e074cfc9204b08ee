"""Writing files so that a reader sees the old or the new one whole, whatever happens in between."""

from __future__ import annotations

import csv
import io
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewlabels.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def state_of(path: Path | str) -> str:
    """Return what changes with a file that is written to, without opening it: its place, its size and its times.

    The time of the inode is part of it: no program can set that back, as `cp -p` and `tar` do with the other.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - Path is slow for 50,000 of them
        seen = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}" if stat.S_ISREG(found.st_mode) else "no file"
    except (OSError, ValueError) as error:
        seen = type(error).__name__
    return f"{os.path.abspath(path)}: {seen}"  # noqa: PTH100


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file of the same name aside, bring it to the disk, then rename it over `path`.

    Aside is a folder of its own: what a writer that is killed leaves there is removed the next time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.part")
    aside = folder / path.name
    try:
        _remove(folder)
        folder.mkdir()
        aside.touch()
        mode = stat.S_IMODE(aside.stat().st_mode)
        write(aside)
        aside.chmod(mode)  # safetensors writes files that their owner alone can read
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk does not say for what
    finally:
        _remove(folder)
    _sync_folder(path.parent)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def check_place(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Check that nothing is lost where a file is to be written.

    Args:
        path: where.
        is_ours: tells whether a file is of the kind that is to be written, and holds nothing of the user's own.

    Raises:
        UserError: another file, or a folder, is there.
    """
    if path.is_dir() or (path.exists() and not is_ours(path)):
        raise UserError(f"{path} is there already, and is not what would be written: give another name")


def replace_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8, as given) whole or not at all."""
    replace_file(path, lambda aside: aside.write_text(text, encoding="utf-8", newline=""))


# A spreadsheet takes a cell that begins so for a formula, and runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def read_array(path: Path) -> NDArray[Any] | None:
    """Read an array that `np.save` wrote; None where it is not there whole, and has to be made again."""
    import numpy as np  # a tenth of a second to import, which commands that read none do without

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def safe_cell(text: str) -> str:
    """Write a text so that no spreadsheet takes it for a formula: an apostrophe before what would begin one.

    `plain_cell` takes it away again.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain_cell(text: str) -> str:
    """Give back what `safe_cell` was given."""
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def csv_text(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write rows as CSV that a spreadsheet can open without running anything."""
    out = io.StringIO()
    # A carriage return within a cell needs quotes, which the writer gives where it also ends lines.
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(map(safe_cell, row) for row in rows)
    return out.getvalue()


def read_csv(path: Path, column: str) -> list[str]:
    """Read one column of what `csv_text` wrote; "" where there is none of this name.

    Raises:
        UserError: it is no such file: some rows have not as many cells as the header, say.
    """
    import pyarrow as pa
    from pyarrow import csv as reader  # here, since the command line shows its help without them

    try:
        table = reader.read_csv(
            path,
            reader.ReadOptions(use_threads=False),
            reader.ParseOptions(newlines_in_values=True),
            reader.ConvertOptions(
                column_types={column: pa.string()}, include_columns=[column], include_missing_columns=True
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return [plain_cell(text or "") for text in table.column(column).to_pylist()]


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk; Windows cannot open folders and needs no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
