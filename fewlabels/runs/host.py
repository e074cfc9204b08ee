"""Settings of the program that called us: ours while a run is at work, and its own again in the end."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def host_settings_kept() -> Generator[None]:
    """Put back the number of threads, the random state and how cuDNN chooses; meanwhile it is deterministic."""
    threads = torch.get_num_threads()
    deterministic, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False  # the same bytes, on a GPU too
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark
        torch.set_num_threads(threads)
