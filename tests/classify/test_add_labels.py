"""`add-labels`: a run goes on with more labels."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import fewlabels
from fewlabels import UserError
from fewlabels.classify.read_labels import read_labels
from fewlabels.cli import main
from fewlabels.console import Show
from fewlabels.data.more_labels import with_labels
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import apply_split, draw_split, split_text
from fewlabels.files import csv_text, read_csv, replace_text

pytestmark = [pytest.mark.versions, pytest.mark.usefixtures("undrawn")]

QUICK = {"steps": 12, "device": "cpu", "threads": 1}


def split_of(run):
    with open(run.path / "split.csv", newline="") as file:
        return {line["name"]: line for line in csv.DictReader(file)}


@pytest.fixture(scope="module")
def truth(few_digits):
    table = open_table(few_digits)
    return dict(zip(table.names, (table.classes[k] for k in table.labels), strict=True))


@pytest.fixture(scope="module")
def run(tmp_path_factory, few_digits):
    out = tmp_path_factory.mktemp("added") / "run"
    return fewlabels.fit(few_digits, method="fixmatch", labels_per_class=2, out=out, **QUICK)


@pytest.fixture(scope="module")
def filled(run, truth, tmp_path_factory):
    """The first ten of the images to label next, with their labels, and one that the user was not sure of."""
    path = tmp_path_factory.mktemp("filled") / "mine.csv"
    names = read_csv(run.path / "next_to_label.csv", "path")[:11]
    replace_text(path, csv_text(("path", "label"), [(n, truth[n]) for n in names[:10]] + [(names[10], "")]))
    return path


@pytest.fixture(scope="module")
def more(run, filled):
    return fewlabels.add_labels(run.path, filled)


def test_the_new_run_has_the_old_labels_and_the_new_ones(run, more, filled, truth):
    before, after = split_of(run), split_of(more)
    added = [name for name in after if after[name]["added"]]
    assert sorted(added) == sorted(name for name in read_labels(filled).agreed)
    assert all(after[name]["label"] == truth[name] for name in added)
    assert all(after[name] == before[name] for name in before if name not in added)
    assert (more.summary["labeled"], more.summary["unlabeled"]) == (30, run.summary["unlabeled"] - 10)
    assert more.path.name == "run-30-labels"
    assert any("labels added from mine.csv: 10" in note for note in more.summary["notes"])


def test_what_the_labels_brought_is_said(run, more, filled, capsys):
    before = more.summary["before"]
    assert (before["run"], before["labeled"], before["accuracy"]) == ("run", 20, run.accuracy)
    assert before["value"] == pytest.approx(more.accuracy - run.accuracy) and before["standard_error"] > 0
    assert run.summary["before"] is None
    fewlabels.add_labels(run.path, filled, show=Show(Console(width=400)))
    was, now = (f"{100 * each.accuracy:.1f} %" for each in (run, more))
    said = f"With 20 labels it was {was} (run), with 30 and 12 more steps it is {now}: "
    assert said in capsys.readouterr().out
    assert said in (more.path / "report.html").read_text(encoding="utf-8")


def test_a_run_that_lost_its_predictions_is_gone_on_from_all_the_same(run, filled, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run/predictions.parquet").unlink()
    more = fewlabels.add_labels(tmp_path / "run", filled, steps=1, baseline=False)
    assert more.summary["before"] is None and more.summary["labeled"] == 30


def test_supervised_begins_anew_and_the_method_where_the_run_ended(run, tmp_path, filled):
    """With a learning rate of nearly nothing both end where they began."""
    still = {"lr": 1e-12, "steps": 1, "averaging_ema_memory": 1}
    again = fewlabels.add_labels(run.path, filled, out=tmp_path / "still", **still)
    before, after = (load_file(each.path / "model.safetensors") for each in (run, again))
    weights = [name for name in before if name.endswith("weight")]
    assert weights and all(torch.allclose(before[name], after[name], atol=1e-6) for name in weights)
    checkpoint = load_file(sorted((again.path / "supervised/checkpoint").iterdir())[-1])
    drawn = [t for name, t in checkpoint.items() if name.endswith("head.weight")]
    assert drawn and not any(torch.allclose(t, before["head.weight"], atol=1e-3) for t in drawn)


def test_the_run_before_is_not_changed_and_the_same_command_goes_on(run, more, filled, capsys):
    held = {path: path.read_bytes() for path in run.path.glob("*.*")}
    assert main(["add-labels", str(run.path), str(filled)]) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.path.glob("*.*")} == held


def test_more_labels_come_onto_more_labels(more, truth, tmp_path):
    names = read_csv(more.path / "next_to_label.csv", "path")[:3]
    path = tmp_path / "again.csv"
    replace_text(path, csv_text(("path", "label"), [(name, truth[name]) for name in names]))
    third = fewlabels.add_labels(more.path, path, steps=2, baseline=False)
    assert third.path.name == "run-33-labels" and third.summary["labeled"] == 33
    assert sum(bool(line["added"]) for line in split_of(third).values()) == 13
    assert fewlabels.probe(third.path)["against"] == "hidden"  # the run can be made again from its folder


def test_a_label_that_would_change_is_refused_and_nothing_is_made(run, filled, tmp_path, capsys):
    labeled, other = [
        (n, line["label"]) for n, line in split_of(run).items() if line["label"] and line["split"] == "train"
    ][:2]
    path = tmp_path / "wrong.csv"
    tested = next(name for name, line in split_of(run).items() if line["split"] == "test")
    rows = [(labeled[0], "9" if labeled[1] != "9" else "8"), other, ("x[9999]", "1"), ("x[9998]", "cat"), (tested, "1")]
    replace_text(path, csv_text(("path", "label"), rows))
    assert main(["add-labels", str(run.path), str(path), "--out", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    for part in ("labels that there are never change", "x[9999]", "no class is named cat", "test split", "wrong.csv"):
        assert part in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\nx[0],1\nx[0],2\n", "x[0] has two labels, 1 and 2 in line 3"),
        ("path,label\nx[0],\n", "no row has a label; fill in the column label"),
        ("path,guess\nx[0],1\n", "there is no column label"),
    ],
)
def test_a_sheet_that_says_nothing_clear_is_refused(run, tmp_path, text, said, capsys):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    assert main(["add-labels", str(run.path), str(path)]) == 2
    assert said in capsys.readouterr().err


def test_data_in_memory_is_asked_for_and_taken(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8), np.array([0, 1, 0, 1] + [-1] * 16)
    run = fewlabels.fit((x, y), method="fixmatch", out=tmp_path / "run", **QUICK | {"steps": 2})
    path = tmp_path / "labels.csv"
    path.write_text("path,label\nx[4],1\nx[5],0\n")
    with pytest.raises(UserError, match="data in memory: give it"):
        fewlabels.add_labels(run.path, path)
    assert fewlabels.add_labels(run.path, path, (x, y)).summary["labeled"] == 6


def test_an_unfinished_run_is_named(run, filled, tmp_path):
    (tmp_path / "begun").mkdir()
    replace_text(tmp_path / "begun/config.yaml", (run.path / "config.yaml").read_text())
    with pytest.raises(UserError, match="is not finished"):
        fewlabels.add_labels(tmp_path / "begun", filled)


def test_a_start_of_another_network_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"classes was .* to begin anew"):
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 256, (20, 9, 9), dtype=np.uint8), np.array([0, 1, 0, 1] + [-1] * 16)
        fewlabels.fit((x, y), start=run.path, out=tmp_path / "new", **QUICK)


def test_added_labels_come_back_with_the_split_in_data_that_has_none(tmp_path):
    table = draw_split(open_table({"x": np.zeros((20, 2, 2), np.uint8), "y": np.arange(20) % 2}), 2, 0)
    row = table.unlabeled_rows[0]
    more = with_labels(table, {table.names[row]: table.classes[1 - table.truth[row]]}, "a friend")
    assert more.labels[row] == 1 - table.truth[row] and more.truth[row] == -1
    replace_text(tmp_path / "split.csv", split_text(more))
    bare = open_table({"x": np.zeros((20, 2, 2), np.uint8), "y": np.where(table.labels == -1, -1, np.arange(20) % 2)})
    for data in (bare, open_table({"x": np.zeros((20, 2, 2), np.uint8), "y": np.arange(20) % 2})):
        again = apply_split(data, tmp_path / "split.csv")
        assert np.array_equal(again.labels, more.labels) and again.added == more.added


def test_blanks_around_names_in_a_sheet_are_taken_off_where_the_names_have_none():
    table = open_table({"x": np.zeros((6, 2, 2), np.uint8), "y": [0, 1, -1, -1, -1, -1], "classes": ["cat ", "dog"]})
    more = with_labels(table, {f"{table.names[2]} ": " dog ", table.names[3]: "cat "}, "mine.csv")
    assert more.labels.tolist() == [0, 1, 1, 0, -1, -1]


def test_the_summary_is_plain_json(more):
    assert json.loads((more.path / "summary.json").read_text()) == more.summary


def test_a_start_that_learned_what_only_reports_now_is_refused(run, tmp_path, few_digits):
    """Another seed draws other test rows and other labels, of which the run has seen the pixels or the labels."""
    with pytest.raises(UserError, match=r"was trained on \d+ rows that only report now, such as .* Give --split"):
        fewlabels.fit(few_digits, labels_per_class=2, seed=1, start=run.path, out=tmp_path / "new", **QUICK)
    assert not (tmp_path / "new").exists()


def test_a_start_is_not_used_where_labels_are_held_out(run, tmp_path, filled):
    """The parameters may have learned the labels that are held out now."""
    more = fewlabels.add_labels(run.path, filled, out=tmp_path / "run", steps=1, lr=1e-12, classify_calibrate="no")
    assert any("begun with the parameters of run" in note for note in more.summary["notes"])
    with pytest.raises(UserError, match="needs 5 labels of each class"):
        fewlabels.add_labels(run.path, filled, out=tmp_path / "held", classify_calibrate="held_out")
