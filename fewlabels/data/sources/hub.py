"""Data of the Hugging Face package `datasets` that lies here or in memory. Nothing is fetched, no code is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from fewlabels.data.image import ImageLike
from fewlabels.data.sources.arrays import array_names, number_labels, says_nothing
from fewlabels.data.sources.roles import Role, role_of, settle_validation
from fewlabels.data.sources.walk import written
from fewlabels.data.table import Table, make_table
from fewlabels.errors import UserError
from fewlabels.extras import import_extra

_MODULES = ("datasets.arrow_dataset", "datasets.dataset_dict", "datasets.iterable_dataset")
_ROLES: dict[str, Role] = {"dev": "val", "unsupervised": "unlabeled"}  # beside those of `role_of`
_IMAGE = "image"  # the column's name once it stands alone


class HubImages(Sequence[ImageLike]):
    """The encoded images of a `datasets.Dataset`, each read when it is asked for.

    An item is the file's bytes, or its path where only that is stored; b"" where there is no image, which cannot be
    decoded and so is named with all that cannot.
    """

    def __init__(self, dataset: Any) -> None:
        """Take a dataset whose column "image" is not decoded."""
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    @overload
    def __getitem__(self, place: int) -> bytes | Path: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes | Path]: ...
    def __getitem__(self, place: int | slice) -> bytes | Path | list[bytes | Path]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        stored: dict[str, Any] = self._dataset[int(place)][_IMAGE] or {}
        if stored.get("bytes") is not None:
            return stored["bytes"]
        # An address of the network is a path to nothing here, and is reported as such.
        return Path(stored["path"]) if stored.get("path") else b""


@dataclass(frozen=True, eq=False)
class _Split:
    """One split: its images alone, its labels as they are said, and the names of its classes, if it has such."""

    name: str
    role: Role
    images: Any
    values: list[int | str | None]
    classes: tuple[str, ...]

    @property
    def labeled(self) -> bool:
        return not all(map(says_nothing, self.values))


def is_hub_object(data: object) -> bool:
    """Tell whether something is a dataset of `datasets`, without importing that."""
    return any(kind.__module__ in _MODULES for kind in type(data).__mro__)


def is_hub_folder(path: Path) -> bool:
    """Tell whether `save_to_disk` of `datasets` wrote a folder, without importing that."""
    return (path / "dataset_dict.json").is_file() or all(
        (path / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def from_hub_folder(path: Path) -> Table:
    """Read what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote.

    Raises:
        UserError: `datasets` is not installed, the folder is damaged, or as in `from_hub`.
    """
    package = _package()
    try:
        data = package.load_from_disk(str(path.resolve()))
    except Exception as error:  # a damaged file makes pyarrow and json raise almost anything
        raise UserError(
            f"{path} cannot be read as a saved dataset ({' '.join(f'{error}'.split())}); save it anew with "
            "dataset.save_to_disk(path)"
        ) from error
    return from_hub(data, path.resolve().name or "dataset")


def from_hub(data: Any, name: str = "dataset") -> Table:
    """Make a table of a `datasets.Dataset`, whose rows are training rows, or a `DatasetDict`.

    The splits are train, test and unlabeled (or unsupervised); validation serves as test where there is no test split
    with labels. The image column is the one of feature Image; the label column is `label` or `labels`, else the only
    one of feature ClassLabel. Images are read when they are asked for.

    Raises:
        UserError: it is a stream, or has no train split, no or several image columns, no label column, or labels that
            are neither whole numbers nor names.
    """
    package = _package()
    given: Mapping[str, Any] = cast(Any, data) if isinstance(data, Mapping) else {"train": data}
    if not all(isinstance(split, package.Dataset) for split in given.values()):
        raise UserError(
            f"{name} is a {type(data).__name__}, which has no length or no places; give a Dataset or a DatasetDict "
            "(load_dataset without streaming=True)"
        )
    roles: dict[str, Role | None] = {split: role_of(split) or _ROLES.get(split.casefold()) for split in given}
    read = [_read_split(package, split, role, given[split]) for split, role in roles.items() if role]
    splits, notes = _choose(read)
    unknown = [split for split, role in roles.items() if role is None]
    notes += [f"the split {written(split)} is left out; known are train, test, val and unlabeled" for split in unknown]
    if not any(split.role in ("train", "unlabeled") for split in splits):
        raise UserError(
            f"{name} has the splits {', '.join(given) or 'none'}, and none to train on; name one train, as in "
            "DatasetDict(train=dataset)"
        )
    return _joined(package, name, splits, notes)


def _package() -> Any:
    return import_extra("datasets", "hub", "a dataset of Hugging Face")


def _read_split(package: Any, name: str, role: Role, dataset: Any) -> _Split:
    dataset = dataset.with_format(None)
    column = _image_column(package, name, dataset)
    images = dataset.select_columns([column])
    if column != _IMAGE:
        images = images.rename_column(column, _IMAGE)
    values, classes = _labels(package, name, dataset, role)
    return _Split(written(name), role, images.cast_column(_IMAGE, package.Image(decode=False)), values, classes)


def _columns(dataset: Any) -> str:
    """List the columns with their features, for a message."""
    listed = [
        f"{column} ({getattr(feature, 'dtype', '') if type(feature).__name__ == 'Value' else type(feature).__name__})"
        for column, feature in dataset.features.items()
    ]
    return ", ".join(listed) or "none"


def _image_column(package: Any, split: str, dataset: Any) -> str:
    found = [column for column, feature in dataset.features.items() if isinstance(feature, package.Image)]
    if len(found) == 1:
        return found[0]
    raise UserError(
        f"the split {split} has not one column of feature Image, but {len(found)}; its columns are "
        f"{_columns(dataset)}. "
        + (
            "Leave one, as in dataset.select_columns"
            if found
            else 'Say which it is with dataset.cast_column("image", Image())'
        )
    )


def _label_column(package: Any, split: str, dataset: Any) -> str:
    for column in ("label", "labels"):
        if column in dataset.features:
            return column
    found = [column for column, feature in dataset.features.items() if isinstance(feature, package.ClassLabel)]
    if len(found) == 1:
        return found[0]
    raise UserError(
        f"the split {split} has no column named label or labels, and {len(found)} of feature ClassLabel; its columns "
        f'are {_columns(dataset)}. Name the right one: dataset.rename_column("...", "label")'
    )


def _labels(package: Any, split: str, dataset: Any, role: Role) -> tuple[list[int | str | None], tuple[str, ...]]:
    """Give each row's class by name where the column has names, else as it stands; None for unlabeled."""
    if role == "unlabeled" and not {"label", "labels"} & set(dataset.features):
        return [None] * len(dataset), ()
    column = _label_column(package, split, dataset)
    feature = dataset.features[column]
    kind = str(getattr(feature, "dtype", type(feature).__name__))
    if not kind.startswith(("int", "uint", "string", "large_string")):
        raise UserError(
            f"the label column {column} of the split {split} is of type {kind}; give whole numbers, names, or "
            'dataset.cast_column("label", ClassLabel(names=[...]))'
        )
    values = dataset.select_columns([column]).with_format("arrow")[:].column(0).to_pylist()
    if not isinstance(feature, package.ClassLabel):
        return values, ()
    # A number that is no place among the names stays as it is, and is found to be none of the classes.
    names = dict(enumerate(feature.names)) | {-1: None}
    return [names.get(value, value) for value in values], tuple(feature.names)


def _choose(splits: Sequence[_Split]) -> tuple[list[_Split], list[str]]:
    """Leave out splits that nothing is done with, and say so: a published test split often hides its labels."""
    of_use = [split for split in splits if split.role != "test" or split.labeled]
    kept, _, notes = settle_validation([split.role for split in of_use], "splits")
    validation = [split for split in of_use if split.role == "val"]
    notes = [f"{note} ({_sized(validation)})" for note in notes]
    hidden = [split for split in splits if split not in of_use]
    if hidden:
        notes.append(f"test splits without labels to report on, which are left out: {_sized(hidden)}")
    vain = [split for split in of_use if split.role == "unlabeled" and split.labeled]
    if vain:
        notes.append(f"unlabeled splits with labels, which are not used: {_sized(vain)}")
    return [of_use[i] for i in kept], notes


def _sized(splits: Sequence[_Split]) -> str:
    return ", ".join(f"{split.name}, rows: {len(split.values)}" for split in splits)


def _joined(package: Any, name: str, splits: Sequence[_Split], notes: Sequence[str]) -> Table:
    images = package.concatenate_datasets([split.images for split in splits])
    names: list[str] = []
    values: list[int | str | None] = []
    for split in splits:
        names += array_names(split.name, len(split.values))
        values += [None] * len(split.values) if split.role == "unlabeled" else split.values
    classes = next((split.classes for split in splits if split.classes), ())
    test = np.repeat([split.role in ("test", "val") for split in splits], [len(s.values) for s in splits])
    labels, classes, problems = number_labels(values, names, classes)
    return make_table(name, HubImages(images), names, labels, classes, test=test, notes=notes, problems=problems)
