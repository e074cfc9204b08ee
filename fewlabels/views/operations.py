"""The 14 operations of FixMatch's RandAugment pool on a batch, each image with its own operation and strength.

Three forms cover them all: a table of 256 entries (what depends on a pixel's value alone), a warp (where a
pixel comes from), and a blend with a degenerate image (color, sharpness). Each equals Pillow's operation of
the same name: https://pillow.readthedocs.io (ImageOps, ImageEnhance, Image.transform).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

TABLES = ("identity", "autocontrast", "brightness", "contrast", "equalize", "posterize", "solarize")
WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
BLENDS = ("color", "sharpness")
OPERATIONS = TABLES + WARPS + BLENDS

# Lowest and highest strength of each operation (Sohn et al. 2020, table 12); degrees for rotate, a part of
# the side for translate. Those without an entry have no strength.
RANGES: dict[str, tuple[float, float]] = {
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


def number(name: str) -> int:
    """Give the number by which a batch of operations names this one."""
    return OPERATIONS.index(name)


def strengths(operation: Tensor, uniform: Tensor) -> Tensor:
    """Map draws in [0, 1) [n] to the range of each image's operation [n]."""
    low, high = _ranges(uniform.device)[operation].unbind(1)
    return low + (high - low) * uniform


@cache
def _ranges(device: torch.device) -> Tensor:
    """Give each operation's range [14, 2]; kept, since a copy from the host would stop the device at each step."""
    return torch.tensor([RANGES.get(name, (0, 0)) for name in OPERATIONS], dtype=torch.float32, device=device)


def apply(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Apply to each image [n, C, H, W] uint8 its operation [n] int64 with its strength [n] float32."""
    images = _apply_tables(images, operation, strength)
    images = warp(images, _matrices(operation, strength, *images.shape[2:]))
    return _apply_blends(images, operation, strength)


# --- tables ---------------------------------------------------------------------------------------------


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
    return counts.scatter_add_(2, levels, torch.ones_like(levels))


def _apply_tables(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    tables = _identity_table(images)
    counts = histograms(images)
    s = strength[:, None, None]
    for name, table in (
        ("autocontrast", _autocontrast_table(counts)),
        ("brightness", _blended(torch.zeros_like(tables), tables, s)),
        ("contrast", _blended(_mean_luma(images).expand_as(tables), tables, s)),
        ("equalize", _equalize_table(counts)),
        ("posterize", tables & -(1 << (8 - s.to(torch.int64)))),
        ("solarize", torch.where(tables < s, tables, 255 - tables)),
    ):
        tables = torch.where((operation == number(name))[:, None, None], table, tables)
    levels = images.flatten(2).to(torch.int64)
    return tables.to(torch.uint8).gather(2, levels).view_as(images)


def _identity_table(images: Tensor) -> Tensor:
    levels = torch.arange(256, device=images.device)
    return levels.expand(*images.shape[:2], 256)


def _blended(degenerate: Tensor, image: Tensor, share: Tensor) -> Tensor:
    """Blend whole numbers as Pillow does: float32, cut towards zero."""
    return (degenerate + share * (image - degenerate)).to(torch.int64)


def _mean_luma(images: Tensor) -> Tensor:
    """Give each image's mean gray level, rounded half up: int64 [n, 1, 1]."""
    gray = luma(images).to(torch.int64)
    pixels = gray.shape[2] * gray.shape[3]
    return ((2 * gray.sum((1, 2, 3)) + pixels) // (2 * pixels))[:, None, None]


def _autocontrast_table(counts: Tensor) -> Tensor:
    """Stretch the used levels to 0..255 (ImageOps.autocontrast without cutoff)."""
    levels = torch.arange(256, device=counts.device)
    used = counts > 0
    # MPS has no float64; in float32 1 of 130 levels is one off.
    exact = torch.float32 if counts.device.type == "mps" else torch.float64
    low = torch.where(used, levels, 255).amin(2, keepdim=True).to(exact)
    high = torch.where(used, levels, 0).amax(2, keepdim=True).to(exact)
    # Not `255 / tensor`: torch makes that a reciprocal and a product, which rounds twice.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    # Pillow multiplies first and adds the offset after; the order matters to the last bit.
    stretched = (levels * scale - low * scale).to(torch.int64).clamp(0, 255)
    return torch.where(high > low, stretched, levels)


def _equalize_table(counts: Tensor) -> Tensor:
    """Spread the levels evenly over 0..255 (ImageOps.equalize)."""
    levels = torch.arange(256, device=counts.device)
    last = torch.where(counts > 0, levels, 0).amax(2, keepdim=True)
    step = (counts.sum(2, keepdim=True) - counts.gather(2, last)) // 255
    before = counts.cumsum(2) - counts
    spread = ((before + step // 2) // step.clamp(min=1)).clamp(0, 255)
    return torch.where(step > 0, spread, levels)


# --- warps ----------------------------------------------------------------------------------------------


def _matrices(operation: Tensor, strength: Tensor, height: int, width: int) -> Tensor:
    """Give each image's map from output to input pixels [n, 6]: x_in = a x + b y + c, y_in = d x + e y + f."""

    def strength_of(name: str) -> Tensor:
        return torch.where(operation == number(name), strength, 0.0)

    angle = -torch.deg2rad(strength_of("rotate"))
    cos, sin = angle.cos(), angle.sin()
    center_x, center_y = width / 2, height / 2
    a, e = cos, cos
    b = sin + strength_of("shear_x")
    d = -sin + strength_of("shear_y")
    c = center_x - cos * center_x - sin * center_y + strength_of("translate_x") * width
    f = center_y + sin * center_x - cos * center_y + strength_of("translate_y") * height
    return torch.stack([a, b, c, d, e, f], 1)


def warp(images: Tensor, matrices: Tensor, fill: int = 0) -> Tensor:
    """Read each output pixel [n, C, H, W] from the nearest input pixel under its matrix [n, 6]; outside is `fill`."""
    n, channels, height, width = images.shape
    x = torch.arange(width, device=images.device) + 0.5
    y = torch.arange(height, device=images.device)[:, None] + 0.5
    a, b, c, d, e, f = (m[:, None, None] for m in matrices.unbind(1))
    column = torch.floor(a * x + b * y + c).to(torch.int64)
    row = torch.floor(d * x + e * y + f).to(torch.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten(1)[:, None]
    taken = images.flatten(2).gather(2, index.expand(n, channels, height * width)).view_as(images)
    return torch.where(inside[:, None], taken, torch.full_like(taken, fill))


# --- blends ---------------------------------------------------------------------------------------------


def _apply_blends(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    color, sharpness = ((operation == number(name))[:, None, None, None] for name in BLENDS)
    degenerate = torch.where(color, luma(images), smooth(images)).to(torch.float32)
    blended = degenerate + strength[:, None, None, None] * (images.to(torch.float32) - degenerate)
    return torch.where(color | sharpness, blended.to(torch.uint8), images)


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
