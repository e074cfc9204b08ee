"""Methods side by side, in the terminal and as Markdown: the cells of the tables, and what they mean in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fewlabels.report.words import number, percent
from fewlabels.runs.compare import FEWEST, Difference, Mean, Scores, mean_of, pace

PAIRED = "All variants have the same seeds: differences are paired."
CHOSEN = "The best of the others was chosen by these same seeds, which flatters it a little."

_CLEAR = "Larger than the noise"
_ALONE = "Larger than the noise alone, but not among so many comparisons"


def heading(setting: Mapping[str, Any]) -> str:
    """Say in a line what was compared, and where."""
    return ", ".join(
        [
            *setting["facts"],
            _seeds(setting["seeds"]),
            f"{setting['device']} of {setting['machine']} with {setting['cores']} cores",
            f"threads a run: {' or '.join(map(str, setting['threads']))}",
        ]
    )


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    whole = list(seeds) == list(range(seeds[0], seeds[-1] + 1))
    return f"seeds {f'{seeds[0]} to {seeds[-1]}' if whole else ', '.join(map(str, seeds))}"


def measure(metric: str, split: str | None) -> str:
    """Name what is compared: test accuracy, or accuracy on hidden labels."""
    name = metric.replace("_", " ")
    return f"test {name}" if split == "test" else f"{name} on hidden labels"


def score_cells(measure: str, rows: Sequence[Scores], metric: str = "accuracy") -> list[list[str]]:
    """Make the table of variants: mean, Student's 95 % interval of it, other metrics, seeds, time of a step.

    The time is a multiple of the first variant's.
    """
    others = [name for name in rows[0].metrics if name != metric]
    out = [["method", measure, "95 % interval", *(name.replace("_", " ") for name in others), "n", "time a step"]]
    for row in rows:
        mean, times = row.mean, pace(row, rows[0])
        failed = f", {len(row.failures)} failed" if row.failures else ""
        value = percent(mean.value) if mean.n else "-"
        means = [mean_of(row.metrics.get(name, {}).values()).value for name in others]
        more = ["-" if value is None else percent(value) for value in means]
        out.append([row.name, value, _interval(mean, ".1f", " %"), *more, f"{mean.n}{failed}", number(times, ".1f")])
    return out


def difference_cells(differences: Sequence[Difference]) -> list[list[str]]:
    """Make the table of paired differences, the header first."""
    out = [["difference", "points", "95 % interval", "n", "p", "settled"]]
    for each in differences:
        judged = each.mean.n >= FEWEST
        p = _probability(each.corrected) if judged else "-"
        answer = ("yes" if each.clear else "no") if judged else "-"
        mean = _points(each.mean.value)
        out.append([_minus(each), mean, _interval(each.mean, "+.1f"), str(each.mean.n), p, answer])
    return out


def _interval(mean: Mean, form: str, unit: str = "") -> str:
    if mean.low is None or mean.high is None or mean.n < FEWEST:
        return "-"
    return f"{100 * mean.low:{form}} to {100 * mean.high:{form}}{unit}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f}"


def _probability(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _minus(difference: Difference) -> str:
    return f"{difference.first} minus {difference.second}"


def verdict(differences: Sequence[Difference]) -> list[str]:
    """Say in words which differences are larger than the noise."""
    judged = [each for each in differences if each.mean.n >= FEWEST]
    if not judged:
        return [f"With fewer than {FEWEST} seeds nothing can be said of differences: give more, as --seeds 5."]
    clear, alone = [e for e in judged if e.clear], [e for e in judged if e.alone and not e.clear]
    said = [f"{kind}: {_listed(found)}." for kind, found in ((_CLEAR, clear), (_ALONE, alone)) if found]
    if len(clear) + len(alone) < len(judged):
        said.append(
            "The other differences are within the noise." if said else "No difference is larger than the noise."
        )
    if len(judged) > 1:
        said.append(
            f"Of {len(judged)} comparisons some would differ by chance, so each p is corrected for their number (Holm "
            "1979) and held against .05."
        )
    return said


def _listed(differences: Sequence[Difference]) -> str:
    return "; ".join(f"{_minus(each)}, {_points(each.mean.value)} points" for each in differences)


def failures(rows: Sequence[Scores]) -> list[str]:
    """Say which methods have no number for which seeds, and why."""
    out: list[str] = []
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for seed, reason in row.failures.items():
            reasons.setdefault(reason, []).append(str(seed))
        out += [f"{row.name} failed with seed {', '.join(seeds)}: {reason}" for reason, seeds in reasons.items()]
    return out


def markdown(head: Sequence[str], tables: Sequence[Sequence[Sequence[str]]], lines: Sequence[str]) -> str:
    """Write lines, tables and again lines as Markdown."""
    parts = [*head, *map(_markdown_table, tables), *lines]
    return "\n\n".join(parts) + "\n"


def _markdown_table(cells: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(cells[0]) - 1)]
    rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (cells[0], marks, *cells[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
