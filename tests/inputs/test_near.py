"""Near copies on both sides of a split: found when saved or scaled again, and not seen where there are none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from fewlabels.inputs.images import near as module
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.near import near_copies
from fewlabels.inputs.images.store import ResidentImages, decode_all

SIDE, COUNT = 64, 40
FORM = ImageForm(3, (SIDE, SIDE))


def photo(seed, side=SIDE):
    """Draw what a photo is to a hash: soft shapes of all sizes, in color."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (k, k, 3), np.uint8)).resize((256, 256)), float)
        for k in (3, 7, 20)
    ]
    mixed = np.average(layers, axis=0, weights=(4, 2, 1))
    return Image.fromarray(mixed.astype(np.uint8)).resize((side, side))


def saved_again(image):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=60)
    return Image.open(out)


COPIES = {
    "the same": lambda image: image,
    "as a JPEG": saved_again,
    "smaller": lambda image: image.resize((40, 40)),
    "larger and as a JPEG": lambda image: saved_again(image.resize((200, 200))),
    "a little brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.02),
}


def images_of(pictures, form=FORM):
    decoded, broken = decode_all(pictures, form)
    assert not broken
    return ResidentImages(decoded)


TRAIN = np.arange(COUNT)


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found_with_what_they_are_copies_of(name):
    copied = [3, 17, 31]
    tests = [photo(1000), COPIES[name](photo(3)), photo(1001), COPIES[name](photo(17)), COPIES[name](photo(31))]
    images = images_of([photo(seed) for seed in TRAIN] + tests)
    found = near_copies(images, np.arange(COUNT, COUNT + 5), TRAIN)
    assert found.test.tolist() == [COUNT + 1, COUNT + 3, COUNT + 4]
    assert found.train.tolist() == copied
    assert found.looked_at == 5


def test_other_photos_are_none():
    images = images_of([photo(seed) for seed in range(2 * COUNT)])
    assert len(near_copies(images, np.arange(COUNT, 2 * COUNT), TRAIN).test) == 0


def test_digits_have_none(digits_rows):
    train = np.concatenate([digits_rows.labeled, digits_rows.unlabeled])
    found = near_copies(digits_rows.images, digits_rows.test, train)
    assert len(found.test) == 0
    assert found.looked_at == len(digits_rows.test)


def test_flat_images_are_told_apart_by_their_levels():
    """Their hashes agree in all bits."""
    levels = torch.tensor([10, 60, 110, 160, 62, 200], dtype=torch.uint8)
    images = ResidentImages(levels.view(6, 1, 1, 1).expand(6, 1, 32, 32).contiguous())
    found = near_copies(images, np.array([4, 5]), np.array([1]))
    assert (found.test.tolist(), found.train.tolist()) == ([4], [1])


def test_images_that_are_nearly_flat_are_told_apart_by_their_hashes():
    """Their thumbnails are near by: paper with other stains, seen from afar."""
    pixels = torch.from_numpy(np.random.default_rng(0).integers(100, 104, (6, 1, 9, 16), np.uint8))
    pixels[5] = pixels[3]
    images = ResidentImages(pixels.repeat_interleave(4, 2).repeat_interleave(4, 3))
    found = near_copies(images, np.array([4, 5]), np.arange(4))
    assert (found.test.tolist(), found.train.tolist()) == ([5], [3])


def test_without_rows_on_a_side_there_are_none():
    images, none = images_of([photo(0)]), np.zeros(0, np.int64)
    for test, train in ((none, np.arange(1)), (np.arange(1), none)):
        found = near_copies(images, test, train)
        assert (len(found.test), len(found.train), found.looked_at) == (0, 0, 0)


def test_of_very_many_an_even_spread_is_compared(monkeypatch):
    monkeypatch.setattr(module, "MOST_TEST", 4)
    monkeypatch.setattr(module, "MOST_TRAIN", 10)
    pictures = [photo(seed, 32) for seed in range(10)]
    images = images_of(pictures + pictures, ImageForm(3, (32, 32)))
    found = near_copies(images, np.arange(10, 20), np.arange(10))
    assert found.looked_at == 4
    assert found.test.tolist() == [10, 13, 16, 19]
    assert found.train.tolist() == [0, 3, 6, 9]


@pytest.mark.parametrize("shape", [(1, 8, 8), (5, 20, 12), (3, 4, 40)])
def test_images_of_any_shape_are_compared(shape):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8))
    pixels[5] = pixels[2]
    found = near_copies(ResidentImages(pixels), np.array([4, 5]), np.arange(4))
    assert (found.test.tolist(), found.train.tolist()) == ([5], [2])
