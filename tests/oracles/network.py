"""The network and the batch as the oracles see them: plain NumPy, float64.

Shapes: B labeled rows, M unlabeled rows, K classes, D features, images [n, C, H, W].

An oracle gets the network twice. `still` is what it is: targets, thresholds, memories and all else through which no
gradient flows are computed with it. `moving` is the one that learns: whatever lets the gradient through is computed
with it. In a step of training the two are the same. A test that moves the parameters of `moving` a little, and those of
`still` not, measures the derivative that a method must have, stopped gradients and all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .basics import Floats, Ints


@dataclass(frozen=True)
class Model:
    """A network without batch statistics: features = tanh(V x), logits = W features + b.

    V [D, C * H * W] acts on a flattened image, W [K, D], b [K]. `own` are the method's own parameters by name.
    `teacher` is the network of averaged parameters, with its own `own`, where a method asks for one.
    """

    V: Floats
    W: Floats
    b: Floats
    own: Mapping[str, Floats] = field(default_factory=dict)
    teacher: Model | None = None

    def features(self, images: Floats) -> Floats:
        """Map images [n, C, H, W] to features [n, D]."""
        out = np.zeros((len(images), len(self.V)), dtype=np.float64)
        for i, image in enumerate(images):
            out[i] = np.tanh(self.V @ image.reshape(-1))
        return out

    def classify(self, features: Floats) -> Floats:
        """Map features [n, D] to logits [n, K]."""
        out = np.zeros((len(features), len(self.W)), dtype=np.float64)
        for i, f in enumerate(features):
            out[i] = self.W @ f + self.b
        return out

    def logits(self, images: Floats) -> Floats:
        """Map images [n, C, H, W] to logits [n, K]."""
        return self.classify(self.features(images))


@dataclass(frozen=True)
class Batch:
    """What a step sees.

    Attributes:
        labeled: the labeled views [B, C, H, W], in the order in which the method asks for them.
        labels: classes [B].
        unlabeled: the unlabeled views [M, C, H, W] each.
        t, steps: number of the step from 0, and length of the run.
        rows: [M], the unlabeled rows' numbers in a table of N rows.
        labeled_rows: [B], which of the L labeled rows these are, 0 to L - 1.
        draws: what the method draws at random, by name; an oracle says what it needs.
    """

    labeled: tuple[Floats, ...]
    labels: Ints
    unlabeled: tuple[Floats, ...]
    t: int
    steps: int
    rows: Ints | None = None
    labeled_rows: Ints | None = None
    draws: Mapping[str, Any] = field(default_factory=dict)
