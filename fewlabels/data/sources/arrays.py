"""Arrays, .npz files and torch Datasets as a table."""

from __future__ import annotations

import operator
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fewlabels.data.image import ImageLike
from fewlabels.data.pixels import image_list
from fewlabels.data.sources.walk import written
from fewlabels.data.table import UNLABELED, Labels, Table, make_table
from fewlabels.data.vectors import VectorRows, are_vectors, as_matrix
from fewlabels.errors import UserError

_KEYS = ("x", "y", "x_test", "y_test", "classes")


def from_npz(path: Path) -> Table:
    """Read an .npz with x, y (-1: unlabeled) and optional x_test, y_test, classes."""
    return from_arrays(read_npz(path), path.stem)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz; pickled objects are refused.

    Raises:
        UserError: it is none, or holds such.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} is no .npz of plain arrays (or holds Python objects, which are not read, "
            "since that can run code); save it with numpy.savez(path, x=..., y=...)"
        ) from error


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
    images = rows_of(arrays["x"])
    count = len(images)
    labels = _whole_labels(arrays["y"], "y", count)
    names = array_names("x", count)
    classes = [_text(c) for c in arrays["classes"]] if "classes" in arrays else None
    if "x_test" in arrays and len(arrays["x_test"]):
        tests = rows_of(arrays["x_test"], "x_test")
        images = after(images, tests, "x_test")
        labels = np.concatenate([labels, _whole_labels(arrays["y_test"], "y_test", len(tests))])
        names += array_names("x_test", len(tests))
    return make_table(name, images, names, labels, classes or numbered(labels), test=np.arange(len(labels)) >= count)


def rows_of(x: Any, what: str = "x") -> Sequence[ImageLike]:
    """Give the images or the vectors of an array or a list, told by its shape.

    Raises:
        UserError: it is neither.
    """
    return VectorRows(as_matrix(x, what)) if are_vectors(x) else list(image_list(x))


def after(first: Sequence[ImageLike], second: Sequence[ImageLike], what: str) -> Sequence[ImageLike]:
    """Give rows of one kind after each other; `what` names the second for messages.

    Raises:
        UserError: one holds images and the other vectors, or vectors of another length.
    """
    both = (first, second)
    if not any(isinstance(rows, VectorRows) for rows in both):
        return [*first, *second]
    forms = [rows.form.words if isinstance(rows, VectorRows) else "images" for rows in both]
    if isinstance(first, VectorRows) and isinstance(second, VectorRows) and first.dimensions == second.dimensions:
        return VectorRows(np.concatenate([first.matrix, second.matrix]), first.columns)
    raise UserError(f"{what} holds {forms[1]} where the other rows are {forms[0]}; give all of one kind")


def _text(name: object) -> str:
    return written(name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name))


def numbered(labels: Labels) -> list[str]:
    """Name classes by their numbers, up to the highest."""
    return [str(k) for k in range(int(labels.max(initial=UNLABELED)) + 1)]


def says_nothing(value: int | str | None) -> bool:
    """Tell whether a label means unlabeled: none, -1, or a blank text."""
    return value is None or value == UNLABELED or (isinstance(value, str) and not value.strip())


def number_labels(
    values: Sequence[int | str | None], names: Sequence[str], classes: Sequence[str] = ()
) -> tuple[Labels, list[str], list[str]]:
    """Turn labels as a source says them into places in its list of classes.

    Args:
        values: of the rows: numbers or names of classes; None, the number -1 and blank text are unlabeled.
        names: of the rows, for messages.
        classes: their names, where the source has them; a number is a place among them. Else they are the names, or
            the numbers, that occur, in order; a number that never occurs is no class.

    Returns:
        The labels, the classes, and what is wrong, as problems.
    """
    said = {v: row for row, v in reversed(list(enumerate(values))) if v is not None and not says_nothing(v)}
    numbers, words = [v for v in said if isinstance(v, int)], [v for v in said if isinstance(v, str)]
    problems: list[str] = []
    if numbers and words:
        number, word = numbers[0], words[0]
        problems.append(
            f"labels are numbers and names ({number} of {names[said[number]]}, {word!r} of {names[said[word]]}); "
            "give all as one of both"
        )
    places: dict[int | str, int] = {k: k for k in range(len(classes))} | {name: k for k, name in enumerate(classes)}
    if not classes:
        in_order = [*sorted(numbers), *sorted(words)]
        classes, places = [str(v) for v in in_order], {v: k for k, v in enumerate(in_order)}
        problems += [
            f"{names[said[v]]} has the label {v}; give 0 or more, or -1 for unlabeled" for v in numbers if v < 0
        ]
    else:
        problems += [
            f"{names[row]} has the label {v!r}, which is none of the classes ({', '.join(classes[:5])}"
            + (", ...)" if len(classes) > 5 else ")")
            for v, row in said.items()
            if v not in places
        ]
    labels = np.array([UNLABELED if v is None else places.get(v, UNLABELED) for v in values], np.int64)
    return labels, [written(name) for name in classes], [written(problem) for problem in problems]


def array_names(prefix: str, count: int) -> list[str]:
    """Name rows by their places in an array."""
    return [f"{prefix}[{i}]" for i in range(count)]


def _whole_labels(labels: Any, key: str, count: int) -> Labels:
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise UserError(f"{key} is no array of numbers; give [{count}] whole numbers, -1 for unlabeled") from error
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise UserError(
            f"{key} has shape {list(array.shape)} and type {array.dtype} where the number of rows is {count}; "
            f"give [{count}] whole numbers, -1 for unlabeled (for names: numpy.unique(y, return_inverse=True))"
        )
    return array.astype(np.int64)


def from_dataset(dataset: Dataset[Any]) -> Table:
    """Read a torch Dataset of (image, label) or (vector, label); `classes` names these where there is such.

    Label -1 is unlabeled.

    Raises:
        UserError: items of another form.
    """
    read, labels = _read_dataset(dataset)
    images = VectorRows(as_matrix(read, "the Dataset")) if are_vectors(read) else read
    names = array_names("row", len(images))
    return make_table("dataset", images, names, labels, _classes_of(dataset) or numbered(labels))


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
    return [_text(c) for c in classes] if isinstance(classes, list | tuple) else None
