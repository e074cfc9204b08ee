"""Rotations as a task of their own: by how many quarter turns was an image turned (Gidaris et al. 2018)?"""

from __future__ import annotations

import torch
from torch import Tensor

from fewlabels.errors import UserError
from fewlabels.keys import Key
from fewlabels.methods.parts.draws import of_rows


def turned(key: Key, images: Tensor) -> tuple[Tensor, Tensor]:
    """Turn each image [n, C, H, W] by 0 to 3 quarter turns counter-clockwise; give them and the turns, int64 [n].

    Raises:
        UserError: the images are not square, or vectors.
    """
    if images.ndim == 2:
        raise UserError("this method turns images by quarter turns, which vectors cannot be: give --method.rotation 0")
    if images.shape[2] != images.shape[3]:
        raise UserError(
            f"this method turns images by quarter turns, which needs square ones, and these are of "
            f"{images.shape[2]} by {images.shape[3]} pixels: give --images.size, or --method.rotation 0"
        )
    turns = of_rows(key, "turns", images).integers(4)
    seen = images
    for count in (1, 2, 3):
        seen = torch.where((turns == count)[:, None, None, None], images.rot90(count, (2, 3)), seen)
    return seen, turns
