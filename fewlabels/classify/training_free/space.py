"""The space that training-free classifiers work in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import Labels

Features: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float64]


def unit(x: Features) -> Features:
    """Return rows [N, D] scaled to length 1; a row of zeros stays one."""
    length = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))[:, None].astype(np.float32)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def unit_centered(features: Features, train: Labels, parts: Sequence[int] = ()) -> Features:
    """Return rows scaled to length 1, less the mean of the training rows, scaled again (SimpleShot, Wang et al. 2019).

    Args:
        features: [N, D] of all rows.
        train: the rows whose mean is subtracted; test rows are not among them.
        parts: how many features are of which part, each of which is scaled and centered by itself; one part by default.
    """
    if len(parts) > 1:
        each = [unit_centered(part, train) for part in _split(features, parts)]
        return np.hstack(each) * np.float32(len(parts) ** -0.5)
    scaled = unit(features)
    scaled -= scaled[train].mean(0, dtype=np.float64).astype(np.float32)
    return unit(scaled)


def center_of(features: Features, train: Labels, parts: Sequence[int] = ()) -> Features:
    """Return the mean [D] that `unit_centered` subtracts."""
    each = [unit(part)[train].mean(0, dtype=np.float64) for part in _split(features, parts)]
    return np.concatenate(each).astype(np.float32)


def _split(features: Features, parts: Sequence[int]) -> list[Features]:
    return np.split(features, np.cumsum(parts)[:-1], axis=1) if parts else [features]


def lifted(features: Features, train: Labels) -> Features:
    """Return rows of length 1 [N, D + 1] whose cosines tell how far apart rows are, and not only their directions.

    A constant, as long as a typical training row, is appended to each row before it is scaled.

    Args:
        features: [N, D] of all rows, centered.
        train: rows that a typical length is taken from.
    """
    length = float(np.sqrt((features[train].astype(np.float64) ** 2).sum(1).mean()))
    return unit(np.hstack([features, np.full((len(features), 1), length, np.float32)]))
