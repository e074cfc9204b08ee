"""What rows look like from outside: what lies in files is not opened, and what lies in memory counts as it is."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.data.listing import listed, state_of
from fewlabels.data.sources.open import open_table


def paletted(color):
    image = Image.new("P", (4, 4))
    image.putpalette([color, 0, 0])
    return image


def listing(images):
    return listed(open_table({"x": images, "y": [0, 1], "classes": ["a", "b"]}))


@pytest.mark.parametrize(
    ("same", "other"),
    [
        (lambda: np.zeros((2, 4, 4), np.uint8), lambda: np.ones((2, 4, 4), np.uint8)),
        (lambda: [paletted(1), paletted(2)], lambda: [paletted(1), paletted(3)]),
        (lambda: torch.zeros(2, 4, 4, dtype=torch.uint8), lambda: torch.ones(2, 4, 4, dtype=torch.uint8)),
        (lambda: np.zeros((2, 3), np.float32), lambda: np.full((2, 3), 0.5, np.float32)),
    ],
    ids=["pixels", "palettes", "tensors", "vectors"],
)
def test_what_lies_in_memory_counts(same, other):
    assert listing(same()) == listing(same()) != listing(other())


def test_files_count_by_size_and_time_and_are_not_opened(tmp_path):
    for name in "ab":
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(b"no image at all")
    path = tmp_path / "a/0.png"
    first = listed(open_table(tmp_path))
    os.utime(path, ns=(0, path.stat().st_mtime_ns))
    assert listed(open_table(tmp_path)) == first
    os.utime(path, ns=(0, 1))
    second = listed(open_table(tmp_path))
    path.write_bytes(b"longer than it was")
    os.utime(path, ns=(0, 1))
    assert len({first, second, listed(open_table(tmp_path))}) == 3


def test_a_folder_and_what_is_not_there_are_their_paths(tmp_path):
    assert state_of(tmp_path) == str(tmp_path)
    assert state_of(tmp_path / "none") == str(tmp_path / "none")
