"""A hash of what an image holds, whatever it is called and wherever it lies; and what tells it without reading it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

from PIL import Image

from fewlabels.data.image import ImageLike, Slice, encoded_bytes, is_pixels, orientation
from fewlabels.data.pixels import as_array
from fewlabels.files import state_of


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


def image_state(image: ImageLike) -> str:
    """Return the state of an image's file, without opening it; of what lies in memory the digest."""
    if isinstance(image, Slice):
        return f"{image.offset}+{image.size} of {state_of(image.path)}"
    return state_of(image) if isinstance(image, str | Path) else digest_of(fetch(image)).hex()


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
