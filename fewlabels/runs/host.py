"""Settings of the program that called us: ours while a run is at work, and its own again in the end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def host_settings_kept() -> Generator[None]:
    """Put back the number of threads, the random state and whether cuDNN is deterministic, which is so meanwhile."""
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True  # the same bytes each time, on a GPU too
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.backends.cudnn.deterministic = deterministic
        torch.set_num_threads(threads)
