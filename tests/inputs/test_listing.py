"""What rows look like from outside: what lies in files is not opened, and what lies in memory counts as it is."""

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.data.sources.open import open_table
from fewlabels.inputs.kinds import inputs_of


def listing(given):
    table = open_table(given)
    return inputs_of(table.contents).listing(table)


def listing_of(*images):
    return listing({"x": list(images), "y": [0, 1], "classes": ["a", "b"]})


def palette_image(color):
    image = Image.new("P", (4, 4))
    image.putpalette([color, 0, 0])
    return image


def transparent(level):
    image = palette_image(9)
    image.info["transparency"] = level
    return image


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.new("L", (4, 4)).save(out, "PNG", exif=exif)
    return Image.open(out)


ZEROS = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: ZEROS, lambda: ZEROS + 1),
        (lambda: torch.from_numpy(ZEROS), lambda: torch.from_numpy(ZEROS + 1)),
        (lambda: palette_image(1), lambda: palette_image(3)),
        (lambda: transparent(0), lambda: transparent(1)),
        (lambda: turned(1), lambda: turned(6)),
        (lambda: np.zeros(3, np.float32), lambda: np.full(3, 0.5, np.float32)),
    ],
    ids=["pixels", "tensors", "palettes", "transparency", "orientation", "vectors"],
)
def test_what_lies_in_memory_counts_as_it_is_decoded(one, other):
    assert listing_of(one(), one()) == listing_of(one(), one()) != listing_of(one(), other())


def test_what_cannot_be_read_counts_and_stops_nothing():
    out = io.BytesIO()
    Image.new("L", (40, 40)).save(out, "PNG")
    ragged, cut = [[1], [2, 3]], out.getvalue()[:50]
    assert listing_of(ZEROS, ragged) == listing_of(ZEROS, ragged) != listing_of(ZEROS, Image.open(io.BytesIO(cut)))


def test_files_count_by_size_and_times_and_are_not_opened(tmp_path):
    for name in "ab":
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / f"{number}.png").write_bytes(b"no image at all")
    path = tmp_path / "a/0.png"
    seen = [listing(tmp_path)]
    assert listing(tmp_path) == seen[0]
    os.utime(path, ns=(0, 1))
    seen.append(listing(tmp_path))
    path.write_bytes(b"longer than it was")
    os.utime(path, ns=(0, 1))
    seen.append(listing(tmp_path))
    path.write_bytes(b"LONGER THAN IT WAS")  # of the same size, and its time is set back
    os.utime(path, ns=(0, 1))
    seen.append(listing(tmp_path))
    assert len(set(seen)) == 4


def test_a_folder_found_by_another_path_is_the_same(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.png").write_bytes(b"no image at all")
    monkeypatch.chdir(tmp_path)
    assert listing("photos") == listing(tmp_path / "photos")
