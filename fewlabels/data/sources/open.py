"""One way in: whatever the user has becomes one table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fewlabels.data.image import ImageLike
from fewlabels.data.pixels import image_list
from fewlabels.data.sources.archives import shard_paths
from fewlabels.data.sources.arrays import after, array_names, from_arrays, from_dataset, from_npz, rows_of
from fewlabels.data.sources.folders import from_folder, unlabeled_in
from fewlabels.data.sources.hub import from_hub, from_hub_folder, is_hub_folder, is_hub_object
from fewlabels.data.sources.named import NAMES, open_named
from fewlabels.data.sources.shards import from_shards
from fewlabels.data.sources.sheets import from_sheet
from fewlabels.data.sources.vector_files import read_vectors
from fewlabels.data.sources.walk import beside
from fewlabels.data.table import UNLABELED, Chosen, Joined, Table
from fewlabels.data.vectors import VectorRows
from fewlabels.errors import UserError


class HubDataset(Protocol):
    """A `datasets.Dataset` of Hugging Face, by what it has: the package may not be there."""

    @property
    def features(self) -> Any:
        """Its columns."""
        ...

    def select_columns(self, column_names: Any) -> Any:
        """Give some of these."""
        ...


Data: TypeAlias = "str | Path | Table | Dataset[Any] | HubDataset | Mapping[Any, Any] | tuple[Any, Any]"
Array: TypeAlias = "NDArray[Any] | Tensor | Sequence[Any]"

# Readers of files, by suffix.
READERS: dict[str, Callable[[Path], Table]] = {
    ".npz": from_npz,
    ".csv": from_sheet,
    ".tsv": from_sheet,
    ".parquet": from_sheet,
}


def open_table(
    data: Data, unlabeled: str | Path | Array | Dataset[Any] | None = None, root: Path | None = None
) -> Table:
    """Make the table of rows from what the user has.

    Args:
        data: the name of a set, one of `NAMES`; a path to an .npz file, to a folder `DIR/<class>/*` or
            `DIR/train/<class>/*` (with optional `DIR/unlabeled/*`, `DIR/test/<class>/*` and `DIR/val/<class>/*`), to a
            sheet (.csv, .tsv, .parquet) with the columns path, label and optional split and group, or of vectors (the
            column vector, or columns of numbers, in the place of path), to tar shards (one, a folder of them,
            `data/train-{000..009}.tar`, `data/*.tar`), or to a saved dataset of Hugging Face; `(x, y)` arrays, or a
            mapping with x, y and optional x_test, y_test, classes (x [n, D] is vectors, all else images); a torch
            Dataset of (image, label) or (vector, label), or a Dataset or DatasetDict of Hugging Face; label -1 is
            unlabeled.
        unlabeled: more images without labels: a folder, an array or a Dataset; of vectors a file, likewise.
        root: the folder with the files of a set known by name, `data` where None.

    Raises:
        UserError: there is nothing of that name or form; says what there is.
    """
    table = _open(data, root)
    if unlabeled is not None and isinstance(table.contents, VectorRows):
        return _join_vectors(table, table.contents, unlabeled)
    if unlabeled is not None:
        images, names, aside, lost = _unlabeled_images(unlabeled)
        table = _join(table, images, names, aside, lost)
    return table


def source_of(data: Data) -> str | None:
    """Give the words that open the same data from any folder: a name or an absolute path; None for data in memory."""
    if not isinstance(data, str | Path):
        return None
    return str(data) if str(data) in NAMES else str(Path(data).expanduser().absolute())


def _open(data: Data, root: Path | None) -> Table:
    if isinstance(data, str | Path):
        return _open_named(data, root)
    if root is not None:
        raise _root_in_vain()
    if isinstance(data, Table):
        return data
    if is_hub_object(data):
        return from_hub(data)
    if isinstance(data, Mapping):
        return from_arrays(data)
    if isinstance(data, tuple) and len(data) == 2:
        return from_arrays({"x": data[0], "y": data[1]})
    if isinstance(cast(object, data), Dataset):
        return from_dataset(cast("Dataset[Any]", data))
    raise UserError(f"data of type {type(data).__name__}; give a name, a path, (x, y), a mapping or a torch Dataset")


def _open_named(data: str | Path, root: Path | None) -> Table:
    path = Path(data)
    if str(data) in NAMES:
        return open_named(str(data), root)
    reader = _reader_of(path)
    if reader is not None:
        if root is not None:
            raise _root_in_vain()
        return reader(path)
    kinds = f"a folder or a file that ends in {', '.join([*READERS, '.tar'])}"
    if path.exists():
        raise UserError(f"{path} is not {kinds}; a name works too: {', '.join(NAMES)}")
    near = difflib.get_close_matches(str(path).lower(), NAMES, n=3)
    near += beside(path, lambda other: other.is_dir() or other.suffix.lower() in (*READERS, ".tar"))
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"no data at {str(data)!r}: give {', '.join(NAMES)}, {kinds}.{hint}")


def _reader_of(path: Path) -> Callable[[Path], Table] | None:
    """Tell what reads a path, or a pattern of paths, by what lies there."""
    if is_hub_folder(path):
        return from_hub_folder
    shards = shard_paths(str(path))
    if shards:
        name = path.stem if path.is_file() else (path if path.is_dir() else shards[0].parent).resolve().name
        return lambda _: from_shards(shards, name or "shards")
    if path.is_dir():
        return from_folder
    return READERS.get(path.suffix.lower()) if path.is_file() else None


def _root_in_vain() -> UserError:
    known = ", ".join(NAMES)
    return UserError(f"root says where the files of a set known by name lie ({known}); leave it out for other data")


def _unlabeled_images(
    unlabeled: str | Path | Array | Dataset[Any],
) -> tuple[list[ImageLike], list[str], dict[str, str], int]:
    """Give images, their names, files that were set aside, and how many images are lost."""
    if isinstance(unlabeled, str | Path):
        found, aside, lost = unlabeled_in(Path(unlabeled))
        return list(found.values()), list(found), aside, lost
    images = list(image_list(_items(unlabeled)))
    return images, array_names("unlabeled", len(images)), {}, 0


def _join_vectors(table: Table, vectors: VectorRows, unlabeled: str | Path | Array | Dataset[Any]) -> Table:
    if isinstance(unlabeled, str | Path):
        more, names = read_vectors(Path(unlabeled), vectors.columns)
        names = [f"{unlabeled}: {name}" for name in names]
    else:
        more = rows_of(_items(unlabeled), "unlabeled")
        names = array_names("unlabeled", len(more))
    return _appended(table, after(table.contents, more, "unlabeled"), names, {}, 0)


def _items(unlabeled: Array | Dataset[Any]) -> Any:
    """Give what a Dataset holds, without its labels, as a list."""
    if not isinstance(unlabeled, Dataset):
        return unlabeled
    items = [unlabeled[i] for i in range(len(cast(Any, unlabeled)))]
    return [item[0] if isinstance(item, tuple | list) else item for item in items]


def _new_ones(table: Table, images: list[ImageLike], names: list[str]) -> tuple[list[ImageLike], list[str]]:
    """Leave out files that the table has already, and give the others names of their own."""
    has_files = any(isinstance(image, Path) for image in images)
    there = (
        {image.resolve() for image in _stored(table.contents) if isinstance(image, Path)} if has_files else set[Path]()
    )
    taken = set(table.names)
    kept: list[tuple[ImageLike, str]] = []
    for image, name in zip(images, names, strict=True):
        if not (isinstance(image, Path) and image.resolve() in there):
            while name in taken:
                name += "'"
            taken.add(name)
            kept.append((image, name))
    return [image for image, _ in kept], [name for _, name in kept]


def _stored(images: Sequence[ImageLike]) -> Iterator[ImageLike]:
    """Give the images that lie in lists, and so without reading any."""
    if isinstance(images, Joined):
        yield from _stored(images.first)
        yield from _stored(images.second)
    elif _is_stored(images):
        yield from images


def _is_stored(images: Sequence[ImageLike]) -> bool:
    return _is_stored(images.images) if isinstance(images, Chosen) else isinstance(images, list | tuple)


def _join(table: Table, images: list[ImageLike], names: list[str], aside: Mapping[str, str], lost: int) -> Table:
    images, names = _new_ones(table, images, names)
    return _appended(table, Joined(table.contents, images), names, aside, lost)


def _appended(
    table: Table, images: Sequence[ImageLike], names: Sequence[str], aside: Mapping[str, str], lost: int
) -> Table:
    """Give the table with unlabeled rows after its own; `images` is of all."""
    count = len(names)
    blank = np.full(count, UNLABELED)
    return replace(
        table,
        contents=images,
        names=(*table.names, *names),
        labels=np.concatenate([table.labels, blank]),
        test=np.concatenate([table.test, np.zeros(count, bool)]),
        truth=np.concatenate([table.truth, blank]),
        quarantine={**table.quarantine, **aside},
        groups=(*table.groups, *[""] * count) if table.groups else (),
        lost=table.lost + lost,
    )
