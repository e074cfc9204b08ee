"""A Python file of the user's own, imported by its path.

Its folder is not searched for what it imports: so a module is all in its file, whose digest tells a changed one, or in
what is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fewlabels.errors import UserError


@dataclass(frozen=True)
class OwnFile:
    """Where a module was read from.

    Attributes:
        path: absolute.
        source: its bytes as they were read.
    """

    path: Path
    source: bytes

    @property
    def digest(self) -> str:
        """Of the source."""
        return digest_of(self.source)


_READ: dict[str, OwnFile] = {}  # by the name of the module


def own_file(kind: type) -> OwnFile | None:
    """Tell from which file `import_file` read a class; None where it came another way."""
    return _READ.get(kind.__module__)


def digest_of(source: bytes) -> str:
    """Give the digest of a file's text."""
    return hashlib.sha256(source).hexdigest()[:16]


def import_file(path: Path) -> ModuleType:
    """Import a file; the same text at the same place is imported once.

    Raises:
        UserError: there is no such file, or it cannot be imported: says by which line.
    """
    there = path.expanduser().resolve()
    if not there.is_file():
        raise UserError(f"no file at {str(path)!r}: give the path of a Python file. {_beside(there)}".rstrip())
    source = there.read_bytes()
    found = OwnFile(there, source)
    place = hashlib.sha256(str(there).encode()).hexdigest()[:8]
    name = f"_own_{there.stem}_{place}_{found.digest}"  # a name that nothing else has: neither a package nor a copy
    if name not in _READ:
        _execute(name, there, source)
        _READ[name] = found
    return sys.modules[name]


def _beside(path: Path) -> str:
    from difflib import get_close_matches

    there = [other.name for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
    near = get_close_matches(path.name, there, n=2)
    return f"Did you mean {' or '.join(near)}?" if near else ""


def _execute(name: str, path: Path, source: bytes) -> None:
    """Make a module of the text that was read: a loader would read it again, or take what it compiled before."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and `inspect` look a class's module up there
    try:
        exec(compile(source, path, "exec"), vars(module))  # noqa: S102 - the user's own code is what was asked for
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UserError(f"{path} cannot be imported: {_reason(error, path, source)}") from error
    except BaseException:
        del sys.modules[name]
        raise


def where_it_failed(error: BaseException, kind: type) -> str:
    """Say what went wrong in a class's code, and in which line of its file where that was imported by its path."""
    own = own_file(kind)
    return f"{type(error).__name__}: {error}" if own is None else _reason(error, own.path, own.source)


def _reason(error: BaseException, path: Path, source: bytes) -> str:
    """Say what went wrong, and in which line of the file."""
    said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    reason = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if line := _line(error, path):
        text = source.decode(errors="replace").splitlines()[line - 1].strip()
        reason = f"line {line}, `{text}`: {reason}"
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing and ((path.parent / f"{missing}.py").is_file() or (path.parent / missing).is_dir()):
        reason += f". Its folder is not searched: put what it needs of {missing} into the file, or install {missing}"
    return reason


def _line(error: BaseException, path: Path) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None
