"""`fewlabels probe RUN` and `--probe-every`: the same numbers, from the run's folder alone."""

import json
import shutil

import numpy as np
import pytest
import torch

import fewlabels
from fewlabels.cli import main
from fewlabels.inputs.kinds import VECTORS
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.models.small_cnn import SmallCNN
from fewlabels.runs.folder import RunFolder
from fewlabels.training import loop
from tests.classify.test_faults import make_photos


@pytest.fixture(scope="module")
def done(tmp_path_factory, few_digits):
    """A finished run on digits with probes."""
    out = tmp_path_factory.mktemp("probe") / "run"
    words = ["--labels-per-class", "4", "--steps", "30", "--no-baseline", "--probe-every", "10", "--threads", "1"]
    assert main(["train", few_digits, *words, "--out", str(out)]) == 0
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
    """And needs none of them for itself: a run that is at work can be looked at."""
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    with RunFolder(done).alone():
        during = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
        fewlabels.probe(done)
        assert during == {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    assert before.keys() == set(done.rglob("*"))


def test_the_report_shows_the_probes(done):
    page = (done / "report.html").read_text()
    assert "Do pseudo-labels help every layer?" in page and "backbone.stage3.1" in page


def test_probes_are_no_part_of_the_configuration(done, few_digits, capsys):
    """The same command without them continues the run: here, it is finished."""
    words = ["--labels-per-class", "4", "--steps", "30", "--no-baseline", "--threads", "1"]
    assert main(["train", few_digits, *words, "--out", str(done)]) == 0
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


@pytest.fixture
def few_probed(monkeypatch):
    """Probe 28 rows in place of 400, which of these arrays are the same ones again, and draw no figure."""
    monkeypatch.setattr("fewlabels.classify.preparation.ROWS", 28)
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda figure, renderer: None)


class Mine(FixMatch):
    """A method of the user's own."""


@pytest.mark.usefixtures("few_probed")
def test_data_and_methods_that_no_file_has_are_asked_for(tmp_path):
    run = fewlabels.fit(arrays(), method=Mine(threshold=0.1), steps=4, batch=4, baseline=False, out=tmp_path / "r")
    with pytest.raises(fewlabels.UserError, match="made from data in memory: give it"):
        fewlabels.probe(run.path, method=Mine(threshold=0.1))
    with pytest.raises(fewlabels.UserError, match="method Mine is one of your own"):
        fewlabels.probe(run.path, arrays())
    assert fewlabels.probe(run.path, arrays(), method=Mine(threshold=0.1))["kept"] > 0
    with pytest.raises(fewlabels.UserError, match="method is Mine, and not fixmatch"):
        fewlabels.probe(run.path, arrays(), method=FixMatch())
    other = arrays() | {"x": arrays()["x"] + 1}
    with pytest.raises(fewlabels.UserError, match=r"rows or labels differ.*--data DATA"):
        fewlabels.probe(run.path, other, method=Mine())


@pytest.mark.usefixtures("few_probed")
def test_a_backbone_of_the_users_own_is_asked_for_and_filled_from_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    run = fewlabels.fit(arrays(), model=SmallCNN(1, (8, 16)), steps=4, batch=4, baseline=False, out=tmp_path / "r",
                        probe_every=4)  # fmt: skip
    with pytest.raises(fewlabels.UserError, match=r"backbone of your own: give it, as fewlabels\.probe"):
        fewlabels.probe(run.path, arrays())
    found = fewlabels.probe(run.path, arrays(), model=SmallCNN(1, (8, 16)))
    assert list(found["layers"]) == found["history"][-1]["layers"]


@pytest.mark.usefixtures("few_probed")
def test_a_run_begun_with_weights_needs_them_no_more(tmp_path, monkeypatch):
    monkeypatch.setitem(VECTORS.steps, "normal", 20)  # of the training on features before it
    first = fewlabels.fit(arrays(), steps=4, batch=4, baseline=False, out=tmp_path / "first")
    weights = tmp_path / "w.safetensors"
    weights.write_bytes((first.path / "model.safetensors").read_bytes())
    words = {"steps": 4, "batch": 4, "baseline": False, "out": tmp_path / "second", "probe_every": 4}
    run = fewlabels.fit(arrays(), weights=weights, classify_calibrate="no", **words)
    weights.unlink()
    found = fewlabels.probe(run.path, arrays())
    assert list(found["layers"]) == found["history"][-1]["layers"]


def test_moved_data_is_asked_for(tmp_path):
    make_photos(tmp_path / "photos")
    out = tmp_path / "run"
    words = ["--labels-per-class", "2", "--steps", "4", "--batch", "4", "--no-baseline", "--threads", "1"]
    shutil.rmtree(tmp_path / "photos/unlabeled")
    assert main(["train", str(tmp_path / "photos"), *words, "--out", str(out)]) == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.raises(fewlabels.UserError, match=r"no data at .*photos.*fewlabels probe RUN --data DATA"):
        fewlabels.probe(out)
    assert fewlabels.probe(out, tmp_path / "moved")["against"] == "hidden"


@pytest.mark.usefixtures("few_probed")
def test_a_method_that_cannot_be_probed_is_said_before_the_training(tmp_path):
    with pytest.raises(fewlabels.UserError, match="Silent cannot be probed"):
        fewlabels.fit(arrays(), method=Silent(), steps=4, batch=4, probe_every=2, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.usefixtures("few_probed")
def test_a_batch_too_large_for_the_memory_is_halved_before_the_training_too(tmp_path, monkeypatch):
    tries, real = [], loop.update

    def update(state, *arguments):
        tries.append(state.recipe.accumulate)
        if len(tries) == 1:
            raise torch.OutOfMemoryError
        return real(state, *arguments)

    monkeypatch.setattr(loop, "update", update)
    run = fewlabels.fit(arrays(), steps=4, batch=4, probe_every=2, baseline=False, out=tmp_path / "r")
    assert tries[:2] == [1, 2] and run.accuracy is not None


class Silent(FixMatch):
    """Gives its loss alone."""

    def forward(self, net, batch):
        return {"loss": super().forward(net, batch)["loss"]}


def test_a_folder_that_is_no_run_and_one_without_a_checkpoint(tmp_path, done, capsys):
    assert main(["probe", str(tmp_path / "none")]) == 2
    assert "is no run" in capsys.readouterr().err
    assert main(["probe", str(done), "--json", str(tmp_path)]) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/config.yaml").write_bytes((done / "config.yaml").read_bytes())
    assert main(["probe", str(tmp_path / "begun")]) == 2
    assert "no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--probe-every", "5", "--method", "supervised"], "no pseudo-labels"),
        (["--policy", '{"backbone.stage9": 0}'], "no layer is named 'backbone.stage9'"),
        (["--policy", "grad-relu"], "give auto, all, grad_relu"),
        (["--policy", "head_only", "--method.passes", "two"], "cannot be told apart"),
        (
            ["--classify.freeze"],
            "freeze trains the head alone, and layermatch with the policy grad_relu keeps",
        ),
        (["--classify.freeze", "--method", "fixmatch", "--policy", "backbone_only"], "Give --policy all"),
        (
            ["--classify.freeze", "--policy", '{"head.weight": 0, "head.bias": 0}'],
            "keeps pseudo-labels from all that learns",
        ),
        (
            ["--classify.freeze", "--method", "fixmatch", "--policy", '{"backbone": 0.5}'],
            "names only layers that --classify.freeze keeps",
        ),
        (["--policy", '{"backbone": 0, "head": 0}'], "keeps pseudo-labels from all that learns"),
        (["--method", "supervised", "--policy", "head_only"], "supervised uses no unlabeled images"),
        (["--method", "supervised", "--classify.center-memory", "0.3"], "supervised uses no unlabeled images"),
    ],
)
def test_wrong_options_leave_no_folder(tmp_path, capsys, words, said):
    out = tmp_path / "run"
    assert main(["train", "digits", "--labels-per-class", "4", "--threads", "1", *words, "--out", str(out)]) == 2
    assert said in " ".join(capsys.readouterr().err.split()) and not out.exists()


@pytest.mark.usefixtures("few_probed")
def test_strategies_from_the_command_line_for_every_threshold(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    small = ["--batch", "4", "--steps", "2", "--no-baseline", "--threads", "1"]
    for threshold in ("fixed", "self_adaptive", "soft"):
        for policy, memory in (("all", "0"), ("grad_relu", "0"), ("all", "0.1"), ("grad_relu", "0.1")):
            out = tmp_path / f"{threshold}-{policy}-{memory}"
            words = ["--policy", policy, "--classify.center-memory", memory, "--method.threshold", threshold, *small]
            assert main(["train", str(tmp_path / "data.npz"), *words, "--out", str(out)]) == 0
            text = (out / "config.yaml").read_text()
            assert f"threshold: {threshold}" in text and f"center_memory: {float(memory)}" in text
            assert f"policy: {policy}" in text
