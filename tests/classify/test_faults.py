"""What a run does when its surroundings fail: files that vanish, places that take no writing, full disks."""

import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from fewlabels.cli import main
from fewlabels.errors import UserError
from fewlabels.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn")

STEPS = 20
SMALL = ["--steps", str(STEPS), "--batch", "8", "--unlabeled-ratio", "2", "--no-baseline", "--threads", "1"]
FILES = ("model.safetensors", "predictions.parquet", "metrics.jsonl", "split.csv", "config.yaml")


@contextmanager
def disk(path, size):
    """Give a small disk at `path`, and a function that changes it while it is in use."""
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be made here: {made.stderr.strip()}")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", path], check=True)
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def give(words, capsys):
    """Give the command; give its exit code and what it said on stderr."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def train_digits(few_digits):
    """The words of a small run."""
    return ["train", few_digits, "--labels-per-class", "1", *SMALL]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, train_digits):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main([*train_digits, "--out", str(out)]) == 0
    return out


def assert_equal_outcome(first, second):
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_full_disk_keeps_the_checkpoint_and_the_run_goes_on_when_there_is_room(
    undisturbed, train_digits, tmp_path, capsys
):
    one = next((undisturbed / "checkpoint").iterdir()).stat().st_size
    place = tmp_path / "disk"
    # Room for two checkpoints and the small files, not for the third beside them.
    with disk(place, int(2.7 * one)) as change:
        code, said = give([*train_digits, "--out", place / "run"], capsys)
        assert code == 2
        assert "the checkpoint of step 3 could not be written to" in said and "make room" in said
        saved = sorted((place / "run/checkpoint").iterdir())
        assert [path.name for path in saved] == ["step-00000001.safetensors", "step-00000002.safetensors"]
        with safe_open(saved[-1], "pt") as file:
            assert all(file.get_tensor(name) is not None for name in file.keys())  # noqa: SIM118
        change(f"size={8 * one}")
        assert main([*train_digits, "--out", str(place / "run")]) == 0
        assert "layermatch + propagation: continued from step 2" in capsys.readouterr().out
        assert_equal_outcome(undisturbed, place / "run")


def test_a_disk_that_is_full_from_the_start(train_digits, tmp_path, capsys):
    place = tmp_path / "disk"
    with disk(place, "1m"):
        (place / "full").write_bytes(bytes(1 << 20))
        code, said = give([*train_digits, "--out", place / "run"], capsys)
        assert code == 2
        assert "the run cannot be written to" in said and "No space left" in said and "--out" in said


def test_a_run_folder_that_takes_no_writing(undisturbed, train_digits, tmp_path, capsys):
    place = tmp_path / "disk"
    with disk(place, "20m") as change:
        change("ro")
        code, said = give([*train_digits, "--out", place / "run"], capsys)
        assert code == 2 and "Read-only" in said and "--out" in said
        change("rw")
        assert main([*train_digits, "--out", str(place / "run")]) == 0
        change("ro")  # a finished run is read, and nothing is written
        assert main([*train_digits, "--out", str(place / "run")]) == 0
        assert "this run is finished" in capsys.readouterr().out
        change("rw")
        summary = (place / "run/summary.json").read_text()
        (place / "run/summary.json").unlink()  # as if it were not finished
        change("ro")
        code, said = give([*train_digits, "--out", place / "run"], capsys)
        assert code == 2 and "Read-only" in said and str(place / "run") in said
        change("rw")
        (place / "run/summary.json").write_text(summary)
        assert_equal_outcome(undisturbed, place / "run")


def test_a_cache_that_takes_no_writing_is_done_without(tmp_path, capsys):
    make_photos(tmp_path / "photos")
    place = tmp_path / "disk"
    with disk(place, "1m") as change:
        change("ro")
        assert (
            main(
                ["train", str(tmp_path / "photos"), *SMALL, "--out", str(tmp_path / "a"), "--images.cache", str(place)]
            )
            == 0
        )
        assert "kept in memory only" in capsys.readouterr().out
    assert main(["train", str(tmp_path / "photos"), *SMALL, "--out", str(tmp_path / "b")]) == 0
    assert_equal_outcome(tmp_path / "a", tmp_path / "b")


def test_a_file_that_vanished_between_two_sittings_is_named_and_its_return_continues(tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "run"
    make_photos(photos)
    assert main(["train", str(photos), *SMALL, "--out", str(out)]) == 0
    gone = photos / "unlabeled/30.png"
    held = gone.read_bytes()
    gone.unlink()
    code, said = give(["train", photos, *SMALL, "--out", out], capsys)
    assert code == 2
    assert "the data is not the same" in said and "(unlabeled/30.png)" in said and "Give another --out" in said
    gone.write_bytes(held)
    assert main(["train", str(photos), *SMALL, "--out", str(out)]) == 0
    assert "this run is finished" in capsys.readouterr().out


def make_photos(folder):
    rng = np.random.default_rng(0)
    for i in range(60):
        path = folder / ("ab"[i % 2] if i < 10 else "unlabeled") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 90, (12, 12, 3)) + 80 * (i % 2) * (np.arange(12) % 2)[:, None]
        Image.fromarray(pixels.astype(np.uint8)).save(path)


# --- two commands at once ----------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_and_free_again_after(train_digits, tmp_path, capsys):
    with RunFolder(tmp_path).alone(), pytest.raises(UserError, match="at work in"), RunFolder(tmp_path).alone():
        pass
    out = tmp_path / "run"
    assert main([*train_digits, "--out", str(out), "--steps", "4"]) == 0
    (out / "summary.json").unlink()  # as if it were not finished
    with RunFolder(out).alone():
        code, said = give([*train_digits, "--out", out, "--steps", "4"], capsys)
    assert code == 2
    assert "another command is at work in" in said and "Traceback" not in said
    assert main([*train_digits, "--out", str(out), "--steps", "4"]) == 0
