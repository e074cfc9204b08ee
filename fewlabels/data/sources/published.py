"""How the published files of known sets are read. What they hold was compared with the published sums before."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.image import ImageLike, Pixels
from fewlabels.data.sources.arrays import array_names
from fewlabels.data.sources.folders import from_folder
from fewlabels.data.table import UNLABELED, Table, make_table

_STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_STL10_PARTS = {"train": "train_y.bin", "test": "test_y.bin", "unlabeled": None}
FASHION = Path("FashionMNIST/raw")
_FASHION_PARTS = {"train": "train", "test": "t10k"}
EUROSAT = Path("eurosat/2750")
_EUROSAT_IMAGES = 27_000  # published: Helber et al., EuroSAT, 2019, section III


def _of_parts(name: str, classes: Sequence[str], parts: Mapping[str, tuple[Pixels, NDArray[Any]]]) -> Table:
    """Make the table of "train", "test" and "unlabeled" parts, each of pixels [n, H, W] or [n, H, W, C] and labels."""
    images: list[ImageLike] = []
    names: list[str] = []
    for part, (pixels, labels) in parts.items():
        if len(pixels) != len(labels):
            raise ValueError(f"{part} has {len(pixels)} images and {len(labels)} labels")
        images += list(pixels)
        names += array_names(part, len(pixels))
    labels = np.concatenate([labels for _, labels in parts.values()]).astype(np.int64)
    test = np.concatenate([np.full(len(labels), part == "test") for part, (_, labels) in parts.items()])
    return make_table(name, images, names, labels, classes, test=test)


# --- CIFAR-10 and CIFAR-100 -----------------------------------------------------------------------------


def _cifar_class(name: str) -> Any:
    from torchvision import datasets

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def cifar_sums(name: str) -> Mapping[Path, str]:
    """Give the sums of all files of CIFAR, the one with the class names too.

    The files are pickles, which run code when they are read. That is safe here since `open_named` reads a file only
    after its sum was found to be the published one, so that it is the very file the authors gave; torchvision
    compares the sums once more. That MD5 allows to make two files of one sum is of no use to an attacker: he would
    have to meet the sum of a file that is there already.
    """
    wanted = _cifar_class(name)
    files = [*wanted.train_list, *wanted.test_list, (wanted.meta["filename"], wanted.meta["md5"])]
    return {Path(wanted.base_folder, file): md5 for file, md5 in files}


def read_cifar(name: str, place: Path) -> Table:
    """Read CIFAR-10 or CIFAR-100."""
    train, test = (_cifar_class(name)(place, train=train, download=False) for train in (True, False))
    parts = {"train": (train.data, np.array(train.targets)), "test": (test.data, np.array(test.targets))}
    return _of_parts(name, train.classes, parts)


# --- SVHN -----------------------------------------------------------------------------------------------


def svhn_sums() -> Mapping[Path, str]:
    """Give the sums of the files of SVHN."""
    from torchvision.datasets import SVHN

    return {Path(file): md5 for _, file, md5 in (SVHN.split_list[part] for part in ("train", "test"))}


def read_svhn(place: Path) -> Table:
    """Read SVHN in its format 2."""
    from torchvision.datasets import SVHN

    read: dict[str, Any] = {part: SVHN(place, split=part, download=False) for part in ("train", "test")}
    # torchvision gives the channels first, and has made the published label 10 of the digit 0 a 0
    parts = {part: (svhn.data.transpose(0, 2, 3, 1), svhn.labels) for part, svhn in read.items()}
    return _of_parts("svhn", [str(k) for k in range(10)], parts)


# --- STL-10 ---------------------------------------------------------------------------------------------


def stl10_sums() -> Mapping[Path, str]:
    """Give the sums of the files of STL-10."""
    from torchvision.datasets import STL10

    return {Path(STL10.base_folder, file): md5 for file, md5 in (*STL10.train_list, *STL10.test_list)}


def read_stl10(place: Path) -> Table:
    """Read STL-10 where it lies: torchvision would compare the 3 GB again for each part, and load them into memory."""
    from torchvision.datasets import STL10

    folder = place / STL10.base_folder
    parts: dict[str, tuple[Pixels, NDArray[Any]]] = {}
    for part, labels_file in _STL10_PARTS.items():
        # an image is three channels of columns from left to right
        flat = np.asarray(np.memmap(folder / f"{part}_X.bin", np.uint8, "r"))
        pixels = flat.reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        labels = np.full(len(pixels), UNLABELED)
        if labels_file:
            labels = np.fromfile(folder / labels_file, np.uint8).astype(np.int64) - 1  # published: 1 to 10
        parts[part] = (pixels, labels)
    return _of_parts("stl10", _STL10_CLASSES, parts)


# --- Fashion-MNIST --------------------------------------------------------------------------------------


def fashion_sums(place: Path) -> Mapping[Path, str]:
    """Give the sums of the packed files that will be read; of the unpacked ones none are published."""
    from torchvision.datasets import FashionMNIST

    files = {FASHION / file: md5 for file, md5 in FashionMNIST.resources}
    return {file: md5 for file, md5 in files.items() if not (place / file).with_suffix("").is_file()}


def read_fashion(place: Path) -> Table:
    """Read Fashion-MNIST."""
    from torchvision.datasets import FashionMNIST

    parts = {
        part: (
            _read_idx(place / FASHION / f"{file}-images-idx3-ubyte", 3),
            _read_idx(place / FASHION / f"{file}-labels-idx1-ubyte", 1),
        )
        for part, file in _FASHION_PARTS.items()
    }
    return _of_parts("fashion_mnist", FashionMNIST.classes, parts)


def _read_idx(path: Path, sides: int) -> Pixels:
    """Read bytes in the idx form, packed where there is only that, which torchvision does not read."""
    packed = path.with_name(f"{path.name}.gz")
    content = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
    header = 4 + 4 * sides
    if len(content) < header or content[:4] != bytes([0, 0, 8, sides]):  # 8: unsigned bytes
        raise ValueError(f"{path.name} does not begin as idx{sides}-ubyte does")
    shape = np.frombuffer(content, ">u4", sides, offset=4).tolist()
    if math.prod(shape) != len(content) - header:
        raise ValueError(f"{path.name} is cut: its header says {shape}, {len(content) - header:,} bytes follow")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


# --- EuroSAT --------------------------------------------------------------------------------------------


def read_eurosat(place: Path) -> Table:
    """Read EuroSAT, and note if it is not whole."""
    folder = place / EUROSAT
    if not any(folder.glob("*/*.jpg")):
        raise ValueError(f"{folder} has no class folders with images")
    table = replace(from_folder(folder), name="eurosat")
    if len(table) == _EUROSAT_IMAGES:
        return table
    return table.with_note(f"{folder} is not whole: of {_EUROSAT_IMAGES:,} published images it has {len(table):,}")
