"""A finished run: its folder and its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """What `fit` returns.

    Attributes:
        path: the folder, with `report.html` and the rest.
        summary: the numbers, as in `summary.json`.
    """

    path: Path
    summary: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float] | None:
        """Metrics of what the run hands over on the test split; None without a test split."""
        return self.summary["chosen"]["test"]
