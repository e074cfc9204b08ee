"""Decoded images on disk: keyed by what decides them, whole or absent, continued where they were stopped."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from PIL import Image

from fewlabels.data.image import encoded_bytes
from fewlabels.inputs.images import cache as module
from fewlabels.inputs.images.cache import KEPT_DAYS, Cache, default_folder, remove_unused, states_of
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.digest import digest_of, fetch
from fewlabels.inputs.images.workers import decode_part

FORM = ImageForm(1, (4, 5))
COUNT, PART = 10, 4  # images, and of them in a part


@pytest.fixture(autouse=True)
def parts_decoded(monkeypatch):
    """Decode small parts in this process, and note their first places; workers have tests of their own."""
    decoded = []
    monkeypatch.setattr(module, "PART", PART)
    monkeypatch.setattr(
        module,
        "decode_parts",
        lambda firsts, part_of, form, workers: (
            (decoded.append(first), decode_part(part_of(first), form))[1] for first in firsts
        ),
    )
    return decoded


def png_of(level):
    out = io.BytesIO()
    Image.fromarray(np.full((4, 5), level, np.uint8)).save(out, "PNG")
    return out.getvalue()


def images(**changed):
    return [changed.get(f"at_{place}", png_of(place + 1)) for place in range(COUNT)]


def cache_of(folder, given=None, form=FORM):
    given = images() if given is None else given
    return Cache(folder, given, states_of(given), form)


def made(cache):
    counts = list(cache.make())
    assert sum(counts) == len(cache.images)
    return cache.finish()


def key_of(folder, given=None, form=FORM):
    """Make the cache where its content is not there yet; give its lasting name."""
    cache = cache_of(folder, given, form)
    return (cache.open() or made(cache)).folder.name


def levels(found):
    assert (found.pixels == found.pixels[:, :, :1, :1]).all()
    return found.pixels[:, 0, 0, 0].tolist()


def digests_of(given):
    return tuple(digest_of(fetch(image)).hex() for image in given)


WHOLE = list(range(1, COUNT + 1))


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def names_of(cache):
    """Give the names of a cache's folder and its index."""
    return sorted([cache.listed.name, cache.open().folder.name])


# --- the key ---


def write_folder(folder, changed=b""):
    folder.mkdir()
    for place, data in enumerate(images(at_3=changed) if changed else images()):
        (folder / f"{place}.png").write_bytes(data)
    return [folder / f"{place}.png" for place in range(COUNT)]


def test_a_copied_folder_with_other_times_has_the_same_key(tmp_path):
    paths = write_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copies = [tmp_path / "b" / path.name for path in paths]
    for path in copies:
        os.utime(path, (1, 1))
    assert digests_of(copies) == digests_of(paths) == digests_of(list(map(str, paths)))
    cache = cache_of(tmp_path / "cache", copies)
    assert made(cache).folder.name == key_of(tmp_path / "cache", paths)
    assert not cache.making.exists() and len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 1
    assert cache.open().digests == cache_of(tmp_path / "cache", paths).open().digests == digests_of(paths)


def test_changed_bytes_order_number_and_form_each_change_the_key(tmp_path):
    paths = write_folder(tmp_path / "a")
    before = key_of(tmp_path / "cache", paths)
    forms = [ImageForm(3, (4, 5)), ImageForm(1, (5, 4)), ImageForm(1, (4, 5), "pad"), ImageForm(1, (4, 5), white=4095)]
    others = [key_of(tmp_path / "cache", paths, form) for form in forms]
    others += [key_of(tmp_path / "cache", paths[::-1]), key_of(tmp_path / "cache", paths[:-1])]
    stat = paths[3].stat()
    paths[3].write_bytes(png_of(99).ljust(stat.st_size))
    assert paths[3].stat().st_size == stat.st_size
    os.utime(paths[3], ns=(stat.st_atime_ns, stat.st_mtime_ns))  # bytes count, not times
    others.append(key_of(tmp_path / "cache", paths))
    paths[3].unlink()
    others.append(key_of(tmp_path / "cache", paths))
    assert len({before, *others}) == len(others) + 1


def test_another_decoder_has_another_key(tmp_path, monkeypatch):
    before = key_of(tmp_path)
    monkeypatch.setattr("PIL.__version__", "99.0")
    assert cache_of(tmp_path).open() is None
    assert key_of(tmp_path) != before


def palette_image(color):
    image = Image.fromarray(np.zeros((4, 5), np.uint8)).convert("P")
    image.putpalette(bytes(color))
    return image


def turned_image(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(out, "PNG", exif=exif)
    return Image.open(out)


ZEROS = np.zeros((4, 5), np.uint8)
DIFFERENT = {
    "palettes": (palette_image([9, 9, 9]), palette_image([8, 9, 9])),
    "a palette and gray": (palette_image([9, 9, 9]), Image.fromarray(ZEROS)),
    "orientations": (turned_image(1), turned_image(6)),
    "modes": (Image.fromarray(np.zeros((4, 5, 4), np.uint8)), Image.new("CMYK", (5, 4))),
    "shapes": (ZEROS, ZEROS.T.copy()),
    "types": (ZEROS, ZEROS.astype(np.float32)),
    "values": (ZEROS, ZEROS + 1),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_images_in_memory_that_are_decoded_otherwise_have_other_digests(name):
    first, second = DIFFERENT[name]
    assert digests_of([first]) != digests_of([second])
    assert digests_of([first]) == digests_of([first.copy()])


def test_tensors_lists_and_arrays_of_the_same_pixels_have_the_same_digest():
    assert digests_of([ZEROS]) == digests_of([torch.from_numpy(ZEROS)])
    assert digests_of([ZEROS.astype(np.int64)]) == digests_of([ZEROS.tolist()])


def test_what_is_no_image_at_all_counts_and_stops_nothing(tmp_path):
    cut = Image.open(io.BytesIO(png_of(3)[:-20]))
    odd = [None, 3, cut, np.array([["a"]]), np.array([None]), [[1], [2, 3]], tmp_path / "none.png", tmp_path, b""]
    assert digests_of(odd) == digests_of(odd)
    cache = cache_of(tmp_path / "cache", [*odd, *images()[: COUNT - len(odd)]])
    assert set(made(cache).broken) == set(range(len(odd)))


# --- whole or absent ---


def test_what_is_made_is_opened_again_and_not_made_again(tmp_path, parts_decoded):
    found = made(cache_of(tmp_path, images(at_6=b"no image", at_9=b"")))
    assert levels(found) == [*WHOLE[:6], 0, *WHOLE[7:9], 0]
    again = cache_of(tmp_path, images(at_6=b"no image", at_9=b"")).open()
    assert levels(again) == levels(found)
    assert again.broken == found.broken == {6: "not an image in a format that is read", 9: "the file is empty"}
    assert parts_decoded == [0, 4, 8]
    assert not again.pixels.flags.writeable
    assert again.digests == found.digests == digests_of(images(at_6=b"no image", at_9=b""))
    assert files_in(tmp_path) == names_of(cache_of(tmp_path, images(at_6=b"no image", at_9=b"")))


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_one_that_was_stopped_is_absent_and_goes_on_with_what_is_left(tmp_path, monkeypatch, parts_decoded, parts):
    def stopping(firsts, part_of, form, workers):
        for first in firsts[:parts]:
            yield decode_part(part_of(first), form)
        decode_part(part_of(firsts[parts]), form)  # written, and not noted
        raise KeyboardInterrupt

    cache = cache_of(tmp_path, images(at_1=b""))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "decode_parts", stopping)
        list(cache.make())
    assert cache.open() is None
    with pytest.raises(OSError, match="taken away"):
        cache.finish()
    again = cache_of(tmp_path, images(at_1=b""))
    assert next(again.make()) == parts * PART
    assert levels(made(again)) == [1, 0, *WHOLE[2:]]
    assert parts_decoded == list(range(0, COUNT, PART))[parts:]


CUTS = {
    "a cut line": lambda text: text[:-10],
    "a line of another": lambda text: text + '{"first": 8, "brok',
    "no JSON": lambda text: text + "\x00\x00\x00\n",
    "a list": lambda text: text + "[1]\n",
    "no places": lambda text: text + '{"first": 8, "broken": 3}\n',
}


@pytest.mark.parametrize("name", CUTS)
def test_a_damaged_line_of_the_journal_is_no_part(tmp_path, parts_decoded, name):
    cache = cache_of(tmp_path)
    counts = cache.make()
    assert [next(counts), next(counts), next(counts)] == [0, PART, PART]
    counts.close()
    journal = cache.making / "parts.jsonl"
    journal.write_text(CUTS[name](journal.read_text()))
    assert levels(made(cache_of(tmp_path))) == WHOLE
    assert parts_decoded == ([0, 4, 4, 8] if name == "a cut line" else [0, 4, 8])


def test_bytes_that_are_no_text_in_the_journal_are_no_part(tmp_path):
    cache = cache_of(tmp_path)
    next(cache.make())
    (cache.making / "parts.jsonl").write_bytes(b"\xff\xfe\x00")
    assert levels(made(cache)) == WHOLE


def test_pixels_that_were_cut_while_it_was_made_are_decoded_again(tmp_path):
    cache = cache_of(tmp_path)
    counts = cache.make()
    next(counts), next(counts)
    counts.close()
    os.truncate(cache.making / "pixels.bin", 30)
    assert levels(made(cache_of(tmp_path))) == WHOLE


DAMAGE = {
    "cut pixels": lambda folder: os.truncate(folder / "pixels.bin", 30),
    "longer pixels": lambda folder: os.truncate(folder / "pixels.bin", 3000),
    "no pixels": lambda folder: (folder / "pixels.bin").unlink(),
    "no index": lambda folder: (folder / "index.json").unlink(),
    "a cut index": lambda folder: os.truncate(folder / "index.json", 5),
    "another index": lambda folder: (folder / "index.json").write_text("[]"),
    "an odd index": lambda folder: (folder / "index.json").write_text(json.dumps({"broken": 3})),
    "bytes in the index": lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_one_that_was_damaged_from_outside_is_absent_and_made_again(tmp_path, name):
    cache = cache_of(tmp_path)
    DAMAGE[name](made(cache).folder)
    assert cache.open() is None
    assert levels(made(cache_of(tmp_path))) == WHOLE
    assert files_in(tmp_path) == names_of(cache)


DAMAGE_OF_THE_INDEX = {
    "none": lambda path: path.unlink(),
    "cut": lambda path: os.truncate(path, 5),
    "another": lambda path: path.write_text("[]"),
    "odd": lambda path: path.write_text(json.dumps({"digests": 3, "unread": []})),
}


@pytest.mark.parametrize("name", DAMAGE_OF_THE_INDEX)
def test_where_the_index_is_damaged_all_are_read_again_and_the_cache_is_as_it_was(tmp_path, name):
    cache = cache_of(tmp_path)
    before = made(cache)
    DAMAGE_OF_THE_INDEX[name](cache.listed / "index.json")
    assert cache.open() is None
    again = made(cache_of(tmp_path))
    assert (again.folder, again.digests, levels(again)) == (before.folder, before.digests, WHOLE)
    assert files_in(tmp_path) == names_of(cache)


def test_a_file_that_could_not_be_read_is_tried_again(tmp_path, monkeypatch):
    """An error of a network drive says nothing of the image."""
    paths, fails = write_folder(tmp_path / "a"), [True]

    def flaky(image):
        if fails and image == paths[5]:
            raise OSError(5, "Input/output error")
        return encoded_bytes(image)

    monkeypatch.setattr("fewlabels.inputs.images.digest.encoded_bytes", flaky)
    cache = cache_of(tmp_path / "cache", paths)
    first = made(cache)
    assert first.broken == {5: "Input/output error"} and first.digests == digests_of(paths)
    assert cache.open(again=True).digests == first.digests
    counts = cache.make()  # another, that is killed
    next(counts), next(counts), next(counts)
    counts.close()
    fails.clear()
    assert cache.open(again=True) is None
    second = made(cache)
    assert second.broken == {} and levels(second) == WHOLE
    assert cache.open(again=True).digests == second.digests == digests_of(paths) != first.digests


# --- several at once ---


def test_two_processes_of_a_run_share_the_parts(tmp_path, parts_decoded):
    first, second = cache_of(tmp_path), cache_of(tmp_path)
    assert sum(first.make(0, 2)) == 6
    assert sum(second.make(1, 2)) == 6 + 4  # what the first has done counts for it
    assert parts_decoded == [0, 8, 4]
    assert levels(second.finish()) == levels(first.finish()) == WHOLE


def test_another_run_that_is_as_fast_takes_nothing_away(tmp_path, monkeypatch):
    """It gives the cache its name just before this one would, which fails no one."""
    first, second = cache_of(tmp_path), cache_of(tmp_path)
    list(first.make()), list(second.make())
    replace_text, done = module.replace_text, []

    def slow(path, text):
        if not done:
            done.append(True)
            done.append(second.finish())
        replace_text(path, text)

    monkeypatch.setattr(module, "replace_text", slow)
    assert levels(first.finish()) == levels(done[1]) == WHOLE
    assert files_in(tmp_path) == names_of(first)


def test_another_run_that_ends_meanwhile_is_found(tmp_path):
    first, second = cache_of(tmp_path), cache_of(tmp_path)
    counts = first.make()
    next(counts), next(counts)
    made(second)
    with contextlib.suppress(OSError):  # its journal is gone: the caller looks whether it is there
        list(counts)
    assert levels(first.open()) == WHOLE


MAKER = """
import sys, time
from pathlib import Path
import numpy as np
from fewlabels.inputs.images import cache as module
from fewlabels.inputs.images.cache import Cache, states_of
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.workers import decode_part

module.PART = 2
module.decode_parts = lambda firsts, part_of, form, workers: (decode_part(part_of(first), form) for first in firsts)
images = [np.full((4, 5), k + 1, np.uint8) for k in range(40)]
print("ready", flush=True)
sys.stdin.readline()
for turn in range(8):
    cache = Cache(Path(sys.argv[1]) / str(turn), images, states_of(images), ImageForm(1, (4, 5)))
    try:
        found = cache.open()
        if found is None:
            list(cache.make())
            found = cache.finish()
    except OSError as error:
        found = cache.open()
        assert found is not None, error
    assert (found.pixels[:, 0, 0, 0] == np.arange(40) + 1).all()
print("done")
"""


def test_two_processes_that_make_the_same_at_once_both_get_it(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(MAKER), str(tmp_path)]
    makers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [maker.stdout.readline() for maker in makers] == ["ready\n"] * 2
    for maker in makers:
        maker.stdin.write("go\n")
        maker.stdin.flush()
    for maker in makers:
        out, errors = maker.communicate(timeout=60)
        assert (out, errors) == ("done\n", "")


# --- what is removed ---


def aged(folder, days):
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_what_nobody_used_for_a_month_is_removed_and_nothing_else(tmp_path):
    old, used, new = (made(cache_of(tmp_path, form=ImageForm(1, (4, side)))) for side in (5, 6, 7))
    index_of_old, index_of_used, index_of_new = (
        cache_of(tmp_path, form=ImageForm(1, (4, k))).listed for k in (5, 6, 7)
    )
    stopped, going = (cache_of(tmp_path, form=ImageForm(1, (4, side))) for side in (8, 9))
    for cache in (stopped, going):
        counts = cache.make()
        next(counts), next(counts)
        counts.close()
    begun = cache_of(tmp_path, form=ImageForm(1, (4, 10)))
    next(begun.make())
    mine = tmp_path / "my data"
    mine.mkdir()
    for name in ("index.json", "parts.jsonl", "pixels.bin"):
        (mine / name).write_text("mine")
    for folder in (old.folder, index_of_old, used.folder, index_of_used, stopped.making, begun.making, mine):
        aged(folder, KEPT_DAYS + 1)
    aged(new.folder, KEPT_DAYS - 1)
    assert cache_of(tmp_path, form=ImageForm(1, (4, 6))).open() is not None  # it is used now
    (tmp_path / "file").write_text("")
    remove_unused(tmp_path)
    kept = {used.folder.name, index_of_used.name, new.folder.name, index_of_new.name}
    kept |= {going.making.name, mine.name, "file"}
    assert set(files_in(tmp_path)) == kept
    assert len(files_in(mine)) == 3


def test_one_that_was_stopped_long_ago_is_begun_anew(tmp_path):
    cache = cache_of(tmp_path)
    counts = cache.make()
    next(counts), next(counts)
    counts.close()
    aged(cache.making, KEPT_DAYS + 1)
    assert levels(made(cache_of(tmp_path))) == WHOLE


# --- no room, no permission ---


@pytest.fixture
def mounted(tmp_path):
    """Give a function that makes a folder that is a disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        if os.name != "posix" or os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs to be root")
        return folder

    yield mount
    while os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_too_small_a_disk_is_said_before_anything_is_decoded(mounted, parts_decoded):
    cache = cache_of(mounted("size=1m"), form=ImageForm(3, (400, 400)))
    with pytest.raises(OSError, match=r"0\.00 GB are needed there and 0\.00 GB are free"):
        list(cache.make())
    assert parts_decoded == []


def test_a_disk_that_fills_up_on_the_way_leaves_nothing_that_is_taken_for_whole(mounted):
    disk = mounted("size=1m")
    cache = cache_of(disk, form=ImageForm(1, (250, 250)))
    counts = cache.make()
    assert [next(counts), next(counts)] == [0, PART]
    with contextlib.suppress(OSError), open(disk / "other", "wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    with pytest.raises(OSError, match="No space left"):
        list(counts)
    assert cache.open() is None
    (disk / "other").unlink()
    assert sum(cache_of(disk, form=ImageForm(1, (250, 250))).make()) == COUNT


def test_a_read_only_cache_is_read_and_cannot_be_made(mounted):
    disk = mounted("size=1m")
    found = made(cache_of(disk))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert levels(cache_of(disk).open()) == levels(found)
    with pytest.raises(OSError, match="Read-only"):
        list(cache_of(disk, form=ImageForm(1, (4, 6))).make())


def test_a_file_where_the_folder_should_be_is_an_error_of_the_place(tmp_path):
    (tmp_path / "file").write_text("")
    cache = cache_of(tmp_path / "file")
    assert cache.open() is None
    with pytest.raises((FileExistsError, NotADirectoryError)):
        list(cache.make())


def test_the_folder_is_the_user_s(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWLABELS_CACHE", str(tmp_path / "a"))
    assert default_folder() == tmp_path / "a"
    monkeypatch.delenv("FEWLABELS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "fewlabels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache/fewlabels"
