"""Workers: an image that takes its decoder with it is set aside by name, and all others are decoded."""

import io
import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
import warnings
from multiprocessing import TimeoutError as WorkerTimeoutError
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.image import Slice, encoded_bytes
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.digest import digest_of, fetch, image_state
from fewlabels.inputs.images.workers import Part, PartResult, decode_part, decode_parts, worker_count

FORM = ImageForm(1, (4, 5))
COUNT, SIZE = 20, 3  # images, and of them in a part


class Harms(Slice):
    """An encoded image that does harm in a worker, as a fault in a decoder does; it is read without any elsewhere."""

    def read(self):
        if multiprocessing.parent_process() is not None or "Loky" in multiprocessing.current_process().name:
            self.harm()
        return b"harmful"


class Crashes(Harms):
    def harm(self):
        os._exit(1)


class Hangs(Harms):
    def harm(self):
        time.sleep(60)


class Devours(Harms):
    def harm(self):
        raise MemoryError


class CrashesOnce(Slice):
    """Ends its process the first two times: within its part, and alone."""

    def read(self):
        tries = self.path.with_suffix(".tries")
        with open(tries, "a") as file:
            file.write(".")
        if tries.stat().st_size < 3:
            os._exit(1)
        return png_of(99)


def png_of(level):
    out = io.BytesIO()
    Image.fromarray(np.full((4, 5), level, np.uint8)).save(out, "PNG")
    return out.getvalue()


def digest(image):
    """Hash what reading an image gives."""
    if isinstance(image, CrashesOnce):
        return digest_of(png_of(99)).hex()
    return digest_of(fetch(image)).hex()


def part_of(first, images, file):
    return Part(first, images, list(map(image_state, images)), file)


@pytest.fixture
def decoded(tmp_path):
    """Give a function that decodes images in workers; it gives the level of each and what is broken."""
    file = tmp_path / "pixels.bin"

    def decode(changed, patience=60.0):
        images = [changed.get(place, png_of(place + 1)) for place in range(COUNT)]
        file.write_bytes(bytes(COUNT * 20))
        firsts = range(0, COUNT, SIZE)
        done, broken = [], {}
        for found in decode_parts(firsts, lambda k: part_of(k, images[k : k + SIZE], file), FORM, 2, patience):
            done.append(found.first)
            broken |= found.broken
            assert found.digests == list(map(digest, images[found.first : found.first + SIZE]))
            assert found.unread == []
        assert sorted(done) == list(firsts)
        pixels = np.frombuffer(file.read_bytes(), np.uint8).reshape(COUNT, 20)
        assert (pixels == pixels[:, :1]).all()
        return pixels[:, 0].tolist(), broken

    return decode


def levels_without(*places):
    return [0 if place in places else place + 1 for place in range(COUNT)]


def test_each_image_lies_at_its_place_and_broken_ones_are_named(decoded):
    levels, broken = decoded({0: b"", 7: b"no image", 19: png_of(1)[:40]})
    assert levels == levels_without(0, 7, 19)
    assert sorted(broken) == [0, 7, 19]
    assert broken[0] == "the file is empty"


def test_an_image_that_crashes_the_decoder_is_set_aside_and_the_others_are_decoded(decoded, tmp_path):
    deadly = Crashes(tmp_path, 0, 0)
    levels, broken = decoded({4: deadly, 19: deadly, 7: b"no image"})
    assert levels == levels_without(4, 7, 19)
    crashed = "the decoder crashed on it"
    assert broken == {4: crashed, 7: "not an image in a format that is read", 19: crashed}


def test_an_image_that_hangs_the_decoder_is_set_aside_and_the_others_are_decoded(decoded, tmp_path):
    start = time.perf_counter()
    levels, broken = decoded({5: Hangs(tmp_path, 0, 0)}, patience=3.0)
    assert levels == levels_without(5)
    assert broken == {5: "the decoder takes too long on it"}
    assert time.perf_counter() - start < 50


def test_an_image_that_takes_too_much_memory_is_set_aside_as_one_that_crashes(decoded, tmp_path):
    levels, broken = decoded({5: Devours(tmp_path, 0, 0)})
    assert levels == levels_without(5)
    assert broken == {5: "the decoder crashed on it"}


def test_a_path_means_the_same_after_the_program_went_to_another_folder(decoded, tmp_path, monkeypatch):
    """Workers outlive a call, and were started elsewhere."""
    for level in (60, 70):
        folder = tmp_path / str(level)
        folder.mkdir()
        (folder / "a.png").write_bytes(png_of(level))
        monkeypatch.chdir(folder)
        levels, broken = decoded({5: Path("a.png")})
        assert levels[5] == level and not broken


def test_a_worker_that_was_lost_for_another_reason_costs_no_image(decoded, tmp_path):
    levels, broken = decoded({5: CrashesOnce(tmp_path / "tries", 0, 0)})
    assert levels == [*levels_without()[:5], 99, *levels_without()[6:]]
    assert broken == {}


@pytest.mark.parametrize("image", ["a path", "a part of a file"])
def test_a_file_that_changed_since_it_was_listed_stops_the_run(tmp_path, image):
    """Even where its size is the same, and its time is set back."""
    path = tmp_path / "a.png"
    path.write_bytes(png_of(1))
    before = path.stat()
    part = part_of(0, [path if image == "a path" else Slice(path, 0, before.st_size)], tmp_path / "pixels.bin")
    time.sleep(0.02)  # a clock of the file system ticks
    path.write_bytes(png_of(2).ljust(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(UserError, match=r"(a\.png|image 0) changed while it was read"):
        list(decode_parts([0], lambda k: part, FORM, 2))
    assert not part.file.exists()


def test_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(1))

    def slow(image):
        held = encoded_bytes(image)
        path.write_bytes(png_of(2) + b"more")
        return held

    part = part_of(0, [path], tmp_path / "pixels.bin")
    monkeypatch.setattr("fewlabels.inputs.images.digest.encoded_bytes", slow)
    with pytest.raises(UserError, match=r"a\.png changed while it was read"):
        decode_part(part, FORM)
    assert not part.file.exists()


def test_files_that_cannot_be_read_are_told_from_those_that_cannot_be_decoded(tmp_path):
    (tmp_path / "pixels.bin").write_bytes(bytes(60))
    part = part_of(0, [b"no image", tmp_path / "none.png", tmp_path], tmp_path / "pixels.bin")
    found = decode_part(part, FORM)
    assert sorted(found.broken) == [0, 1, 2] and found.unread == [1, 2]
    assert found.digests == list(map(digest, part.images))


def test_an_error_that_is_not_an_image_s_is_raised(tmp_path):
    images = [png_of(1)] * 4
    with pytest.raises(OSError, match="No such file"):
        list(decode_parts([0, 2], lambda k: part_of(k, images[k : k + 2], tmp_path / "none.bin"), FORM, 2))
    assert not issubclass(WorkerTimeoutError, TimeoutError)  # what a network drive raises is no hanging worker


def test_a_part_that_stopped_early_stops_the_workers(tmp_path):
    file = tmp_path / "pixels.bin"
    file.write_bytes(bytes(COUNT * 20))
    parts = decode_parts(range(COUNT), lambda k: part_of(k, [png_of(k)], file), FORM, 2)
    next(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts.close()
    time.sleep(0.5)
    before = file.read_bytes()
    time.sleep(0.5)
    assert file.read_bytes() == before


def test_a_part_is_written_channels_first_at_its_place(tmp_path):
    file = tmp_path / "pixels.bin"
    file.write_bytes(bytes([9]) * 5 * 60)
    color = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    part = part_of(2, [color[0], b"", color[1]], file)
    digests = list(map(digest, part.images))
    assert decode_part(part, ImageForm(3, (4, 5))) == PartResult(2, digests, {3: "the file is empty"}, [])
    pixels = np.frombuffer(file.read_bytes(), np.uint8).reshape(5, 3, 4, 5)
    assert (pixels[:2] == 9).all() and (pixels[3] == 0).all()
    assert np.array_equal(pixels[[2, 4]], color.transpose(0, 3, 1, 2))


def test_processes_of_one_machine_share_its_cores():
    assert 2 <= worker_count() <= 16
    assert worker_count(1000) == 2


def test_a_script_without_a_guard_decodes_many_images(tmp_path):
    """Workers must not run the script again, as those of `multiprocessing` would."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import io
            from pathlib import Path

            import numpy as np
            from PIL import Image

            from fewlabels.inputs.images.cache import PART, Cache, states_of
            from fewlabels.inputs.images.decode import ImageForm

            print("the script runs")
            images = []
            for k in range(3 * PART + 10):
                out = io.BytesIO()
                Image.fromarray(np.full((4, 4), k % 251, np.uint8)).save(out, "BMP")
                images.append(out.getvalue())
            cache = Cache(Path("cache"), images, states_of(images), ImageForm(1, (4, 4)))
            print(sum(cache.make()), np.array_equal(cache.finish().pixels[:, 0, 0, 0], np.arange(3 * PART + 10) % 251))
        """)
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["the script runs", "202 True"]


def test_where_no_worker_starts_no_image_is_blamed(tmp_path, monkeypatch):
    """As when the environment of this Python vanished: what would be kept is that every image crashes the decoder."""
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    class Lost:
        def __init__(self, **options):
            del options

        def __call__(self, calls):
            raise TerminatedWorkerError("none could be started")

    monkeypatch.setattr(joblib, "Parallel", Lost)
    file = tmp_path / "pixels"
    file.write_bytes(bytes(20))
    image = png_of(1)
    with pytest.raises(UserError, match="no worker process can be started"):
        list(decode_parts([0], lambda first: Part(first, [image], [""], file), FORM, 2))
