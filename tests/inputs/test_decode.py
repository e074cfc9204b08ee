"""Decoding: whatever holds an image gives the same uint8 pixels, and what is broken is named, not fatal."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, UnidentifiedImageError

from benchmarks.damaged_images import color_picture, encoded, gray_picture, samples, turned_exif
from fewlabels.data.image import FORMATS, MOST_BYTES, Slice, image_name, reason_of
from fewlabels.data.pixels import channels_last, image_list, to_uint8
from fewlabels.errors import UserError
from fewlabels.inputs.images import decode as module
from fewlabels.inputs.images.decode import ImageForm, decode, decode_into
from fewlabels.inputs.images.look import Look, highest_level, look, white_level
from fewlabels.inputs.images.store import decode_all

FEW = settings(deadline=None, max_examples=20)
GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOR = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
SIZE = (6, 8)
GRAY_FORM, COLOR_FORM = ImageForm(1, SIZE), ImageForm(3, SIZE)

# A side of 1 or 3 could as well be channels.
gray_pixels = arrays.arrays(np.uint8, st.tuples(st.integers(4, 9), st.integers(4, 9)))
color_pixels = arrays.arrays(np.uint8, st.tuples(st.integers(4, 9), st.integers(4, 9), st.just(3)))


def png(path, image, **options):
    image.save(path, "PNG", **options)
    return path


def refused(image, form=COLOR_FORM):
    """Give the reason why an image is refused, and see that no pixel was touched."""
    pixels = np.full((1, *form.size, form.channels), 7, np.uint8)
    broken = decode_into(pixels, [image], form)
    assert (pixels == 7).all()
    assert broken[0].strip() and "\n" not in broken[0]
    return broken[0]


# --- files and PIL images ---


def test_a_gray_file_keeps_its_pixels_and_repeats_them_in_color(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY))
    assert np.array_equal(decode(path, GRAY_FORM)[..., 0], GRAY)
    assert np.array_equal(decode(str(path), COLOR_FORM), np.stack([GRAY] * 3, -1))


def test_a_color_file_keeps_its_pixels_and_turns_gray_by_luma(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(COLOR))
    assert np.array_equal(decode(path, COLOR_FORM), COLOR)
    luma = COLOR @ [0.299, 0.587, 0.114]
    assert np.abs(decode(path, GRAY_FORM)[..., 0] - luma).max() <= 1


ALPHA = np.where(GRAY > 100, 255, 60).astype(np.uint8)


def over_white(pixels):
    opacity = ALPHA.reshape(*SIZE, *[1] * (pixels.ndim - 2)) / 255
    return pixels * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_shows_white(kind):
    data = encoded(Image.fromarray(np.dstack([COLOR, ALPHA])), kind, **{"lossless": True} if kind == "WEBP" else {})
    assert np.abs(decode(data, COLOR_FORM) - over_white(COLOR)).max() <= 1
    luma = over_white(COLOR) @ [0.299, 0.587, 0.114]
    assert np.abs(decode(data, GRAY_FORM)[..., 0] - luma).max() <= 1.5


def test_a_transparent_gray_and_a_transparent_palette_show_white_too():
    gray = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])
    assert np.abs(decode(encoded(gray, "PNG"), GRAY_FORM)[..., 0] - over_white(GRAY)).max() <= 1
    image = Image.fromarray((GRAY // 5 % 3).astype(np.uint8)).convert("P")
    image.putpalette(bytes([250, 10, 20, 30, 240, 50, 60, 70, 230]))
    seen = decode(encoded(image, "PNG", transparency=1), COLOR_FORM)
    assert (seen[GRAY // 5 % 3 == 1] == 255).all()
    assert (seen[GRAY // 5 % 3 == 2] == [60, 70, 230]).all()


def test_a_palette_becomes_its_colors_not_its_indices(tmp_path):
    palette = np.array([[250, 10, 20], [30, 240, 50], [60, 70, 230]], np.uint8)
    index = (GRAY // 5 % 3).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(decode(png(tmp_path / "a.png", image), COLOR_FORM), palette[index])


def test_black_and_white_files_have_0_and_255(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY > 100))
    assert np.array_equal(decode(path, GRAY_FORM)[..., 0], np.where(GRAY > 100, 255, 0))


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
    path = png(tmp_path / "a.png", stored, exif=turned_exif(number))
    assert np.array_equal(decode(path, GRAY_FORM)[..., 0], GRAY)
    with Image.open(path) as image:
        assert np.array_equal(decode(image, GRAY_FORM)[..., 0], GRAY)


def test_a_16_bit_gray_file_keeps_its_contrast(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY.astype(np.uint16) * 257))
    assert np.abs(decode(path, GRAY_FORM)[..., 0].astype(int) - GRAY).max() <= 1


# --- formats ---

BIG = (20, 24)
LOSSY = 12  # levels that a lossy format may be off


def whites(name):
    return 1.0 if name == "tiff floats" else 65535.0


@pytest.mark.parametrize("name", samples())
def test_every_format_and_mode_gives_its_picture(name):
    data = samples()[name]
    form = ImageForm(3, (24, 20) if name == "jpeg turned" else BIG, white=whites(name))
    seen = decode(data, form)
    seen = np.rot90(seen) if name == "jpeg turned" else seen
    words = set(name.split())
    if name in ("png 1", "tiff fax", "pbm"):  # dithered: right on average
        assert set(np.unique(seen)) == {0, 255}
        assert seen.mean() == pytest.approx(gray_picture().mean(), abs=3)
        return
    gray = words & {"gray", "L", "LA", "16", "floats", "pgm"}
    expected = np.stack([gray_picture()] * 3, -1) if gray else color_picture()
    if words & {"LA", "RGBA", "alpha"}:
        opacity = np.where(gray_picture() > 100, 1, 60 / 255)[..., None]
        expected = expected * opacity + 255 * (1 - opacity)
    if name == "png P transparent":
        shown = (seen != 255).any(-1)
        assert 0.5 < shown.mean() < 1
        seen, expected = seen[shown], expected[shown]
    few = words & {"gif", "P"}  # 8 colors
    assert np.abs(seen.astype(int) - expected).max() <= (60 if few else LOSSY), name
    assert np.abs(seen.astype(int) - expected).mean() <= (16 if few else 2), name


@pytest.mark.parametrize("name", samples())
def test_the_header_says_what_the_image_is(name):
    seen = look(samples()[name])
    deep = name in ("png 16 bits", "tiff 16 bits", "tiff floats", "pgm 16 bits")
    gray = deep or name.split()[-1] in ("gray", "1", "L", "LA", "fax", "pbm", "pgm")
    assert seen == Look(*((24, 20) if name == "jpeg turned" else BIG), 1 if gray else 3, deep)


def test_paths_bytes_parts_of_files_and_opened_images_agree(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"before" + samples()["png RGB"] + b"after")
    (tmp_path / "a.png").write_bytes(samples()["png RGB"])
    part = Slice(tmp_path / "a.tar", 6, len(samples()["png RGB"]))
    with Image.open(tmp_path / "a.png") as image:
        for same in (tmp_path / "a.png", str(tmp_path / "a.png"), samples()["png RGB"], part, image, image.copy()):
            assert np.array_equal(decode(same, ImageForm(3, BIG)), color_picture())
    assert "ends within" in refused(Slice(tmp_path / "a.tar", 6, 10**6))


@pytest.mark.parametrize("name", ["webp animated", "gif animated", "png animated", "tiff pages", "mpo"])
def test_the_first_frame_counts(name):
    """The second one is mirrored."""
    seen = decode(samples()[name], ImageForm(3, BIG)).astype(int)
    assert np.abs(seen - color_picture()).mean() < 16 < np.abs(seen - color_picture()[:, ::-1]).mean()


@pytest.mark.parametrize("number", STORED)
def test_a_jpeg_that_the_camera_turned_is_turned_back(number):
    stored = Image.fromarray(np.ascontiguousarray(STORED[number](gray_picture())))
    data = encoded(stored, "JPEG", quality=95, exif=turned_exif(number))
    assert np.abs(decode(data, ImageForm(1, BIG))[..., 0].astype(int) - gray_picture()).max() <= LOSSY
    assert look(data) == Look(*BIG, 1)


def damaged_exif(number):
    """Give a JPEG whose second EXIF entry is of the wrong kind: Pillow raises struct.error."""
    data = encoded(Image.fromarray(gray_picture()), "JPEG", quality=95, exif=turned_exif(number))
    assert b"\x01\x31\x00\x02" in data
    return data.replace(b"\x01\x31\x00\x02", b"\x01\x06\x00\x02")


def test_an_image_whose_exif_is_damaged_is_shown_as_it_lies():
    seen = decode(damaged_exif(3), ImageForm(1, BIG))[..., 0]
    assert np.abs(seen.astype(int) - gray_picture()).max() <= LOSSY


@pytest.mark.parametrize("form", ["TIFF", "PNG", "array"])
def test_12_bit_data_is_bright_where_white_says_so(form):
    deep = Image.fromarray(np.rint(gray_picture() / 255 * 4095).astype(np.uint16))
    image = deep if form == "array" else encoded(deep, form)
    assert highest_level(image) == int(np.asarray(deep).max())
    assert white_level(highest_level(image)) == 4095
    seen = decode(image, ImageForm(1, BIG, white=4095))[..., 0].astype(int)
    assert np.abs(seen - gray_picture()).max() <= 1
    assert decode(image, ImageForm(1, BIG)).max() < 16  # what it looked like without


@pytest.mark.parametrize(
    ("highest", "white"),
    [(0.5, 1), (1, 1), (2, 255), (255, 255), (256, 511), (4095, 4095), (4096, 8191), (65535, 65535)],
)
def test_white_is_the_highest_level_of_the_bit_depth(highest, white):
    assert white_level(highest) == white


def test_floats_that_are_no_numbers_are_black_and_infinite_ones_white():
    levels = np.full(BIG, 0.5, np.float32)
    levels[0, 0], levels[0, 1], levels[0, 2], levels[0, 3] = np.nan, np.inf, -np.inf, -2
    data = encoded(Image.fromarray(levels), "TIFF")
    assert highest_level(data) == 0.5
    assert decode(data, ImageForm(1, BIG, white=1))[0, :5, 0].tolist() == [0, 255, 0, 0, 128]


def test_deep_images_larger_than_what_is_taken_at_once_agree(monkeypatch):
    data, form = samples()["png 16 bits"], ImageForm(1, BIG)
    whole = decode(data, form)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    assert np.array_equal(decode(data, form), whole)


def large_jpeg(**options):
    return encoded(Image.fromarray(color_picture(800, 1200)), "JPEG", quality=90, **options)


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
def test_a_large_jpeg_that_is_decoded_small_is_near_the_whole(resize, monkeypatch):
    form = ImageForm(3, (48, 64), resize)
    whole = decode(Image.open(io.BytesIO(large_jpeg())), form).astype(int)
    sizes, upright = [], module._upright
    monkeypatch.setattr(module, "_upright", lambda image: (sizes.append(image.size), upright(image))[1])
    seen = decode(large_jpeg(), form).astype(int)
    assert 128 <= sizes[0][0] < 1200
    assert np.abs(seen - whole).max() <= 6 and np.abs(seen - whole).mean() < 1


@pytest.mark.parametrize("number", [1, 6])
def test_a_turned_jpeg_is_not_decoded_smaller_than_it_is_needed(number):
    """The wanted size is that of the turned image: 400 of its 1200 columns must stay sharp."""
    stripes = np.zeros((1200, 300), np.uint8)
    stripes[:, ::4] = 255
    upright = Image.fromarray(stripes)
    stored = upright.transpose(Image.Transpose.ROTATE_90) if number == 6 else upright
    data = encoded(stored, "JPEG", quality=95, exif=turned_exif(number))
    assert decode(data, ImageForm(1, (75, 300)))[..., 0].std() > 60


# --- arrays and tensors ---


@FEW
@given(gray_pixels)
def test_floats_in_0_to_1_and_uint8_agree(pixels):
    for floats in (pixels / 255, (pixels / 255).astype(np.float32), torch.from_numpy(pixels) / 255):
        assert np.array_equal(decode(floats, ImageForm(1, pixels.shape)), decode(pixels, ImageForm(1, pixels.shape)))


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
        assert np.array_equal(decode(image, ImageForm(3, size)), pixels)


@FEW
@given(gray_pixels)
def test_a_gray_image_needs_no_channel_axis(pixels):
    for image in (pixels, pixels[None], pixels[..., None], torch.from_numpy(pixels)[None], pixels.tolist()):
        assert np.array_equal(decode(image, ImageForm(1, pixels.shape)), pixels[..., None])


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
        decode(pixels, ImageForm(1, (4, 4)))
    assert said in str(error.value)


@pytest.mark.parametrize("shape", [(8,), (8, 8, 8), (9, 8, 9), (2, 3, 8, 8), ()])
def test_shapes_that_are_no_image_are_refused_with_the_shape(shape):
    with pytest.raises(UserError, match=r"or with the channels last or before H") as error:
        decode(np.zeros(shape, np.uint8), ImageForm(3, (4, 4)))
    assert str(list(shape)) in str(error.value)


@pytest.mark.parametrize("shape", [(8, 8, 4), (2, 8, 8)])
def test_another_number_of_channels_is_refused(shape):
    with pytest.raises(ValueError, match=f"^{min(shape)} channels where 3 are expected"):
        decode(np.zeros(shape, np.uint8), ImageForm(3, (4, 4)))
    with pytest.raises(ValueError, match="1 or 3 channels where 5 are expected"):
        decode(GRAY, ImageForm(5, (4, 4)))


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, bool])
def test_any_number_of_channels_is_decoded_channel_by_channel(resize, kind):
    five = np.random.default_rng(0).integers(0, 2 if kind is bool else 256, (12, 9, 5)).astype(np.uint8)
    image = (five / 255).astype(kind) if kind is np.float32 else five.astype(kind)
    full = five * 255 if kind is bool else five
    form = ImageForm(5, (6, 6), resize)
    expected = np.concatenate([decode(full[..., c], ImageForm(1, (6, 6), resize)) for c in range(5)], -1)
    for given_ in (image, np.moveaxis(image, -1, 0), torch.from_numpy(image)):
        assert np.array_equal(decode(given_, form), expected)
    assert np.array_equal(decode(image, ImageForm(5, (12, 9))), full)
    assert look(image) == look(np.moveaxis(image, -1, 0)) == Look(12, 9, 5)


def test_channels_move_only_where_they_are_first():
    assert channels_last(np.zeros((5, 3, 8, 9)), 1).shape == (5, 8, 9, 3)
    assert channels_last(np.zeros((5, 8, 9, 1)), 1).shape == (5, 8, 9, 1)
    assert channels_last(np.zeros((5, 8, 9)), 1).shape == (5, 8, 9)


def test_bfloat16_tensors_are_floats_too():
    assert to_uint8(torch.ones(2, 2).bfloat16()).tolist() == [[255, 255], [255, 255]]


def test_an_image_without_pixels_is_broken():
    assert set(decode_all([np.zeros((0, 8), np.uint8)], GRAY_FORM)[1]) == {0}


# --- sizes ---


@FEW
@given(
    color_pixels,
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from(["crop", "squash", "pad"]),
    st.sampled_from([1, 3]),
)
def test_the_size_is_the_one_asked_for(pixels, height, width, resize, channels):
    out = decode(pixels, ImageForm(channels, (height, width), resize))
    assert out.shape == (height, width, channels)
    assert out.dtype == np.uint8
    assert int(pixels.min()) <= out.min() <= out.max() <= int(pixels.max())


@pytest.mark.parametrize("turned", [False, True])
def test_crop_cuts_the_middle_and_squash_keeps_the_edges(turned):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, [0, 1, 6, 7]] = 255
    pixels = pixels.T.copy() if turned else pixels
    assert decode(pixels, ImageForm(1, (4, 4), "crop")).max() == 0
    squashed = decode(pixels, ImageForm(1, (4, 4), "squash"))[..., 0]
    squashed = squashed.T if turned else squashed
    assert squashed[:, [0, 3]].min() > 200 > 60 > squashed[:, 1:3].max()


@pytest.mark.parametrize("turned", [False, True])
def test_pad_keeps_all_and_fills_up_with_the_color_of_the_border(turned):
    pixels = np.full((40, 80, 3), [10, 200, 60], np.uint8)
    pixels[10:30, 5:75] = [250, 0, 0]
    image = pixels.transpose(1, 0, 2) if turned else pixels
    out, inside = (
        decode(image, ImageForm(3, (40, 40), "pad")),
        decode(image, ImageForm(3, (40, 20) if turned else (20, 40))),
    )
    out, inside = (out.transpose(1, 0, 2), inside.transpose(1, 0, 2)) if turned else (out, inside)
    assert (out[:10] == [10, 200, 60]).all() and (out[30:] == [10, 200, 60]).all()
    assert np.array_equal(out[10:30], inside)
    assert (out[17:23, 4:36] == [250, 0, 0]).all()


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_the_size_is_height_then_width(resize):
    stripes = np.repeat(np.arange(12, dtype=np.uint8)[:, None] * 20, 12, 1)
    out = decode(stripes, ImageForm(1, (3, 9), resize))[..., 0].astype(int)
    assert (out == out[:, :1]).all()
    assert (np.diff(out[:, 0]) > 0).all()


def test_crop_scales_both_sides_alike():
    y, x = np.mgrid[:40, :80]
    disc = (np.hypot(y - 19.5, x - 39.5) < 16).astype(np.uint8) * 255
    out = decode(disc, ImageForm(1, (20, 20), "crop"))[..., 0] > 127
    assert abs(int(out.any(0).sum()) - int(out.any(1).sum())) <= 1
    flat = decode(disc, ImageForm(1, (20, 20), "squash"))[..., 0] > 127
    assert flat.any(1).sum() > 1.5 * flat.any(0).sum()


def test_a_look_tells_height_width_and_channels_of_anything(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(COLOR))
    for image in (path, str(path), Image.fromarray(COLOR), COLOR, np.moveaxis(COLOR, -1, 0), torch.from_numpy(COLOR)):
        assert look(image) == Look(6, 8, 3)
    gray = png(tmp_path / "b.png", Image.fromarray(GRAY))
    for image in (gray, Image.fromarray(GRAY), GRAY, GRAY[None], GRAY / 255, GRAY.tolist()):
        assert look(image) == Look(6, 8, 1)


def test_a_look_sees_the_turned_image(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(GRAY.T.copy()), exif=turned_exif(6))
    assert look(path) == Look(6, 8, 1)


# --- many, and broken ones ---


def test_images_of_all_kinds_come_in_order_channels_first(tmp_path):
    path = png(tmp_path / "a.png", Image.fromarray(COLOR))
    out, broken = decode_all([path, GRAY, Image.fromarray(COLOR)], COLOR_FORM)
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
        folder / "text.jpg": "not an image in a format that is read",
        folder / "empty.png": "the file is empty",
        folder / "folder.png": "a folder, a pipe or a device, not a file",
        folder / "none.png": "no such file",
    }


def test_broken_files_are_named_by_place_and_reason_and_the_others_are_unharmed(tmp_path):
    reasons = broken_images(tmp_path)
    images = [GRAY]
    for path in reasons:
        images += [path, GRAY + 1]
    images.append(np.full(SIZE, -3.0))
    out, broken = decode_all(images, GRAY_FORM)
    assert np.array_equal(out[:, 0].numpy(), np.stack([GRAY] + [GRAY + 1] * len(reasons)))
    assert list(broken) == [1, 3, 5, 7, 9, 11]
    for said, reason in zip([*reasons.values(), "from -3 to -3"], broken.values(), strict=True):
        assert reason
        assert said in reason


def test_no_images_and_only_broken_ones_give_an_empty_tensor(tmp_path):
    assert decode_all([], COLOR_FORM)[0].shape == (0, 3, 6, 8)
    out, broken = decode_all([tmp_path / "none.png"], GRAY_FORM)
    assert out.shape == (0, 1, 6, 8)
    assert set(broken) == {0}


def png_bomb(side, bits=8):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bmp_bomb(side):
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(header), 0, 0, 14 + len(header)) + header + bytes(64)


BOMBS = {
    "PNG": png_bomb(100_000),
    "PNG of 16 bits": png_bomb(100_000, 16),
    "BMP": bmp_bomb(100_000),
    "PGM": b"P5 100000 100000 255\n" + bytes(100),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(40),
    "a little too many": png_bomb(13_400),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_claims_to_be_huge_is_broken_not_opened(name):
    said = refused(BOMBS[name], GRAY_FORM)
    assert "bomb" in said or "at most" in said
    with pytest.raises(ValueError, match=r"bomb|at most"):
        look(BOMBS[name])


OTHERS = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "PSD": b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 10, 10, 8, 3) + bytes(100),
    "TGA": bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0, 24, 0]) + bytes(12),
    "ICO": encoded(Image.fromarray(COLOR), "ICO"),
    "PDF": encoded(Image.fromarray(COLOR), "PDF"),
    "SGI": encoded(Image.fromarray(COLOR), "SGI"),
    "PCX": encoded(Image.fromarray(COLOR), "PCX"),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "text": b"not an image",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_never_opened(name, monkeypatch):
    def open_it(*_):
        raise AssertionError("it was opened")

    for kind in set(Image.OPEN) - set(FORMATS):
        monkeypatch.setitem(Image.OPEN, kind, (open_it, Image.OPEN[kind][1]))
    assert refused(OTHERS[name]) == "not an image in a format that is read"
    with pytest.raises(UnidentifiedImageError):
        look(OTHERS[name])


@pytest.mark.parametrize("name", samples())
def test_a_file_that_is_cut_is_refused_with_a_reason(name):
    """At many places: the first bytes, throughout, and the last quarter, where only pixels are missing."""
    data = samples()[name]
    form = ImageForm(3, BIG, white=whites(name))
    whole = decode(data, form)
    for end in [0, 1, 2, 4, 8, 12, *np.linspace(13, 0.97 * len(data), 25).astype(int).tolist()]:
        pixels = np.zeros((1, *BIG, 3), np.uint8)
        broken = decode_into(pixels, [data[:end]], form)
        # The first frame of several, and what stands before mere trailers, may be whole already.
        assert broken.get(0, "").strip() or np.array_equal(pixels[0], whole), f"{end} of {len(data)}"
        assert broken or end > len(data) / 4


JPEGS = [name for name in samples() if name.startswith("jpeg ")]


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_lacks_its_last_bytes_or_its_half_is_refused(name):
    data = samples()[name]
    for end in (len(data) - 1, len(data) - 2, len(data) - 3, len(data) - 20, len(data) // 2 + len(data) // 4):
        assert refused(data[:end])


def test_a_large_jpeg_that_is_cut_is_refused_though_it_is_decoded_small():
    for data in (large_jpeg(), large_jpeg(progressive=True)):
        for share in (0.3, 0.5, 0.9, 0.99):
            assert "truncated" in refused(data[: int(share * len(data))])
        assert refused(data[:-2])


def test_what_follows_a_jpeg_or_stands_before_it_does_not_make_it_truncated():
    """Phones put a film after the picture, whose bytes hold marks of scans by chance; and a thumbnail before it."""
    film = b"\0\0\0\x18ftypmp42" + b"\xff\xda\x00\x08" * 3
    data = samples()["jpeg rgb"]
    thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + data[2:]
    for whole in (data + film, data + bytes(5), thumbnail, thumbnail + film):
        assert np.abs(decode(whole, ImageForm(3, BIG)).astype(int) - color_picture()).max() <= LOSSY
    for cut in (data[:-2] + film, thumbnail[:-2], thumbnail[:-2] + film):
        assert refused(cut)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "a pipe" in refused(tmp_path / "a.png")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert refused(tmp_path / "a.png").endswith("at most 1,073,741,824 are read")


def test_too_little_memory_says_nothing_of_the_image(monkeypatch):
    def devour(*_):
        raise MemoryError

    monkeypatch.setattr(module, "_resized", devour)
    with pytest.raises(MemoryError):
        decode_all([GRAY], GRAY_FORM)


def test_reasons_are_one_line_without_the_path():
    assert reason_of(OSError(28, "No space left on device", "/secret/a.png")) == "No space left on device"
    assert reason_of(FileNotFoundError(2, "x", "/a")) == "no such file"
    assert reason_of(ValueError("a\n  b")) == "a b"
    assert reason_of(MemoryError()) == "MemoryError"


def jpeg_with_exif():
    return encoded(Image.fromarray(COLOR), "JPEG", exif=turned_exif(6))


def test_a_damaged_exif_does_not_stop_the_others(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(damaged_exif(6))
    out, broken = decode_all([path, GRAY], GRAY_FORM)
    assert broken == {}
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
    out, broken = decode_all([path, GRAY], GRAY_FORM)
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


@pytest.mark.parametrize(("ours", "said"), [(True, False), (False, True)])
def test_pillows_warnings_are_ignored_by_the_command_and_not_in_programs_that_call_us(ours, said):
    code = (
        "import warnings, fewlabels.inputs.images.decode\n"
        "from fewlabels.cli import main\n"
        + ("main(['methods'])\n" if ours else "")
        + "warnings.warn_explicit('odd metadata', UserWarning, 'Image.py', 1, module='PIL.Image')\n"
        "warnings.warn_explicit('another', UserWarning, 'other.py', 1, module='other')\n"
    )
    errors = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stderr
    assert "another" in errors and ("odd metadata" in errors) == said
