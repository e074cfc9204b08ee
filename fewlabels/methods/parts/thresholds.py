"""How much an unlabeled row counts: by a fixed threshold, a self-adaptive one, or softly."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fewlabels.averaging.horizon import momentum
from fewlabels.averaging.memory import Memory
from fewlabels.methods.parts.across import gather_rows, mean_rows
from fewlabels.methods.parts.memory import last_of
from fewlabels.methods.parts.targets import one_hot


def at_least(p: Tensor, threshold: float | Tensor) -> Tensor:
    """Weigh a row 1 where its largest probability reaches the threshold (a number, or one a row [M]), else 0: [M]."""
    return (p.amax(1) >= threshold).to(p.dtype)


class FixedThreshold(Memory):
    """Rows count whose largest probability is at least `threshold` (Sohn et al. 2020)."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, p: Tensor, step: Tensor) -> Tensor:
        """Map targets' probabilities [M, K] to row weights [M]."""
        del step
        return at_least(p, self.threshold)


class SelfAdaptiveThreshold(Memory):
    """A threshold for each class from running means of the predictions (Wang et al. 2023).

    tau <- m tau + (1 - m) mean c, p~ <- m p~ + (1 - m) mean p, h~ <- m h~ + (1 - m) histogram of argmax p, all from
    1/K; rows count with c >= tau * p~_y / max_k p~_k, where c = max p, y = argmax p.

    Args:
        classes: K.
        memory: steps that the means remember.
        clip: lowest and highest tau, or None.
    """

    def __init__(self, classes: int, memory: float, clip: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.memory, self.clip = memory, clip
        self.tau = self.remember("tau", torch.tensor(1 / classes), "mean")
        self.p_mean = self.remember("p_mean", torch.full((classes,), 1 / classes), "mean")
        self.histogram = self.remember("histogram", torch.full((classes,), 1 / classes), "mean")

    def forward(self, p: Tensor, step: Tensor) -> Tensor:
        """Take in targets' probabilities [M, K] and give row weights [M]."""
        if len(p):
            share = (1 - momentum(self.memory, step)).to(p.dtype)
            chosen = one_hot(p.argmax(1), p.shape[1], like=p)
            self.tau.lerp_(mean_rows(p.amax(1)), share)
            self.p_mean.lerp_(mean_rows(p), share)
            self.histogram.lerp_(mean_rows(chosen), share)
        if self.clip is not None:
            self.tau.clamp_(*self.clip)  # what is remembered is clipped, as the widely used code does
        return at_least(p, (self.tau * self.p_mean / self.p_mean.amax())[p.argmax(1)])


class SoftWeight(Memory):
    """Rows count by a truncated Gaussian of their confidence (Chen et al. 2023, without their alignment).

    Mean mu and variance v of c = max p are averaged over time, from 1/K and 1; a row counts
    exp(-min(c - mu, 0)^2 * n^2 / (2 v)).

    Args:
        classes: K.
        memory: steps that mean and variance remember.
        sigmas: n, how narrow the Gaussian is.
    """

    def __init__(self, classes: int, memory: float, sigmas: float = 2.0) -> None:
        super().__init__()
        self.memory, self.sigmas = memory, sigmas
        self.mean = self.remember("mean", torch.tensor(1 / classes), "mean")
        self.variance = self.remember("variance", torch.tensor(1.0), "mean")

    def forward(self, p: Tensor, step: Tensor) -> Tensor:
        """Take in targets' probabilities [M, K] and give row weights [M]."""
        confidence = p.amax(1)
        if len(confidence) > 1:
            share = (1 - momentum(self.memory, step)).to(p.dtype)
            every = gather_rows(confidence)
            self.mean.lerp_(every.mean(), share)
            self.variance.lerp_(every.var(), share)
        below = (confidence - self.mean).clamp(max=0)
        return torch.exp(-(below**2) * self.sigmas**2 / (2 * self.variance.clamp(min=1e-12)))


Mapping: TypeAlias = Literal["convex", "linear", "concave"]


class CurriculumThreshold(Memory):
    """A threshold for each class by how many rows were surely predicted as it so far (Zhang et al. 2021).

    One memory a row: its last class that was predicted with c >= threshold, or none. s_k rows have class k; b_k =
    s_k / max(max_k s_k, rows with none); tau_k = threshold * mapping(b_k); rows count with c >= tau_y.

    Args:
        classes: K.
        rows: N, of the table.
        unlabeled: how many of them can be remembered.
        threshold: of a class that is predicted most.
        mapping: convex b / (2 - b), linear b, or concave ln(b + 1) / ln 2.
        warm_up: whether rows with none count; without them the class with most rows has the whole threshold at once.
    """

    def __init__(
        self,
        classes: int,
        rows: int,
        unlabeled: int,
        threshold: float,
        mapping: Mapping = "convex",
        warm_up: bool = True,
    ) -> None:
        super().__init__()
        self.classes, self.unlabeled = classes, unlabeled
        self.threshold, self.mapping, self.warm_up = threshold, mapping, warm_up
        self.selected = self.remember("selected", torch.full((rows,), -1), "rows")

    def of_classes(self) -> Tensor:
        """Give the threshold of each class [K]."""
        counts = torch.zeros(self.classes + 1, dtype=torch.int64, device=self.selected.device)
        sure = counts.index_add_(0, self.selected + 1, torch.ones_like(self.selected))[1:].to(torch.get_default_dtype())
        most = sure.amax()
        if self.warm_up:
            most = torch.maximum(most, self.unlabeled - sure.sum())
        b = sure / most.clamp(min=1)
        if self.mapping == "convex":
            return self.threshold * b / (2 - b)
        return self.threshold * (b if self.mapping == "linear" else (b + 1).log() / math.log(2))

    def forward(self, p: Tensor, rows: Tensor) -> Tensor:
        """Give row weights [M] of targets' probabilities [M, K], then take these in for their rows [M]."""
        row_weight = at_least(p, self.of_classes()[p.argmax(1)])
        every, everywhere = gather_rows(p), gather_rows(rows)
        sure = at_least(every, self.threshold) > 0
        last = last_of(everywhere, sure)
        self.selected[everywhere] = torch.where(sure[last], every.argmax(1)[last], self.selected[everywhere])
        return row_weight
