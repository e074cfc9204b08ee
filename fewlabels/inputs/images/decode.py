"""From whatever holds an image to uint8 pixels of one form. NumPy and Pillow alone, so that workers start soon."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fewlabels.data.image import (
    DEEP,
    LYING,
    ImageLike,
    Pixels,
    Slice,
    encoded_bytes,
    is_pixels,
    opened,
    orientation,
    reason_of,
)
from fewlabels.data.pixels import single

Resize: TypeAlias = Literal["crop", "squash", "pad"]
Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
WHITE = 65535.0  # of 16-bit images whose levels nobody looked at
TRANSPARENT = (255, 255, 255)  # what shows through
_AT_ONCE = 1 << 20  # pixels
_MARK = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # of a JPEG's segment; the others stand within a scan


@dataclass(frozen=True)
class ImageForm:
    """What images are brought to: all that decides the pixels beside the file itself.

    Attributes:
        channels: 1 (gray), 3 (RGB), or the number of channels of an array.
        size: height and width.
        resize: "crop" scales the shorter side and cuts the middle; "squash" scales each side on its own; "pad"
            scales the longer side and fills up with the mean color of the border.
        white: the level of deep gray images (16 or 32 bits, floats) that is shown as white.
        interpolation: by which they are resized.
    """

    what: ClassVar[str] = "images"

    channels: int
    size: tuple[int, int]
    resize: Resize = "crop"
    white: float = WHITE
    interpolation: Interpolation = "bilinear"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image, as a backbone takes it."""
        return (self.channels, *self.size)

    @property
    def words(self) -> str:
        """What it says, for a message."""
        return f"images of {self.size[0]}x{self.size[1]} with {self.channels} channels"


def decode(image: ImageLike, form: ImageForm) -> Pixels:
    """Read one image as uint8 [H, W, C]; of an animation the first frame.

    Args:
        image: a path, encoded bytes, a part of a file, a PIL image, or pixels [H, W], [H, W, C] or [C, H, W] (uint8,
            or floats in 0..1).
        form: what to bring it to.

    Raises:
        OSError, ValueError: it cannot be read as an image, is truncated, or has more than `MOST_PIXELS` pixels.
    """
    pixels = single(image) if is_pixels(image) else None
    if pixels is not None and pixels.ndim == 3 and pixels.shape[-1] != 3:
        return _decode_channels(pixels, form)
    if form.channels not in (1, 3):
        raise ValueError(f"an image of 1 or 3 channels where {form.channels} are expected")
    opened = Image.fromarray(pixels) if pixels is not None else _open(cast(Any, image), form)
    colors = _to_mode(opened, "L" if form.channels == 1 else "RGB", form.white)
    return np.asarray(_resized(colors, form)).reshape(*form.size, form.channels)


def _decode_channels(pixels: Pixels, form: ImageForm) -> Pixels:
    """Bring [H, W, C] of any number of channels to the form, channel by channel."""
    if pixels.shape[-1] != form.channels:
        raise ValueError(f"{pixels.shape[-1]} channels where {form.channels} are expected")
    return np.stack(
        [np.asarray(_resized(Image.fromarray(channel), form)) for channel in np.moveaxis(pixels, -1, 0)], -1
    )


def _open(image: Path | str | bytes | Slice | Image.Image, form: ImageForm) -> Image.Image:
    if isinstance(image, Image.Image):
        return _upright(image)
    encoded = encoded_bytes(image)
    with opened(encoded) as file:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice the wanted size keeps the details.
        height, width = form.size[::-1] if orientation(file) >= LYING else form.size
        file.draft(None, (2 * width, 2 * height))
        file.load()
        if file.format in ("JPEG", "MPO") and not _jpeg_ends(encoded):
            raise ValueError("truncated: the JPEG does not end")
        return _upright(file)


def _jpeg_ends(encoded: bytes) -> bool:
    """Tell whether there is an end mark: without it the decoder fills what is missing with gray, silently.

    Where it is not the last that there is, the segments are walked through, since a thumbnail before and a film
    after the picture have marks of their own.
    """
    if encoded.endswith(b"\xff\xd9"):
        return True
    place = 2
    while mark := _MARK.search(encoded, place):
        if mark[1] == b"\xd9":
            return True
        place = mark.end() + int.from_bytes(encoded[mark.end() : mark.end() + 2], "big")
    return False


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its camera says; one whose metadata is damaged stays as it lies."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata makes Pillow raise almost anything, struct.error among it
        return image.copy()


def _to_mode(image: Image.Image, mode: Literal["L", "RGB"], white: float) -> Image.Image:
    if image.mode in DEEP:
        image = _eight_bits(image, white)
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (*TRANSPARENT, 255)), seen)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(image: Image.Image, white: float) -> Image.Image:
    """Bring deep grays to 256 levels, some at a time: as floats all at once would take many times their memory."""
    deep: NDArray[Any] = np.asarray(image)
    out = np.empty(deep.shape, np.uint8)
    for start in range(0, deep.size, _AT_ONCE):
        levels = np.nan_to_num(deep.reshape(-1)[start : start + _AT_ONCE].astype(np.float64), posinf=white)
        out.reshape(-1)[start : start + _AT_ONCE] = np.rint(np.clip(levels / white, 0, 1) * 255)
    return Image.fromarray(out)


def _resized(image: Image.Image, form: ImageForm) -> Image.Image:
    shape = (form.size[1], form.size[0])  # Pillow counts the width first
    if image.size == shape:
        return image
    resample = Image.Resampling.BICUBIC if form.interpolation == "bicubic" else Image.Resampling.BILINEAR
    if form.resize == "squash":
        return image.resize(shape, resample)
    if form.resize == "pad":
        return ImageOps.pad(image, shape, resample, color=_border_color(image))
    return ImageOps.fit(image, shape, resample)


def _border_color(image: Image.Image) -> int | tuple[int, ...]:
    """Give the mean color of the border: a pad of it shows less of an edge than black does."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    mean = np.rint(border.mean(0)).astype(int)
    return int(mean) if mean.ndim == 0 else tuple(mean.tolist())


def decode_into(pixels: Pixels, images: Sequence[ImageLike], form: ImageForm) -> dict[int, str]:
    """Read many images into `pixels` [n, H, W, C], each at its place.

    Returns:
        For each that cannot be read its place and the reason; its pixels are left as they were.

    Raises:
        MemoryError: there is too little memory, which says nothing of the image.
    """
    broken: dict[int, str] = {}
    for place, image in enumerate(images):
        try:
            pixels[place] = decode(image, form)
        except MemoryError:
            raise
        except Exception as error:  # a damaged file makes Pillow raise almost anything, struct.error among it
            broken[place] = reason_of(error)
    return broken
