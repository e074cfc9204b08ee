"""Images in memory and images from disk give the same tensors."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.inputs.base import chunks
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import ResidentImages, StreamedImages, decode_all, pixel_statistics, resident

CPU = torch.device("cpu")
STORED = np.random.default_rng(0).integers(0, 256, (30, 2, 4, 5), np.uint8)
PLACES = np.array([k for k in range(30) if k not in (0, 7, 29)])
rows_of_them = st.lists(st.integers(0, len(PLACES) - 1), max_size=12).map(lambda rows: np.array(rows, np.int64))


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "pixels.bin"
    path.write_bytes(STORED.tobytes())
    return np.memmap(path, np.uint8, "r", shape=STORED.shape)


@pytest.fixture
def both(on_disk):
    """Give the same images from disk and in memory, without three that could not be read."""
    return StreamedImages(on_disk, PLACES, CPU), ResidentImages(torch.from_numpy(STORED[PLACES]))


def test_both_say_the_same_of_themselves(both):
    assert both[0].shape == both[1].shape == (27, 2, 4, 5)
    assert both[0].device == both[1].device == CPU


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(rows_of_them, st.lists(rows_of_them, max_size=3))))
def test_both_give_the_same_whatever_was_expected(on_disk, asked):
    streamed, whole = StreamedImages(on_disk, PLACES, CPU), ResidentImages(torch.from_numpy(STORED[PLACES]))
    for rows, coming in asked:
        taken = [images.take(rows) for images in (streamed, whole)]
        assert torch.equal(*taken)
        assert taken[0].dtype == torch.uint8
        for images in (streamed, whole):
            images.expect(*coming)
        for more in coming:
            assert torch.equal(streamed.take(more), whole.take(more))


def test_what_is_taken_is_one_s_own(both):
    for images in both:
        first = images.take(np.arange(3))
        kept = first.clone()
        images.take(np.arange(3)).zero_()
        assert torch.equal(first, kept) and torch.equal(images.take(np.arange(3)), kept)


def test_what_is_expected_is_read_while_others_work(both, monkeypatch):
    streamed, _ = both
    read, readers = streamed._read, []
    monkeypatch.setattr(streamed, "_read", lambda rows: (readers.append(threading.current_thread()), read(rows))[1])
    rows = np.arange(5)
    streamed.expect(rows, rows + 1)
    streamed.take(rows), streamed.take(rows + 1)
    assert len(readers) == 2 and threading.main_thread() not in readers
    streamed.take(rows)
    assert readers[2] is threading.main_thread()
    for _ in range(20):  # what is expected and not taken does not pile up
        streamed.expect(rows, rows + 1, rows + 2)
    assert len(streamed._coming) == 3


def test_streamed_images_can_be_brought_to_memory_whole(both):
    assert torch.equal(resident(both[0]).images, both[1].images)


def test_statistics_are_those_of_all_pixels_of_the_rows(both):
    rows = np.array([1, 3, 3, 20])
    pixels = STORED[PLACES][rows] / 255
    for images in both:
        mean, std = pixel_statistics(images, rows)
        np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
        np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-9)


def test_images_of_one_level_have_a_deviation_that_divides():
    flat = ResidentImages(torch.full((3, 1, 4, 4), 255, dtype=torch.uint8))
    assert pixel_statistics(flat, np.arange(3)) == ((1.0,), (0.001,))


@pytest.mark.parametrize(("count", "parts"), [(0, []), (1, [1]), (4, [4]), (9, [4, 4, 1])])
def test_chunks_are_all_rows_in_order(count, parts):
    found = list(chunks(np.arange(count), 4))
    assert [len(part) for part in found] == parts
    assert [row for part in found for row in part] == list(range(count))


def test_images_of_any_number_of_channels_are_decoded_channels_first():
    five = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 5), np.uint8)
    out, broken = decode_all([five[0], five[1, ..., :4], five[2]], ImageForm(5, (9, 8)))
    assert broken == {1: "4 channels where 5 are expected"}
    assert out.is_contiguous()
    assert np.array_equal(out.numpy(), five[[0, 2]].transpose(0, 3, 1, 2))
