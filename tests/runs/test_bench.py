"""`fewlabels bench`: real tiny runs side by side, stopped and given again."""

import json

import numpy as np
import pytest

import fewlabels
from fewlabels import UserError
from fewlabels.classify.bench import _read_methods, read_seeds
from fewlabels.cli import main
from fewlabels.errors import Interrupted
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.runs import bench as module

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = {"labels_per_class": 2, "steps": 8, "batch": 8, "unlabeled_ratio": 2, "device": "cpu", "threads": 1}
WORDS = ["--labels-per-class", "2", "--steps", "8", "--batch", "8", "--unlabeled-ratio", "2", "--device", "cpu"]
WORDS += ["--threads", "1"]


@pytest.fixture(scope="module")
def done(tmp_path_factory, few_digits):
    """Two methods, of which one has an option, over three seeds."""
    out = tmp_path_factory.mktemp("bench") / "digits"
    return fewlabels.bench(few_digits, methods="fixmatch,layermatch:threshold=fixed", seeds=3, out=out, **SMALL)


def count_fits(monkeypatch, stop_after=None):
    """Note which runs are asked for; stop before one of them."""
    fit, asked = module.fit, []

    def counted(task, show):
        if len(asked) == stop_after:
            raise Interrupted("saved at step 4")
        asked.append(task.options.out.name)
        return fit(task, show)

    monkeypatch.setattr(module, "fit", counted)
    return asked


def test_each_method_and_seed_is_a_run_of_its_own(done):
    names = {f"{m}-{s}" for m in ("supervised", "fixmatch", "layermatch-threshold=fixed") for s in range(3)}
    assert {p.name for p in done.path.iterdir()} == names | {"bench.json", "bench.md"}
    for name in names:
        summary = json.loads((done.path / name / "summary.json").read_text())
        assert f"-{summary['seed']}" in name and summary["steps"] == 8
    assert not (done.path / "fixmatch-0/supervised").exists()  # trained once a seed


def test_the_rows_are_the_runs(done):
    names = [row.name for row in done.rows]
    assert names[0] == "supervised" and names[-2:] == ["fixmatch", "layermatch:threshold=fixed"]
    assert "label propagation on pixels" in names
    for row, folder in ((done.rows[0], "supervised"), (done.rows[-1], "layermatch-threshold=fixed")):
        for seed in range(3):
            summary = json.loads((done.path / f"{folder}-{seed}/summary.json").read_text())
            assert row.values[seed] == summary["chosen"]["test"]["accuracy"] and row.step_seconds[seed] > 0
    by_name = {(each.first, each.second): each for each in done.differences}
    values = [done.rows[-2].values[seed] - done.rows[0].values[seed] for seed in range(3)]
    assert by_name["fixmatch", "supervised"].mean.value == pytest.approx(np.mean(values))


def test_supervised_is_that_of_a_single_run(done, tmp_path, few_digits):
    run = fewlabels.fit(few_digits, method="fixmatch", seed=1, propagate=0.0, out=tmp_path / "r", **SMALL)
    rows = {row["name"]: row["test"]["accuracy"] for row in run.summary["rows"]}
    assert rows["supervised"] == done.rows[0].values[1] and rows["fixmatch"] == done.rows[-2].values[1]


def test_what_is_written(done):
    found = json.loads((done.path / "bench.json").read_text())
    assert [row["name"] for row in found["rows"]] == [row.name for row in done.rows]
    assert found["setting"]["measure"] == "test accuracy" and found["setting"]["threads"] == [1]
    assert found["rows"][0]["pace"] == 1 and found["words"] == done.lines
    text = (done.path / "bench.md").read_text()
    assert text.startswith("digits: 2 labels a class, 305 unlabeled, 75 test, budget normal (8 steps), seeds 0 to 2,")
    assert "| supervised |" in text and "fixmatch minus supervised" in text
    assert any("noise" in line for line in done.lines)


def test_given_again_nothing_is_trained_and_more_seeds_are_added(done, monkeypatch, few_digits):
    before = {p: p.stat().st_mtime_ns for p in done.path.rglob("model.safetensors")}
    again = fewlabels.bench(
        few_digits, methods=["fixmatch", "layermatch:threshold=fixed"], seeds=3, out=done.path, **SMALL
    )
    assert [row.values for row in again.rows] == [row.values for row in done.rows]
    assert before == {p: p.stat().st_mtime_ns for p in done.path.rglob("model.safetensors")}


def test_stopped_and_given_again_it_goes_on_with_seeds_outermost(tmp_path, monkeypatch, capsys, few_digits):
    words = [
        "bench",
        few_digits,
        "--methods",
        "fixmatch",
        "--seeds",
        "2",
        "--out",
        str(tmp_path / "b"),
        *WORDS,
    ]
    with monkeypatch.context() as patched:
        asked = count_fits(patched, stop_after=3)
        assert main(words) == 130
    assert asked == ["supervised-0", "fixmatch-0", "supervised-1"]
    said = capsys.readouterr()
    assert "3 of 4  supervised, seed 1:" in said.out and "(n = 2)" in said.out
    assert "give the same command again" in said.err
    part = json.loads((tmp_path / "b/bench.json").read_text())
    assert [row["mean"]["n"] for row in part["rows"] if row["pace"]] == [2, 1]
    assert main([*words, "--json", str(tmp_path / "copy.json")]) == 0
    said = capsys.readouterr().out
    assert "4 of 4  fixmatch, seed 1:" in said and "fewer than 3 seeds nothing can be said" in said
    assert (tmp_path / "copy.json").read_text() == (tmp_path / "b/bench.json").read_text()


def test_a_method_that_fails_keeps_the_others(tmp_path, capsys, few_digits):
    words = ["--methods", "layermatch:passes=two,fixmatch", "--policy", "head_only", "--seeds", "7-8"]
    assert main(["bench", few_digits, *words, "--out", str(tmp_path / "b"), *WORDS]) == 2
    captured = capsys.readouterr()
    assert "layermatch:passes=two failed; the lines above say why" in captured.err
    said = " ".join(captured.out.split())
    assert "layermatch:passes=two, seed 7: failed. " in said and "cannot be told apart" in said
    found = json.loads((tmp_path / "b/bench.json").read_text())
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows["layermatch:passes=two"]["failures"]) == {"7", "8"} and rows["fixmatch"]["mean"]["n"] == 2
    assert any("failed with seed 7, 8" in line for line in found["words"])


LATE = """
from fewlabels import Method
from torch.nn import functional as F


class Late(Method):
    def forward(self, net, batch):
        if int(batch.step) == 3:
            return {}["loss"]
        return {"loss": F.cross_entropy(net.logits(net.features(batch.labeled[0])), batch.labels)}
"""


def test_a_method_that_fails_in_the_middle_of_its_training_keeps_the_others(tmp_path, capsys, few_digits):
    (tmp_path / "late.py").write_text(LATE)
    words = ["--methods", f"{tmp_path / 'late.py'},fixmatch", "--seeds", "1", "--out", str(tmp_path / "b")]
    assert main(["bench", few_digits, *words, *WORDS]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "late.py:Late, seed 0: failed." in said and "KeyError" in said and """`return {}["loss"]`""" in said
    found = json.loads((tmp_path / "b/bench.json").read_text())
    assert found["rows"][-1]["name"] == "fixmatch" and found["rows"][-1]["mean"]["n"] == 1


def test_values_of_several_numbers_are_not_parted_at_their_commas():
    found = _read_methods("fixmatch,freematch:clip=(.9, .95),softmatch,")
    assert list(found) == ["supervised", "fixmatch", "freematch:clip=(0.9, 0.95)", "softmatch"]
    assert module.parted("a, b (1, (2, 3)),odd),c") == ["a", "b (1, (2, 3))", "odd)", "c"]


def arrays(labeled=60, unlabeled=0):
    rng = np.random.default_rng(0)
    y = np.arange(labeled + unlabeled) % 2
    x = (rng.uniform(0, 80, (len(y), 12, 12)) + 150 * y[:, None, None]).astype(np.uint8)
    return x, np.where(np.arange(len(y)) < labeled, y, -1)


def test_without_a_test_split_the_hidden_labels_are_shown(tmp_path):
    x, y = arrays(8)
    options = SMALL | {"labels_per_class": 2, "batch": 4}
    found = fewlabels.bench((x, y), methods=[FixMatch(threshold=0.5)], seeds=[4], out=tmp_path / "b", **options)
    assert found.setting["measure"] == "accuracy on hidden labels" and found.setting["test"] == 0
    assert found.rows[-1].name == "fixmatch:threshold=0.5" and found.rows[-1].mean.n == 1


def test_nothing_to_report_on_is_said_before_anything_is_trained(tmp_path):
    options = {name: value for name, value in SMALL.items() if name != "labels_per_class"}
    with pytest.raises(UserError, match=r"no test split and no hidden labels.*--labels-per-class"):
        fewlabels.bench(arrays(10, 30), methods="fixmatch", seeds=1, out=tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--methods", "fixmach"], "Did you mean fixmatch"),
        (["--methods", "fixmatch:treshold=1"], "has no option 'treshold'; it has threshold"),
        (["--methods", "fixmatch:threshold=2"], "give a number, 0 to 1"),
        (["--methods", "fixmatch,fixmatch:threshold=0.95"], "two methods are called fixmatch"),
        (["--methods", "supervised"], "give methods to compare with the supervised baseline"),
        (["--methods", "fixmatch", "--seeds", "3-1"], "seeds are '3-1'; give how many"),
        (["--methods", "fixmatch", "--seeds", "0"], "seeds are '0'"),
        (["--methods", "fixmatch", "--method.threshold", "1"], "options go with the method"),
        (["--methods", "fixmatch", "--model", "resnet19"], "the nearest are"),
        (["--methods", "fixmatch", "--seed", "3"], "--seeds STR"),
        (["--methods", "fixmatch", "--method", "fixmatch"], "--methods STR"),
        (["--methods", "none.py:A"], "no file at 'none.py'"),
        (["--methods", "fixmatch", "--json", "."], "is a folder"),
    ],
)
def test_wrong_words_are_said_before_anything_is_trained(tmp_path, capsys, words, said):
    try:
        code = main(["bench", "digits", *words, "--out", str(tmp_path / "b"), *WORDS])
    except SystemExit as end:
        code = end.code
    text = capsys.readouterr()
    assert code == 2 and said in " ".join((text.err + text.out).split())
    assert not (tmp_path / "b").exists()


def test_what_bench_sets_itself_is_refused(tmp_path):
    with pytest.raises(UserError, match="bench sets method, seed, baseline for each run itself; leave seed out"):
        fewlabels.bench("digits", methods="fixmatch", seed=3, out=tmp_path / "b", **SMALL)
    with pytest.raises(UserError, match="no option is named stepps"):
        fewlabels.bench("digits", methods="fixmatch", stepps=3, out=tmp_path / "b")


def test_a_folder_of_another_kind_is_refused(done, tmp_path, few_digits):
    with pytest.raises(UserError, match="is a run and no folder for several"):
        fewlabels.bench(few_digits, methods="fixmatch", seeds=1, out=done.path / "fixmatch-0", **SMALL)
    with pytest.raises(UserError, match="steps was 8 and is 9 now"):
        fewlabels.bench(few_digits, methods="fixmatch", seeds=1, out=done.path, **SMALL | {"steps": 9})


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process"):
        fewlabels.bench("digits", methods="fixmatch")


@pytest.mark.parametrize(
    ("given", "numbers"), [(3, [0, 1, 2]), ("2", [0, 1]), ("10-12", [10, 11, 12]), ("4-4", [4]), ([7, 3], [7, 3])]
)
def test_seeds(given, numbers):
    assert read_seeds(given) == numbers


@pytest.mark.parametrize("given", [0, -1, "x", "5-", [], [1, 1]])
def test_wrong_seeds(given):
    with pytest.raises(UserError, match="give how many"):
        read_seeds(given)
