"""The space that training-free classifiers work in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import Labels
from fewlabels.models.on_features import SHORTEST

Features: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float64]


def unit(x: Features, shortest: float = 0.0) -> Features:
    """Return rows [N, D] scaled to length 1; rows of zeros stay so, and those shorter than `shortest` stay short."""
    length = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))[:, None].astype(np.float32)
    return np.divide(x, np.maximum(length, shortest), out=np.zeros_like(x), where=length > 0)


def unit_centered(features: Features, train: Labels, widths: Sequence[int] = ()) -> Features:
    """Return rows scaled to length 1, less the mean of the training rows, scaled again (SimpleShot, Wang et al. 2019).

    Args:
        features: [N, D] of all rows.
        train: the rows whose mean is subtracted; test rows are not among them.
        widths: how many of the features are of which stage of a network, each of which is scaled and centered by itself
            and has the same length in the end; all of one by default.
    """
    means = _split(center_of(features, train, widths), widths)
    each = [unit(unit(part) - mean, SHORTEST) for part, mean in zip(_split(features, widths), means, strict=True)]
    return np.hstack(each) * np.float32(len(each) ** -0.5) if len(each) > 1 else each[0]


def center_of(features: Features, train: Labels, widths: Sequence[int] = ()) -> Features:
    """Return the mean [D] that `unit_centered` subtracts."""
    each = [unit(part)[train].mean(0, dtype=np.float64) for part in _split(features, widths)]
    return np.concatenate(each).astype(np.float32)


def _split(features: Features, widths: Sequence[int]) -> list[Features]:
    return np.split(features, np.cumsum(widths)[:-1], axis=-1) if widths else [features]


def lifted(features: Features, train: Labels) -> Features:
    """Return rows of length 1 [N, D + 1] whose cosines tell how far apart rows are, and not only their directions.

    A constant, as long as a typical training row, is appended to each row before it is scaled.

    Args:
        features: [N, D] of all rows, centered.
        train: rows that a typical length is taken from.
    """
    length = float(np.sqrt((features[train].astype(np.float64) ** 2).sum(1).mean()))
    return unit(np.hstack([features, np.full((len(features), 1), length, np.float32)]))
