"""The physical limits that the figures stand beside: how fast a device multiplies and copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """Give the median time of some work, after one run of it."""
    times: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def matmul_rate(device: torch.device, kind: torch.dtype) -> float:
    """Measure floating-point operations a second in the product of two large matrices (a multiply-add is two)."""
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b, device)


def copy_rate(device: torch.device) -> float:
    """Measure bytes a second, read and written, in the copy of a large tensor onto one that is there."""
    n = 1 << (30 if device.type == "cuda" else 26)
    source, target = (torch.ones(n, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * n / seconds(lambda: target.copy_(source), device)
