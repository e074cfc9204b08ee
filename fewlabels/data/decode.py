"""From whatever holds an image to uint8 pixels of one form. NumPy and Pillow alone, so that workers start soon."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fewlabels.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = NDArray[np.uint8]
Resize: TypeAlias = Literal["crop", "squash", "pad"]


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
Image.init()
FORMATS = [
    name
    for name in ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
    if name in Image.OPEN
]
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".apng",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".dib",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".avif",
    ]
)
MOST_PIXELS = 178_956_970  # of one image: Pillow's own limit; 537 MB in color
WHITE = 65535.0  # of 16-bit images whose levels nobody looked at
MOST_BYTES = 1 << 30  # of one file
TRANSPARENT = (255, 255, 255)  # what shows through
LYING = 5

_ORIENTATION = 0x0112  # EXIF's tag
_AT_ONCE = 1 << 20  # pixels
_MARK = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # of a JPEG's segment; the others stand within a scan
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class Form:
    """What images are brought to: all that decides the pixels beside the file itself.

    Attributes:
        channels: 1 (gray), 3 (RGB), or the number of channels of an array.
        size: height and width.
        resize: "crop" scales the shorter side and cuts the middle; "squash" scales each side on its own; "pad"
            scales the longer side and fills up with the mean color of the border.
        white: the level of deep gray images (16 or 32 bits, floats) that is shown as white.
    """

    channels: int
    size: tuple[int, int]
    resize: Resize = "crop"
    white: float = WHITE


def decode(image: ImageLike, form: Form) -> Pixels:
    """Read one image as uint8 [H, W, C]; of an animation the first frame.

    Args:
        image: a path, encoded bytes, a part of a file, a PIL image, or pixels [H, W], [H, W, C] or [C, H, W] (uint8,
            or floats in 0..1).
        form: what to bring it to.

    Raises:
        OSError, ValueError: it cannot be read as an image, is truncated, or has more than `MOST_PIXELS` pixels.
    """
    pixels = _single(image) if is_pixels(image) else None
    if pixels is not None and pixels.ndim == 3 and pixels.shape[-1] != 3:
        return _decode_channels(pixels, form)
    if form.channels not in (1, 3):
        raise ValueError(f"an image of 1 or 3 channels where {form.channels} are expected")
    opened = Image.fromarray(pixels) if pixels is not None else _open(cast(Any, image), form)
    colors = _to_mode(opened, "L" if form.channels == 1 else "RGB", form.white)
    return np.asarray(_resized(colors, form)).reshape(*form.size, form.channels)


def _decode_channels(pixels: Pixels, form: Form) -> Pixels:
    """Bring [H, W, C] of any number of channels to the form, channel by channel."""
    if pixels.shape[-1] != form.channels:
        raise ValueError(f"{pixels.shape[-1]} channels where {form.channels} are expected")
    return np.stack(
        [np.asarray(_resized(Image.fromarray(channel), form)) for channel in np.moveaxis(pixels, -1, 0)], -1
    )


def is_pixels(image: ImageLike) -> bool:
    """Tell whether an image is an array, a tensor or lists of pixels."""
    return isinstance(image, list) or (hasattr(image, "shape") and not isinstance(image, Image.Image))


# --- files ----------------------------------------------------------------------------------------------


def _open(image: Path | str | bytes | Slice | Image.Image, form: Form) -> Image.Image:
    if isinstance(image, Image.Image):
        return _upright(image)
    encoded = encoded_bytes(image)
    with _opened(encoded) as file:
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size; twice the wanted size keeps the details.
        height, width = form.size[::-1] if orientation(file) >= LYING else form.size
        file.draft(None, (2 * width, 2 * height))
        file.load()
        if file.format in ("JPEG", "MPO") and not _jpeg_ends(encoded):
            raise ValueError("truncated: the JPEG does not end")
        return _upright(file)


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
def _opened(encoded: bytes) -> Generator[Image.Image]:
    if not encoded:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        # Pillow warns of odd metadata and of half its limit of pixels; neither keeps an image from being read.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
            if file.width * file.height > MOST_PIXELS:
                raise ValueError(f"{file.width}x{file.height} pixels; at most {MOST_PIXELS:,} are read")
            yield file


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


def orientation(image: Image.Image) -> int:
    """Tell how a camera held the image, as EXIF counts it: 1 is upright, from `LYING` on it lies on its side."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # as in `_upright`
        return 1


def _to_mode(image: Image.Image, mode: Literal["L", "RGB"], white: float) -> Image.Image:
    if image.mode in _DEEP:
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


def _resized(image: Image.Image, form: Form) -> Image.Image:
    shape = (form.size[1], form.size[0])  # Pillow counts the width first
    if image.size == shape:
        return image
    if form.resize == "squash":
        return image.resize(shape, Image.Resampling.BILINEAR)
    if form.resize == "pad":
        return ImageOps.pad(image, shape, Image.Resampling.BILINEAR, color=_border_color(image))
    return ImageOps.fit(image, shape, Image.Resampling.BILINEAR)


def _border_color(image: Image.Image) -> int | tuple[int, ...]:
    """Give the mean color of the border: a pad of it shows less of an edge than black does."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    mean = np.rint(border.mean(0)).astype(int)
    return int(mean) if mean.ndim == 0 else tuple(mean.tolist())


# --- pixels ---------------------------------------------------------------------------------------------


def _single(image: ImageLike) -> Pixels:
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
            else f"(x / {_full_scale(high):g} gives such)"
        )
    )


def _full_scale(high: float) -> float:
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


# --- what an image holds --------------------------------------------------------------------------------


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


# --- many -----------------------------------------------------------------------------------------------


def decode_into(pixels: Pixels, images: Sequence[ImageLike], form: Form) -> dict[int, str]:
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


def reason_of(error: BaseException) -> str:
    """Say in one line why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image in a format that is read"
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which stands beside it
    return " ".join(f"{error}".split()) or type(error).__name__


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
        pixels = _single(image)
        return Look(pixels.shape[0], pixels.shape[1], pixels.shape[2] if pixels.ndim == 3 else 1)
    if isinstance(image, Image.Image):
        return _look(image)
    try:
        with _opened(encoded_bytes(cast(Any, image))) as file:
            return _look(file)
    except Image.DecompressionBombError as error:
        raise ValueError(error) from error


def _look(image: Image.Image) -> Look:
    height, width = (image.width, image.height) if orientation(image) >= LYING else (image.height, image.width)
    deep = image.mode in _DEEP
    return Look(height, width, 1 if deep or image.mode in ("1", "L", "LA") else 3, deep)


def highest_level(image: ImageLike) -> float:
    """Read the highest level of a deep gray image.

    Raises:
        OSError, ValueError: it cannot be read as an image.
    """
    if not isinstance(image, Image.Image):
        with _opened(encoded_bytes(cast(Any, image))) as file:
            file.load()
            return highest_level(file)
    levels: NDArray[Any] = np.asarray(image)
    return float(np.max(levels, initial=0, where=np.isfinite(levels)))


def white_level(highest: float) -> float:
    """Give the level to show as white where the highest is this: 1 for floats up to 1, else that of its bit depth."""
    return 1.0 if highest <= 1 else _full_scale(highest)


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


def image_name(image: ImageLike, place: int) -> str:
    """Name an image in a message: its path, or its place in the sequence."""
    return str(image) if isinstance(image, str | Path) else f"image {place}"
