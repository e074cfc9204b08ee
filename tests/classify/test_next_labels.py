"""`next_to_label.csv` and `fewlabels next`: what a run says to label next."""

import csv

import numpy as np
import pytest

import fewlabels
from fewlabels.classify.next_labels import HEAD, LISTED, NAME, next_lines
from fewlabels.cli import main
from fewlabels.errors import UserError

pytestmark = pytest.mark.usefixtures("undrawn")

QUICK = {"steps": 12, "baseline": False, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("next") / "run"
    return fewlabels.fit("digits", method="fixmatch", labels_per_class=1, out=out, **QUICK)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_file_has_unlabeled_images_of_the_training_split_with_guesses(run):
    lines = read(run.path / NAME)
    split = {line["name"]: line for line in read(run.path / "split.csv")}
    assert len(lines) == LISTED and tuple(lines[0]) == HEAD
    assert len({line["path"] for line in lines}) == LISTED
    for line in lines:
        assert split[line["path"]]["split"] == "train" and not split[line["path"]]["label"]
        assert line["label"] == "" and line["guess"] != line["or"]
        assert 1 >= float(line["probability"]) >= float(line["its probability"]) >= 0


def test_the_first_lines_are_shown(run, capsys):
    assert main(["next", str(run.path), "-n", "3"]) == 0
    shown = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert shown == [line["path"] for line in read(run.path / NAME)[:3]]


def test_a_file_to_fill_in_is_written_once(run, tmp_path, capsys):
    out = tmp_path / "mine.csv"
    assert main(["next", str(run.path), "-n", "5", "--out", str(out)]) == 0
    assert read(out) == read(run.path / NAME)[:5]
    assert main(["next", str(run.path), "--out", str(out)]) == 2
    assert "may hold labels" in capsys.readouterr().err and len(read(out)) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "0"], "give how many images you would label"),
        (["--out", "x.parquet"], "ends in .parquet"),
    ],
)
def test_what_cannot_be_is_said(run, words, said, capsys):
    assert main(["next", str(run.path), *words]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    assert main(["next", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err


def test_without_unlabeled_images_there_is_nothing_to_choose(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8), np.arange(12) % 2
    run = fewlabels.fit((x, y), method="supervised", out=tmp_path / "run", **QUICK | {"steps": 2})
    assert read(run.path / NAME) == []
    with pytest.raises(UserError, match="every image of the training split has a label"):
        next_lines(run.path, 20)
