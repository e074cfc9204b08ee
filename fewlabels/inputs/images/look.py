"""What the headers of images say, without decoding them whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.image import DEEP, LYING, ImageLike, encoded_bytes, is_pixels, opened, orientation
from fewlabels.data.pixels import full_scale, single


@dataclass(frozen=True)
class Look:
    """What an image's header says.

    Attributes:
        height, width: in pixels, as it is shown.
        channels: 1, 3 or more.
        deep: whether its grays have more than 8 bits.
    """

    height: int
    width: int
    channels: int
    deep: bool = False


def look(image: ImageLike) -> Look:
    """Look at an image without decoding it whole.

    Raises:
        OSError, ValueError: it cannot be read as an image.
    """
    if is_pixels(image):
        pixels = single(image)
        return Look(pixels.shape[0], pixels.shape[1], pixels.shape[2] if pixels.ndim == 3 else 1)
    if isinstance(image, Image.Image):
        return _look(image)
    try:
        with opened(encoded_bytes(cast(Any, image))) as file:
            return _look(file)
    except Image.DecompressionBombError as error:
        raise ValueError(error) from error


def _look(image: Image.Image) -> Look:
    height, width = (image.width, image.height) if orientation(image) >= LYING else (image.height, image.width)
    deep = image.mode in DEEP
    return Look(height, width, 1 if deep or image.mode in ("1", "L", "LA") else 3, deep)


def highest_level(image: ImageLike) -> float:
    """Read the highest level of a deep gray image.

    Raises:
        OSError, ValueError: it cannot be read as an image.
    """
    if not isinstance(image, Image.Image):
        with opened(encoded_bytes(cast(Any, image))) as file:
            file.load()
            return highest_level(file)
    levels: NDArray[Any] = np.asarray(image)
    return float(np.max(levels, initial=0, where=np.isfinite(levels)))


def white_level(highest: float) -> float:
    """Give the level to show as white where the highest is this: 1 for floats up to 1, else that of its bit depth."""
    return 1.0 if highest <= 1 else full_scale(highest)
