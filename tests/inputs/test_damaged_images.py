"""Whatever is done to an image file: it is decoded or refused with a reason, soon, and the process lives on."""

import os
import time

import numpy as np
import pytest

from benchmarks import damaged_images
from benchmarks.damaged_images import MUTATIONS, Worker, mutant, samples, try_mutants
from fewlabels.inputs.images.decode import ImageForm, decode_into

COUNT = 2000


def test_two_thousand_mutants_are_decoded_or_refused_with_a_reason():
    found = try_mutants(range(COUNT))
    assert sum(one.decoded + one.refused for one in found.values()) == COUNT
    for name, one in found.items():
        assert (one.crashed, one.hung, one.without_reason) == ([], [], []), name
        assert one.most_memory_mb < 4000, name
    # A mutator that leaves all as it was, or breaks all, would test nothing.
    assert 0.1 * COUNT < sum(one.decoded for one in found.values()) < 0.9 * COUNT


def test_all_samples_are_whole():
    for name, data in samples().items():
        pixels = np.zeros((1, 20, 24, 3), np.uint8)
        assert decode_into(pixels, [data], ImageForm(3, (20, 24), white=1 if "floats" in name else 65535)) == {}, name
        assert pixels.std() > 10, name


def test_a_mutant_is_a_function_of_its_number():
    assert [mutant(samples(), k) for k in range(50)] == [mutant(samples(), k) for k in range(50)]
    changed = [mutant(samples(), k) for k in range(200)]
    assert sum(data != samples()[name] for name, data in changed) > 190
    assert len({name for name, _ in changed}) > 30


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_each_mutation_changes_something(mutation):
    whole = samples()["png RGB"]
    for seed in range(20):
        data = bytearray(whole)
        mutation(data, np.random.default_rng(seed))
        if data != whole:
            return
    pytest.fail("nothing was changed in 20 tries")


def crash_or_hang(pipe):
    """Serve as a decoder with two deadly images does."""
    pipe.send("ready")
    while True:
        number = pipe.recv()
        if number == 1:
            os._exit(1)
        if number == 2:
            time.sleep(60)
        pipe.send((None, 0.001, 1.0))


def test_a_crash_and_a_hang_are_seen_and_the_others_are_tried(monkeypatch):
    monkeypatch.setattr(damaged_images, "serve", crash_or_hang)
    worker = Worker()
    try:
        assert [worker.decode(k, limit=0.3)[0] for k in range(4)] == ["decoded", "crashed", "hung", "decoded"]
    finally:
        worker.stop()
