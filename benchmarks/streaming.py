"""What it costs to read images from disk: accuracy, time and memory beside a resident run, and the cache's speed.

    python benchmarks/streaming.py train photos --labels-per-class 10 --seeds 0-1
    python benchmarks/streaming.py memory --counts 1000 50000
    python benchmarks/streaming.py speed photos

Memory is read from /proc (Linux) ten times a second, of the command and its workers together: `anonymous` is what
the processes hold, `resident` also counts pages of the mapped file, which the system takes back when it needs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from accuracy import machine
from PIL import Image

from fewlabels.data.sources.open import open_table
from fewlabels.inputs.images.cache import Cache, content_of, states_of
from fewlabels.inputs.images.decode import ImageForm, decode
from fewlabels.inputs.images.store import StreamedImages

HERE = Path(__file__).parent
RESULTS = HERE / "results"


@dataclass(frozen=True)
class Train:
    """Train resident and streamed: accuracy, seconds, memory, and whether the parameters are the same."""

    data: tyro.conf.Positional[Path]
    labels_per_class: int = 10
    seeds: str = "0-1"
    work: Path = Path("runs/benchmarks/streaming")
    """where the runs are kept; a finished one is not trained again"""


@dataclass(frozen=True)
class Memory:
    """Peak memory of a short streamed run on generated JPEGs."""

    counts: tuple[int, ...] = (1000, 50_000)
    steps: int = 60


@dataclass(frozen=True)
class Speed:
    """Images a second: building the cache, reading batches from it, and decoding each image again."""

    data: tyro.conf.Positional[Path]
    size: int = 64
    batch: int = 160
    repeats: int = 3


def watched(words: list[str], folder: Path) -> dict[str, float]:
    """Run a command; give its seconds and peak memory in MB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "FEWLABELS_CACHE": str(folder)}
    start = time.perf_counter()
    peak = {"anonymous": 0, "resident": 0}
    process = subprocess.Popen([sys.executable, "-m", "fewlabels", *words], env=environment)
    while process.poll() is None:
        now = [_memory(pid) for pid in _family(process.pid)]
        for i, name in enumerate(peak):
            peak[name] = max(peak[name], sum(each[i] for each in now))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    seconds = time.perf_counter() - start
    return {"seconds": round(seconds, 1), **{f"peak_{name}_mb": round(kb / 1000) for name, kb in peak.items()}}


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory(pid: int) -> tuple[int, int]:
    """Give anonymous and resident memory in kB."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(lines["RssAnon"].split()[0]), int(lines["VmRSS"].split()[0])
    except (OSError, KeyError):
        return 0, 0


def train(question: Train) -> dict[str, Any]:
    """Answer for each seed."""
    first, _, last = question.seeds.partition("-")
    found: dict[str, Any] = {}
    for seed in range(int(first), int(last or first) + 1):
        for feed in ("resident", "streamed"):
            out = question.work / f"{question.data.name}-{question.labels_per_class}-{seed}-{feed}"
            note = out / "watched.json"
            if not note.exists():
                words = ["train", str(question.data), "--labels-per-class", str(question.labels_per_class)]
                words += ["--seed", str(seed), "--images.feed", feed, "--threads", "1", "--out", str(out)]
                note_of_it = watched(words, question.work / f"cache-{seed}-{feed}")
                note.write_text(json.dumps(note_of_it))
            summary = json.loads((out / "summary.json").read_text())
            found[f"seed {seed}, {feed}"] = {
                "accuracy": {row["name"]: row["test"]["accuracy"] for row in summary["rows"]},
                "gain": summary["gain"],
                "seconds": {row["name"]: round(row["seconds"], 1) for row in summary["rows"]},
                "whole_command": json.loads(note.read_text()),
                "model": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()[:16],
            }
    return {"data": question.data.name, "labels_per_class": question.labels_per_class, "runs": found}


def memory(question: Memory) -> dict[str, Any]:
    """Answer for each number of files."""
    found: dict[str, Any] = {}
    for count in question.counts:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            generate(folder / "photos", count)
            words = ["train", str(folder / "photos"), "--labels-per-class", "4", "--images.feed", "streamed"]
            words += ["--threads", "1", "--steps", str(question.steps), "--no-baseline", "--out", str(folder / "run")]
            found[str(count)] = watched(words, folder / "cache")
            found[str(count)]["cache_mb"] = round(sum(p.stat().st_size for p in folder.glob("cache/*/*.bin")) / 1e6)
        print(count, found[str(count)], flush=True)
    return {"steps": question.steps, "files": "JPEG 64x64 in color, ten classes", "runs": found}


def generate(folder: Path, count: int) -> None:
    """Write JPEGs of 64x64 in ten classes, each of noise over a color of its class."""
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = random.integers(0, 120, (8, 8, 3)) + np.array([number % 10 * 13, 60, 120 - number % 10 * 12])
        image = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize((64, 64))
        path = folder / f"class{number % 10}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=85)


def speed(question: Speed) -> dict[str, Any]:
    """Measure each in turn, so that their ratios mean something on a shared machine."""
    table = open_table(question.data)
    form = ImageForm(3, (question.size, question.size))
    rounds: list[dict[str, float]] = []
    for _ in range(question.repeats):
        with tempfile.TemporaryDirectory() as place:
            start = time.perf_counter()
            content_of(table.contents)
            hashed = time.perf_counter()
            cache = Cache(Path(place), table.contents, states_of(table.contents), form)
            list(cache.make())
            cached = cache.finish()
            built = time.perf_counter()
            images = StreamedImages(cached.pixels, np.arange(len(table)), torch.device("cpu"))
            order = np.random.default_rng(0).permutation(len(table))
            for begin in range(0, len(table), question.batch):
                images.take(order[begin : begin + question.batch])
            read = time.perf_counter()
            some = order[: len(table) // 4]
            for row in some:
                decode(table.contents[int(row)], form)
            decoded = time.perf_counter()
        n = len(table)
        rounds.append(
            {"hash": n / (hashed - start), "build": n / (built - hashed), "second_epoch": n / (read - built)}
            | {"decode_in_one_process": len(some) / (decoded - read)}
        )
    names = rounds[0]
    return {
        "data": question.data.name,
        "images": len(table),
        "size": question.size,
        "images_a_second": {name: [round(each[name]) for each in rounds] for name in names},
        "median": {name: round(float(np.median([each[name] for each in rounds]))) for name in names},
    }


Question = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Memory, tyro.conf.subcommand("memory")]
    | Annotated[Speed, tyro.conf.subcommand("speed")]
)

if __name__ == "__main__":
    question: Any = tyro.cli(Question, description=__doc__)  # pyright: ignore[reportArgumentType]
    name, answer = {Train: ("train", train), Memory: ("memory", memory), Speed: ("speed", speed)}[type(question)]
    result = {"command": f"python benchmarks/streaming.py {' '.join(sys.argv[1:])}", "where": machine()} | answer(
        question
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"streaming-{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
