"""Tar archives of the WebDataset convention as a table: images are read where they lie, nothing is unpacked."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from fewlabels.data.image import SUFFIXES, ImageLike, Slice, reason_of
from fewlabels.data.sources.archives import refuse_packed
from fewlabels.data.sources.arrays import number_labels, says_nothing
from fewlabels.data.sources.roles import Role, role_of, settle_validation
from fewlabels.data.sources.walk import listed, written
from fewlabels.data.table import Table, make_table
from fewlabels.errors import UserError

_FIRST_WORD = re.compile(r"[^\W\d_]+")
_SPLIT_WITHIN = re.compile(
    r"^(test|val|unlabell?ed)|(?<![a-z])(test|val|validation|unlabell?ed)(?![a-z])", re.IGNORECASE
)
_MOST_LABEL_BYTES = 1 << 20  # that are read of a label member
# As in WebDataset: what stands before the first dot of the last part of the name, and what behind it.
_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


@dataclass
class _Sample:
    """The members of one key. Of several images the first counts; of labels that of .cls before that of .json."""

    role: Role
    image: Slice | None = None
    images: int = 0
    said: dict[str, int | str | None] = field(default_factory=dict[str, "int | str | None"])

    @property
    def label(self) -> int | str | None:
        return self.said.get("cls", self.said.get("json"))


@dataclass
class _Found:
    """What was found in shards: samples by the names of rows, and what is no row."""

    samples: dict[str, _Sample] = field(default_factory=dict[str, _Sample])
    quarantine: dict[str, str] = field(default_factory=dict[str, str])
    problems: list[str] = field(default_factory=list[str])
    lost: set[str] = field(default_factory=set[str])  # samples of which an image was refused


def from_shards(paths: Sequence[Path], name: str) -> Table:
    """Make a table of tar files: a sample is all members of one key, an image and a `.cls` or `.json` with its label.

    `.cls` holds a whole number, `.json` a field `label` with a number or a name; without both a sample is unlabeled.
    The first word
    of a shard's name is its split, train, test, val or unlabeled; else it is train. A `classes.txt` beside the
    shards names the classes, one a line. Links, and names that lead out of the archive, are never followed.

    Raises:
        UserError: a shard cannot be read or is compressed, there is no image, or labels are wrong; all problems at
            once.
    """
    refuse_packed(paths)
    chosen, notes = _choose(list(dict.fromkeys(paths)))
    names = _names(paths)
    found = _Found()
    for path, role in chosen:
        _read_shard(path, names[path], role, found)
    rows = {key: sample for key, sample in found.samples.items() if sample.image}
    found.quarantine |= {key: "no image among its members" for key in found.samples if key not in rows}
    if not rows:
        found.problems += ["no images in it", *(f"{key}: {reason}" for key, reason in found.quarantine.items())]
    known, problems = _class_names(paths)
    # Those without an image tell of classes too, which are missed later if they have lost all their images.
    values = [None if sample.role == "unlabeled" else sample.label for sample in found.samples.values()]
    labels, classes, wrong = number_labels(values, list(found.samples), known)
    return make_table(
        name,
        [cast(ImageLike, sample.image) for sample in rows.values()],
        list(rows),
        labels[np.array([key in rows for key in found.samples], bool)],
        classes,
        test=np.array([sample.role in ("test", "val") for sample in rows.values()], bool),
        notes=notes + _notes(rows),
        quarantine={key: written(reason) for key, reason in found.quarantine.items()},
        problems=[written(problem) for problem in found.problems + problems + wrong],
        lost=len((found.lost | found.samples.keys()) - rows.keys()),
    )


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name shards by their paths below the folder that holds all."""
    try:
        above = os.path.commonpath([path.parent.absolute() for path in paths])
    except ValueError:  # on several drives
        return {path: written(path.absolute().as_posix()) for path in paths}
    return {path: written(path.absolute().relative_to(above).as_posix()) for path in paths}


def _choose(paths: Sequence[Path]) -> tuple[list[tuple[Path, Role]], list[str]]:
    """Give each shard its split, and leave out those of the val split where there is a test split."""
    said: list[Role | None] = [role_of(word[0]) if (word := _FIRST_WORD.match(path.name)) else None for path in paths]
    roles: list[Role] = ["train" if role is None else role for role in said]
    kept, _, notes = settle_validation(roles, "shards")
    validation = [path for path, role in zip(paths, roles, strict=True) if role == "val"]
    notes = [f"{note} ({_some(validation)})" for note in notes]
    odd = [path for path, role in zip(paths, said, strict=True) if role is None and _SPLIT_WITHIN.search(path.name)]
    if odd:
        notes.append(f"shards whose first word is no split are training rows: {_some(odd)}")
    return [(paths[i], roles[i]) for i in kept], notes


def _some(paths: Sequence[Path]) -> str:
    return listed([path.name for path in paths], 3)


def _notes(rows: dict[str, _Sample]) -> list[str]:
    several = [key for key, sample in rows.items() if sample.images > 1]
    vain = [key for key, sample in rows.items() if sample.role == "unlabeled" and not says_nothing(sample.label)]
    notes: list[str] = []
    if several:
        notes.append(f"samples with several images, of which the first counts: {len(several)} ({listed(several, 3)})")
    if vain:
        notes.append(f"samples of unlabeled shards with labels, which are not used: {len(vain)} ({listed(vain, 3)})")
    return notes


def _class_names(paths: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Read `classes.txt` beside the shards, where there is one; give what is wrong with it too."""
    for path in dict.fromkeys(path.parent / "classes.txt" for path in paths):
        if path.is_file():
            try:
                names = [line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines()]
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path} cannot be read ({error}); give one class name a line, in UTF-8") from error
            blank = [str(line) for line, name in enumerate(names, 1) if not name]
            mend = "remove them, or name the classes: the place of a name is its number"
            return names, [f"{path} has blank lines among the names ({listed(blank, 3)}); {mend}"] if blank else []
    return [], []


# --- one archive ----------------------------------------------------------------------------------------


def _read_shard(path: Path, shard: str, role: Role, found: _Found) -> None:
    """Take the samples of a shard up to its end, or to where it is damaged."""
    own: dict[str, _Sample] = {}
    try:
        with path.open("rb") as file:
            for member in _members(file):
                name = written(member.name)
                parts = _KEY.fullmatch(name)
                if reason := _refused(member):
                    found.quarantine[f"{shard}/{name}"] = reason
                    if parts and _is_image(parts[2]):
                        found.lost.add(f"{shard}/{parts[1]}")
                elif parts and member.isreg():
                    sample, ending = own.setdefault(f"{shard}/{parts[1]}", _Sample(role)), parts[2].lower()
                    if _is_image(ending):
                        sample.images += 1
                        sample.image = sample.image or Slice(path, member.offset_data, member.size)
                    elif ending in _READERS:
                        found.problems += _add_label(sample, f"{shard}/{name}", ending, member, file)
    except Exception as error:  # damaged headers make tarfile raise almost anything
        kept = sum(sample.image is not None for sample in own.values())
        found.quarantine[shard] = f"damaged: {reason_of(error)}; images before that, which are kept: {kept}"
    # Samples of neither an image nor a label are not ours: captions, metadata.
    found.samples |= {key: sample for key, sample in own.items() if sample.image or sample.said}


def _is_image(ending: str) -> bool:
    return f".{ending.lower().rpartition('.')[2]}" in SUFFIXES


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Give the members of an archive, reading their headers alone.

    Raises:
        tarfile.ReadError: it is damaged; all members before that were given.
    """
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            cast(Any, archive).members.clear()  # would keep every header
            if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
                raise tarfile.ReadError(f"it ends within {written(member.name)}")
            yield member
        # tarfile takes a damaged header as the end; the true one is blocks of zeros up to the end of the file.
        file.seek(archive.offset)
        rest = file.read(1 << 16)
        if not rest:
            raise tarfile.ReadError("it has no mark of its end, and may be cut")
        if rest.strip(b"\0"):
            what = "not a header" if rest[:512].strip(b"\0") else "more follows its end"
            raise tarfile.ReadError(f"{what} at byte {archive.offset:,}")


def _refused(member: tarfile.TarInfo) -> str | None:
    """Say why a member is set aside, if it is."""
    if member.name.startswith("/") or ".." in member.name.split("/"):
        return "a name that leads out of the archive"
    if member.issym() or member.islnk():
        return "a link, which is not followed"
    if member.issparse():
        return "a sparse file, which does not lie in one piece"
    return None if member.isreg() or member.isdir() else "not a file, but a pipe or a device"


def _add_label(sample: _Sample, name: str, ending: str, member: tarfile.TarInfo, file: BinaryIO) -> list[str]:
    """Read a member's label into its sample; give what is wrong with it."""
    read, allowed = _READERS[ending]
    file.seek(member.offset_data)
    try:
        label = read(file.read(min(member.size, _MOST_LABEL_BYTES)))
    except (ValueError, RecursionError) as error:
        return [f"{name} holds no label ({reason_of(error)}); give {allowed}"]
    if sample.said.setdefault(ending, label) != label:
        return [f"{name} comes twice, with the labels {sample.said[ending]} and {label}; keep one"]
    return []


def _number(content: bytes) -> int:
    text = content.decode().strip()
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(repr(text[:20]))
    return int(text)


def _field(content: bytes) -> int | str | None:
    read: Any = json.loads(content)
    label = cast("dict[str, Any]", read).get("label") if isinstance(read, dict) else None
    if label is not None and type(label) not in (int, str):  # True is an int
        raise ValueError(f"{label!r:.20}")
    return label


_READERS: dict[str, tuple[Callable[[bytes], int | str | None], str]] = {
    "cls": (_number, "a whole number"),
    "json": (_field, "a field label with a whole number or a name"),
}
