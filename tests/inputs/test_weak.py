"""Weak views against np.pad: each must be one of the crops of the padded image, in one of its mirror images."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.inputs.images.weak import reflect, weak_view
from fewlabels.keys import Key

FLIPS = ("none", "horizontal", "dihedral")
quick = settings(deadline=None, max_examples=40)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


def keys(n, seed=1):
    return Key(seed).fold(torch.arange(n))


def random_images(n, channels, height, width, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def numbered(height, width):
    """An image without two equal pixels, so that a view tells where each of its pixels comes from."""
    assert height * width <= 256
    return torch.arange(height * width, dtype=torch.uint8).view(1, height, width)


def crops(image, padding):
    """All crops [C, H, W] of the image with its border reflected, each shifted by at most `padding` of the side."""
    _, height, width = image.shape
    most_y, most_x = (min(round(size * padding), size - 1) for size in (height, width))
    padded = np.pad(image, ((0, 0), (most_y, most_y), (most_x, most_x)), mode="reflect")
    for y in range(2 * most_y + 1):
        for x in range(2 * most_x + 1):
            yield padded[:, y : y + height, x : x + width]


def mirror_images(image, flip):
    """The image [C, H, W] in each position that `flip` allows."""
    positions = [image]
    if flip != "none":
        positions += [p[:, :, ::-1] for p in positions]
    if flip == "dihedral":
        positions += [p[:, ::-1] for p in positions]
        if image.shape[1] == image.shape[2]:
            positions += [p.swapaxes(1, 2) for p in positions]
    return positions


def possible_views(image, flip, padding):
    return [p.tobytes() for crop in crops(image.numpy(), padding) for p in mirror_images(crop, flip)]


def counts_of(views):
    return Counter(view.numpy().tobytes() for view in views)


def assert_evenly_drawn(counts, possible):
    """Check that all `possible` outcomes came, about as often each."""
    assert counts.keys() == set(possible)
    expected = sum(counts.values()) / len(possible)
    chi_square = sum((n - expected) ** 2 / expected for n in counts.values())
    freedom = len(possible) - 1
    assert abs(chi_square - freedom) <= 4 * (2 * freedom) ** 0.5


# --- what a view may be ----------------------------------------------------------------------------------


@quick
@given(shapes, st.sampled_from(FLIPS), st.sampled_from((0, 1 / 8, 1 / 4, 1 / 2, 1)), st.integers(0, 2**32))
def test_a_view_is_a_crop_of_the_reflected_image_in_an_allowed_position(shape, flip, padding, seed):
    images = random_images(3, *shape, seed=seed)
    views = weak_view(images, keys(3, seed), flip, padding)
    assert views.shape == images.shape and views.dtype == torch.uint8
    for image, view in zip(images, views, strict=True):
        assert view.numpy().tobytes() in possible_views(image, flip, padding)


@quick
@given(shapes, st.integers(0, 2**32))
def test_without_flip_and_padding_a_view_is_the_image(shape, seed):
    images = random_images(4, *shape, seed=seed)
    assert torch.equal(weak_view(images, keys(4, seed), "none", padding=0), images)


def test_an_image_of_one_pixel_stays():
    images = random_images(8, 1, 1, 1)
    for flip in FLIPS:
        assert torch.equal(weak_view(images, keys(8), flip, padding=1), images)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_reflection_is_that_of_numpy(size):
    most = size - 1
    expected = np.pad(np.arange(size), most, mode="reflect")
    assert reflect(torch.arange(-most, size + most), size).tolist() == expected.tolist()


def test_an_empty_batch_stays_empty():
    assert weak_view(random_images(0, 3, 8, 8), keys(0), "dihedral").shape == (0, 3, 8, 8)


# --- how often -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "flip", "positions"),
    [
        ((4, 4), "none", 1),
        ((4, 4), "horizontal", 2),
        ((4, 4), "dihedral", 8),
        ((3, 4), "horizontal", 2),
        ((3, 4), "dihedral", 4),
        ((2, 3), "dihedral", 4),
    ],
)
def test_positions_are_evenly_drawn(shape, flip, positions):
    image = numbered(*shape)
    possible = possible_views(image, flip, padding=0)
    assert len(set(possible)) == positions
    n = 200 * positions
    views = weak_view(image.expand(n, -1, -1, -1), keys(n), flip, padding=0)
    assert_evenly_drawn(counts_of(views), possible)


@pytest.mark.parametrize(
    ("shape", "flip", "outcomes"), [((8, 8), "none", 9), ((8, 16), "horizontal", 30), ((8, 8), "dihedral", 72)]
)
def test_shifts_of_an_eighth_are_evenly_drawn_and_independent_of_the_position(shape, flip, outcomes):
    image = numbered(*shape)
    possible = possible_views(image, flip, padding=1 / 8)
    assert len(set(possible)) == outcomes
    n = 100 * outcomes
    assert_evenly_drawn(counts_of(weak_view(image.expand(n, -1, -1, -1), keys(n), flip)), possible)


# --- each image by its own key ---------------------------------------------------------------------------


@quick
@given(st.permutations(range(6)), st.sampled_from(FLIPS))
def test_the_order_of_the_images_does_not_matter(order, flip):
    images, key = random_images(6, 3, 8, 8), keys(6)
    views = weak_view(images, key, flip)
    assert torch.equal(weak_view(images[list(order)], Key(key.state[list(order)]), flip), views[list(order)])


@pytest.mark.parametrize("flip", FLIPS)
def test_a_batch_of_one_is_the_image_in_a_batch(flip):
    images, key = random_images(6, 3, 8, 8), keys(6)
    views = weak_view(images, key, flip)
    for i in range(6):
        assert torch.equal(weak_view(images[i : i + 1], Key(key.state[i : i + 1]), flip), views[i : i + 1])


def test_two_slots_see_one_image_differently():
    n = 400
    views = weak_view(numbered(16, 16).expand(n, -1, -1, -1), keys(n), "dihedral")
    same = (views[1:] == views[:-1]).all(3).all(2).all(1)
    assert same.float().mean() < 0.02  # 25 shifts, 8 positions: 1 / 200 expected


def test_channels_move_together():
    image = torch.cat([numbered(8, 8), numbered(8, 8) + 64, numbered(8, 8) + 128])
    first, second, third = weak_view(image.expand(50, -1, -1, -1), keys(50), "dihedral").unbind(1)
    assert torch.equal(second, first + 64)
    assert torch.equal(third, first + 128)
