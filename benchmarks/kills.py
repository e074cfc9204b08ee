"""What a kill costs: the whole command on a folder of images, killed again and again, ends in the same bytes.

    python benchmarks/kills.py --kills 50

Each round begins without the run and without decoded images, is killed some times (SIGKILL of all its processes) and
given again until it ends; then its files are compared with those of a run that nobody disturbed. Half of the moments
are drawn uniformly over the clock of the undisturbed run, the others uniformly within the phase to come that was hit
least, so that short phases are hit too. The JSON goes to benchmarks/results/.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import tyro
from PIL import Image

Stop: TypeAlias = Callable[[float], bool]
"""tells after how many seconds a sitting is killed"""

CLASSES, SIDE = ("bars", "boxes", "waves"), 24
BROKEN_EVERY = 35  # images
MOST_A_ROUND = 4  # kills
COMPARED = (
    "model.safetensors", "predictions.parquet", "split.csv", "quarantine.csv", "config.yaml", "metrics.jsonl",
    "supervised/metrics.jsonl", "summary.json", "report.html",
)  # fmt: skip
# Where a run is, told by the files that are there; the first phase whose end is not there yet.
PHASES = ("start", "data", "baseline", "training", "evaluation", "writing")


@dataclass(frozen=True)
class Question:
    """What is measured."""

    kills: int = 50
    """kills in all"""
    images: int = 700
    """so many that there are several parts to decode"""
    steps: int = 120
    """updates of each of the two trainings"""
    seed: int = 0
    """of images and moments"""


@dataclass
class Place:
    """Where a run and its decoded images lie."""

    images: Path
    cache: Path
    out: Path
    steps: int

    def command(self) -> list[str]:
        """Give the command."""
        options = f"--steps {self.steps} --batch 8 --unlabeled-ratio 2 --threads 1"
        where = ["--images.cache", str(self.cache), "--out", str(self.out)]
        return [sys.executable, "-m", "fewlabels", "train", str(self.images), *options.split(), *where]

    def phase(self) -> str:
        """Tell the phase from the files that are there."""
        last = f"checkpoint/step-{self.steps:08d}.safetensors"
        ends = ("config.yaml", "metrics.jsonl", last, "model.safetensors")
        done = next((n for n, name in enumerate(ends) if not (self.out / name).exists()), len(ends))
        if not done and not (self.cache.is_dir() and any(self.cache.iterdir())):
            return "start"
        return PHASES[1 + done]

    def clear(self) -> None:
        """Remove the run and its decoded images."""
        for folder in (self.cache, self.out):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Tally:
    """What happened."""

    clock: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    equal: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        """Count the kills."""
        return self.clock.total() + self.drawn.total()


def make_images(folder: Path, count: int, seed: int) -> int:
    """Write JPEGs of three classes, one of `BROKEN_EVERY` not whole; give how many are broken."""
    rng, broken = np.random.default_rng(seed), 0
    for i in range(count):
        k = i % len(CLASSES)
        part = CLASSES[k] if i < 60 else f"test/{CLASSES[k]}" if i < 180 else "unlabeled"
        path = folder / part / f"{i:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(k, rng).save(path, quality=90)
        if i % BROKEN_EVERY == BROKEN_EVERY - 1:
            broken += 1
            whole = path.read_bytes()
            path.write_bytes((whole[: len(whole) // 3], b"no image", b"")[broken % 3])
    return broken


def _picture(k: int, rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    wave, shift = rng.uniform(2, 4), rng.uniform(0, 6)
    shape = (np.sin(6 * wave * x + shift), np.maximum(abs(x - 0.5), abs(y - 0.5)) < wave / 12, np.sin(9 * wave * x * y))
    pixels = 128 + 70 * shape[k][..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 25, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def sit(place: Place, stop: Stop = lambda seconds: False, starting: float = 0) -> str | None:
    """Give the command once; kill it when `stop` says so, and tell in which phase. None where it ended by itself.

    In its first `starting` seconds a sitting is at the start, whatever files an earlier one left.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        place.command(), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        if stop(time.perf_counter() - start):
            phase = place.phase() if time.perf_counter() - start > starting else "start"
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return phase
        time.sleep(0.002)
    if process.returncode:
        raise SystemExit(f"the command failed with {process.returncode}:\n{process.communicate()[1]}")
    return None


def timeline(place: Place) -> dict[str, float]:
    """Run undisturbed; give the seconds in each phase."""
    begun: dict[str, float] = {}

    def note(seconds: float) -> bool:
        begun.setdefault(place.phase(), seconds)
        return False

    start = time.perf_counter()
    sit(place, note)
    whole = time.perf_counter() - start
    ends = [*list(begun.values())[1:], whole]
    return {name: end - first for (name, first), end in zip(begun.items(), ends, strict=True)}


def at(when: float) -> Stop:
    """Stop a sitting at a moment of its own clock."""
    return lambda seconds: seconds >= when


def within(place: Place, phase: str, after: float) -> Stop:
    """Stop a sitting some seconds after a phase began."""
    begun: list[float] = []

    def stop(seconds: float) -> bool:
        if not begun and PHASES.index(place.phase()) >= PHASES.index(phase):
            begun.append(seconds)
        return bool(begun) and seconds - begun[0] >= after

    return stop


def moment(place: Place, spent: dict[str, float], tally: Tally, by_clock: bool, rng: random.Random) -> Stop:
    """Draw when the next sitting is killed."""
    coming = PHASES[PHASES.index(place.phase()) + 1 :]
    if by_clock or not coming:
        return at(rng.uniform(0, sum(spent.values())))
    phase = min(coming, key=lambda name: tally.drawn[name])
    return within(place, phase, rng.uniform(0, spent[phase]))


def outcome(out: Path, name: str) -> bytes:
    """Read what is compared: the bytes, but for the seconds that a run took."""
    data = (out / name).read_bytes()
    if name == "summary.json":
        return re.sub(rb'"seconds": [\d.e-]+', b"", data)
    return re.sub(rb'<td class="n">[\d.]+</td></tr>', b"", data) if name == "report.html" else data


def play(place: Place, plain: Place, question: Question, tally: Tally, spent: dict[str, float]) -> None:
    """Play one round: kills, then the comparison."""
    place.clear()
    rng = random.Random(question.seed * 1_000_003 + tally.rounds)  # noqa: S311 - moments are no secret
    for _ in range(min(MOST_A_ROUND, question.kills - tally.kills)):
        by_clock = tally.clock.total() <= tally.drawn.total()
        phase = sit(place, moment(place, spent, tally, by_clock, rng), spent["start"])
        if phase is None:
            break
        (tally.clock if by_clock else tally.drawn)[phase] += 1
    sit(place)
    tally.rounds += 1
    for name in COMPARED:
        tally.equal[name] += outcome(place.out, name) == outcome(plain.out, name)
    print(f"round {tally.rounds}: {tally.kills} kills, equal {dict(tally.equal)}", flush=True)


def main(question: Question) -> None:
    """Ask, and write the result."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        broken = make_images(root / "images", question.images, question.seed)
        # Both runs are called alike: the report has the name.
        plain = Place(root / "images", root / "plain-cache", root / "plain" / "run", question.steps)
        place = Place(root / "images", root / "cache", root / "killed" / "run", question.steps)
        spent, tally = timeline(plain), Tally()
        print(f"undisturbed: {spent}", flush=True)
        while tally.kills < question.kills:
            play(place, plain, question, tally, spent)
    result = {
        "command": f"python benchmarks/kills.py --kills {question.kills}",
        "images": question.images,
        "broken": broken,
        "steps": [question.steps, question.steps],
        "undisturbed_seconds": round(sum(spent.values()), 1),
        "undisturbed_seconds_by_phase": {name: round(spent.get(name, 0), 2) for name in PHASES},
        "kills": tally.kills,
        "rounds": tally.rounds,
        "kills_by_phase": {name: tally.clock[name] + tally.drawn[name] for name in PHASES},
        "of_them_by_the_clock": {name: tally.clock[name] for name in PHASES},
        "rounds_with_equal": {name: tally.equal[name] for name in COMPARED},
        "all_equal": all(tally.equal[name] == tally.rounds for name in COMPARED),
        "torch": torch.__version__,
    }
    Path(__file__).with_name("results").joinpath("kills.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(tyro.cli(Question))
