"""Whether a change of the code left every training as it was: to the last bit, on one machine and one torch.

    python benchmarks/same_training.py before.json      # at the one commit
    python benchmarks/same_training.py after.json       # at the other
    python benchmarks/same_training.py after.json --against before.json --names names.json

Each method trains with its defaults on images and on vectors by `fewlabels.fit`, whose form stays while the code within
moves; fixmatch also with AdamW, a warm-up and each batch in two parts. Compared are the first losses and every tensor
of the last checkpoint: parameters, averages, memories, the optimizer's. Where tensors got other names, `names.json`
maps the beginnings of old names to those of new ones. It ends with 1 where anything differs.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from safetensors import safe_open
from sklearn.datasets import load_digits

import fewlabels
from fewlabels.methods import method_class, method_names

STEPS = 20
NO_TURNS = {"crmatch": {"rotation": 0.0}, "remixmatch": {"rotation": 0.0}}  # of vectors
ON_IMAGES = ("regmixmatch",)  # which pastes them


def trained(data: Any, method: str, out: Path, own: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Train; return the losses, and a hash of each tensor."""
    kind = method_class(method)
    fewlabels.fit(
        data, method=kind(**own or {}), labels_per_class=4, steps=STEPS, seed=1000, baseline=False, device="cpu",
        threads=1, propagate=0.0, out=out, **options,
    )  # fmt: skip
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == STEPS
    with safe_open(next((out / "checkpoint").glob(f"*{STEPS}.safetensors")), framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
    return {"losses": losses, "tensors": {name: digest(tensor) for name, tensor in tensors.items()}}


def digest(tensor: np.ndarray[Any, Any]) -> str:
    """Hash a tensor."""
    return hashlib.sha256(f"{tensor.dtype}{tensor.shape}".encode() + tensor.tobytes()).hexdigest()[:16]


def renamed(name: str, names: dict[str, str]) -> str:
    """Return the new name of a tensor: the longest beginning that the map has decides."""
    found = max((old for old in names if name.startswith(old)), key=len, default=None)
    return name if found is None else names[found] + name.removeprefix(found)


def differences(before: dict[str, Any], after: dict[str, Any], names: dict[str, str]) -> list[str]:
    """Say what is not the same in the trainings of two commits."""
    found = [f"{key}: only once" for key in before.keys() ^ after.keys()]
    for key in before.keys() & after.keys():
        was, now = before[key], after[key]
        steps = [step for step, pair in enumerate(zip(was["losses"], now["losses"], strict=True)) if pair[0] != pair[1]]
        if steps:
            step = steps[0]
            found.append(f"{key}: loss {was['losses'][step]!r} -> {now['losses'][step]!r} at step {step + 1}")
        old = {renamed(name, names): value for name, value in was["tensors"].items()}
        found += [
            f"{key}: {name}" for name in old.keys() | now["tensors"].keys() if old.get(name) != now["tensors"].get(name)
        ]
    return sorted(found)


def main(out: tyro.conf.Positional[Path], against: Path | None = None, names: Path | None = None) -> int:
    """Train by every method, or compare what was found with an earlier file.

    Args:
        out: the file for what is found; where it is there already nothing is trained.
        against: an earlier file to compare with.
        names: JSON, the beginnings of tensors' old names and those of the new ones.
    """
    if not out.exists():
        digits = load_digits()
        vectors = (digits.data.astype(np.float32), digits.target)
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as folder:
            for method in method_names():
                found[f"{method} images"] = trained("digits", method, Path(folder, f"{method}-images"))
                if method not in ON_IMAGES:
                    options = NO_TURNS.get(method, {})
                    found[f"{method} vectors"] = trained(vectors, method, Path(folder, f"{method}-vectors"), options)
                print(method, flush=True)
            other = {"optimizer": "adamw", "warm_up": 5, "accumulate": 2}
            found["fixmatch, AdamW in parts"] = trained("digits", "fixmatch", Path(folder, "other"), **other)
        out.write_text(json.dumps(found, indent=1) + "\n")
    if against is None:
        return 0
    mapped = json.loads(names.read_text()) if names else {}
    different = differences(json.loads(against.read_text()), json.loads(out.read_text()), mapped)
    print("\n".join(different) or "the same to the last bit")
    return bool(different)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
