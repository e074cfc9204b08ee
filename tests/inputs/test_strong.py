"""Strong views: what cutout may change, and what RandAugment draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.inputs.images import operations
from fewlabels.inputs.images.strong import cutout, rand_augment
from fewlabels.keys import Key

RANGES = operations.strength_ranges("fixmatch")

GRAY = 127
quick = settings(deadline=None, max_examples=20)


def keys(n, seed=1):
    return Key(seed).fold(torch.arange(n))


def black(n, height, width, channels=1):
    return torch.zeros(n, channels, height, width, dtype=torch.uint8)


def noise(n, channels, height, width, seed=0):
    """Random images without a pixel of cutout's gray, so that a hole can be told from its surroundings."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 255, (n, channels, height, width), generator=generator)
    return (values + (values >= GRAY)).to(torch.uint8)


def sides(hole):
    """Height and width [n] of the rectangle around each hole [n, H, W]."""
    return hole.any(2).sum(1), hole.any(1).sum(1)


# --- cutout ----------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32))
def test_a_hole_is_a_gray_rectangle_of_at_most_half_the_side_and_the_rest_stays(channels, height, width, seed):
    images = noise(20, channels, height, width, seed)
    seen = cutout(images, keys(20, seed))
    hole = (seen == GRAY).any(1)
    assert seen.dtype == torch.uint8
    assert torch.equal(seen, torch.where(hole[:, None], GRAY, images))
    assert torch.equal(hole, hole.any(2)[:, :, None] & hole.any(1)[:, None, :])
    for side in sides(hole):
        assert side.max() <= (min(height, width) + 1) // 2  # an odd side's half is rounded up


@pytest.mark.parametrize("largest", [0.25, 0.5, 1.0])
def test_the_side_of_a_hole_is_uniform_up_to_the_largest(largest):
    n, size = 4000, 32
    hole = (cutout(black(n, size, size), keys(n), largest) == GRAY)[:, 0]
    height, width = sides(hole)
    if largest < 1:  # a larger hole is cut by a border too often
        inner = ~(hole[:, 0].any(1) | hole[:, -1].any(1) | hole[:, :, 0].any(1) | hole[:, :, -1].any(1))
        assert (height - width)[inner & (height > 0) & (width > 0)].abs().max() <= 1
    assert abs(height.max() - largest * size) <= 1
    # A pixel far from the border is in the hole with the mean of (side / size)^2 = largest^2 / 3.
    middle = hole[:, size // 2 - 1 : size // 2 + 1, size // 2 - 1 : size // 2 + 1].float().mean((1, 2))
    if largest <= 0.5:
        assert abs(middle.mean() - largest**2 / 3) < 4 * middle.std() / n**0.5


def test_the_place_of_a_hole_is_uniform():
    n, height, width = 4000, 8, 16
    hole = (cutout(black(n, height, width), keys(n)) == GRAY)[:, 0].float().mean(0)
    assert (hole - hole.flip(0)).abs().max() < 0.025
    assert (hole - hole.flip(1)).abs().max() < 0.025
    expected = 0.5**2 / 3 * height / width  # the side is a part of the height, the shorter side
    assert (hole[3:5, 4:12] - expected).abs().max() < 0.016


def test_a_hole_may_have_no_side():
    images = noise(200, 3, 8, 8)
    unchanged = (cutout(images, keys(200)) == images).flatten(1).all(1)
    assert 0 < unchanged.float().mean() < 0.5
    assert torch.equal(cutout(images, keys(200), largest=0), images)


# --- RandAugment -----------------------------------------------------------------------------------------


@pytest.fixture
def applied(monkeypatch):
    """Record the operations and strengths of each call of `operations.apply`."""
    calls, apply = [], operations.apply

    def record(images, operation, strength):
        calls.append((operation, strength))
        return apply(images, operation, strength)

    monkeypatch.setattr(operations, "apply", record)
    return calls


def test_no_operation_is_the_identity():
    images = noise(8, 3, 8, 8)
    assert torch.equal(rand_augment(images, keys(8), RANGES, count=0), images)


def test_operations_follow_each_other_in_place(applied):
    images = noise(50, 3, 8, 8)
    seen = rand_augment(images, keys(50), RANGES, count=3)
    assert len(applied) == 3
    for operation, strength in applied.copy():
        images = operations.apply(images, operation, strength)
    assert torch.equal(seen, images)


def test_pairs_of_operations_are_evenly_drawn_with_repetition(applied):
    n = 14 * 14 * 40
    rand_augment(black(n, 1, 1), keys(n), RANGES)
    (first, _), (second, _) = applied
    counts = torch.bincount(first * 14 + second, minlength=14 * 14)
    assert len(counts) == 14 * 14
    chi_square = ((counts - 40) ** 2 / 40).sum()
    assert abs(chi_square - 195) < 4 * (2 * 195) ** 0.5


def test_strengths_fill_the_range_of_their_operation(applied):
    n = 14 * 400
    rand_augment(black(n, 1, 1), keys(n), RANGES, count=1)
    [(operation, strength)] = applied
    for name in operations.OPERATIONS:
        drawn = strength[operation == operations.number(name)]
        low, high = operations.FIXMATCH.get(name, (0, 0))
        margin = 0.03 * (high - low)
        assert low <= drawn.min() <= low + margin and high - margin <= drawn.max() <= high
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=2 * margin)


def test_strengths_of_two_places_do_not_correlate(applied):
    rand_augment(black(6_000, 1, 1), keys(6_000), RANGES)
    low, high = torch.tensor([operations.FIXMATCH.get(name, (0, 1)) for name in operations.OPERATIONS]).T
    draws = [(strength - low[operation]) / (high - low)[operation] for operation, strength in applied]
    both = (draws[0] > 0) & (draws[1] > 0)
    assert abs(torch.corrcoef(torch.stack(draws)[:, both])[0, 1]) < 0.05


# --- each image by its own key ---------------------------------------------------------------------------

STRONG = {
    "rand_augment": lambda images, key: rand_augment(images, key, RANGES),
    "cutout": cutout,
    "both": lambda images, key: cutout(rand_augment(images, key, RANGES), key),
}


@pytest.mark.parametrize("name", STRONG)
def test_one_key_gives_one_result(name):
    images = noise(32, 3, 8, 8)
    assert torch.equal(STRONG[name](images, keys(32)), STRONG[name](images, keys(32)))
    assert not torch.equal(STRONG[name](images, keys(32)), STRONG[name](images, keys(32, seed=2)))


@pytest.mark.parametrize("name", STRONG)
def test_other_slots_see_one_image_differently(name):
    seen = STRONG[name](noise(1, 3, 16, 16).expand(200, -1, -1, -1), keys(200))
    same = (seen[1:] == seen[:-1]).flatten(1).all(1)
    assert same.float().mean() < 0.05


@pytest.mark.parametrize("name", STRONG)
@quick
@given(order=st.permutations(range(6)))
def test_the_order_and_the_company_of_images_do_not_matter(name, order):
    images, key, order = noise(6, 3, 8, 9), keys(6), list(order)
    seen = STRONG[name](images, key)
    assert torch.equal(STRONG[name](images[order], Key(key.state[order])), seen[order])
    assert torch.equal(STRONG[name](images[order[:1]], Key(key.state[order[:1]])), seen[order[:1]])


@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (5, 1, 1, 1), (5, 3, 2, 3), (5, 1, 1, 7)])
def test_small_and_empty_batches_keep_their_shape_and_type(name, shape):
    seen = STRONG[name](noise(*shape), keys(shape[0]))
    assert seen.shape == shape and seen.dtype == torch.uint8
