"""Where a run works."""

from __future__ import annotations

import os

import torch

from fewlabels.errors import UserError


def choose_device(name: str) -> torch.device:
    """Give the device of that name; "auto" is the GPU where there is one.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        local = os.environ.get("LOCAL_RANK", "0")  # set by torchrun: each process has a device of its own
        name = f"cuda:{local}" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"--device {name}: {first}. Give cpu, cuda, cuda:1 or mps, or leave it out.") from error
    return device
