"""Checkpoints: one safetensors file a step, written aside, brought to the disk, renamed; the last two are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewlabels.errors import UserError
from fewlabels.files import replace_file

FORMAT = 1
KEPT = 2


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step`, with notes that JSON can hold, and remove all but the last two.

    Raises:
        UserError: the disk is full or not writable; older checkpoints stay as they were.
    """
    header = {"fewlabels": json.dumps({"format": FORMAT, "step": step, **notes})}
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    newest = folder / f"step-{step:08d}.safetensors"
    try:
        replace_file(newest, lambda path: save_file(whole, path, header))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the checkpoint of step {step} could not be written to {folder}: {error}. "
            "The one before it is whole; make room and give the same command again."
        ) from error
    # Files of later steps are there only when damaged; they must not push out the one just written.
    for old in [path for path in _paths(folder) if path <= newest][:-KEPT]:
        old.unlink()


class Checkpoint(NamedTuple):
    """What was saved: the number of steps done, the tensors, and what was noted."""

    step: int
    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def load(folder: Path) -> Checkpoint | None:
    """Read the newest whole checkpoint, on the CPU; None where there is none.

    Raises:
        UserError: the newest is of a newer format.
    """
    for path in reversed(_paths(folder)):
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                notes = json.loads(file.metadata()["fewlabels"])
                found, step = int(notes["format"]), int(notes["step"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue  # damaged from outside: the one before it serves
        if found > FORMAT:
            raise UserError(f"{path} has format {found}; this fewlabels reads up to {FORMAT}. Install a newer one.")
        return Checkpoint(step, tensors, notes)
    return None


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
