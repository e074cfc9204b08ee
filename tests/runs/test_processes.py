"""The real command under `torchrun`: its outputs, its errors, and what a killed process leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewlabels
from fewlabels.cli import main
from fewlabels.data.sources.open import open_table
from fewlabels.inputs.images.cache import PART
from fewlabels.inputs.images.decode import ImageForm
from fewlabels.inputs.images.store import decode_all
from fewlabels.training.record import read_lines
from tests.training.together import CAN_FORK, together

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found by Linux's /proc")

STEPS = 20
LONG = 100  # steps of runs that are killed on the way
SMALL = ["--steps", str(STEPS), "--batch", "8", "--unlabeled-ratio", "2", "--no-baseline"]
DIGITS = ["digits", "--labels-per-class", "1", *SMALL]
FILES = ("model.safetensors", "predictions.parquet", "metrics.jsonl", "split.csv", "quarantine.csv", "config.yaml")


class Launcher(subprocess.Popen):
    """The command under `torchrun`. It writes to files: a pipe would stay open as long as a worker of a killed one."""

    def __init__(self, *words, restarts=0):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "--max-restarts", str(restarts), "-m", "fewlabels", "train", *map(str, words),
        ]  # fmt: skip
        environ = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
        self.folder = Path(tempfile.mkdtemp())
        with open(self.folder / "output", "w") as output, open(self.folder / "errors", "w") as errors:
            super().__init__(command, stdout=output, stderr=errors, env=environ)

    def said(self):
        """Give stdout and stderr so far."""
        return tuple((self.folder / name).read_text() for name in ("output", "errors"))


def end(process):
    """Wait; give what our processes said on stderr: torchrun's own lines carry its mark or come after it."""
    process.wait(timeout=300)
    output, errors = process.said()
    return output, errors.partition('Traceback (most recent call last):\n  File "<frozen runpy>"')[0]


def kill(launcher, rank):
    """Kill the process of that rank as soon as it can be told."""
    for pid in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            os.kill(int(pid), signal.SIGKILL)
            return
    raise AssertionError("there is no such process")


def wait_until(true, process):
    for _ in range(6000):
        if true():
            return
        assert process.poll() is None, process.said()[1]
        time.sleep(0.02)
    raise AssertionError("the command is too slow")


def trains(out):
    """Tell whether a run has a checkpoint, and is far from its end."""
    return any((out / "checkpoint").glob("step-*0.safetensors"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Make so many image files that each process has parts to decode, two of them broken."""
    assert 2 * PART < 600
    folder, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for i in range(600):
        k = i % 2
        path = folder / (f"{'ab'[k]}" if i < 20 else f"test/{'ab'[k]}" if i < 60 else "unlabeled") / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 90, (12, 12)) + 80 * k * (np.arange(12) % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        if i in (70, 500):
            path.write_bytes(path.read_bytes()[:60])
    return folder


def train_undisturbed(photos, folder, *more):
    process = Launcher(photos, *SMALL, *more, "--out", folder / "run", "--images.cache", folder / "cache")
    output, errors = end(process)
    assert process.returncode == 0, errors
    return folder, output


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    return train_undisturbed(photos, tmp_path_factory.mktemp("undisturbed"))


def test_outputs_are_written_once(undisturbed):
    folder, output = undisturbed
    assert output.count("writing to") == output.count("report: ") == 1
    assert output.count("2 processes share each batch") == 1
    steps = [json.loads(line)["step"] for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, STEPS + 1))
    assert json.loads((folder / "run/summary.json").read_text())["set_aside"] == 2


def test_processes_decode_a_folder_together(photos, undisturbed):
    (cache,) = (path.parent for path in (undisturbed[0] / "cache").glob("*/pixels.bin"))
    index = json.loads((cache / "index.json").read_text())
    form = ImageForm(**index["form"] | {"size": tuple(index["form"]["size"])})
    pixels, broken = decode_all(open_table(str(photos)).contents, form)
    stored = np.fromfile(cache / "pixels.bin", np.uint8).reshape(-1, *pixels.shape[1:])
    assert index["broken"] == {str(place): reason for place, reason in broken.items()}
    assert np.array_equal(np.delete(stored, list(broken), 0), pixels.numpy())


@pytest.mark.slow
def test_killed_processes_come_back_and_end_in_the_same_bytes(photos, tmp_path, monkeypatch):
    long = ("--steps", str(LONG))
    undisturbed, _ = train_undisturbed(photos, tmp_path / "undisturbed", *long)
    out, cache = tmp_path / "run", tmp_path / "cache"
    # Probes too, which must change nothing.
    process = Launcher(photos, *SMALL, *long, "--out", out, "--images.cache", cache, "--probe-every", 50, restarts=2)
    wait_until(lambda: any(cache.glob("*.part")), process)
    kill(process, 1)
    wait_until(lambda: trains(out), process)
    kill(process, 0)
    output, errors = end(process)
    assert process.returncode == 0, errors
    assert "layermatch + propagation: continued from step" in output and "Traceback" not in errors
    for name in FILES:
        assert (out / name).read_bytes() == (undisturbed / "run" / name).read_bytes(), name
    steps = [line["step"] for line in read_lines(out / "probe.jsonl")]
    assert steps == [*range(50, LONG + 1, 50)]
    monkeypatch.setenv("FEWLABELS_CACHE", str(cache))
    found = fewlabels.probe(out)  # by one process
    for now, then in zip(found["layers"], found["history"][-1]["layers"], strict=True):
        assert now["cosine_all"] == pytest.approx(then["cosine_all"], abs=1e-5)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_with_one_line(tmp_path):
    out = tmp_path / "run"
    process = Launcher(*DIGITS, "--steps", 5000, "--out", out)
    wait_until(lambda: trains(out), process)
    kill(process, 0)
    since = time.perf_counter()
    _, errors = end(process)
    assert process.returncode != 0 and time.perf_counter() - since < 20
    (said,) = (line for line in errors.splitlines() if line.startswith("fewlabels (process 1):"))
    assert "another process of this run ended" in said and said.endswith("give the same command again.")
    assert "Traceback" not in errors and "stopping at" not in errors


def test_an_unknown_option_is_said_once(tmp_path):
    process = Launcher(*DIGITS, "--out", tmp_path / "run", "--method.treshold", ".9")
    _, errors = end(process)
    assert process.returncode != 0
    assert errors.count("Unrecognized options: --method.treshold") == 1 and "Traceback" not in errors, errors
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not CAN_FORK, reason="the second process is a fork")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits", "--labels-per-class", "1", *SMALL], "another configuration"),
        (["digits", "--labels-per-class", "500", *SMALL], "--labels-per-class 500"),
    ],
)
def test_an_error_that_all_have_is_said_by_each(undisturbed, tmp_path, words, message):
    """By forks, which are there at once: each speaks and ends by itself, as soon as it knows."""
    out = undisturbed[0] / "run" if message == "another configuration" else tmp_path / "run"

    def task(rank):
        with open(tmp_path / f"errors{rank}", "w") as errors, redirect_stderr(errors):
            return main(["train", *words, "--out", str(out)])

    assert together(task, join=False) == [2, 2]
    for rank in range(2):
        errors = (tmp_path / f"errors{rank}").read_text()
        assert errors.startswith(f"fewlabels (process {rank}): ") and errors.count("fewlabels (process") == 1, errors
        assert message in errors.splitlines()[0] and "Traceback" not in errors, errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_error_that_all_have_is_said_by_each_that_torchrun_lets_speak(undisturbed, tmp_path):
    out = undisturbed[0] / "run"
    mistakes = {  # side by side, since each takes its seconds to start
        "another configuration": Launcher(*DIGITS, "--out", out),
        "--labels-per-class 500": Launcher("digits", *SMALL, "--labels-per-class", "500", "--out", tmp_path / "run"),
    }
    for message, process in mistakes.items():
        _, errors = end(process)
        assert process.returncode != 0
        assert 1 <= errors.count(message) <= 2 and "Traceback" not in errors, errors
        assert re.search(rf"^fewlabels \(process [01]\): .*{message}", errors, re.MULTILINE)
    assert not any(tmp_path.iterdir())
