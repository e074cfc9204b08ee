"""Sets known by name: scikit-learn's digits, and torchvision's from files that lie here. Nothing is downloaded."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from fewlabels.data.sources.arrays import from_arrays
from fewlabels.data.sources.published import (
    EUROSAT,
    FASHION,
    cifar_sums,
    fashion_sums,
    read_cifar,
    read_eurosat,
    read_fashion,
    read_stl10,
    read_svhn,
    stl10_sums,
    svhn_sums,
)
from fewlabels.data.table import Table
from fewlabels.errors import UserError, all_of

ROOT = Path("data")


@dataclass(frozen=True)
class _Set:
    """A set of torchvision's.

    Attributes:
        wanted: which files to put into the root, in words.
        sums: gives the published MD5 sum of each file, by its path below the root.
        read: makes the table of a root whose files have these sums.
    """

    wanted: str
    sums: Callable[[Path], Mapping[Path, str]]
    read: Callable[[Path], Table]


def open_named(name: str, root: Path | None = None) -> Table:
    """Open a set by its name.

    Args:
        name: one of `NAMES`.
        root: the folder its files lie in, `ROOT` where None; digits need none.

    Raises:
        UserError: there is no set of that name, or its files are missing or damaged; says what to put where.
    """
    if name == "digits":
        return digits()
    if name not in _SETS:
        raise UserError(f"no set is named {name!r}; known are {', '.join(NAMES)}")
    known, place = _SETS[name], (ROOT if root is None else root).expanduser()
    mend = (
        f"Put {known.wanted} into {place}/; nothing is downloaded. --root DIR (root= from Python) names another place."
    )
    if Path(name).is_dir():
        mend += f" The folder of this name here is opened as ./{name}."
    problems = _compare(place, known.sums(place))
    if problems:
        raise all_of(name, problems, mend)
    try:
        with warnings.catch_warnings():
            # The published CIFAR files were written by an old NumPy, and the new one warns of it.
            warnings.simplefilter("ignore")
            return known.read(place)
    except UserError:
        raise
    except (OSError, EOFError, ValueError, LookupError, TypeError, zlib.error) as error:
        raise all_of(name, [f"its files cannot be read ({error})"], mend) from error


def digits() -> Table:
    """Give scikit-learn's 1,797 handwritten digits of 8x8 pixels; they come with the package."""
    from sklearn.datasets import load_digits

    bunch = cast(Any, load_digits())
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return from_arrays({"x": pixels, "y": bunch.target, "classes": [str(k) for k in range(10)]}, "digits")


def _compare(place: Path, sums: Mapping[Path, str]) -> list[str]:
    """Name the files that are missing, or are not the published ones."""
    from torchvision.datasets.utils import check_integrity

    missing = [path for path in sums if not (place / path).is_file()]
    if len(missing) == len(sums) > 1:
        return [f"none of its files is in {place}/ ({', '.join(map(str, missing[:3]))}, ...)"]
    damaged = [path for path in sums if path not in missing and not check_integrity(place / path, sums[path])]
    return [f"{place / path} is missing" for path in missing] + [
        f"{place / path} is damaged (its MD5 sum is not the published {sums[path]})" for path in damaged
    ]


_SETS = {
    "cifar10": _Set(
        "the folder cifar-10-batches-py/ unpacked from cifar-10-python.tar.gz",
        lambda _: cifar_sums("cifar10"),
        lambda place: read_cifar("cifar10", place),
    ),
    "cifar100": _Set(
        "the folder cifar-100-python/ unpacked from cifar-100-python.tar.gz",
        lambda _: cifar_sums("cifar100"),
        lambda place: read_cifar("cifar100", place),
    ),
    "svhn": _Set("the files train_32x32.mat and test_32x32.mat (format 2)", lambda _: svhn_sums(), read_svhn),
    "stl10": _Set("the folder stl10_binary/ unpacked from stl10_binary.tar.gz", lambda _: stl10_sums(), read_stl10),
    "fashion_mnist": _Set(
        f"the four files {{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte, or .gz as published, below {FASHION}/",
        fashion_sums,
        read_fashion,
    ),
    "eurosat": _Set(f"the folder 2750/ of EuroSAT.zip (2750/<class>/*.jpg) as {EUROSAT}/", lambda _: {}, read_eurosat),
}
NAMES: tuple[str, ...] = (*_SETS, "digits")
