"""What the rows of a table look like from outside: sizes and times of files, without opening one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.image import Slice
from fewlabels.data.pixels import as_array
from fewlabels.data.table import Chosen, Joined, Table
from fewlabels.data.vectors import content_of_vectors, vectors_of


def state_of(path: Path) -> str:
    """Say what a file looks like from outside: its size and when it was changed; a folder, or nothing, by its path."""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path is slow for 50,000 of them
    except OSError:
        return str(path)
    return f"{path}" if path.is_dir() else f"{found.st_size} bytes of {found.st_mtime_ns}"


def listed(table: Table) -> str:
    """Hash the names of the rows with sizes and times of their files, or with what lies in memory."""
    vectors = vectors_of(table.contents)
    if vectors is not None:
        return content_of_vectors(vectors)
    digest, files = hashlib.sha256(), dict[Path, str]()
    for name, image in zip(table.names, _each(table.contents), strict=True):
        digest.update(f"{name}\0".encode())
        digest.update(_state(image, files))
    return digest.hexdigest()[:32]


def _each(images: Sequence[Any]) -> Sequence[Any]:
    """Return the rows as they lie, without what a sequence does to read one."""
    if isinstance(images, Chosen):
        below = _each(images.images)
        return [below[row] for row in images.rows.tolist()]
    if isinstance(images, Joined):
        return [*_each(images.first), *_each(images.second)]
    return images


def _state(image: Any, files: dict[Path, str]) -> bytes:
    if isinstance(image, str | Path):
        return state_of(Path(image)).encode()
    if isinstance(image, Slice):
        if image.path not in files:
            files[image.path] = state_of(image.path)
        return f"{files[image.path]} {image.offset} {image.size}".encode()
    if isinstance(image, bytes):
        return hashlib.sha256(image).digest()
    if isinstance(image, Image.Image):
        held = image.tobytes() + bytes(image.getpalette() or ())
        return f"{image.mode}{image.size}".encode() + hashlib.sha256(held).digest()
    pixels: NDArray[Any] = np.ascontiguousarray(as_array(image))
    return f"{pixels.dtype}{pixels.shape}".encode() + hashlib.sha256(pixels.tobytes()).digest()
