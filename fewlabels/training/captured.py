"""A step as one CUDA graph: the host starts it by one call, instead of one call an operation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP = 4  # calls before the capture: libraries choose their kernels, the optimizer makes its memories


class Captured:
    """A function of tensors, captured after some calls and then replayed: the calls before are real ones too.

    The function may change tensors in place (parameters, counters, averages). It must read nothing to the host, and do
    the same operations in each call. What it gives is overwritten by the next call.

    Args:
        function: maps tensors of the same shapes in each call to named tensors.
    """

    def __init__(self, function: Callable[[tuple[Tensor, ...]], dict[str, Tensor]]) -> None:
        self.function = function
        self.calls = 0
        self.aside = torch.cuda.Stream()
        self.graph = torch.cuda.CUDAGraph()
        self.inputs: tuple[Tensor, ...] = ()
        self.out: dict[str, Tensor] = {}

    def __call__(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Do the function on these inputs."""
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._warm_up(inputs)
        if self.calls == WARM_UP + 1:
            self._capture(inputs)
        for held, given in zip(self.inputs, inputs, strict=True):
            held.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.out

    def _warm_up(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        # Aside, as a capture is: what autograd keeps must not belong to the default stream.
        self.aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.aside):
            out = self.function(inputs)
        torch.cuda.current_stream().wait_stream(self.aside)
        return out

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = tuple(each.clone() for each in inputs)
        # Another thread may read images into pinned memory meanwhile.
        with torch.cuda.graph(self.graph, stream=self.aside, capture_error_mode="thread_local"):
            self.out = self.function(self.inputs)
