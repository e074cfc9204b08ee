"""What the benchmarks share: ratios measured pair by pair, steps that nobody looks at, the JSON that they write."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any


def ratios(ours: Iterable[float], others: Iterable[float]) -> dict[str, float]:
    """Give median, least and most of how many times faster ours was, each pair measured in turn."""
    each = sorted(other / mine for mine, other in zip(ours, others, strict=True))
    return {"median": round(median(each), 2), "min": round(each[0], 2), "max": round(each[-1], 2)}


def medians(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Give median and least of each side."""
    return {name: {"median": round(median(t), 2), "least": round(min(t), 2)} for name, t in times.items()}


def unwatched(state: object, step: int, metrics: object) -> None:
    """Look at no step of a training."""
    del state, step, metrics


def say(result: dict[str, Any], path: Path | None) -> None:
    """Print the result, and write it where a path is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")
