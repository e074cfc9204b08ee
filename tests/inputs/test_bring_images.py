"""The images of a run: wherever they lie the outcome is the same, and what cannot be read is named."""

import contextlib
import ctypes
import io
import os
import shutil
import struct
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

import fewlabels
from fewlabels import UserError
from fewlabels.config import Options
from fewlabels.console import Show
from fewlabels.data.sources.open import open_table
from fewlabels.errors import Interrupted
from fewlabels.inputs.images import bring as module
from fewlabels.inputs.images.bring import bring_images, choose_feed
from fewlabels.inputs.images.digest import digest_of, fetch
from fewlabels.inputs.images.store import ResidentImages, StreamedImages
from tests.prepared import resolved

CPU = torch.device("cpu")
SMALL = {"steps": 6, "batch": 4, "unlabeled_ratio": 2, "device": "cpu", "images_flip": "none", "model": "small_cnn"}
OUTCOME = ("model.safetensors", "predictions.parquet", "split.csv", "quarantine.csv", "model.json")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Make a folder of 40 PNGs of two classes, and one file that is none."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for place in range(40):
        path = folder / f"class{place % 2}" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 90, (14, 18, 3)) + 150 * (place % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / "class0/broken.png").write_bytes(b"no image")
    return folder


class Said(Show):
    """Keeps what is said."""

    def __init__(self):
        super().__init__(Console(file=io.StringIO(), width=10_000))

    def __str__(self):
        return self.console.file.getvalue()


def bring(data, stop=lambda: False, show=None, **options):
    table, chosen = open_table(data), Options(**options)
    return bring_images(table, resolved(chosen, table, CPU).form, chosen, CPU, stop, show or Said())


def pixels_of(brought):
    return brought.store.take(np.arange(len(brought.table)))


# --- the outcome does not depend on where they lie ---


@pytest.mark.usefixtures("undrawn")
def test_streamed_and_resident_runs_end_with_the_same_bytes(photos, tmp_path):
    runs = {
        feed: fewlabels.fit(
            photos, labels_per_class=4, images_feed=feed, out=tmp_path / feed, images_cache=tmp_path / "cache", **SMALL
        )
        for feed in ("resident", "streamed")
    }
    for name in OUTCOME:
        assert (tmp_path / "resident" / name).read_bytes() == (tmp_path / "streamed" / name).read_bytes(), name
    assert runs["resident"].summary["set_aside"] == 1
    assert len(pq.read_table(tmp_path / "streamed/predictions.parquet")) == 40


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_begun_resident_is_continued_streamed(photos, tmp_path):
    options = SMALL | {"labels_per_class": 4, "out": tmp_path / "r", "baseline": False}
    fewlabels.fit(photos, images_feed="resident", **options)
    (tmp_path / "r/summary.json").unlink()
    assert fewlabels.fit(photos, images_feed="streamed", **options).summary["set_aside"] == 1


def test_images_are_decoded_once_for_all_runs(photos, tmp_path):
    first, again, streamed = Said(), Said(), Said()
    one = bring(photos, images_cache=tmp_path, show=first)
    two = bring(photos, images_cache=tmp_path, show=again)
    three = bring(photos, images_cache=tmp_path, images_feed="streamed", show=streamed)
    assert "decoded 41 images" in str(first) and "decoded images are kept in" in str(first)
    assert str(again) == str(streamed) == ""
    assert isinstance(one.store, ResidentImages) and isinstance(three.store, StreamedImages)
    assert torch.equal(pixels_of(one), pixels_of(two)) and torch.equal(pixels_of(one), pixels_of(three))
    assert one.digests == two.digests == three.digests
    assert dict(one.table.quarantine) == {"class0/broken.png": "not an image in a format that is read"}
    assert "class0/broken.png" not in one.table.names and len(one.table) == 40


def test_arrays_stay_in_memory_unless_they_are_streamed(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 16, 16), np.uint8)
    data = (x, np.arange(20) % 2)
    whole = bring(data, images_cache=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    streamed = bring(data, images_cache=tmp_path / "cache", images_feed="streamed")
    assert torch.equal(pixels_of(whole), pixels_of(streamed))
    assert np.array_equal(pixels_of(whole)[:, 0].numpy(), x)


@pytest.mark.parametrize("feed", ["resident", "streamed"])
def test_images_of_five_channels_train_to_the_end(tmp_path, feed):
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    x = (rng.integers(0, 90, (40, 16, 16, 5)) + 150 * y[:, None, None, None]).astype(np.uint8)
    run = fewlabels.fit(
        (x, y), labels_per_class=4, images_feed=feed, out=tmp_path / "r", images_cache=tmp_path, **SMALL | {"steps": 20}
    )
    assert run.classifier.card.form.channels == 5 and len(run.classifier.card.mean) == 5
    assert len(run.classifier.predict(x[:3])[0]) == 3
    assert len(run.classifier.predict(list(x[:3].transpose(0, 3, 1, 2)))[0]) == 3
    assert (run.path / "report.html").is_file()
    with pytest.raises(UserError, match="1 or 3 channels where 5 are expected"):
        run.classifier.predict([x[0, ..., :3]])


def test_the_feed_follows_the_size_and_what_is_given():
    assert choose_feed(Options(), 10**6, CPU) == ("resident", "all images take 1 MB, less than 1,074 MB")
    assert choose_feed(Options(), 10**10, CPU) == ("streamed", "all images take 10,000 MB, more than 1,074 MB")
    assert choose_feed(Options(images_feed="resident"), 10**10, CPU) == ("resident", "given")


# --- how often a file is opened ---


class Opens:
    """Counts how often each file of a folder is opened, by whatever process: Linux tells by inotify."""

    OPEN, CLOSE = 0x20, 0x10  # told in turn, since two of the same in a row would be told as one

    def __init__(self, folder):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK)
        for inner in (path for path in folder.iterdir() if path.is_dir()):
            assert self.libc.inotify_add_watch(self.handle, os.fsencode(inner), self.OPEN | self.CLOSE) > 0

    def since(self):
        """Count by the name of the file since the last call."""
        counts = Counter()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.handle, 1 << 16):
                while data:
                    _, mask, _, length = struct.unpack_from("iIII", data)
                    counts[data[16 : 16 + length].rstrip(b"\0").decode()] += mask == self.OPEN
                    data = data[16 + length :]
        return +counts


@pytest.mark.skipif(sys.platform != "linux", reason="opened files are told by Linux's inotify")
@pytest.mark.parametrize("feed", ["resident", "streamed"])
def test_a_file_is_opened_once_and_in_a_second_run_not_at_all(photos, tmp_path, feed):
    shutil.copytree(photos, tmp_path / "photos")
    table, options = open_table(tmp_path / "photos"), Options(images_feed=feed, images_cache=tmp_path / "cache")
    once = Counter(path.name for path in photos.rglob("*.png"))
    opens = Opens(tmp_path / "photos")
    form = resolved(options, table, CPU).form
    assert opens.since() == once  # up to 200 headers are looked at
    first = bring_images(table, form, options, CPU, lambda: False, Said())
    assert opens.since() == once
    second = bring_images(open_table(tmp_path / "photos"), form, options, CPU, lambda: False, Said())
    assert opens.since() == Counter()
    assert first.digests == second.digests == tuple(digest_of(fetch(path)).hex() for path in table.contents)
    assert torch.equal(pixels_of(first), pixels_of(second))
    assert opens.since() == once  # `fetch` reads: they are counted
    path = tmp_path / "photos/class0/0.png"
    path.write_bytes((tmp_path / "photos/class0/2.png").read_bytes())
    changed = bring_images(table, form, options, CPU, lambda: False, Said())
    assert changed.digests != first.digests and not torch.equal(pixels_of(changed), pixels_of(first))


def test_arrays_have_the_same_digests_in_memory_and_streamed(tmp_path):
    """One image's palette too, which its pixels do not tell."""
    gray = np.random.default_rng(0).integers(0, 256, (20, 16, 16), np.uint8)
    red, blue = (Image.fromarray(gray[0]).convert("P") for _ in range(2))
    red.putpalette([k for level in range(256) for k in (level, 0, 0)])
    blue.putpalette([k for level in range(256) for k in (0, 0, level)])
    digests = set()
    for given in ([*gray], [red, *gray[1:]], [blue, *gray[1:]]):
        kept = [
            bring((given, np.arange(20) % 2), images_cache=tmp_path, images_feed=feed)
            for feed in ("resident", "streamed", "streamed")
        ]
        assert len({brought.digests for brought in kept}) == 1
        assert all(torch.equal(pixels_of(kept[0]), pixels_of(brought)) for brought in kept)
        digests.add(kept[0].digests)
    assert len(digests) == 3


# --- what is chosen from the headers ---


def folder_of(folder, pictures, suffix):
    for place, picture in enumerate(pictures):
        (folder / f"class{place % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"class{place % 2}/{place}.{suffix}")
    return folder


def plan_of(data, **options):
    return resolved(Options(**options), open_table(data), CPU)


@pytest.mark.parametrize(
    ("height", "width", "resize"), [(20, 20, "crop"), (20, 28, "crop"), (20, 32, "pad"), (60, 20, "pad")]
)
def test_wide_and_tall_images_are_padded_to_a_square_and_others_cropped(tmp_path, height, width, resize):
    data = folder_of(tmp_path / "a", [np.zeros((height, width), np.uint8)] * 6, "png")
    plan = plan_of(data, images_size=20)
    assert plan.form.resize == resize
    assert ("cut" in plan.why["images_resize"]) and plan_of(
        data, images_size=20, images_resize="squash"
    ).form.resize == "squash"
    assert plan_of(data, model="small_cnn").form.resize == "crop"  # to their own shape


def test_the_white_of_deep_images_is_found_and_shown(tmp_path):
    levels = np.linspace(0, 4000, 16 * 16).reshape(16, 16).astype(np.uint16)
    data = folder_of(tmp_path / "a", [levels] * 6, "tiff")
    plan = plan_of(data)
    assert plan.form.white == 4095
    assert "4000" in plan.why["white"]
    assert int(pixels_of(bring(data, images_cache=tmp_path / "cache")).max()) == round(4000 / 4095 * 255)
    shallow = folder_of(tmp_path / "b", [np.zeros((16, 16), np.uint8)] * 6, "tiff")
    assert plan_of(shallow).form.white == 65535
    (tmp_path / "a/class0/0.tiff").write_bytes((tmp_path / "a/class0/0.tiff").read_bytes()[:200])
    assert plan_of(data).form.white == 4095  # the others say so


# --- what cannot be read ---


def test_more_than_half_broken_stops_with_their_names(photos, tmp_path):
    for place in range(48):
        (tmp_path / f"data/class{place % 2}").mkdir(parents=True, exist_ok=True)
        source = photos / f"class{place % 2}/{place}.png"
        data = source.read_bytes()[: 60 if place % 5 else None] if place < 40 else b""
        (tmp_path / f"data/class{place % 2}/{place}.png").write_bytes(data)
    with pytest.raises(UserError) as error:
        fewlabels.fit(tmp_path / "data", out=tmp_path / "r", images_cache=tmp_path / "cache", **SMALL)
    said = str(error.value)
    assert said.startswith("data: of 48 images 40 cannot be read, more than half, such as\n  - class0/")
    assert said.count("\n  - class") == 5
    assert "Mend or remove them" in said
    assert not (tmp_path / "r").exists()


def test_things_that_are_no_images_among_arrays_are_set_aside():
    x = [np.zeros((8, 8), np.uint8)] * 9 + [None, "nowhere.png", np.full((8, 8), -1.0)]
    brought = bring((x, np.arange(12) % 2))
    assert len(brought.table) == 9
    assert set(brought.table.quarantine) == {"x[9]", "x[10]", "x[11]"}
    assert brought.table.quarantine["x[10]"] == "no such file"


def test_one_that_is_asked_to_stop_keeps_what_is_decoded(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("fewlabels.inputs.images.cache.PART", 10)
    with pytest.raises(Interrupted, match="what is done is kept"):
        bring(photos, stop=lambda: True, images_cache=tmp_path)
    with pytest.raises(Interrupted, match="those that are done are kept"):
        bring(photos, stop=lambda: any(tmp_path.rglob("parts.jsonl")), images_cache=tmp_path)
    said = Said()
    bring(photos, images_cache=tmp_path, show=said)
    assert "decoded " in str(said) and "decoded 41 images" not in str(said)


# --- where there is no place for them ---


def disk(folder, *options):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if os.name != "posix" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs to be root")
    return folder


@pytest.fixture(params=["a file", "read-only", "full"])
def no_place(request, tmp_path):
    """Give a folder for decoded images that cannot take them."""
    folder = tmp_path / "disk"
    if request.param == "a file":
        folder.write_text("")
        yield folder
        return
    yield disk(folder, "size=1m", *["ro"] * (request.param == "read-only"))
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_without_a_place_images_are_kept_in_memory_and_a_line_says_so(photos, no_place, tmp_path):
    said, size = Said(), {"images_size": 200}  # 5 MB
    brought = bring(photos, images_cache=no_place, show=said, **size)
    assert f"decoded images are kept in memory only: {no_place} cannot take them" in str(said)
    assert torch.equal(pixels_of(brought), pixels_of(bring(photos, images_cache=tmp_path / "good", **size)))
    assert set(brought.table.quarantine) == {"class0/broken.png"}


def test_without_a_place_streamed_images_stop_with_what_to_do(photos, no_place):
    with pytest.raises(UserError, match=r"decoded images \(5 MB\) cannot be kept in .*--images.cache, or a smaller"):
        bring(photos, images_cache=no_place, images_feed="streamed", images_size=200)


def test_without_a_place_more_than_the_memory_takes_stop_too(photos, no_place, monkeypatch):
    monkeypatch.setattr(module, "MOST_RESIDENT", 10**6)
    with pytest.raises(UserError, match="cannot be kept in"):
        bring(photos, images_cache=no_place, images_feed="resident", images_size=200)


def test_another_run_that_has_finished_meanwhile_is_taken(photos, tmp_path, monkeypatch):
    make = module.Cache.make

    def slower(cache, rank=0, world=1):
        list(make(cache, rank, world))
        cache.finish()  # as another run of the same images does
        raise OSError("its folder is gone")
        yield

    monkeypatch.setattr(module.Cache, "make", slower)
    brought = bring(photos, images_cache=tmp_path, images_feed="streamed")
    assert isinstance(brought.store, StreamedImages) and len(brought.table) == 40
