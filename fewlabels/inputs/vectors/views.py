"""The views of a vector task: float vectors in, standardized ones out, with noise and with parts of other rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fewlabels.inputs.batch import KINDS, Kind
from fewlabels.keys import Key, integers, normal


class Standardize(nn.Module):
    """Give float vectors [n, D] mean 0 and standard deviation 1 in each dimension.

    Args:
        mean, std: of each dimension; where the standard deviation is 0 the result is 0.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        scale = tuple(1 / s if s else 0.0 for s in std)
        self.mean_and_scale = nn.Buffer(torch.tensor([mean, scale], dtype=torch.float32), persistent=False)  # [2, D]

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the standardized vectors, float32 [n, D]."""
        mean, scale = self.mean_and_scale
        return (vectors - mean) * scale


class Strength(NamedTuple):
    """How far a view is from its row.

    Attributes:
        noise: deviation of Gaussian noise on each entry, in deviations of its dimension.
        replaced: share of the entries that come from other rows, each from a row of its own, as in SCARF (Bahri et al.
            2022).
        mixed: the largest share of one other row that all entries are mixed with; what is drawn is uniform up to it.
    """

    noise: float
    replaced: float = 0.0
    mixed: float = 0.0


class VectorViews(nn.Module):
    """Makes the views that a method asks for. The label of a view is that of its row, whatever is mixed in.

    Args:
        pool: standardized training rows [P, D] that others are drawn from: all processes have the same.
        mean, std: of each dimension over the training rows.
        weak, strong: how far these views are from their rows; a medium one stands half-way.
    """

    def __init__(
        self, pool: Tensor, mean: tuple[float, ...], std: tuple[float, ...], weak: Strength, strong: Strength
    ) -> None:
        super().__init__()
        medium = Strength(*((low + high) / 2 for low, high in zip(weak, strong, strict=True)))
        self.strengths = dict(zip(KINDS, (weak, medium, strong), strict=True))
        self.standardize = Standardize(mean, std)
        self.pool = nn.Buffer(pool, persistent=False)
        self.strength_table = nn.Buffer(torch.tensor([*self.strengths.values()], dtype=torch.float32), persistent=False)

    def make(self, taken: Tensor, kinds: Sequence[Kind], key: Key) -> tuple[Tensor, ...]:
        """Make one view a kind, each drawn on its own: float [n, D] -> float32 [n, D] each, standardized.

        `key` has one element a row; see `Viewer`.
        """
        if not kinds:
            return ()
        strengths = [self.strengths[kind] for kind in kinds]
        rows = Key(key.fold("view").each(range(len(kinds)), taken.device).tensor.flatten())
        x = self.standardize(taken).repeat(len(kinds), 1)
        of_views = torch.stack([self.strength_table[KINDS.index(kind)] for kind in kinds], 1)
        noise, replaced, mixed = of_views.repeat_interleave(len(taken), 1)[:, :, None]
        if any(strength.mixed for strength in strengths):
            which, share = rows.fold("mixed").uniforms(2)
            x = x.lerp(self.pool[integers(which, len(self.pool))], share[:, None] * mixed)
        entries = rows.fold("entries").each(range(x.shape[1]), taken.device).three()  # [D, rows] each
        of_noise, which, chance = (draws.T for draws in entries)
        if any(strength.replaced for strength in strengths):
            x = torch.where(chance < replaced, self.pool.gather(0, integers(which, len(self.pool))), x)
        return (x + noise * normal(of_noise)).contiguous().tensor_split(len(kinds))
