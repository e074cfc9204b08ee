"""Crops and mixtures: against Pillow, and what part of which image is left."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from fewlabels.inputs.images.resample import Box, random_resized_crop, resample, whole
from fewlabels.inputs.mix import beta, beta_quantiles, cutmix, mixup, resize_mix
from fewlabels.keys import Key
from tests.inputs.test_operations import from_pillow, noise, to_pillow

quick = settings(deadline=None, max_examples=60)
EVEN = beta_quantiles(1.0)
sides = st.tuples(st.integers(1, 24), st.integers(1, 24))


def keys(n, seed=0):
    return Key(seed).fold(torch.arange(n))


def box(top, left, height, width):
    return Box(*(torch.tensor([float(v)]) for v in (top, left, height, width)))


@st.composite
def boxes(draw, height, width):
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    return draw(st.integers(0, height - h)), draw(st.integers(0, width - w)), h, w


@quick
@given(st.data(), sides, st.sampled_from((1, 3)), st.integers(0, 2**32))
def test_resampling_is_pillows_crop_and_resize(data, size, channels, seed):
    image = np.random.default_rng(seed).integers(0, 256, (channels, *size), dtype=np.uint8)
    (top, left, h, w), (y, x, new_h, new_w) = data.draw(boxes(*size)), data.draw(boxes(*size))
    ours = resample(torch.from_numpy(image)[None], box(top, left, h, w), box(y, x, new_h, new_w))[0].numpy()
    cut = to_pillow(image).crop((left, top, left + w, top + h))
    expected = np.zeros_like(image)
    expected[:, y : y + new_h, x : x + new_w] = from_pillow(cut.resize((new_w, new_h), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_the_whole_stays_the_whole():
    images = noise(3, 3, 9, 7)
    assert torch.equal(resample(images, whole(images), whole(images)), images)


def test_resized_crops_have_the_area_and_aspect_that_were_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr("fewlabels.inputs.images.resample.resample", lambda images, source, target: seen.append(source))
    random_resized_crop(torch.zeros(4000, 1, 100, 100, dtype=torch.uint8), keys(4000), (0.2, 0.5))
    [(top, left, height, width)] = seen
    area, aspect = height * width / 10_000, width / height
    assert area.min() > 0.19 and area.max() < 0.51
    assert area.mean() == pytest.approx(0.35, abs=0.01)
    assert aspect.min() > 0.73 and aspect.max() < 1.37
    assert aspect.log().mean() == pytest.approx(0, abs=0.01)
    assert (top >= 0).all() and (top + height <= 100).all()
    assert (left >= 0).all() and (left + width <= 100).all()
    assert top[height < 90].min() == 0 and (top + height)[height < 90].max() == 100


def test_crops_follow_their_keys():
    images = noise(8, 3, 16, 16)
    crops = random_resized_crop(images, keys(8))
    assert crops.shape == images.shape and crops.dtype == torch.uint8
    assert torch.equal(crops[2:4], random_resized_crop(images[2:4], Key(keys(8).state[2:4])))
    assert random_resized_crop(noise(0, 3, 8, 8), keys(0)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("alpha", [0.2, 0.75, 1.0, 16.0])
def test_beta_has_its_distribution(alpha):
    drawn = beta(keys(20_000), beta_quantiles(alpha)).numpy()
    assert drawn.min() >= 0 and drawn.max() <= 1
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).statistic < 0.02


def test_mixup_blends():
    first, second = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4)
    share = torch.tensor([0, 0.25, 0.5, 0.75, 1])
    mixed = mixup(first, second, share)
    assert torch.equal(mixed[0], second[0]) and torch.equal(mixed[4], first[4])
    torch.testing.assert_close(mixed[1], 0.25 * first[1] + 0.75 * second[1])


def test_cutmix_tells_what_is_left():
    n = 500
    first, second = torch.zeros(n, 3, 16, 12), torch.ones(n, 3, 16, 12)
    mixed, left = cutmix(first, second, keys(n), keys(n, 1).uniform())
    torch.testing.assert_close(1 - mixed.mean((1, 2, 3)), left)
    rows, columns = mixed[:, 0].amax(2), mixed[:, 0].amax(1)
    assert torch.equal(mixed[:, 0], rows[:, :, None] * columns[:, None, :])  # rectangles
    assert left.min() < 0.2 and left.max() == 1


def test_cutmix_leaves_about_the_wanted_share_or_more():
    n = 400
    first, second = torch.zeros(n, 1, 32, 32), torch.ones(n, 1, 32, 32)
    assert (cutmix(first, second, keys(n), torch.ones(n))[1] == 1).all()
    wanted = keys(n, 1).uniform()
    left = cutmix(first, second, keys(n), wanted)[1]
    assert (left >= wanted - 0.04).all()  # whole pixels
    assert ((left - wanted).abs() < 0.04).any()


@pytest.mark.parametrize(("draw", "expected"), [(0.0, 0.0), (0.5, 0.5), (1 - 2**-24, 1 - 2**-24)])
def test_beta_reaches_both_ends(monkeypatch, draw, expected):
    monkeypatch.setattr(Key, "uniform", lambda self: torch.tensor([draw]))
    assert beta(keys(1), EVEN).item() == pytest.approx(expected, abs=1e-7)


def test_resize_mix_pastes_the_whole_other_image():
    n = 300
    first, second = torch.zeros(n, 1, 20, 20, dtype=torch.uint8), torch.full((n, 1, 20, 20), 200, dtype=torch.uint8)
    mixed, left = resize_mix(first, second, keys(n))
    pasted = mixed == 200
    assert (pasted | (mixed == 0)).all()
    torch.testing.assert_close(1 - pasted.float().mean((1, 2, 3)), left)
    assert left.min() < 0.45 and left.max() > 0.95


def test_resize_mix_shows_the_other_image_made_smaller():
    ramp = torch.arange(0, 200, 10, dtype=torch.uint8).expand(1, 1, 20, 20)
    mixed, _ = resize_mix(torch.zeros_like(ramp), ramp, keys(1), (0.5, 0.5))
    row = mixed[0, 0][mixed[0, 0].amax(1) > 0][0]
    patch = row[row > 0]
    assert len(patch) in (9, 10) and (patch.diff() > 0).all()


def test_normalized_images_are_pasted_as_the_same_bytes_would_be():
    images, others = noise(40, 1, 9, 9).split(20)
    of_bytes, first = resize_mix(images, others, keys(20), quantiles=EVEN)
    of_floats, second = resize_mix(images.double() / 255, others.double() / 255, keys(20), quantiles=EVEN)
    assert torch.equal(first, second)
    assert (of_floats * 255 - of_bytes).abs().max() <= 1.01


def test_the_pasted_side_is_the_root_of_a_beta():
    _, share = resize_mix(torch.zeros(4000, 1, 100, 100), torch.ones(4000, 1, 100, 100), keys(4000), quantiles=EVEN)
    side = (1 - share).sqrt()
    expected = 0.1 + 0.7 * np.sqrt(np.random.default_rng(0).uniform(size=200_000))
    assert side.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert side.std() == pytest.approx(expected.std(), abs=0.01)
