"""Photos with few labels: `fewlabels train` beside what timm and scikit-learn give, on the same splits.

    python benchmarks/photos.py trashnet --labels-per-class 10 --seeds 20-29
    python benchmarks/photos.py cifar10.npz --rows 5000 --labels-per-class 4 --seeds 20-29

The same command resumes. The features of the rival (`rival.py`) are made once for all seeds, as ours are;
the seconds are without them on both sides, but for our first seed, and those of the rival are of all of its spaces.
Images of up to 32 pixels are also given to the rival as they are, since a good user would try that.
Regret: the row that is best on the mean over seeds, less what is handed over. The JSON goes to benchmarks/results/.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rival
import tyro
from accuracy import COMMIT, HERE, interval, machine
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

import fewlabels
from fewlabels.classify.split import with_split
from fewlabels.config import Options
from fewlabels.data.sources.open import open_table
from fewlabels.data.table import Table, spread

CHOSEN = "fewlabels"
TINY = 32  # pixels, up to which the rival also learns from the pixels themselves


@dataclass(frozen=True)
class Question:
    """What is measured."""

    data: tyro.conf.Positional[str]
    """what `fewlabels train` takes, with all labels: images"""
    labels_per_class: int = 10
    """labels that are kept"""
    seeds: str = "20-29"
    """first and last seed; 1000 and up are for development"""
    rows: int | None = None
    """take so many rows of the set, evenly and the same for all seeds"""
    budget: str = "quick"
    """as of `fewlabels train`"""
    work: Path = Path("runs/photos")
    """where runs and features are kept"""


def one(question: Question, table: Table, spaces: dict[str, rival.Floats], seed: int) -> dict[str, Any]:
    """Run both sides on one split, or read what was found before."""
    name = f"{table.name}-{question.labels_per_class}-{question.rows or 'all'}-{question.budget}-{seed}"
    work = question.work / COMMIT[:8]  # another version's measurements are not mixed with this one's
    note = work / f"{name}.json"
    if note.is_file():
        return json.loads(note.read_text())
    place = {row: i for i, row in enumerate(table.names)}
    start = time.perf_counter()
    run = fewlabels.fit(
        table, labels_per_class=question.labels_per_class, seed=seed, budget=question.budget, device="cpu",
        out=work / name,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    options = Options(labels_per_class=question.labels_per_class, seed=seed)
    split = with_split(table, options)
    there, found = [place[row] for row in split.names], dict[str, rival.Ints]()
    start = time.perf_counter()
    for on, x in spaces.items():
        said = rival.rows(x[there], split.labels, split.labeled_rows, split.unlabeled_rows, split.test_rows)
        found |= {f"{row}{on}": classes for row, classes in said.items()}
    took = time.perf_counter() - start
    truth = split.labels[split.test_rows]
    ours = {row["name"]: row["test"] for row in run.summary["rows"]} | {CHOSEN: run.summary["chosen"]["test"]}
    theirs = {
        row: {
            "accuracy": float((said == truth).mean()),
            "balanced_accuracy": float(balanced_accuracy_score(truth, said)),
        }
        for row, said in found.items()
    }
    result = {
        "rows": ours,
        "rival": theirs,
        "chosen": {key: run.summary["chosen"][key] for key in ("name", "margin", "cross_validated")},
        "seconds": {CHOSEN: seconds, "rival": took},
    }
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(result))
    print(seed, {row: round(100 * each["accuracy"], 1) for row, each in (ours | theirs).items()}, flush=True)
    return result


def features(question: Question, table: Table) -> dict[str, rival.Floats]:
    """Make the rival's features of all rows, or read them; and the pixels of tiny images."""
    kept = question.work / f"{table.name}-{question.rows or 'all'}-rival.npy"
    images = [_image(each) for each in table.contents]
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        np.save(kept, rival.features_of(images))
        print(f"the rival's features: {time.perf_counter() - start:.0f} s", flush=True)
    spaces = rival.spaces_of(np.load(kept))
    if max(max(image.size) for image in images) <= TINY:
        spaces[" on pixels"] = rival.pixels_of(images)
    return spaces


def _image(content: Any) -> Image.Image:
    return Image.fromarray(np.squeeze(content)) if isinstance(content, np.ndarray) else Image.open(content)


def main(question: Question) -> None:
    """Answer the question and write the result."""
    first, _, last = question.seeds.partition("-")
    table = open_table(question.data)
    if question.rows is not None:
        table = table.take(spread(np.arange(len(table)), question.rows))
    spaces = features(question, table)
    runs = [one(question, table, spaces, seed) for seed in range(int(first), int(last or first) + 1)]
    result: dict[str, Any] = {
        "question": {"data": table.name, "labels_per_class": question.labels_per_class, "rows": question.rows}
        | {"seeds": question.seeds, "budget": question.budget},
        "where": machine("CPU"),
        "chosen": [run["chosen"] for run in runs],
        "seconds": {side: [round(run["seconds"][side], 1) for run in runs] for side in (CHOSEN, "rival")},
    }
    for metric in ("accuracy", "balanced_accuracy"):
        values = {row: [run["rows"][row][metric] for run in runs] for row in runs[0]["rows"]}
        theirs = {f"rival: {row}": [run["rival"][row][metric] for run in runs] for row in runs[0]["rival"]}
        found = {row: interval(each) for row, each in (values | theirs).items() if len(each) > 1}
        result[metric] = found
        if found:
            best = max(found, key=lambda row: found[row]["mean"])
            gap = np.array(values[CHOSEN]) - np.array((values | theirs)[best])
            strongest = max((row for row in found if row.startswith("rival")), key=lambda row: found[row]["mean"])
            over = np.array(values[CHOSEN]) - np.array(theirs[strongest])
            result[f"regret_{metric}"] = {"best": best, "points": round(max(0.0, -100 * float(gap.mean())), 2)}
            result[f"over_rival_{metric}"] = {"rival": strongest, **interval(over.tolist())}
            for row, each in found.items():
                print(f"{metric}: {row} {each['mean']:.1f} ({each['low']:.1f} to {each['high']:.1f}), n = {each['n']}")
            print(result[f"regret_{metric}"], result[f"over_rival_{metric}"])
    name = (
        f"photos-{table.name}-{question.rows or 'all'}-{question.labels_per_class}-{question.budget}-{question.seeds}"
    )
    (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Question, description=__doc__))
