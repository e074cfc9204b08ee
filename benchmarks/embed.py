"""How fast a pretrained backbone embeds a folder of photos on a CPU: ours, and timm's own way, in turn.

    python benchmarks/embed.py photos/ --rows 400 --json benchmarks/results/embed.json

timm's way: its transform, its network as it is made, a DataLoader with two workers, 32 images at a time, float32; the
same with channels last, and with 8 images at a time, which a good user would find. Ours reads, decodes and keeps the
images first, and that is counted; its cache is empty; it also makes the features of two earlier stages. Each side
embeds the image alone, without its mirror image, at the same size, with two torch threads, in a process of its own;
imports are not counted. With `--rows` twice as many, the memory shows whether it grows with the images.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
import tyro
from accuracy import machine
from outcome import ratios, say
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from fewlabels.classify.embedding import embedded
from fewlabels.classify.prepare import prepare
from fewlabels.classify.split import with_split
from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.table import make_table
from fewlabels.inputs.base import content_of
from fewlabels.models.embedded import EMBEDDED, load_embedded

MODEL = "efficientnet_lite0"
SIDES = ("fewlabels", "timm", "timm, channels last", "timm, channels last, 8 at a time")


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[Path]
    """a folder of photos in folders of classes"""
    rows: int = 400
    """so many of them, evenly"""
    repeats: int = 3
    side: str | None = None
    """measure one side once, and write it to the output: what this calls itself"""
    json: Path | None = None


def paths(question: Question) -> list[Path]:
    """Return the photos."""
    found = sorted(p for p in question.data.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return [found[i] for i in np.linspace(0, len(found) - 1, min(question.rows, len(found))).astype(int)]


def by_timm(files: list[Path], side: str) -> int:
    """Embed as timm's users do; return how many."""
    model = timm.create_model(EMBEDDED[MODEL].timm_name, num_classes=0).eval()
    load_embedded(MODEL, model)
    form = torch.channels_last if "channels last" in side else torch.contiguous_format
    model = model.to(memory_format=form)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    class Photos(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(Image.open(files[index]).convert("RGB"))

    with torch.inference_mode():
        loader = DataLoader(Photos(), batch_size=8 if "8 at" in side else 32, num_workers=2)
        return len(torch.cat([model(batch.contiguous(memory_format=form)) for batch in loader]))


def by_fewlabels(files: list[Path]) -> int:
    """Embed as a run does; return how many."""
    labels = np.arange(len(files)) % 2  # two classes, as a run needs
    options = Options(model=MODEL, images_flip="none", device="cpu")
    table = with_split(make_table("photos", files, [*map(str, files)], labels, ("0", "1")), options)
    found, digests, _ = prepare(table, options, None, torch.device("cpu"))
    return len(embedded(found, content_of(digests), Show(None)).features)


def measure(question: Question) -> dict[str, Any]:
    """Measure one side; the making of the network is counted, imports are not."""
    torch.set_num_threads(2)
    files, side = paths(question), question.side or SIDES[0]
    start = time.perf_counter()
    done = by_fewlabels(files) if side == SIDES[0] else by_timm(files, side)
    seconds = time.perf_counter() - start
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    return {"rows": done, "seconds": round(seconds, 2), "peak_mb_with_the_largest_worker": round(peak)}


def main(question: Question) -> None:
    """Measure all sides in turn, and say the ratios."""
    if question.side is not None:
        print(json.dumps(measure(question)))
        return
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(question.repeats):
        for side in SIDES:
            with tempfile.TemporaryDirectory() as cache:
                command = [sys.executable, __file__, str(question.data), "--rows", str(question.rows), "--side", side]
                environ = os.environ | {"FEWLABELS_CACHE": cache}
                said = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
            found[side].append(json.loads(said.splitlines()[-1]))
            print(side, found[side][-1], flush=True)
    seconds = {side: [each["seconds"] for each in runs] for side, runs in found.items()}
    result = {
        "rows": question.rows,
        "where": machine("CPU"),
        "runs": found,
        "images_a_second": {side: round(question.rows / median(each), 1) for side, each in seconds.items()},
        "times_as_fast": {side: ratios(seconds[SIDES[0]], each) for side, each in seconds.items() if side != SIDES[0]},
    }
    say(result, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
