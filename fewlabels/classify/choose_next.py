"""Which images to label next: those that speak for many images that the network is unsure of."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewlabels.classify.baselines import Features
from fewlabels.data.table import Labels, spread

CANDIDATES = 10_000  # rows that may be chosen, and labeled ones that they are compared with
SPOKEN_FOR = 4_096  # rows for which they speak
COPY = 1e-2  # distance of features of length 1, below which one row is a copy of the other
_PART = 1 << 22  # entries of a kernel that are held at once


def choose_next(
    features: Features, probabilities: NDArray[np.float32], labeled: Labels, unlabeled: Labels, n: int
) -> Labels:
    """Choose rows whose labels would help most, the best first: Uncertainty Herding (Bae et al. 2025).

    Greedily maximizes the mean over the unlabeled rows of u max_l k(., l), where l are the labeled and the chosen rows,
    u is a row's uncertainty, 1 minus the difference of its two largest probabilities, and k a Gaussian of the
    distance between features of length 1. Its width is the median distance of a labeled row to the nearest other
    one (1 with fewer than two; the paper's is the smallest distance, which one near copy makes as narrow as it
    likes): wide with few labels, so that what is typical is chosen; narrow with many, so that what is uncertain is.

    The time is linear in the rows: of more than `CANDIDATES` and `SPOKEN_FOR` an even part stands for all.

    Args:
        features: [N, D].
        probabilities: [N, K], calibrated: uncertainty of an overconfident network says nothing.
        labeled: rows that have a label.
        unlabeled: rows that may be chosen.
        n: how many to choose; fewer are given where fewer are left.

    Returns:
        Rows, int64 [at most n].
    """
    labeled = spread(labeled, CANDIDATES)
    candidates, others = spread(unlabeled, max(CANDIDATES, n)), spread(unlabeled, SPOKEN_FOR)
    x, known = _unit(features[others]), _unit(features[labeled])
    width, weight = _width(known), uncertainty(probabilities[others])
    covered = np.zeros(len(others), np.float32)
    for part in _parts(known, len(others)):
        covered = np.maximum(covered, _kernel(part, x, width).max(0, initial=0))

    near = np.concatenate([_kernel(part, x, width) for part in _parts(_unit(features[candidates]), len(others))])

    def gain(places: Labels) -> NDArray[np.float32]:
        return np.maximum(near[places] - covered, 0) @ weight

    first = np.concatenate([gain(part) for part in _parts(np.arange(len(candidates)), len(others))])
    # What a row adds only shrinks as others are chosen, so one whose gain, computed anew, still leads is the best.
    waiting = [(-float(g), place) for place, g in enumerate(first)]
    heapq.heapify(waiting)
    chosen: list[int] = []
    while waiting and len(chosen) < n:
        _, place = heapq.heappop(waiting)
        now = -float(gain(np.array([place]))[0])
        if waiting and (now, place) > waiting[0]:
            heapq.heappush(waiting, (now, place))
            continue
        chosen.append(int(candidates[place]))
        covered = np.maximum(covered, near[place])
    return np.array(chosen, np.int64)


def _parts(x: NDArray[Any], width: int) -> list[NDArray[Any]]:
    """Part rows so that what is computed of each with `width` others stays small."""
    return np.array_split(x, len(x) * width // _PART + 1)


def uncertainty(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give 1 minus the difference of the two largest probabilities [N] of each row [N, K]."""
    top = np.partition(probabilities, -2, axis=1)
    return 1 - (top[:, -1] - top[:, -2])


def _unit(x: Features) -> Features:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.float32(1e-12))


def _kernel(x: Features, y: Features, width: float) -> NDArray[np.float32]:
    """Give exp(-|x - y|^2 / width^2) [n, m] of features of length 1."""
    return np.exp((2 * (x @ y.T) - 2) / np.float32(width**2))


def _width(known: Features) -> float:
    """Give the median over labeled rows of the distance to the nearest other one that is no copy."""
    if len(known) < 2:
        return 1.0
    nearest: list[NDArray[np.float32]] = []
    for rows in _parts(np.arange(len(known)), len(known)):
        squares = 2 - 2 * np.minimum(known[rows] @ known.T, 1)
        squares[np.arange(len(rows)), rows] = np.inf
        nearest.append(squares.min(1))
    distances = np.sqrt(np.concatenate(nearest))
    apart = distances[distances > COPY]
    return float(np.median(apart)) if len(apart) else 1.0
