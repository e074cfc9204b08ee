"""A hash of what an image holds, whatever it is called and wherever it lies; and what tells it without reading it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any, cast

from PIL import Image

from fewlabels.data.image import ImageLike, Slice, encoded_bytes, is_pixels, orientation
from fewlabels.data.pixels import as_array


def fetch(image: ImageLike) -> ImageLike | Exception:
    """Read the file of an image into memory; give the error where that fails."""
    try:
        if isinstance(image, Image.Image):
            image.load()
        return image if is_pixels(image) or isinstance(image, Image.Image) else encoded_bytes(cast(Any, image))
    except MemoryError:
        raise
    except Exception as error:
        return error


def digest_of(fetched: ImageLike | Exception) -> bytes:
    """Hash all that decides how an image is decoded, or why it cannot be read."""
    try:
        held = type(fetched).__name__.encode() if isinstance(fetched, Exception) else _held(fetched)
    except MemoryError:
        raise
    except Exception as error:  # lists of different lengths: they get their reason when they are decoded
        held = type(error).__name__.encode()
    return hashlib.blake2b(held, digest_size=16).digest()


def state_of(image: ImageLike) -> str:
    """Return what changes with a file that is written to, without opening it; of what lies in memory the digest.

    The time of the inode is part of it: no program can set that back, as `cp -p` and `tar` do with the other.
    """
    if not isinstance(image, str | Path | Slice):
        return digest_of(fetch(image)).hex()
    path = image.path if isinstance(image, Slice) else image
    part = f"{image.offset}+{image.size} of " if isinstance(image, Slice) else ""
    try:
        found = os.stat(path)  # noqa: PTH116 - Path is slow for 50,000 of them
        seen = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}" if stat.S_ISREG(found.st_mode) else "no file"
    except (OSError, ValueError) as error:
        seen = type(error).__name__
    return f"{part}{os.path.abspath(path)}: {seen}"  # noqa: PTH100


def _held(image: ImageLike) -> bytes:
    """Give all that decides how an image is decoded."""
    if isinstance(image, Image.Image):
        pixels = image.tobytes()
        seen = (image.mode, image.size, image.getpalette(), image.info.get("transparency"), orientation(image))
        return repr(seen).encode() + pixels
    if is_pixels(image):
        array = as_array(cast(Any, image))
        # Python objects are no pixels, and their bytes are addresses.
        return f"{array.dtype}{array.shape}".encode() + (b"" if array.dtype.hasobject else array.tobytes())
    return encoded_bytes(cast(Any, image))
