"""What an image may be - a path, bytes, a part of a file, pixels - and what is read of it, within limits."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from torch import Tensor


Pixels: TypeAlias = NDArray[np.uint8]


@dataclass(frozen=True)
class Slice:
    """A part of a file that is an encoded image: a member of a tar archive, read where it lies."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Read the part.

        Raises:
            OSError: it cannot be read, or the file ends before the part does.
        """
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            found = file.read(self.size)
        if len(found) < self.size:
            raise OSError(f"{self.path.name} ends within it")
        return found


ImageLike: TypeAlias = "Path | str | bytes | Slice | Image.Image | NDArray[Any] | Tensor"

# What is opened: raster formats that Pillow decodes itself. Others (EPS) start programs, or are rarely photos.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"),
    ]
)
MOST_PIXELS = 178_956_970  # of one image: Pillow's own limit; 537 MB in color
MOST_BYTES = 1 << 30  # of one file
LYING = 5  # orientations from this one on lie on their side
DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
# Pillow's modes of grays with more than 8 bits

_ORIENTATION = 0x0112  # EXIF's tag


def ignore_warnings_of_pillow() -> None:
    """Let a process that is our own say nothing of odd metadata and of half of Pillow's limit of pixels.

    Neither keeps an image from being read. In a program that calls us the filters are that program's to choose.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


@cache
def _formats() -> list[str]:
    """Return those of `FORMATS` that this Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def is_pixels(image: ImageLike) -> bool:
    """Tell whether an image is an array, a tensor or lists of pixels."""
    return isinstance(image, list) or (hasattr(image, "shape") and not isinstance(image, Image.Image))


def encoded_bytes(image: Path | str | bytes | Slice) -> bytes:
    """Read what a file, or a part of one, holds.

    Raises:
        OSError, ValueError: it cannot be read, is no file but a pipe or a device, or is larger than `MOST_BYTES`.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, Slice):
        return image.read()
    found = os.stat(image)  # noqa: PTH116 - Path is slow for 50,000 of them
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("a folder, a pipe or a device, not a file")
    if found.st_size > MOST_BYTES:
        raise ValueError(f"{found.st_size:,} bytes; at most {MOST_BYTES:,} are read")
    with open(image, "rb") as file:
        return file.read()


@contextmanager
def opened(encoded: bytes) -> Generator[Image.Image]:
    """Open an encoded image, within the limits; it is decoded when it is asked for its pixels.

    Raises:
        OSError, ValueError: it is no image in a format that is read, or has more than `MOST_PIXELS` pixels.
    """
    if not encoded:
        raise ValueError("the file is empty")
    with Image.open(io.BytesIO(encoded), formats=_formats()) as file:
        if file.width * file.height > MOST_PIXELS:
            raise ValueError(f"{file.width}x{file.height} pixels; at most {MOST_PIXELS:,} are read")
        yield file


def orientation(image: Image.Image) -> int:
    """Tell how a camera held the image, as EXIF counts it: 1 is upright, from `LYING` on it lies on its side."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as in `_upright`
        return 1


def reason_of(error: BaseException) -> str:
    """Say in one line why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a format that is read"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which stands beside it
    return " ".join(f"{error}".split()) or type(error).__name__


def image_name(image: ImageLike, place: int) -> str:
    """Name an image, or a vector, in a message: its path, or its place in the sequence."""
    if isinstance(image, str | Path):
        return str(image)
    return f"{'vector' if len(getattr(image, 'shape', ())) == 1 else 'image'} {place}"
