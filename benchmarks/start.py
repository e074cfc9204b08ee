"""How soon the command answers: `import fewlabels`, `fewlabels --help`, `fewlabels train --help`.

python benchmarks/start.py [--runs 10]
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import tyro

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import fewlabels": ["-c", "import fewlabels"],
    "fewlabels --help": ["-m", "fewlabels", "--help"],
    "fewlabels train --help": ["-m", "fewlabels", "train", "--help"],
}


def main(runs: int = 10) -> None:
    """Time each command in turn, so that a slow minute of the machine meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, words in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    result = {
        name: {"median": round(median(t), 3), "least": round(min(t), 3), "most": round(max(t), 3), "n": runs}
        for name, t in seconds.items()
    }
    Path(__file__).with_name("results").joinpath("start.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
