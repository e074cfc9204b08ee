"""How fast a folder of photos is classified: `fewlabels predict` and the field's script, whole commands in turn.

    python benchmarks/predict.py photos --run runs/photos-layermatch-0 --json benchmarks/results/predict.json

The field's script is torchvision's transforms in a DataLoader with two workers and the same network, without gradients.
The memory of ours is also measured on a folder of the same photos many times over (as links on the disk).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from accuracy import machine
from outcome import medians, ratios, say
from streaming import watched

SCRIPT = """
import sys
from pathlib import Path
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
import fewlabels

torch.set_num_threads(int(sys.argv[3]))
classifier = fewlabels.load(sys.argv[1]).eval()
card = classifier.card
view = transforms.Compose([
    transforms.Resize(min(card.form.size)), transforms.CenterCrop(card.form.size), transforms.ToTensor(),
    transforms.Normalize(card.mean, card.std),
])

class Photos(Dataset):
    def __init__(self, paths): self.paths = paths
    def __len__(self): return len(self.paths)
    def __getitem__(self, i): return view(Image.open(self.paths[i]).convert("RGB"))

if __name__ == "__main__":
    paths = sorted(p for p in Path(sys.argv[2]).rglob("*") if p.is_file())
    with torch.inference_mode():
        found = torch.cat([
            classifier(x).softmax(1) for x in DataLoader(Photos(paths), 256, num_workers=2)
        ])
    print(len(found))
"""


@dataclass(frozen=True)
class Question:
    """What is measured."""

    photos: tyro.conf.Positional[Path]
    run: Path
    repeats: int = 5
    times: int = 8
    """how many times over the photos lie in the larger folder"""
    json: Path | None = None


def peak(question: Question, times: int) -> dict[str, float]:
    """Measure the memory of ours on the photos, so many times over."""
    with tempfile.TemporaryDirectory(dir=question.photos.parent) as place:
        for number in range(times):
            for path in question.photos.rglob("*"):
                if path.is_file():
                    link = Path(place) / "photos" / str(number) / path.relative_to(question.photos)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    os.link(path, link)
        words = ["predict", str(question.run), str(Path(place) / "photos"), "--out", str(Path(place) / "out.parquet")]
        note = watched(words, Path(place) / "cache")
    return {"peak_anonymous_mb": note["peak_anonymous_mb"], "seconds": note["seconds"]}


def main(question: Question) -> None:
    """Measure each side in turn."""
    count = sum(1 for path in question.photos.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as place:
        script = Path(place) / "field.py"
        script.write_text(SCRIPT)
        run, photos, out = str(question.run), str(question.photos), str(Path(place) / "out.parquet")
        sides = {"ours": ["-m", "fewlabels", "predict", run, photos, "--out", out]}
        sides |= {f"field, {n} threads": [str(script), run, photos, str(n)] for n in (1, 2)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for repeat in range(question.repeats + 1):
            for name, words in sides.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, *words], check=True, capture_output=True)
                if repeat:  # the first fills the system's cache of files
                    times[name].append(time.perf_counter() - start)
    others = [name for name in sides if name != "ours"]
    fastest = [min(times[name][i] for name in others) for i in range(question.repeats)]
    result: dict[str, Any] = {
        "where": machine("CPU, all threads"),
        "images": count,
        "n": question.repeats,
        "seconds": medians(times),
        "ratio": ratios(times["ours"], fastest),
        "memory": {str(n * count): peak(question, n) for n in (1, question.times)},
    }
    say(result, question.json)


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
