"""Decoding: whatever holds an image gives the same uint8 pixels, and what is broken is named, not fatal."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from fewlabels.data.decode import channels_last, decode, decode_all, image_list, image_name, image_size, to_uint8
from fewlabels.errors import UserError

FEW = settings(deadline=None, max_examples=20)
GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
SIZE = (6, 8)

# A side of 1 or 3 could as well be channels.
gray_pixels = arrays.arrays(np.uint8, st.tuples(st.integers(4, 9), st.integers(4, 9)))
color_pixels = arrays.arrays(np.uint8, st.tuples(st.integers(4, 9), st.integers(4, 9), st.just(3)))


def png(path, image, **options):
    image.save(path, "PNG", **options)
    return path


def orientation(number):
    exif = Image.Exif()
    exif[274] = number
    return exif


# --- files and PIL images ---


def test_a_gray_file_keeps_its_pixels_and_repeats_them_in_color(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY))
    assert np.array_equal(decode(path, 1, SIZE)[..., 0], GRAY)
    assert np.array_equal(decode(str(path), 3, SIZE), np.stack([GRAY] * 3, -1))


def test_a_color_file_keeps_its_pixels_and_turns_gray_by_luma(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(COLOR))
    assert np.array_equal(decode(path, 3, SIZE), COLOR)
    luma = COLOR @ [0.299, 0.587, 0.114]
    assert np.abs(decode(path, 1, SIZE)[..., 0] - luma).max() <= 1


def test_alpha_is_left_out(tmp_path):
    alpha = np.where(GRAY > 100, 255, 60).astype(np.uint8)
    path = png(tmp_path / "a.png", Image.fromarray(np.dstack([COLOR, alpha])))
    assert np.array_equal(decode(path, 3, SIZE), COLOR)


def test_a_palette_becomes_its_colors_not_its_indices(tmp_path):
    palette = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], np.uint8)
    index = (GRAY // 5 % 3).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(decode(png(tmp_path / "a.png", image), 3, SIZE), palette[index])


def test_black_and_white_files_have_0_and_255(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY > 100))
    assert np.array_equal(decode(path, 1, SIZE)[..., 0], np.where(GRAY > 100, 255, 0))


STORED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.T,
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).T,
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("number", STORED)
def test_an_image_that_the_camera_turned_is_turned_back(tmp_path, number):
    stored = Image.fromarray(np.ascontiguousarray(STORED[number](GRAY)))
    path = png(tmp_path / "a.png", stored, exif=orientation(number))
    assert np.array_equal(decode(path, 1, SIZE)[..., 0], GRAY)
    with Image.open(path) as image:
        assert np.array_equal(decode(image, 1, SIZE)[..., 0], GRAY)


def test_a_16_bit_gray_file_keeps_its_contrast(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY.astype(np.uint16) * 257))
    assert np.abs(decode(path, 1, SIZE)[..., 0].astype(int) - GRAY).max() <= 1


# --- arrays and tensors ---


@FEW
@given(gray_pixels)
def test_floats_in_0_to_1_and_uint8_agree(pixels):
    for floats in (pixels / 255, (pixels / 255).astype(np.float32), torch.from_numpy(pixels) / 255):
        assert np.array_equal(decode(floats, 1, pixels.shape), decode(pixels, 1, pixels.shape))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_of_the_256_levels(dtype):
    levels = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_uint8((levels / 255).astype(dtype)), levels)


@FEW
@given(gray_pixels)
def test_whole_numbers_of_any_type_and_uint8_agree(pixels):
    for dtype in (np.int64, np.uint16, np.int32):
        assert np.array_equal(to_uint8(pixels.astype(dtype)), pixels)


@FEW
@given(color_pixels)
def test_channels_first_and_last_agree(pixels):
    size = pixels.shape[:2]
    first = np.moveaxis(pixels, -1, 0)
    for image in (pixels, first, torch.from_numpy(first.copy()), torch.from_numpy(first.copy()) / 255):
        assert np.array_equal(decode(image, 3, size), pixels)


@FEW
@given(gray_pixels)
def test_a_gray_image_needs_no_channel_axis(pixels):
    for image in (pixels, pixels[None], pixels[..., None], torch.from_numpy(pixels)[None], pixels.tolist()):
        assert np.array_equal(decode(image, 1, pixels.shape), pixels[..., None])


def test_true_and_false_are_white_and_black():
    assert to_uint8(np.array([True, False])).tolist() == [255, 0]


OUT_OF_RANGE = {
    "normalized": (np.array([[-1.5, 0.5]]), "from -1.5 to 0.5"),
    "16 bits": (np.array([[0, 65535]]), "from 0 to 65535"),
    "fractions": (np.array([[127.5, 255.0]]), "from 127.5 to 255"),
    "negative": (np.array([[-1, 3]]), "from -1 to 3"),
    "nan": (np.array([[np.nan, 0.5]]), "nan"),
    "infinite": (np.array([[np.inf, 0.5]]), "inf"),
    "text": (np.array([["a"]]), "type <U1"),
    "complex": (np.array([[1j]]), "complex"),
}


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_values_that_are_no_pixels_are_refused_with_their_range_and_the_remedy(name):
    pixels, said = OUT_OF_RANGE[name]
    with pytest.raises(UserError, match=r"give uint8, or floats in 0\.\.1") as error:
        decode(pixels, 1, (4, 4))
    assert said in str(error.value)


@pytest.mark.parametrize("shape", [(8,), (8, 8, 4), (2, 8, 8), (2, 3, 8, 8)])
def test_shapes_that_are_no_image_are_refused_with_the_shape(shape):
    with pytest.raises(UserError, match=r"with 1 or 3 channels") as error:
        decode(np.zeros(shape, np.uint8), 3, (4, 4))
    assert str(list(shape)) in str(error.value)


def test_channels_move_only_where_they_are_first():
    assert channels_last(np.zeros((5, 3, 8, 9)), 1).shape == (5, 8, 9, 3)
    assert channels_last(np.zeros((5, 8, 9, 1)), 1).shape == (5, 8, 9, 1)
    assert channels_last(np.zeros((5, 8, 9)), 1).shape == (5, 8, 9)


def test_bfloat16_tensors_are_floats_too():
    assert to_uint8(torch.ones(2, 2).bfloat16()).tolist() == [[255, 255], [255, 255]]


def test_an_image_without_pixels_is_broken():
    assert set(decode_all([np.zeros((0, 8), np.uint8)], 1, SIZE)[1]) == {0}


# --- sizes ---


@FEW
@given(
    color_pixels, st.integers(1, 12), st.integers(1, 12), st.sampled_from(["crop", "squash"]), st.sampled_from([1, 3])
)
def test_the_size_is_the_one_asked_for(pixels, height, width, resize, channels):
    out = decode(pixels, channels, (height, width), resize)
    assert out.shape == (height, width, channels)
    assert out.dtype == np.uint8
    assert int(pixels.min()) <= out.min() <= out.max() <= int(pixels.max())


@pytest.mark.parametrize("turned", [False, True])
def test_crop_cuts_the_middle_and_squash_keeps_the_edges(turned):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, [0, 1, 6, 7]] = 255
    pixels = pixels.T.copy() if turned else pixels
    assert decode(pixels, 1, (4, 4), "crop").max() == 0
    squashed = decode(pixels, 1, (4, 4), "squash")[..., 0]
    squashed = squashed.T if turned else squashed
    assert squashed[:, [0, 3]].min() > 200 > 60 > squashed[:, 1:3].max()


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_the_size_is_height_then_width(resize):
    stripes = np.repeat(np.arange(12, dtype=np.uint8)[:, None] * 20, 12, 1)
    out = decode(stripes, 1, (3, 9), resize)[..., 0].astype(int)
    assert (out == out[:, :1]).all()
    assert (np.diff(out[:, 0]) > 0).all()


def test_crop_scales_both_sides_alike():
    y, x = np.mgrid[:40, :80]
    disc = (np.hypot(y - 19.5, x - 39.5) < 16).astype(np.uint8) * 255
    out = decode(disc, 1, (20, 20), "crop")[..., 0] > 127
    assert abs(int(out.any(0).sum()) - int(out.any(1).sum())) <= 1
    flat = decode(disc, 1, (20, 20), "squash")[..., 0] > 127
    assert flat.any(1).sum() > 1.5 * flat.any(0).sum()


def test_image_size_tells_height_width_and_channels_of_anything(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(COLOR))
    for image in (path, str(path), Image.fromarray(COLOR), COLOR, np.moveaxis(COLOR, -1, 0), torch.from_numpy(COLOR)):
        assert image_size(image) == (6, 8, 3)
    gray = png(tmp_path / "b.png", Image.fromarray(GRAY))
    for image in (gray, Image.fromarray(GRAY), GRAY, GRAY[None], GRAY / 255):
        assert image_size(image) == (6, 8, 1)


def test_image_size_is_that_of_the_turned_image(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY.T.copy()), exif=orientation(6))
    assert image_size(path) == (6, 8, 1)


# --- many, and broken ones ---


def test_images_of_all_kinds_come_in_order_channels_first(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(COLOR))
    out, broken = decode_all([path, GRAY, Image.fromarray(COLOR)], 3, SIZE)
    assert broken == {}
    assert out.dtype == torch.uint8
    assert np.array_equal(out.permute(0, 2, 3, 1).numpy(), np.stack([COLOR, np.stack([GRAY] * 3, -1), COLOR]))


def broken_images(folder):
    whole = png(folder / "whole.png", Image.fromarray(COLOR)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    return {
        folder / "cut.png": "",
        folder / "text.jpg": "not an image in a known format",
        folder / "empty.png": "not an image in a known format",
        folder / "folder.png": "directory",
        folder / "none.png": "No such file",
    }


def test_broken_files_are_named_by_place_and_reason_and_the_others_are_unharmed(tmp_path):
    reasons = broken_images(tmp_path)
    images = [GRAY]
    for path in reasons:
        images += [path, GRAY + 1]
    images.append(np.full(SIZE, -3.0))
    out, broken = decode_all(images, 1, SIZE)
    assert np.array_equal(out[:, 0].numpy(), np.stack([GRAY] + [GRAY + 1] * len(reasons)))
    assert list(broken) == [1, 3, 5, 7, 9, 11]
    for said, reason in zip([*reasons.values(), "from -3 to -3"], broken.values(), strict=True):
        assert reason
        assert said in reason


def test_no_images_and_only_broken_ones_give_an_empty_tensor(tmp_path):
    assert decode_all([], 3, SIZE)[0].shape == (0, 3, 6, 8)
    out, broken = decode_all([tmp_path / "none.png"], 1, SIZE)
    assert out.shape == (0, 1, 6, 8)
    assert set(broken) == {0}


def bomb(side):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_a_file_that_claims_to_be_huge_is_broken_not_opened(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(20_000))
    assert "bomb" in decode_all([path], 1, SIZE)[1][0]
    with pytest.raises(ValueError, match="bomb"):
        image_size(path)


def jpeg_with_exif():
    exif = orientation(6)
    exif[305] = "soft"
    out = io.BytesIO()
    Image.fromarray(COLOR).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_a_damaged_exif_does_not_stop_the_others(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_with_exif().replace(b"\x01\x31\x00\x02", b"\x01\x06\x00\x02"))  # Pillow: struct.error
    out, _ = decode_all([path, GRAY], 1, SIZE)
    assert np.array_equal(out[-1, 0].numpy(), GRAY)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@FEW
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), min_size=1, max_size=6), st.integers(1, 700))
def test_no_damage_to_a_file_stops_the_others(tmp_path_factory, changes, length):
    data = bytearray(jpeg_with_exif()[:length])
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(data)
    out, broken = decode_all([path, GRAY], 1, SIZE)
    assert set(broken) <= {0}
    assert np.array_equal(out[-1, 0].numpy(), GRAY)


# --- lists and names ---


def test_one_array_of_all_images_is_taken_apart():
    images = np.stack([COLOR, COLOR[::-1]])
    first = np.moveaxis(images, -1, 1).copy()
    for array in (images, first, torch.from_numpy(first), images / 255):
        assert np.array_equal(np.stack(image_list(array)), images)


@pytest.mark.parametrize("image", ["a.png", Image.fromarray(GRAY)])
def test_one_image_where_a_list_is_expected_is_refused(image):
    with pytest.raises(UserError, match=r"give \[image\]"):
        image_list(image)


def test_an_image_is_named_by_its_path_or_its_place():
    assert image_name("b/a.png", 3) == "b/a.png"
    assert image_name(GRAY, 3) == "image 3"
