"""The waist: a task in a file of the user's own runs, is stopped, resumes, and its variants are compared."""

import json
from pathlib import Path

import numpy as np
import pytest

from fewlabels.cli import main
from fewlabels.errors import UserError
from fewlabels.runs.bench import read_variants
from fewlabels.runs.task import find_task
from fewlabels.training.train import Training

TOY = Path(__file__).with_name("toy.py")
WORDS = ("--task", f"{TOY}:Toy", "--device", "cpu")


@pytest.fixture
def waves(tmp_path):
    """Make an .npy file of 200 sine waves."""
    time, rng = np.linspace(0, 2 * np.pi, 24), np.random.default_rng(0)
    pairs = zip(rng.uniform(0, 6, 200), rng.uniform(0.5, 1.5, 200), strict=True)
    np.save(tmp_path / "waves.npy", np.stack([a * np.sin(time + phase) for phase, a in pairs]))
    return str(tmp_path / "waves.npy")


def summary_of(run):
    return json.loads((run / "summary.json").read_text())


def test_it_is_small_and_knows_the_package_alone():
    assert len(TOY.read_text().splitlines()) < 150


def test_it_runs_and_learns(waves, tmp_path, capsys):
    assert main(["train", waves, *WORDS, "--steps", "150", "--out", str(tmp_path / "run")]) == 0
    (row,) = summary_of(tmp_path / "run")["rows"]
    assert row["test"]["explained"] > 0.5  # a constant explains 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"restore_loss", "criticize_loss", "restore_doubt", "loss", "step"} <= lines[0].keys()
    assert lines[-1]["explained"] == row["test"]["explained"]
    assert "toy: test" in capsys.readouterr().out


def test_it_is_stopped_in_the_middle_and_resumes_to_the_same_bytes(waves, tmp_path, monkeypatch, capsys):
    words = ["train", waves, *WORDS, "--steps", "30", "--out"]
    assert main([*words, str(tmp_path / "whole")]) == 0
    call = Training.__call__

    def killed(self, state, step, metrics):
        call(self, state, step, metrics)
        if step == 17:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Training, "__call__", killed)
        assert main([*words, str(tmp_path / "cut")]) == 130
    assert not (tmp_path / "cut/summary.json").exists()
    assert main([*words, str(tmp_path / "cut")]) == 0
    assert "toy: continued from step 17" in capsys.readouterr().out
    for name in ("metrics.jsonl", "checkpoint/step-00000030.safetensors"):
        whole, cut = (tmp_path / run / name for run in ("whole", "cut"))
        assert without_time(whole) == without_time(cut), name


def without_time(path):
    if path.suffix == ".jsonl":
        return path.read_text()
    raw = path.read_bytes()  # the header has the seconds of work; the tensors follow it
    return raw[8 + int.from_bytes(raw[:8], "little") :]


def test_a_finished_run_is_read_and_other_data_is_refused(waves, tmp_path, capsys):
    words = ["train", waves, *WORDS, "--steps", "5", "--out", str(tmp_path / "run")]
    assert main(words) == main(words) == 0
    assert "this run is finished; nothing is trained again" in capsys.readouterr().out
    np.save(waves, 2 * np.load(waves))
    assert main(words) == 2
    assert "content was" in capsys.readouterr().err
    assert main([*words, "--width", "3"]) == 2
    assert "width was 4 and is 3 now" in capsys.readouterr().err


def test_the_file_of_a_task_that_was_changed_continues_no_run(waves, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(TOY.read_text())
    words = ["train", waves, "--task", f"{own}:Toy", "--device", "cpu", "--steps", "5", "--out", str(tmp_path / "run")]
    assert main(words) == main(words) == 0
    own.write_text(TOY.read_text().replace("0.01 * doubt", "0.02 * doubt"))
    assert main(words) == 2
    assert "the file of the task has changed since the run was begun" in capsys.readouterr().err


def test_the_options_of_a_task_have_any_names(waves, tmp_path, capsys):
    """Also one that `fewlabels train` had under another name once."""
    own = tmp_path / "own.py"
    own.write_text(TOY.read_text().replace("width", "size"))
    words = ["train", waves, "--task", f"{own}:Toy", "--device", "cpu", "--steps", "5", "--out", str(tmp_path / "run")]
    assert main([*words, "--size", "3"]) == 0
    assert summary_of(tmp_path / "run")["steps"] == 5


def test_a_bench_in_which_a_variant_failed_ends_with_an_error(waves, tmp_path, capsys):
    own = tmp_path / "own.py"
    fails = "        if self.options.width == 1:\n            raise UserError('not one')\n"
    own.write_text(TOY.read_text().replace("        try:\n            x =", f"{fails}        try:\n            x ="))
    variants = ["--variants", "wide:width=6,narrow:width=1", "--seeds", "1", "--steps", "5"]
    words = ["bench", waves, "--task", f"{own}:Toy", "--device", "cpu", *variants, "--out", str(tmp_path / "bench")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "narrow failed" in said.err and "not one" in said.out
    found = json.loads((tmp_path / "bench/bench.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["wide", "narrow"]


def test_two_variants_are_compared(waves, tmp_path, capsys):
    variants = ["--variants", "wide:width=6,narrow:width=1", "--seeds", "3", "--steps", "60"]
    words = ["bench", waves, *WORDS, *variants, "--out", str(tmp_path / "bench")]
    assert main(words) == 0
    found = json.loads((tmp_path / "bench/bench.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["wide", "narrow"]
    (difference,) = found["differences"]
    assert difference["first"] == "narrow" and difference["second"] == "wide" and difference["mean"]["value"] < 0
    assert "narrow minus wide" in capsys.readouterr().out
    assert main(words) == 0  # all is read


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "x.npy", "--task", "nothing"], "no task is named 'nothing'; there are classify"),
        (["train", "x.npy", "--task", f"{TOY}:Sequences"], "has no task 'Sequences'"),
        (["predict", "x", "y", "--task", f"{TOY}:Toy"], "--task goes with `fewlabels train` and `fewlabels bench`"),
        (["train", "none.npy", "--task", f"{TOY}:Toy"], "none.npy is no array of numbers"),
        (["train", "digits", "--task="], "--task has no value: give classify, or path/to/file.py:CLASS"),
        (["train", "digits", "--task"], "--task has no value"),
        (["bench", "x.npy", *WORDS, "--variants", "a:seed=1,b:width=2", "--seeds", "1"], "seed"),
        (["bench", "x.npy", *WORDS, "--variants", "a:out=x,b:width=2", "--seeds", "1"], "out"),
    ],
)
def test_what_cannot_be_is_said(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("config.yaml"))


@pytest.mark.parametrize("variants", ["a:width=1", "a:width=1,a:width=2", "a:width,b:width=2"])
def test_variants_have_names_and_options(variants):
    with pytest.raises(UserError, match="--variants"):
        read_variants(variants)


def test_classify_is_a_task_by_its_entry_point():
    assert find_task("classify").metric == "accuracy"
