"""The order of a captured step, with a stand-in for the GPU; what a real one computes, the GPU script compares."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from fewlabels.training.captured import WARM_UP, Captured


@pytest.fixture
def gpu(monkeypatch):
    """Put a stand-in in CUDA's place that notes what is done, and does in a replay what was captured."""
    said = []

    class Stream:
        def wait_stream(self, other):
            said.append(("waits", self is gpu.default, other is gpu.default))

    class Graph:
        captured = None

        def replay(self):
            said.append("replay")
            self.captured()

    @contextmanager
    def stream(chosen):
        said.append("aside" if chosen is not gpu.default else "default")
        yield

    @contextmanager
    def graph(held, stream, capture_error_mode):
        assert isinstance(stream, Stream) and stream is not gpu.default and capture_error_mode == "thread_local"
        said.append("capture")
        gpu.capturing = held
        yield
        gpu.capturing = None

    gpu = SimpleNamespace(default=Stream(), said=said, capturing=None)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: gpu.default)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return gpu


def test_a_step_is_done_once_a_call_first_aside_then_by_the_graph(gpu):
    total, out, called = torch.zeros(()), torch.zeros(()), []

    def step(inputs):
        """Add the inputs to a total; while it is captured nothing is computed, as on a GPU."""

        def compute():
            total.add_(inputs[0] + inputs[1])
            out.copy_(total)

        called.append(len(gpu.said))
        if gpu.capturing is not None:
            gpu.capturing.captured = compute
        else:
            compute()
        return {"total": out}

    captured, expected = Captured(step), 0.0
    for number in range(WARM_UP + 3):
        given = (torch.tensor(float(number)), torch.tensor(10.0 * number))
        before = [each.clone() for each in given]
        expected += 11.0 * number
        assert captured(given)["total"] == expected, number
        assert all(torch.equal(*both) for both in zip(given, before, strict=True))
        for each in given:
            each.fill_(-1e6)  # as a feed that writes its next batch into the same memory
    warm_up = [("waits", False, True), "aside", ("waits", True, False)]
    assert gpu.said == warm_up * WARM_UP + ["capture"] + ["replay"] * 3
    assert len(called) == WARM_UP + 1
