"""From whatever holds an image to uint8 pixels of one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from fewlabels.errors import UserError

Pixels: TypeAlias = NDArray[np.uint8]
ImageLike: TypeAlias = "Path | str | Image.Image | NDArray[Any] | Tensor"
Resize: TypeAlias = Literal["crop", "squash"]

_ORIENTATION = 0x0112  # EXIF's tag
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def decode(image: ImageLike, channels: int, size: tuple[int, int], resize: Resize = "crop") -> Pixels:
    """Read one image as uint8 [H, W, C].

    Args:
        image: a path, a PIL image, or pixels [H, W], [H, W, C] or [C, H, W] (uint8, or floats in 0..1).
        channels: 1 (gray) or 3 (RGB).
        size: height and width to give.
        resize: "crop" scales the shorter side and cuts the middle; "squash" scales each side on its own.

    Raises:
        OSError, ValueError: it cannot be read as an image.
    """
    opened = _open(image)
    pixels = np.asarray(opened.convert("L" if channels == 1 else "RGB") if opened.mode != _mode(channels) else opened)
    if pixels.shape[:2] != size:
        pixels = np.asarray(_resized(Image.fromarray(pixels), size, resize))
    return pixels.reshape(*size, channels)


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


def _open(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return _eight_bits(ImageOps.exif_transpose(image))
    if isinstance(image, str | Path):
        with Image.open(image) as file:
            return _eight_bits(ImageOps.exif_transpose(file).copy())
    return Image.fromarray(_single(image))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Keep the upper half of 16-bit grays; Pillow's own conversion turns all above 255 to white."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    return image


def _single(image: NDArray[Any] | Tensor) -> Pixels:
    """Give one image's pixels as [H, W] or [H, W, 3]."""
    pixels = channels_last(to_uint8(image), axis=0)
    if pixels.size == 0:
        raise UserError(f"an image without pixels, of shape {list(pixels.shape)}")
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def _array(pixels: NDArray[Any] | Tensor) -> NDArray[Any]:
    if isinstance(pixels, Tensor):
        pixels = pixels.detach().cpu()
        return (pixels.double() if pixels.is_floating_point() else pixels).numpy()
    return np.asarray(pixels)


def to_uint8(pixels: NDArray[Any] | Tensor) -> Pixels:
    """Turn pixels of any shape into uint8.

    Raises:
        UserError: floats outside 0..1, or whole numbers outside 0..255.
    """
    array = _array(pixels)
    if array.dtype == np.uint8:
        return cast(Pixels, array)
    if array.dtype.kind not in "fiub" or array.size == 0:
        raise UserError(f"pixels of type {array.dtype} and shape {list(array.shape)}; give uint8, or floats in 0..1")
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind in "fb" and low >= 0 and high <= 1:
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    if low >= 0 and high <= 255 and np.array_equal(array, np.rint(array)):
        return array.astype(np.uint8)
    raise UserError(
        f"pixels of type {array.dtype} from {low:g} to {high:g}; give uint8, or floats in 0..1 "
        "(undo a normalization first)"
    )


def channels_last(pixels: NDArray[Any], axis: int) -> NDArray[Any]:
    """Move a channel axis of size 1 or 3 from `axis` to the end, where it is not there already.

    Raises:
        UserError: a shape that is no image.
    """
    if pixels.ndim == axis + 2:
        return pixels
    if pixels.ndim == axis + 3 and pixels.shape[-1] in (1, 3):
        return pixels
    if pixels.ndim == axis + 3 and pixels.shape[axis] in (1, 3):
        return np.moveaxis(pixels, axis, -1)
    raise UserError(
        f"pixels of shape {list(pixels.shape)}; give {'[n, ' if axis else '['}H, W], or with 1 or 3 channels last or "
        "before H"
    )


def _resized(image: Image.Image, size: tuple[int, int], resize: Resize) -> Image.Image:
    shape = (size[1], size[0])  # Pillow counts the width first
    if resize == "squash":
        return image.resize(shape, Image.Resampling.BILINEAR)
    return ImageOps.fit(image, shape, Image.Resampling.BILINEAR)


def decode_all(
    images: Sequence[ImageLike], channels: int, size: tuple[int, int], resize: Resize = "crop"
) -> tuple[Tensor, dict[int, str]]:
    """Read many images.

    Returns:
        uint8 [n, C, H, W] of those that can be read, in order; and for each of the others its place in the sequence
        and the reason.
    """
    pixels = np.empty((len(images), *size, channels), np.uint8)
    broken: dict[int, str] = {}
    good = 0
    for place, image in enumerate(images):
        try:
            pixels[good] = decode(image, channels, size, resize)
            good += 1
        except Exception as error:  # a damaged file makes Pillow raise almost anything, struct.error among it
            broken[place] = _reason(error)
    return torch.from_numpy(np.ascontiguousarray(pixels[:good].transpose(0, 3, 1, 2))), broken


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    return f"{error}" or type(error).__name__


def image_size(image: ImageLike) -> tuple[int, int, int]:
    """Tell height, width and channels (1 or 3) without decoding the whole file.

    Raises:
        OSError, ValueError: it cannot be read as an image.
    """
    if isinstance(image, str | Path):
        try:
            with Image.open(image) as file:
                turned = file.getexif().get(_ORIENTATION, 1) >= 5  # lies on its side, and is turned when it is decoded
                height, width = (file.width, file.height) if turned else (file.height, file.width)
                return height, width, _channels(file.mode)
        except Image.DecompressionBombError as error:
            raise ValueError(error) from error
    if isinstance(image, Image.Image):
        return image.height, image.width, _channels(image.mode)
    pixels = _single(image)
    return pixels.shape[0], pixels.shape[1], pixels.shape[2] if pixels.ndim == 3 else 1


def _channels(mode: str) -> int:
    return 1 if mode in ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L") else 3


def image_list(images: Sequence[ImageLike] | NDArray[Any]) -> Sequence[ImageLike]:
    """Give a sequence of images; one array of all of them is taken apart.

    Raises:
        UserError: one image where several are expected.
    """
    if isinstance(images, str | Path | Image.Image):
        raise UserError("one image where a list is expected; give [image]")
    if not isinstance(cast(object, images), Sequence | np.ndarray | Tensor):
        raise UserError(f"images of type {type(images).__name__}; give an array or a list of images")
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 3 and images.shape[-1] == 3:
        raise UserError(f"one image of shape {list(images.shape)} where several are expected; give [image]")
    if isinstance(images, np.ndarray | Tensor):
        return list(channels_last(to_uint8(images), axis=1))
    return images


def image_name(image: ImageLike, place: int) -> str:
    """Name an image in a message: its path, or its place in the sequence."""
    return str(image) if isinstance(image, str | Path) else f"image {place}"
