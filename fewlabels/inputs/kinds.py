"""All kinds of input there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewlabels.inputs.base import Form, Inputs
from fewlabels.inputs.images.kind import ImageInputs
from fewlabels.inputs.vectors.kind import VectorInputs

IMAGES, VECTORS = ImageInputs(), VectorInputs()
ALL: tuple[Inputs[Any], ...] = (VECTORS, IMAGES)
"""the first that holds the rows of a table is theirs: what is nothing else is an image"""


def inputs_of(contents: Sequence[Any]) -> Inputs[Any]:
    """Return the kind of these rows."""
    return next(kind for kind in ALL if kind.holds(contents))


def inputs_for(form: Form) -> Inputs[Any]:
    """Return the kind of rows of this form."""
    return next(kind for kind in ALL if kind.many == form.what)


def form_of(values: Mapping[str, Any]) -> Form:
    """Read a form as JSON and YAML hold it.

    Raises:
        TypeError, KeyError: the values are of none.
    """
    kind = VECTORS if "dimensions" in values else IMAGES
    return kind.read_form(values)


def other_options(kind: Inputs[Any]) -> tuple[str, ...]:
    """Return the names of options that are for other kinds alone."""
    return tuple(name for other in ALL if other is not kind for name in other.own_options)
