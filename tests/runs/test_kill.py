"""The real command, really killed, and given again."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors import safe_open

pytestmark = pytest.mark.slow

STEPS = 160


def command(out, *more):
    options = [
        "--labels-per-class",
        "4",
        "--steps",
        str(STEPS),
        "--batch",
        "8",
        "--unlabeled-ratio",
        "2",
        "--no-baseline",
    ]
    return [sys.executable, "-m", "fewlabels", "train", "digits", *options, "--out", str(out), *more]


def wait_for_step(out, step, process):
    """Wait until the record of a run reaches a step."""
    path = out / "metrics.jsonl"
    for _ in range(2400):
        if path.is_file() and (lines := path.read_text().splitlines()) and f'"step": {step}' <= lines[-1][:12]:
            last = json.loads(lines[-1])["step"] if lines[-1].endswith("}") else 0
            if last >= step:
                return
        assert process.poll() is None, "the command ended before it could be stopped"
        time.sleep(0.05)
    raise AssertionError("the command is too slow")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def assert_equal_outcome(first, second):
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (second / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS  # no step is recorded twice
    with safe_open(second / f"checkpoint/step-{STEPS:08d}.safetensors", "pt") as file:
        assert len(file.keys()) > 20
    assert len(list((second / "checkpoint").iterdir())) == 2


def test_a_run_killed_twice_ends_in_the_same_bytes(undisturbed, tmp_path):
    out, chance = tmp_path / "run", random.Random(0)
    for low in (20, 90):
        process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL)
        wait_for_step(out, low + chance.randrange(30), process)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "layermatch + propagation: continued from step " in done.stdout
    assert_equal_outcome(undisturbed, out)


def test_ctrl_c_saves_and_says_how_to_go_on(undisturbed, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_step(out, 40, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "saved at step" in said and "give the same command again" in said and "Traceback" not in said
    done = subprocess.run(command(out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_equal_outcome(undisturbed, out)
    assert (out / "report.html").stat().st_size > 1000
