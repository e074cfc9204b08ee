"""What a run costs as the number of rows grows: seconds and memory, for generated images of 8x8 gray in an .npz file.

    python benchmarks/scaling.py --counts 1000 10000 100000 1000000 --json benchmarks/results/scaling.json

Each run takes the same number of steps, so what grows is what is done for every row: reading, splitting, hashing,
copying into the device's memory, and the prediction of every image at the end.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from accuracy import machine
from outcome import say
from streaming import watched


@dataclass(frozen=True)
class Question:
    """What is measured."""

    counts: tuple[int, ...] = (1000, 10_000, 100_000, 1_000_000)
    steps: int = 30
    json: Path | None = None


def one(count: int, steps: int) -> dict[str, Any]:
    """Run the whole command on `count` rows."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        random = np.random.default_rng(0)
        labels = np.arange(count) % 10
        images = random.integers(0, 128, (count, 8, 8), dtype=np.uint8)
        images[:, :, 0] += (labels * 12).astype(np.uint8)[:, None]  # something to learn
        np.savez(folder / "rows.npz", x=images, y=labels)
        words = ["train", str(folder / "rows.npz"), "--labels-per-class", "4", "--threads", "1"]
        words += ["--steps", str(steps), "--no-baseline", "--out", str(folder / "run")]
        return watched(words, folder / "cache")


def main(question: Question) -> None:
    """Measure each number of rows."""
    found: dict[str, dict[str, Any]] = {}
    for count in question.counts:
        found[str(count)] = one(count, question.steps)
        print(count, found[str(count)], flush=True)
    least, most = str(min(question.counts)), str(max(question.counts))
    more = int(most) - int(least)
    result = {
        "where": machine(),
        "steps": question.steps,
        "runs": found,
        "each_row": {
            "microseconds": round(1e6 * (found[most]["seconds"] - found[least]["seconds"]) / more, 1),
            "bytes": round(1e6 * (found[most]["peak_anonymous_mb"] - found[least]["peak_anonymous_mb"]) / more),
        },
    }
    say(result, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
