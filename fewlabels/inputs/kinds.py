"""What differs between a classifier of images and one of vectors: how what they are given becomes input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from fewlabels.data.image import ImageLike
from fewlabels.data.pixels import image_list
from fewlabels.data.vectors import VectorForm, VectorRows, are_vectors, as_matrix, not_finite
from fewlabels.errors import UserError
from fewlabels.inputs.base import Provider
from fewlabels.inputs.images.decode import Form
from fewlabels.inputs.images.store import ResidentImages, decoded
from fewlabels.inputs.images.views import Normalize
from fewlabels.inputs.vectors.store import Vectors
from fewlabels.inputs.vectors.views import Standardize

AnyForm: TypeAlias = Form | VectorForm
Rows: TypeAlias = Sequence[ImageLike]
"""images, or `VectorRows`"""


def form_of(fields: Mapping[str, Any]) -> AnyForm:
    """Read a form as JSON and YAML hold it.

    Raises:
        TypeError, KeyError: the fields are of none.
    """
    if "dimensions" in fields:
        return VectorForm(int(fields["dimensions"]), tuple(fields["columns"]))
    read: dict[str, Any] = {**fields, "size": tuple(fields["size"])}
    return Form(**read)


def to_input(form: AnyForm, mean: tuple[float, ...], std: tuple[float, ...]) -> nn.Module:
    """Return what makes float32 of mean 0 and standard deviation 1 of rows as a provider gives them."""
    return Standardize(mean, std) if isinstance(form, VectorForm) else Normalize(mean, std)


def listed_rows(given: Any, form: AnyForm) -> Rows:
    """Give what a user wants classified as a sequence of rows.

    Raises:
        UserError: it is not what the form says.
    """
    if not isinstance(form, VectorForm):
        return image_list(given)
    if not isinstance(given, VectorRows):
        if not are_vectors(given):
            shape = f"shape {list(given.shape)}" if hasattr(given, "shape") else f"type {type(given).__name__}"
            raise UserError(f"data of {shape}; this classifier takes {form.words}, as an array [n, {form.dimensions}]")
        given = VectorRows(as_matrix(given, "the data"))
    if given.dimensions != form.dimensions:
        raise UserError(f"{given.form.words}; this classifier takes {form.words}")
    return given


def read_rows(rows: Rows, form: AnyForm, chunk: int) -> Iterator[tuple[int, Provider, dict[int, str]]]:
    """Read rows part by part, of `chunk` at a time; of images the next are decoded meanwhile.

    Yields:
        The place of the part's first row; those that can be read, in order; and for each of the others its place in
        the part and the reason.
    """
    if not isinstance(rows, VectorRows):
        assert isinstance(form, Form)
        for first, pixels, broken in decoded(rows, form, chunk):
            yield first, ResidentImages(pixels), broken
        return
    for first in range(0, len(rows), chunk):
        part = rows[first : first + chunk]
        broken = not_finite(part)
        yield first, Vectors(torch.from_numpy(np.delete(part.matrix, [*broken], axis=0))), broken
