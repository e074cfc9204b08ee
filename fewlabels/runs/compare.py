"""Which of several methods is better, over seeds: means, paired differences, and what is more than noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from scipy.stats import sem, ttest_1samp

LEVEL = 0.95
ROUNDING = 1e-12
FEWEST = 3  # seeds from which on a difference is judged


@dataclass(frozen=True)
class Mean:
    """A mean with Student's interval of it.

    Attributes:
        value: None without values.
        low, high: the ends of the interval; None without a spread to tell it by, as that of one value or of equal ones.
        n: how many values.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int


def mean_of(values: Iterable[float], level: float = LEVEL) -> Mean:
    """Give the mean of values with Student's interval."""
    found = list(values)
    if not _has_spread(found):
        return Mean(fmean(found) if found else None, None, None, len(found))
    low, high = ttest_1samp(found, 0).confidence_interval(level)
    return Mean(fmean(found), float(low), float(high), len(found))


def p_value(values: Sequence[float]) -> float:
    """Give how likely a mean at least as far from 0 is, if the true one is 0 (Student's test).

    It is 1 without a spread: equal differences come from few test rows, of which each counts a lot, and settle nothing.
    """
    return float(ttest_1samp(values, 0).pvalue) if _has_spread(values) else 1.0


def _has_spread(values: Sequence[float]) -> bool:
    """Tell whether values differ by more than rounding."""
    return len(values) > 1 and float(sem(values)) > ROUNDING


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that even one false alarm among them is as rare as said (Holm 1979)."""
    corrected, so_far = [0.0] * len(p_values), 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = so_far
    return corrected


@dataclass(eq=False)
class Scores:
    """What one method reached, by seed.

    Attributes:
        name: as it is shown.
        values: of the metric that is compared.
        metrics: all that were measured, by name.
        step_seconds: of work; empty where nothing was trained.
        failures: why a seed has no accuracy.
    """

    name: str
    values: dict[int, float] = field(default_factory=dict[int, float])
    metrics: dict[str, dict[int, float]] = field(default_factory=dict[str, dict[int, float]])
    step_seconds: dict[int, float] = field(default_factory=dict[int, float])
    failures: dict[int, str] = field(default_factory=dict[int, str])

    def add(self, seed: int, metric: str, found: Mapping[str, float]) -> None:
        """Take in the metrics of a seed, and that which is compared."""
        self.values[seed] = found[metric]
        for name, value in found.items():
            self.metrics.setdefault(name, {})[seed] = value

    @property
    def mean(self) -> Mean:
        """The mean of the values."""
        return mean_of(self.values.values())


def pace(scores: Scores, baseline: Scores) -> float | None:
    """Give the median over seeds of the time of a step, as a multiple of the baseline's; None where none is known."""
    shared = scores.step_seconds.keys() & baseline.step_seconds.keys()
    return median(scores.step_seconds[seed] / baseline.step_seconds[seed] for seed in shared) if shared else None


@dataclass(frozen=True)
class Difference:
    """One method minus another, on the seeds that both have.

    Attributes:
        first, second: their names.
        mean: of the paired differences, as fractions.
        p: as likely is a mean so far from 0 by chance.
        corrected: the same, corrected for the number of comparisons (`holm`); 1 below `FEWEST` seeds.
    """

    first: str
    second: str
    mean: Mean
    p: float
    corrected: float

    @property
    def alone(self) -> bool:
        """Whether it is larger than the noise, were it the only comparison."""
        return self.mean.n >= FEWEST and self.p < 1 - LEVEL

    @property
    def clear(self) -> bool:
        """Whether it is larger than the noise, among all comparisons."""
        return self.mean.n >= FEWEST and self.corrected < 1 - LEVEL


def differences(baseline: Scores, training_free: Sequence[Scores], methods: Sequence[Scores]) -> list[Difference]:
    """Compare each method with the baseline, the best of the other methods, and the best training-free baseline.

    Of two methods the better comes first.

    Args:
        baseline: what the others are compared with.
        training_free: what costs no training.
        methods: what is asked about.
    """
    pairs: list[tuple[Scores, Scores]] = []
    for method in methods:
        pairs += [(method, baseline)] if _shared(method, baseline) else []
        best = _best([other for other in methods if other is not method], method)
        if best is not None:
            worse = fmean(_values(best, method)) > fmean(_values(method, best))
            pairs += [(best, method) if worse else (method, best)]
        if (cheap := _best(training_free, method)) is not None:
            pairs += [(method, cheap)]
    pairs = [pair for i, pair in enumerate(pairs) if pair not in pairs[:i] and pair[::-1] not in pairs[:i]]
    values = [[a - b for a, b in zip(_values(x, y), _values(y, x), strict=True)] for x, y in pairs]
    judged = [i for i, each in enumerate(values) if len(each) >= FEWEST]
    corrected = dict(zip(judged, holm([p_value(values[i]) for i in judged]), strict=True))
    return [
        Difference(first.name, second.name, mean_of(values[i]), p_value(values[i]), corrected.get(i, 1.0))
        for i, (first, second) in enumerate(pairs)
    ]


def _shared(first: Scores, second: Scores) -> list[int]:
    return sorted(first.values.keys() & second.values.keys())


def _values(scores: Scores, beside: Scores) -> list[float]:
    """Give the accuracies on the seeds that another has too."""
    return [scores.values[seed] for seed in _shared(scores, beside)]


def _best(others: Sequence[Scores], than: Scores) -> Scores | None:
    """Give the one that is furthest above a method, each on the seeds that both have."""
    shared = [other for other in others if _shared(than, other)]
    return max(shared, key=lambda other: fmean(_values(other, than)) - fmean(_values(than, other)), default=None)
