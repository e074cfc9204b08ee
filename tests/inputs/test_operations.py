"""Operations against Pillow's of the same name, image by image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision import transforms

from fewlabels.inputs.images import operations
from fewlabels.inputs.images.operations import BLENDS, FIXMATCH, OPERATIONS, TABLES, WARPS

quick = settings(deadline=None, max_examples=20)
seeds = st.integers(0, 2**32)
draws = st.integers(0, 2**24 - 1).map(lambda bits: bits / 2**24)


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0)


PILLOW = {
    "identity": lambda image, v: image,
    "autocontrast": lambda image, v: ImageOps.autocontrast(image),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "equalize": lambda image, v: ImageOps.equalize(image),
    "posterize": lambda image, v: ImageOps.posterize(image, int(v)),
    "rotate": lambda image, v: image.rotate(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
    "shear_x": lambda image, v: affine(image, 1, v, 0, 0, 1, 0),
    "shear_y": lambda image, v: affine(image, 1, 0, 0, v, 1, 0),
    "solarize": lambda image, v: ImageOps.solarize(image, v),
    "translate_x": lambda image, v: affine(image, 1, 0, v * image.width, 0, 1, 0),
    "translate_y": lambda image, v: affine(image, 1, 0, 0, 0, 1, v * image.height),
}


def to_pillow(image):
    """[1 or 3, H, W] uint8 -> a gray or colored image."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def from_pillow(image):
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


FROM_FIXMATCH = operations.strength_ranges("fixmatch")


def strength_of(name, draw, pool="fixmatch"):
    """The strength that a draw in [0, 1) gives, as float32 [1]."""
    ranges = operations.strength_ranges(pool)
    return operations.strengths(torch.tensor([operations.number(name)]), torch.tensor([draw]), ranges)


def apply_one(image, name, strength):
    given = torch.from_numpy(np.ascontiguousarray(image))[None]
    return operations.apply(given, torch.tensor([operations.number(name)]), strength)[0].numpy()


def difference(image, name, draw, pool="fixmatch"):
    """Gray levels between our operation and Pillow's, for each pixel."""
    strength = strength_of(name, draw, pool)
    expected = from_pillow(PILLOW[name](to_pillow(image), strength.item()))
    ours = apply_one(image, name, strength)
    assert ours.dtype == np.uint8 and ours.shape == expected.shape
    return np.abs(ours.astype(int) - expected)


@st.composite
def images(draw):
    """Gray and colored images of any size: all levels, a narrow band of levels, few levels, a bell."""
    shape = draw(st.sampled_from((1, 3))), draw(st.integers(1, 40)), draw(st.integers(1, 40))
    random = np.random.default_rng(draw(seeds))
    low, high = np.sort(random.integers(0, 256, 2))
    kinds = {
        "all": lambda: random.integers(0, 256, shape),
        "band": lambda: random.integers(low, high + 1, shape),
        "few": lambda: random.choice(random.integers(0, 256, 3), shape),
        "bell": lambda: np.clip(random.normal(low, 30, shape), 0, 255),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]().astype(np.uint8)


def noise(n, channels, height, width):
    values = np.random.default_rng(0).integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


# --- the pool --------------------------------------------------------------------------------------------


def test_the_pool_is_that_of_fixmatch():
    """Sohn et al. 2020, table 12; brightness, color, contrast and sharpness alike, and x as y."""
    assert sorted(OPERATIONS) == sorted(PILLOW)
    assert len(OPERATIONS) == 14
    strong = {"brightness": (0.05, 0.95), "posterize": (4, 8), "rotate": (-30, 30), "solarize": (0, 256)}
    strong |= dict.fromkeys(("color", "contrast", "sharpness"), (0.05, 0.95))
    strong |= dict.fromkeys(("shear_x", "shear_y", "translate_x", "translate_y"), (-0.3, 0.3))
    assert strong == FIXMATCH
    assert [OPERATIONS[operations.number(name)] for name in PILLOW] == list(PILLOW)


@pytest.mark.parametrize("name", OPERATIONS)
def test_strengths_fill_their_range(name):
    low, high = FIXMATCH.get(name, (0, 0))
    for draw, expected in ((0.0, low), (0.5, (low + high) / 2), (1 - 2**-24, high)):
        assert strength_of(name, draw).item() == pytest.approx(expected, abs=1e-4)


def test_each_image_has_a_strength_of_its_own():
    draws = torch.linspace(0, 0.99, 14)
    together = operations.strengths(torch.arange(14), draws, FROM_FIXMATCH)
    alone = [strength_of(name, draw).item() for name, draw in zip(OPERATIONS, draws.tolist(), strict=True)]
    assert together.tolist() == alone


# --- against Pillow --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
@quick
@given(image=images(), draw=draws)
def test_tables_equal_pillow_bit_for_bit(name, image, draw):
    assert difference(image, name, draw).max() == 0


@pytest.mark.parametrize("name", BLENDS)
@quick
@given(image=images(), draw=draws)
def test_blends_equal_pillow_within_a_gray_level(name, image, draw):
    # Measured on x86-64 with Pillow 13.0: no pixel differs (600 images each). A Pillow that was compiled with
    # fused multiply-adds may round otherwise.
    assert difference(image, name, draw).max() <= 1


# The lowest, the highest and random strengths.
WARP_DRAWS = (0.0, 1 - 2**-24, *np.random.default_rng(1).random(22))


@pytest.mark.parametrize("name", WARPS)
def test_warps_equal_pillow(name):
    # Both count in 1/65536 of a pixel; Pillow rounds the sines and cosines of an angle to 15 digits first.
    random = np.random.default_rng(0)
    differing = pixels = 0
    for number, draw in enumerate(WARP_DRAWS):
        height, width = (224, 200) if number % 10 == 0 else random.integers(1, 65, 2)
        channels = 1 + 2 * (number % 2)
        apart = difference(random.integers(0, 256, (channels, height, width), dtype=np.uint8), name, draw)
        differing, pixels = differing + (apart > 0).sum(), pixels + apart.size
    assert differing == 0, f"{differing / pixels:.6%}"


def test_autocontrast_equals_pillow_for_all_ranges_of_levels():
    for low in range(0, 256, 51):
        levels = np.stack([np.clip(np.arange(256), low, high) for high in range(low, 256)])
        given = torch.from_numpy(levels.astype(np.uint8))[:, None, None]
        chosen = torch.full((len(given),), operations.number("autocontrast"))
        ours = operations.apply(given, chosen, torch.zeros(len(given)))
        for image, mine in zip(given.numpy(), ours.numpy(), strict=True):
            assert np.array_equal(mine, from_pillow(ImageOps.autocontrast(to_pillow(image))))


DEGENERATE = {
    **{f"all {value}": np.full((3, 8, 8), value, np.uint8) for value in (0, 1, 127, 128, 254, 255)},
    "0 and 255": np.tile(np.array([0, 255], np.uint8), (3, 8, 4)),
    "100 and 101": np.tile(np.array([100, 101, 101, 101], np.uint8), (3, 8, 2)),
    "one pixel differs": np.pad(np.full((3, 1, 1), 9, np.uint8), ((0, 0), (3, 12), (4, 11)), constant_values=200),
    "all 256 levels": np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (3, 1, 1)),
    "one pixel": np.array([[[7]], [[8]], [[9]]], np.uint8),
    "one row": np.arange(0, 240, 10, dtype=np.uint8).reshape(3, 1, 8),
    "two columns": np.arange(0, 240, 10, dtype=np.uint8).reshape(3, 4, 2),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("channels", [1, 3])
def test_degenerate_images_equal_pillow(kind, channels):
    for name in OPERATIONS:
        for draw in (0.0, 0.4, 1 - 2**-24):
            apart = difference(DEGENERATE[kind][:channels], name, draw)
            assert (apart > 0).mean() < 0.005 if name in WARPS else apart.max() <= (name in BLENDS), name


@quick
@given(images())
def test_gray_histogram_and_smooth_equal_pillow(image):
    given, pillow = torch.from_numpy(image)[None], to_pillow(image)
    assert np.array_equal(operations.luma(given)[0, 0], np.asarray(pillow.convert("L")))
    assert operations.histograms(given).flatten().tolist() == pillow.histogram()
    assert np.array_equal(operations.smooth(given)[0], from_pillow(pillow.filter(ImageFilter.SMOOTH)))


TORCHVISIONS = {
    "brightness": "Brightness", "color": "Color", "contrast": "Contrast", "posterize": "Posterize", "rotate": "Rotate",
    "sharpness": "Sharpness", "shear_x": "ShearX", "shear_y": "ShearY", "solarize": "Solarize",
    "translate_x": "TranslateX", "translate_y": "TranslateY",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TORCHVISIONS))
def test_the_pool_of_torchvision_has_its_strengths(name):
    strengths, signed = transforms.RandAugment()._augmentation_space(31, (331, 331))[TORCHVISIONS[name]]
    theirs = strengths[9].item()
    if name in ("brightness", "color", "contrast", "sharpness"):
        expected = 1 - theirs, 1 + theirs
    else:
        expected = (-theirs, theirs) if signed else (theirs, theirs)
    side = 331 if "translate" in name else 1
    drawn = [side * strength_of(name, draw, "torchvision").item() for draw in (0.0, 0.49, 0.5, 1 - 2**-24)]
    assert drawn == pytest.approx([expected[0], expected[0], expected[1], expected[1]], rel=1e-5)


@pytest.mark.parametrize("name", OPERATIONS)
@quick
@given(image=images(), draw=st.sampled_from((0.0, 0.5)))
def test_operations_of_torchvisions_pool_equal_pillow(name, image, draw):
    assert difference(image, name, draw, "torchvision").max() <= (name in BLENDS)


# --- a batch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mixed_batch_equals_each_image_done_alone(channels):
    given = noise(28, channels, 20, 17) // torch.tensor([1, 2, 3, 5] * 7, dtype=torch.uint8)[:, None, None, None]
    chosen = torch.arange(28) * 5 % 14
    draws = torch.from_numpy(np.random.default_rng(0).random(28, np.float32))
    strength = operations.strengths(chosen, draws, FROM_FIXMATCH)
    before = given.clone()
    together = operations.apply(given, chosen, strength)
    assert torch.equal(given, before)
    for i in range(28):
        assert np.array_equal(together[i], apply_one(given[i].numpy(), OPERATIONS[chosen[i]], strength[i : i + 1]))


def test_an_empty_batch_stays_empty():
    none = torch.zeros(0, dtype=torch.int64)
    strength = operations.strengths(none, torch.zeros(0), FROM_FIXMATCH)
    assert operations.apply(noise(0, 3, 8, 8), none, strength).shape == (0, 3, 8, 8)


def test_warp_fills_the_outside():
    far_away = torch.tensor([[1, 0, 100, 0, 1, 0]] * 2, dtype=torch.float32)
    given = noise(2, 3, 8, 8)
    assert (operations.warp(given, far_away) == 0).all()
