"""Small pictures of rows, embedded in the page, of as many bytes as there is room for."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fewlabels.data.table import Labels
from fewlabels.inputs.base import Provider

SIDES = (160, 112, 80, 56, 40, 24)  # pixels of the longer side, tried in turn until all pictures have room
TINY = 32  # pixels up to which a picture keeps each of its own, whatever it shows
_QUALITY = 82


class Picture(NamedTuple):
    """A picture as the page holds it: its address with the bytes within, and its size in pixels."""

    source: str
    width: int
    height: int

    @property
    def tiny(self) -> bool:
        """Whether it has all the pixels that there are, which are to be seen one by one."""
        return max(self.width, self.height) <= TINY


def embed(images: Provider | None, rows: Labels, room: int) -> Mapping[int, Picture]:
    """Make a picture of each row, as large as fits.

    Args:
        images: of all rows; None where they are no images.
        rows: which to show; one that is shown twice takes room twice.
        room: bytes that all of them may take together.

    Returns:
        A picture of each row; none at all where even the smallest have no room.
    """
    if images is None or not len(rows):
        return {}
    rows, times = np.unique(rows, return_counts=True)
    taken = [_picture(pixels) for pixels in images.take(rows).cpu().numpy()]
    longest = max(max(picture.size) for picture in taken)
    for side in (side for i, side in enumerate(SIDES) if i == 0 or side < longest):
        made = [_embedded(picture, side) for picture in taken]
        if np.dot([len(picture.source) for picture in made], times) <= room:
            return dict(zip(map(int, rows), made, strict=True))
    return {}


def _picture(pixels: NDArray[np.uint8]) -> Image.Image:
    # Of more channels than a screen has, the first three are shown as colors.
    return Image.fromarray(pixels[0] if len(pixels) < 3 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def _embedded(picture: Image.Image, side: int) -> Picture:
    picture = picture.copy()
    picture.thumbnail((side, side))
    kind, options = ("PNG", {"optimize": True}) if max(picture.size) <= TINY else ("JPEG", {"quality": _QUALITY})
    return Picture(as_source(picture, kind, **options), *picture.size)


def as_source(picture: Image.Image, kind: str, **options: int) -> str:
    """Write a picture as an address that holds its bytes."""
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"
