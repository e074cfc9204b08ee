"""The views of a vector task: float vectors in, standardized ones out, with noise and with parts of other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fewlabels.constant import constant
from fewlabels.keys import Key, integers, normal
from fewlabels.views.batch import Kind


def standardize(vectors: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Give float vectors [n, D] the mean 0 and the deviation 1 in each dimension; a deviation of 0 leaves 0."""
    shift, scale = _standard(mean, std, vectors.device)
    return (vectors - shift) * scale


@constant
def _standard(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    pairs = [mean, tuple(1 / s if s else 0.0 for s in std)]
    return torch.tensor(pairs, dtype=torch.float32, device=device)


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


@dataclass(frozen=True, eq=False)
class VectorViews:
    """Makes the views that a method asks for. The label of a view is that of its row, whatever is mixed in.

    Attributes:
        pool: standardized training rows [P, D] that others are drawn from: all processes have the same.
        mean, std: of each dimension over the training rows.
        weak, strong: how far these views are from their rows; a medium one stands half-way.
    """

    pool: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weak: Strength
    strong: Strength

    def make(self, taken: Tensor, kinds: Sequence[Kind], key: Key) -> tuple[Tensor, ...]:
        """Make one view a kind, each drawn on its own: float [n, D] -> float32 [n, D] each, standardized.

        `key` has one element a row; see `Viewer`.
        """
        if not kinds:
            return ()
        strengths = [self._strength(kind) for kind in kinds]
        state = key.fold("view").each(range(len(kinds)), taken.device).state
        assert isinstance(state, Tensor)
        x = standardize(taken, self.mean, self.std).repeat(len(kinds), 1)
        noise, replaced, mixed = _of_rows(tuple(strengths), taken.device).repeat_interleave(len(taken), 1)[:, :, None]
        rows = Key(state.flatten())
        if any(strength.mixed for strength in strengths):
            which, share = rows.fold("mixed").uniforms(2)
            x = x.lerp(self.pool[integers(which, len(self.pool))], share[:, None] * mixed)
        entries = rows.fold("entries").each(range(x.shape[1]), taken.device).three()  # [D, rows] each
        of_noise, which, chance = (draws.T for draws in entries)
        if any(strength.replaced for strength in strengths):
            x = torch.where(chance < replaced, self.pool.gather(0, integers(which, len(self.pool))), x)
        return (x + noise * normal(of_noise)).contiguous().tensor_split(len(kinds))

    def _strength(self, kind: Kind) -> Strength:
        if kind == "medium":
            return Strength(*((weak + strong) / 2 for weak, strong in zip(self.weak, self.strong, strict=True)))
        return self.weak if kind == "weak" else self.strong


@constant
def _of_rows(strengths: tuple[Strength, ...], device: torch.device) -> Tensor:
    """Give noise, replaced and mixed of each view: [3, views]."""
    return torch.tensor(strengths, dtype=torch.float32, device=device).T
