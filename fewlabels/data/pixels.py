"""Pixels of arrays and tensors, brought to uint8 with the channels last."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.image import ImageLike, Pixels, Slice
from fewlabels.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def single(image: ImageLike) -> Pixels:
    """Give one image's pixels as [H, W] or [H, W, C]."""
    pixels = channels_last(to_uint8(cast(Any, image)), axis=0)
    if pixels.size == 0:
        raise UserError(f"an image without pixels, of shape {list(pixels.shape)}")
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def as_array(pixels: NDArray[Any] | Tensor) -> NDArray[Any]:
    """Give pixels, of a tensor or of lists too, as an array in memory."""
    if isinstance(pixels, np.ndarray | list):
        return np.asarray(pixels)
    tensor = pixels.detach().cpu()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()


def to_uint8(pixels: NDArray[Any] | Tensor) -> Pixels:
    """Turn pixels of any shape into uint8.

    Raises:
        UserError: floats outside 0..1, or whole numbers outside 0..255.
    """
    array = as_array(pixels)
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
        + (
            "(some are no numbers: mend them first)"
            if not np.isfinite(low + high)
            else "(undo a normalization first)"
            if low < 0
            else f"(x / {full_scale(high):g} gives such)"
        )
    )


def full_scale(high: float) -> float:
    """Give the highest level of the bit depth that holds `high`: 12-bit cameras write 16-bit files."""
    return 2.0 ** max(8, int(np.ceil(np.log2(high + 1)))) - 1


def channels_last(pixels: NDArray[Any], axis: int) -> NDArray[Any]:
    """Move a channel axis from `axis` to the end, where it is not there already.

    An axis of 1 or 3 is one of channels, the last before the first; else one that is smaller than both others.

    Raises:
        UserError: a shape that is no image.
    """
    if pixels.ndim == axis + 2:
        return pixels
    if pixels.ndim == axis + 3:
        first, middle, last = pixels.shape[axis:]
        if last in (1, 3) or (first not in (1, 3) and last < min(first, middle)):
            return pixels
        if first in (1, 3) or first < min(middle, last):
            return np.moveaxis(pixels, axis, -1)
    raise UserError(
        f"pixels of shape {list(pixels.shape)}; give {'[n, ' if axis else '['}H, W], or with the channels last or "
        "before H (fewer of them than pixels along H and W)"
    )


def image_list(images: Sequence[ImageLike] | NDArray[Any]) -> Sequence[ImageLike]:
    """Give a sequence of images; one array of all of them is taken apart.

    Raises:
        UserError: one image where several are expected.
    """
    if isinstance(images, str | bytes | Path | Slice | Image.Image):
        raise UserError("one image where a list is expected; give [image]")
    if hasattr(images, "shape"):
        shape = cast(Any, images).shape
        if len(shape) == 3 and shape[-1] == 3:
            raise UserError(f"one image of shape {list(shape)} where several are expected; give [image]")
        return list(channels_last(to_uint8(cast(Any, images)), axis=1))
    if not isinstance(cast(object, images), Sequence):
        raise UserError(f"images of type {type(images).__name__}; give an array or a list of images")
    return cast("Sequence[ImageLike]", images)
