"""The 14 operations of RandAugment on a batch, each image with its own operation and strength.

Three forms cover them all: a table of 256 entries (what depends on a pixel's value alone), a warp (where a
pixel comes from), and a blend with a degenerate image (color, sharpness). Each equals Pillow's operation of
the same name: https://pillow.readthedocs.io (ImageOps, ImageEnhance, Image.transform), but for shifts that end within
1/131072 of a pixel's border, about one draw in 100,000, which may go to the next pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fewlabels.views.constant import constant

TABLES = ("identity", "autocontrast", "brightness", "contrast", "equalize", "posterize", "solarize")
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
BLENDS = ("color", "sharpness")
OPERATIONS = TABLES + WARPS + BLENDS

Strengths: TypeAlias = Literal["fixmatch", "torchvision"]

# Lowest and highest strength of each operation; degrees for rotate, a part of the side for translate. Those
# without an entry have no strength. FixMatch draws between them (Sohn et al. 2020, table 12).
FIXMATCH: dict[str, tuple[float, float]] = {
    "brightness": (0.05, 0.95),
    "color": (0.05, 0.95),
    "contrast": (0.05, 0.95),
    "posterize": (4, 8),
    "rotate": (-30, 30),
    "sharpness": (0.05, 0.95),
    "shear_x": (-0.3, 0.3),
    "shear_y": (-0.3, 0.3),
    "solarize": (0, 256),
    "translate_x": (-0.3, 0.3),
    "translate_y": (-0.3, 0.3),
}

# torchvision.transforms.RandAugment with its default magnitude draws one of the two ends.
_MAGNITUDE = 9 / 30
_SIDE = 150 / 331 * _MAGNITUDE
TORCHVISION: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (1 - 0.9 * _MAGNITUDE, 1 + 0.9 * _MAGNITUDE)),
    **dict.fromkeys(("shear_x", "shear_y"), (-0.3 * _MAGNITUDE, 0.3 * _MAGNITUDE)),
    **dict.fromkeys(("translate_x", "translate_y"), (-_SIDE, _SIDE)),
    "posterize": (8 - round(4 * _MAGNITUDE), 8 - round(4 * _MAGNITUDE)),
    "rotate": (-30 * _MAGNITUDE, 30 * _MAGNITUDE),
    "solarize": (255 * (1 - _MAGNITUDE), 255 * (1 - _MAGNITUDE)),
}
RANGES: dict[Strengths, dict[str, tuple[float, float]]] = {"fixmatch": FIXMATCH, "torchvision": TORCHVISION}


_Form: TypeAlias = tuple[Tensor, Callable[..., Tensor], tuple[Tensor, ...]]
"""which rows want it, what makes it, and of what: tensors with one entry a row"""


def number(name: str) -> int:
    """Give the number by which a batch of operations names this one."""
    return OPERATIONS.index(name)


def strengths(operation: Tensor, uniform: Tensor, whose: Strengths = "fixmatch") -> Tensor:
    """Map draws in [0, 1) [n] to the strength of each image's operation [n]."""
    low, high = _ranges(whose, uniform.device)[operation].unbind(1)
    return low + (high - low) * (uniform if whose == "fixmatch" else (2 * uniform).floor())


@constant
def _ranges(whose: Strengths, device: torch.device) -> Tensor:
    """Give each operation's range [14, 2]."""
    return torch.tensor([RANGES[whose].get(name, (0, 0)) for name in OPERATIONS], dtype=torch.float32, device=device)


def apply(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Apply to each image [n, C, H, W] uint8 its operation [n] int64 with its strength [n] float32."""
    of_tables: list[_Form] = [(operation == number(name), make, (images, strength)) for name, make in _TABLES.items()]
    identity = _levels(images).to(torch.uint8).expand(*images.shape[:2], 256)
    matrices = _matrices(operation, strength, *images.shape[2:])
    forms: list[_Form] = [
        (_among(operation, tuple(_TABLES)), look_up, (images, _chosen(identity, of_tables))),
        (_among(operation, WARPS), warp, (images, matrices)),
    ]
    forms += [(operation == number(name), blend, (images, strength)) for name, blend in _BLENDS.items()]
    return _chosen(images, forms)


def _among(operation: Tensor, names: tuple[str, ...]) -> Tensor:
    return torch.stack([operation == number(name) for name in names]).any(0)


def _chosen(rows: Tensor, forms: list[_Form]) -> Tensor:
    """Replace those of `rows` [n, ...] that want a form, bool [n]; each wants one at most.

    Where shapes may depend on values, a form is computed for these rows only, else for all.
    """
    if not shapes_may_depend_on_values(rows.device):
        for wanted, form, given in forms:
            rows = torch.where(wanted.view(-1, *[1] * (rows.ndim - 1)), form(*given), rows)
        return rows
    # Appended and then selected: on a CPU that copies whole rows, while writing into them goes value by value.
    parts, source = [rows], torch.arange(len(rows))
    count = len(rows)
    for wanted, form, given in forms:
        places = wanted.nonzero()[:, 0]
        made = form(*(each.index_select(0, places) for each in given))
        parts.append(made.expand(-1, *rows.shape[1:]))
        source[places] = torch.arange(count, count + len(places))
        count += len(places)
    return torch.cat(parts).index_select(0, source)


def shapes_may_depend_on_values(device: torch.device) -> bool:
    """Tell whether it is so: a GPU would have to wait for them, and a compiled step could not be used again."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


# --- tables: of images [n, C, H, W] and strengths [n], uint8 [n, 1 or C, 256] -----------------------------


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Give each pixel its entry in the table [n, C, 256] of its image and channel."""
    return tables.gather(2, images.flatten(2).to(torch.int64)).view_as(images)


def _levels(images: Tensor) -> Tensor:
    return torch.arange(256, dtype=torch.int32, device=images.device)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(_levels(images), 0, strength[:, None, None])


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    gray = luma(images).to(torch.int64)
    pixels = gray.shape[2] * gray.shape[3]
    mean = (2 * gray.sum((1, 2, 3)) + pixels) // (2 * pixels)  # rounded half up
    return _blended(_levels(images), mean[:, None, None], strength[:, None, None])


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    kept_bits = -(1 << (8 - strength.to(torch.int32)))
    return (_levels(images) & kept_bits[:, None, None]).to(torch.uint8)


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    levels = _levels(images)
    return torch.where(levels < strength[:, None, None], levels, 255 - levels).to(torch.uint8)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretch the used levels to 0..255 (ImageOps.autocontrast without cutoff)."""
    del strength
    # MPS has no float64; in float32 1 of 130 levels is one off.
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    pixels, levels = images.flatten(2), _levels(images)
    low, high = pixels.amin(2, keepdim=True).to(exact), pixels.amax(2, keepdim=True).to(exact)
    # Not `255 / tensor`: torch makes that a reciprocal and a product, which rounds twice.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    # Pillow multiplies first and adds the offset after; the order matters to the last bit.
    stretched = (levels * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, levels.to(torch.uint8))


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Spread the levels evenly over 0..255 (ImageOps.equalize)."""
    del strength
    counts, levels = histograms(images), _levels(images)
    last = torch.where(counts > 0, levels, 0).amax(2, keepdim=True).to(torch.int64)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    before = counts.cumsum(2) - counts
    spread = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    return torch.where(step > 0, spread, levels).to(torch.uint8)


_TABLES = {
    "autocontrast": _autocontrast,
    "brightness": _brightness,
    "contrast": _contrast,
    "equalize": _equalize,
    "posterize": _posterize,
    "solarize": _solarize,
}


def luma(images: Tensor) -> Tensor:
    """Give the gray image [n, 1, H, W] uint8: of three channels with Pillow's integer weights, else their mean."""
    if images.shape[1] == 1:
        return images
    if images.shape[1] != 3:
        return images.to(torch.float32).mean(1, keepdim=True).round().to(torch.uint8)
    red, green, blue = images.to(torch.int32).unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[:, None]


def histograms(images: Tensor) -> Tensor:
    """Count each gray level: uint8 [n, C, H, W] -> int64 [n, C, 256]."""
    levels = images.flatten(2).to(torch.int64)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=images.device)
    return counts.scatter_add_(2, levels, counts.new_ones(()).expand_as(levels))


# --- warps ----------------------------------------------------------------------------------------------


def _matrices(operation: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """Give each image's map from output to input pixels [n, 6]: x_in = a x + b y + c, y_in = d x + e y + f."""
    exact = strength if strength.device.type == "mps" else strength.to(torch.float64)
    rotate, shear_x, shear_y, translate_x, translate_y = ((operation == number(name)) * exact for name in WARPS)
    angle = rotate * (-math.pi / 180)
    cos, sin = angle.cos(), angle.sin()
    center_x, center_y = width / 2, height / 2
    c = center_x - cos * center_x - sin * center_y + translate_x * width
    f = center_y + sin * center_x - cos * center_y + translate_y * height
    return torch.stack([cos, sin + shear_x, c, shear_y - sin, cos, f], 1)


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Read each output pixel [n, C, H, W] from the nearest input pixel under its matrix [n, 6]; outside is 0.

    Counted in 1/65536 of a pixel, as Pillow does (Geometry.c, affine_fixed): 4096 pixels a side fit into 32 bits.
    """
    height, width = images.shape[2:]
    a, b, c, d, e, f = matrices.unbind(1)
    steps = torch.stack([a, b, c + a / 2 + b / 2, d, e, f + d / 2 + e / 2])
    a, b, c, d, e, f = (steps * 65536 + 0.5).floor().to(torch.int32)[:, :, None, None, None]
    x = torch.arange(width, dtype=torch.int32, device=images.device)
    y = torch.arange(height, dtype=torch.int32, device=images.device)[:, None]
    column = (a * x + (b * y + c)) >> 16
    row = (d * x + (e * y + f)) >> 16
    within_column, within_row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    inside = (column == within_column) & (row == within_row)
    return take(images, within_row * width + within_column) * inside


def take(images: Tensor, index: Tensor) -> Tensor:
    """Read from images [n, C, H, W] the pixels at `index` [n, 1, h, w] (row * W + column) -> [n, C, h, w]."""
    flat = index.flatten(2).to(torch.int64).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, flat).view(*images.shape[:2], *index.shape[2:])


# --- blends ---------------------------------------------------------------------------------------------


def _blended(image: Tensor, degenerate: Tensor | int, share: Tensor) -> Tensor:
    """Blend whole numbers as Pillow does: float32, cut to a byte and towards zero."""
    return (degenerate + share * (image - degenerate)).clamp(0, 255).to(torch.uint8)


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(images.to(torch.int32), luma(images).to(torch.int32), strength[:, None, None, None])


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(images.to(torch.int32), smooth(images).to(torch.int32), strength[:, None, None, None])


_BLENDS = {"color": _color, "sharpness": _sharpness}


def smooth(images: Tensor) -> Tensor:
    """Filter with Pillow's SMOOTH kernel, (1 1 1; 1 5 1; 1 1 1) / 13; the border pixels stay."""
    if min(images.shape[2:]) < 3:
        return images
    # Sums of slices, not a convolution: a convolution may be computed in fewer bits than asked for.
    exact = images.to(torch.float32)
    rows = exact[:, :, :-2] + exact[:, :, 1:-1] + exact[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * exact[:, :, 1:-1, 1:-1]
    out = images.clone()
    out[:, :, 1:-1, 1:-1] = (sums / 13 + 0.5).to(torch.uint8)
    return out
