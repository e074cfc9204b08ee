"""Where rows come from: `digits`, an .npz file, a folder, arrays, a torch Dataset. All become one table."""

from __future__ import annotations

import difflib
import operator
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fewlabels.data.decode import SUFFIXES, ImageLike, image_list
from fewlabels.data.table import UNLABELED, Labels, Table
from fewlabels.errors import UserError

Data: TypeAlias = "str | Path | Table | Dataset[Any] | Mapping[str, Any] | tuple[Any, Any]"
Array: TypeAlias = "NDArray[Any] | Tensor | Sequence[Any]"

_KEYS = ("x", "y", "x_test", "y_test", "classes")


def open_table(data: Data, unlabeled: str | Path | Array | Dataset[Any] | None = None) -> Table:
    """Make the table of rows from what the user has.

    Args:
        data: "digits"; a path to an .npz file or a folder `DIR/<class>/*` (with optional `DIR/unlabeled/*` and
            `DIR/test/<class>/*`); `(x, y)` arrays, or a mapping with x, y and optional x_test, y_test, classes;
            a torch Dataset of (image, label); label -1 is unlabeled.
        unlabeled: more images without labels: a folder, an array or a Dataset.

    Raises:
        UserError: there is nothing of that name or form; says what there is.
    """
    table = _open(data)
    if unlabeled is not None:
        table = _join(table, *_unlabeled_images(unlabeled))
    return table


def _open(data: Data) -> Table:
    if isinstance(data, Table):
        return data
    if isinstance(data, str | Path):
        return _open_named(data)
    if isinstance(data, Mapping):
        return from_arrays(data)
    if isinstance(data, tuple) and len(data) == 2:
        return from_arrays({"x": data[0], "y": data[1]})
    if isinstance(cast(object, data), Dataset):
        images, labels = _read_dataset(data)
        return _table("dataset", images, _array_names("row", len(images)), labels, _classes_of(data))
    raise UserError(f"data of type {type(data).__name__}; give a name, a path, (x, y), a mapping or a torch Dataset")


def _open_named(data: str | Path) -> Table:
    path = Path(data)
    if str(data) in NAMED:
        return NAMED[str(data)]()
    if path.is_dir():
        return from_folder(path)
    if path.is_file() and path.suffix.lower() == ".npz":
        return from_npz(path)
    if path.exists():
        raise UserError(f"{path} is neither a folder nor an .npz file; a name works too: {', '.join(NAMED)}")
    beside = [str(p) for p in path.parent.iterdir() if p.is_dir() or p.suffix == ".npz"] if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), [*NAMED, *beside], n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"no data at {str(data)!r}: give {', '.join(NAMED)}, a folder or an .npz file.{hint}")


# --- arrays ---------------------------------------------------------------------------------------------


def digits() -> Table:
    """Give scikit-learn's 1,797 handwritten digits of 8x8 pixels; they come with the package."""
    from sklearn.datasets import load_digits

    bunch = cast(Any, load_digits())
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return from_arrays({"x": pixels, "y": bunch.target, "classes": [str(k) for k in range(10)]}, "digits")


NAMED: dict[str, Callable[[], Table]] = {"digits": digits}


def from_npz(path: Path) -> Table:
    """Read an .npz with x, y (-1: unlabeled) and optional x_test, y_test, classes; pickled objects are refused."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is no .npz of plain arrays (or holds Python objects, which are not read, "
            "since that can run code); save it with numpy.savez(path, x=..., y=...)"
        ) from error
    return from_arrays(arrays, path.stem)


def from_arrays(arrays: Mapping[str, Any], name: str = "arrays") -> Table:
    """Make a table of x, y and optional x_test, y_test, classes.

    Raises:
        UserError: a key is missing, lengths differ, or labels are no classes; all problems at once.
    """
    problems = [f"{key} is missing" for key in ("x", "y") if key not in arrays]
    problems += [f"{key!r} is none of {', '.join(_KEYS)}" for key in arrays if key not in _KEYS]
    problems += [
        f"{a} comes without {b}"
        for a, b in (("x_test", "y_test"), ("y_test", "x_test"))
        if a in arrays and b not in arrays
    ]
    if problems:
        raise UserError(f"{name}: {'; '.join(problems)}. Arrays need x and y; x_test, y_test and classes are optional.")
    images = list(image_list(arrays["x"]))
    labels = _whole_labels(arrays["y"], "y", len(images))
    names = _array_names("x", len(images))
    classes = [_text(c) for c in arrays["classes"]] if "classes" in arrays else None
    tests = list(image_list(arrays["x_test"])) if "x_test" in arrays else []
    if not tests:
        return _table(name, images, names, labels, classes)
    test_labels = _whole_labels(arrays["y_test"], "y_test", len(tests))
    table = _table(
        name, images + tests, names + _array_names("x_test", len(tests)), np.concatenate([labels, test_labels]), classes
    )
    table.test[len(images) :] = True
    return _checked_test(table)


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _array_names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}[{i}]" for i in range(count)]


def _whole_labels(labels: Any, key: str, count: int) -> Labels:
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise UserError(f"{key} is no array of numbers; give [{count}] whole numbers, -1 for unlabeled") from error
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UserError(
            f"{key} has shape {list(array.shape)} and type {array.dtype} for {count} images; "
            f"give [{count}] whole numbers, -1 for unlabeled (for names: numpy.unique(y, return_inverse=True))"
        )
    return array.astype(np.int64)


def _table(
    name: str, images: Sequence[ImageLike], names: Sequence[str], labels: Labels, classes: Sequence[str] | None
) -> Table:
    if not len(labels):
        raise UserError(f"{name} has no rows; give at least one labeled image of each class")
    highest = int(labels.max(initial=UNLABELED))
    known = tuple(classes) if classes is not None else tuple(str(k) for k in range(highest + 1))
    if highest >= len(known) or labels.min(initial=0) < UNLABELED:
        raise UserError(
            f"{name}: labels run from {labels.min()} to {highest} for {len(known)} classes; "
            f"give 0 to {len(known) - 1}, and -1 for unlabeled"
        )
    if len(set(known)) < len(known):
        raise UserError(f"{name}: two classes have one name ({', '.join(known)}); give each its own")
    blank = np.full(len(labels), UNLABELED)
    return Table(name, images, tuple(names), labels, np.zeros(len(labels), bool), known, blank)


def _checked_test(table: Table) -> Table:
    without = int((table.labels[table.test] == UNLABELED).sum())
    if without:
        raise UserError(
            f"{table.name}: {without} rows of the test split have no label; a test row needs one to be of use"
        )
    return table


# --- torch datasets -------------------------------------------------------------------------------------


def _read_dataset(dataset: Dataset[Any]) -> tuple[list[ImageLike], Labels]:
    if not hasattr(dataset, "__len__"):
        raise UserError("a Dataset without a length; give one with __len__ and __getitem__")
    items = [dataset[i] for i in range(len(cast(Any, dataset)))]
    if any(not isinstance(item, tuple | list) or len(item) != 2 for item in items):
        raise UserError("a Dataset whose items are not (image, label); give -1 as label where there is none")
    images = [item[0] for item in items]
    try:
        labels = [operator.index(item[1]) for item in items]
    except TypeError as error:
        raise UserError(
            "a Dataset whose labels are not whole numbers; give 0, 1, 2, ... and -1 for unlabeled"
        ) from error
    return images, np.array(labels, np.int64)


def _classes_of(dataset: Dataset[Any]) -> list[str] | None:
    classes = getattr(dataset, "classes", None)
    return [str(c) for c in classes] if isinstance(classes, list | tuple) else None


# --- folders --------------------------------------------------------------------------------------------


def from_folder(folder: Path) -> Table:
    """Read `DIR/<class>/*` with optional `DIR/unlabeled/*` and `DIR/test/<class>/*`; classes in order of name.

    Raises:
        UserError: there is no folder with images that could be a class.
    """
    classes = [p.name for p in _folders(folder) if p.name not in ("unlabeled", "test") and images_in(p)]
    if not classes:
        raise UserError(
            f"{folder} has no class folders with images. Put the images of each class into {folder}/<class>/, "
            f"those without a label into {folder}/unlabeled/, and those to report on into {folder}/test/<class>/."
        )
    paths: list[Path] = []
    labels: list[int] = []
    test: list[bool] = []
    for k, name in enumerate(classes):
        for place, is_test in ((folder / name, False), (folder / "test" / name, True)):
            found = images_in(place)
            paths += found
            labels += [k] * len(found)
            test += [is_test] * len(found)
    unknown = [p.name for p in _folders(folder / "test") if p.name not in classes]
    if unknown:
        raise UserError(
            f"{folder}/test has classes that {folder} has not: {', '.join(unknown)}; known are {', '.join(classes)}"
        )
    free = images_in(folder / "unlabeled")
    names = [_name_within(folder, p) for p in paths + free]
    table = _table(_name_of(folder), paths + free, names, np.array(labels + [UNLABELED] * len(free)), classes)
    table.test[: len(test)] = test
    loose = [p for place in (folder, folder / "test") for p in _loose_images(place)]
    if loose:
        return table.with_note(f"{len(loose)} images lie in no class folder and are left out, such as {loose[0]}")
    return table


def _loose_images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if _is_image(folder, p)) if folder.is_dir() else []


def _name_within(folder: Path, path: Path) -> str:
    """Name a file by its path; what is no UTF-8 is written out, so that every format can hold it."""
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _name_of(folder: Path) -> str:
    return folder.resolve().name or "data"


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")) if folder.is_dir() else []


def images_in(folder: Path) -> list[Path]:
    """Give all image files in a folder and below, in order of path; hidden ones are none."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.rglob("*") if _is_image(folder, p))


def _is_image(folder: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and not hidden and path.is_file()


# --- more images without labels -------------------------------------------------------------------------


def _unlabeled_images(unlabeled: str | Path | Array | Dataset[Any]) -> tuple[list[ImageLike], list[str]]:
    if isinstance(unlabeled, str | Path):
        folder = Path(unlabeled)
        paths = images_in(folder)
        if not paths:
            raise UserError(f"no images in {folder}, which was given as the folder of unlabeled images")
        return list(paths), [f"{folder.as_posix()}/{_name_within(folder, p)}" for p in paths]
    if isinstance(unlabeled, Dataset):
        items = [unlabeled[i] for i in range(len(cast(Any, unlabeled)))]
        images = [item[0] if isinstance(item, tuple | list) else item for item in items]
    else:
        images = list(image_list(cast(Any, unlabeled)))
    return images, _array_names("unlabeled", len(images))


def _new_ones(table: Table, images: list[ImageLike], names: list[str]) -> tuple[list[ImageLike], list[str]]:
    """Leave out files that the table has already, and give the others names of their own."""
    there = {image.resolve() for image in table.images if isinstance(image, Path)}
    taken = set(table.names)
    kept: list[tuple[ImageLike, str]] = []
    for image, name in zip(images, names, strict=True):
        if not (isinstance(image, Path) and image.resolve() in there):
            while name in taken:
                name += "'"
            taken.add(name)
            kept.append((image, name))
    return [image for image, _ in kept], [name for _, name in kept]


def _join(table: Table, images: list[ImageLike], names: list[str]) -> Table:
    images, names = _new_ones(table, images, names)
    count = len(images)
    blank = np.full(count, UNLABELED)
    return replace(
        table,
        images=[*table.images, *images],
        names=(*table.names, *names),
        labels=np.concatenate([table.labels, blank]),
        test=np.concatenate([table.test, np.zeros(count, bool)]),
        truth=np.concatenate([table.truth, blank]),
    )
