"""`fewlabels probe RUN` and `--probe-every`: the same numbers, from the run's folder alone."""

import json

import numpy as np
import pytest

import fewlabels
from fewlabels.cli import main
from fewlabels.methods.fixmatch import FixMatch
from tests.runs.test_faults import make_photos


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run on digits with probes."""
    out = tmp_path_factory.mktemp("probe") / "run"
    words = ["--labels-per-class", "4", "--steps", "30", "--no-baseline", "--probe-every", "10", "--threads", "1"]
    assert main(["train", "digits", *words, "--out", str(out)]) == 0
    return out


def test_the_command_repeats_the_last_probe_of_the_training(done, tmp_path, capsys):
    assert main(["probe", str(done), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    said = capsys.readouterr().out
    assert "layermatch at step 30, against the hidden labels" in said and "backbone.stage1.0" in said
    assert [line["step"] for line in found["history"]] == [10, 20, 30]
    last = found["history"][-1]
    assert {name: found[name] for name in last} == last
    assert found["method"] == "layermatch" and found["against"] == "hidden" and 0 < found["kept"] <= 1


def test_it_changes_no_file_of_the_run(done):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    fewlabels.probe(done)
    after = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    assert before == after


def test_the_report_shows_the_probes(done):
    page = (done / "report.html").read_text()
    assert "Do pseudo-labels help every layer?" in page and "backbone.stage3.1" in page


def test_probes_are_no_part_of_the_configuration(done, capsys):
    """The same command without them continues the run: here, it is finished."""
    words = ["--labels-per-class", "4", "--steps", "30", "--no-baseline", "--threads", "1"]
    assert main(["train", "digits", *words, "--out", str(done)]) == 0
    assert "nothing is trained again" in capsys.readouterr().out


def test_a_folder_of_photos_is_found_again_from_another_place(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos")
    for i, path in enumerate((tmp_path / "photos/a").iterdir()):  # two of them tell
        if i < 2:
            other = tmp_path / "photos/test/a" / path.name
            other.parent.mkdir(parents=True, exist_ok=True)
            path.rename(other)
    monkeypatch.chdir(tmp_path)
    fewlabels.fit("photos", steps=4, batch=4, baseline=False, out="run", threads=1)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    found = fewlabels.probe("../run")
    assert found["against"] == "test" and found["wrong"] is None and found["history"] == []


def arrays():
    rng = np.random.default_rng(0)
    return {"x": rng.integers(0, 255, (40, 8, 8), np.uint8), "y": np.r_[np.arange(8) % 2, -np.ones(32, int)],
            "x_test": rng.integers(0, 255, (10, 8, 8), np.uint8), "y_test": np.arange(10) % 2}  # fmt: skip


class Mine(FixMatch):
    """A method of the user's own."""


def test_data_and_methods_that_no_file_has_are_asked_for(tmp_path):
    run = fewlabels.fit(arrays(), method=Mine(threshold=0.1), steps=4, batch=4, baseline=False, out=tmp_path / "r")
    with pytest.raises(fewlabels.UserError, match="made from data in memory: give it"):
        fewlabels.probe(run.path)
    with pytest.raises(fewlabels.UserError, match="method Mine is one of your own"):
        fewlabels.probe(run.path, arrays())
    assert fewlabels.probe(run.path, arrays(), method=Mine(threshold=0.1))["kept"] > 0
    with pytest.raises(fewlabels.UserError, match=r"threshold was 0\.1 and is 0\.2 now"):
        fewlabels.probe(run.path, arrays(), method=Mine(threshold=0.2))


def test_a_folder_that_is_no_run_and_one_without_a_checkpoint(tmp_path, done, capsys):
    assert main(["probe", str(tmp_path / "none")]) == 2
    assert "is no run" in capsys.readouterr().err
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_bytes((done / "config.yaml").read_bytes())
    assert main(["probe", str(tmp_path / "begun")]) == 2
    assert "no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--probe-every", "5", "--method", "supervised"], "no pseudo-labels"),
        (["--policy", '{"backbone.stage9": 0}'], "no layer is named 'backbone.stage9'"),
        (["--policy", "grad-relu"], "give all, grad_relu"),
        (["--policy", "head_only", "--method.passes", "two"], "cannot be told apart"),
        (["--freeze"], "--freeze trains the head alone, and layermatch keeps pseudo-labels from the head"),
        (["--freeze", "--method", "fixmatch", "--policy", "backbone_only"], "Give --policy all"),
    ],
)
def test_wrong_options_leave_no_folder(tmp_path, capsys, words, said):
    out = tmp_path / "run"
    assert main(["train", "digits", "--labels-per-class", "4", "--threads", "1", *words, "--out", str(out)]) == 2
    assert said in " ".join(capsys.readouterr().err.split()) and not out.exists()


def test_strategies_from_the_command_line_for_every_threshold(tmp_path):
    for threshold in ("fixed", "self_adaptive", "soft"):
        for policy, memory in (("all", "0"), ("grad_relu", "0"), ("all", "0.1"), ("grad_relu", "0.1")):
            out = tmp_path / f"{threshold}-{policy}-{memory}"
            words = ["--policy", policy, "--center-memory", memory, "--method.threshold", threshold, "--steps", "2"]
            assert main(["train", "digits", "--labels-per-class", "1", "--no-baseline", "--threads", "1", *words,
                         "--out", str(out)]) == 0  # fmt: skip
            text = (out / "config.yaml").read_text()
            assert f"threshold: {threshold}" in text and f"center_memory: {float(memory)}" in text
            assert f"policy: {policy}" in text
