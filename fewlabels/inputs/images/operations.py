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
from torch.nn import functional as F

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


_Make: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""from images and strengths to tables or images"""


def number(name: str) -> int:
    """Give the number by which a batch of operations names this one."""
    return OPERATIONS.index(name)


def strength_ranges(whose: Strengths) -> Tensor:
    """Return each operation's lowest strength, its highest, and 1 where only these two are drawn: [14, 3]."""
    only_ends = {"fixmatch": 0, "torchvision": 1}[whose]
    return torch.tensor([(*RANGES[whose].get(name, (0, 0)), only_ends) for name in OPERATIONS], dtype=torch.float32)


def strengths(operation: Tensor, uniform: Tensor, ranges: Tensor) -> Tensor:
    """Map draws in [0, 1) [n] to the strength of each image's operation [n], in its `strength_ranges`."""
    low, high, only_ends = ranges[operation].unbind(1)
    return low + (high - low) * torch.where(only_ends > 0, (2 * uniform).floor(), uniform)


def apply(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Apply to each image [n, C, H, W] uint8 its operation [n] int64 with its strength [n] float32."""
    if shapes_may_depend_on_values(images.device):
        return _each_for_its_images(images, operation, strength)
    return _each_for_all_images(images, operation, strength)


def _each_for_its_images(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Sort the images by operation, so that each operation has a slice of them to itself."""
    operation, order = operation.sort()
    given = images.index_select(0, order), operation, strength.index_select(0, order)
    ends = [0, *torch.bincount(operation, minlength=len(OPERATIONS)).cumsum(0).tolist()]

    def own(*names: str) -> tuple[Tensor, Tensor, Tensor]:
        """Give what these operations are given; they stand beside each other in the order."""
        rows = slice(ends[number(names[0])], ends[number(names[-1]) + 1])
        images, operation, strength = given
        return images[rows], operation[rows], strength[rows]

    def made(make: _Make, name: str) -> Tensor:
        images, _, strength = own(name)
        return make(images, strength)

    with_tables, _, _ = own(*_TABLES)
    tables = [made(make, name).expand(-1, images.shape[1], 256) for name, make in _TABLES.items()]
    with_warps, which, how_far = own(*WARPS)
    done = [
        own("identity")[0],
        look_up(with_tables, torch.cat(tables)),
        warp(with_warps, _matrices(which, how_far, *images.shape[2:])),
        *(made(blend, name) for name, blend in _BLENDS.items()),
    ]
    return torch.cat(done).index_select(0, order.argsort())


def _each_for_all_images(images: Tensor, operation: Tensor, strength: Tensor) -> Tensor:
    """Compute every form for every image: no shape depends on the draw, and nothing is read to the host."""
    tables = _levels(images.device).to(torch.uint8).expand(*images.shape[:2], 256)
    for name, make in _TABLES.items():
        tables = torch.where((operation == number(name))[:, None, None], make(images, strength), tables)
    wanted = operation[:, None, None, None]
    warped = warp(images, _matrices(operation, strength, *images.shape[2:]))
    done = torch.where(wanted < number(WARPS[0]), look_up(images, tables), warped)
    for name, blend in _BLENDS.items():
        done = torch.where(wanted == number(name), blend(images, strength), done)
    return done


def shapes_may_depend_on_values(device: torch.device) -> bool:
    """Tell whether it is so: a GPU would have to wait for them, and a compiled step could not be used again."""
    return device.type == "cpu" and not torch.compiler.is_compiling()


# --- tables: of images [n, C, H, W] and strengths [n], uint8 [n, 1 or C, 256] -----------------------------


def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Give each pixel its entry in the table [n, C, 256] of its image and channel."""
    return tables.gather(2, images.flatten(2).to(torch.int64)).view_as(images)


def _levels(device: torch.device) -> Tensor:
    return torch.arange(256, dtype=torch.int32, device=device)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(_levels(images.device), 0, strength[:, None, None])


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    pixels = images.shape[2] * images.shape[3]
    total = luma(images).sum((1, 2, 3), dtype=torch.int64)
    mean = (2 * total + pixels) // (2 * pixels)  # rounded half up
    return _blended(_levels(images.device), mean[:, None, None], strength[:, None, None])


def _posterize(images: Tensor, strength: Tensor) -> Tensor:
    kept_bits = -(1 << (8 - strength.to(torch.int32)))
    return (_levels(images.device) & kept_bits[:, None, None]).to(torch.uint8)


def _solarize(images: Tensor, strength: Tensor) -> Tensor:
    levels = _levels(images.device)
    return torch.where(levels < strength[:, None, None], levels, 255 - levels).to(torch.uint8)


def _autocontrast(images: Tensor, strength: Tensor) -> Tensor:
    """Stretch the used levels to 0..255 (ImageOps.autocontrast without cutoff)."""
    del strength
    # MPS has no float64; in float32 1 of 130 levels is one off.
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    pixels, levels = images.flatten(2), _levels(images.device)
    low, high = pixels.amin(2, keepdim=True).to(exact), pixels.amax(2, keepdim=True).to(exact)
    # Not `255 / tensor`: torch makes that a reciprocal and a product, which rounds twice.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    # Pillow multiplies first and adds the offset after; the order matters to the last bit.
    stretched = (levels * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, levels.to(torch.uint8))


def _equalize(images: Tensor, strength: Tensor) -> Tensor:
    """Spread the levels evenly over 0..255 (ImageOps.equalize)."""
    del strength
    counts, levels = histograms(images), _levels(images.device)
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
    """Give the gray image [n, 1, H, W], whole numbers as float32: Pillow's sum of three channels, else the mean."""
    exact = images.to(torch.float32)
    if images.shape[1] == 1:
        return exact
    if images.shape[1] != 3:
        return exact.mean(1, keepdim=True).round()
    # Pillow's integer weights; each sum is below 2**24, so float32 holds it exactly.
    red, green, blue = exact.split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000).mul_(1 / 65536).floor_()


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
    # Clamped into a border of zeros: that is cheaper than to tell apart what lies outside.
    column = (a * x + (b * y + c)).bitwise_right_shift_(16).clamp_(-1, width)
    row = (d * x + (e * y + f)).bitwise_right_shift_(16).clamp_(-1, height)
    return take(F.pad(images, (1, 1, 1, 1)), row.mul_(width + 2).add_(column).add_(width + 3))


def take(images: Tensor, index: Tensor) -> Tensor:
    """Read from images [n, C, H, W] the pixels at `index` [n, 1, h, w] (row * W + column) -> [n, C, h, w]."""
    flat = index.flatten(2).to(torch.int64).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, flat).view(*images.shape[:2], *index.shape[2:])


# --- blends ---------------------------------------------------------------------------------------------


def _blended(image: Tensor, degenerate: Tensor | int, share: Tensor) -> Tensor:
    """Blend whole numbers as Pillow does: float32, cut to a byte and towards zero."""
    return (degenerate + share * (image - degenerate)).clamp_(0, 255).to(torch.uint8)


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(images.to(torch.float32), luma(images), strength[:, None, None, None])


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(images.to(torch.float32), smooth(images), strength[:, None, None, None])


_BLENDS = {"color": _color, "sharpness": _sharpness}


def smooth(images: Tensor) -> Tensor:
    """Filter with Pillow's SMOOTH kernel, (1 1 1; 1 5 1; 1 1 1) / 13; the border pixels stay. As float32."""
    exact = images.to(torch.float32)
    if min(images.shape[2:]) < 3:
        return exact
    # Sums of slices, not a convolution: a convolution may be computed in fewer bits than asked for.
    rows = exact[:, :, :-2] + exact[:, :, 1:-1] + exact[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * exact[:, :, 1:-1, 1:-1]
    out = exact.clone()
    out[:, :, 1:-1, 1:-1] = (sums / 13 + 0.5).floor_()
    return out
