"""`--method auto`: the rule, and that a run says what was chosen and why."""

import numpy as np
import pytest
import yaml

import fewlabels
from fewlabels.classify.choose_method import choose_method
from fewlabels.cli import main
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.methods import method_names


def table(counts, unlabeled=20):
    """A set with so many labels of each class."""
    labels = np.concatenate([np.repeat(np.arange(len(counts)), counts), np.full(unlabeled, -1)])
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
    return draw_split(open_table((images, labels)), None, 0)


@pytest.mark.parametrize("counts", [(1, 1, 1), (4, 4, 5), (4, 6, 7), (1, 2, 40), (30, 10, 3)])
def test_a_method_is_chosen_for_any_labels_with_a_reason(counts):
    name, reason = choose_method(table(counts))
    assert name in method_names() and name != "supervised"
    assert reason.startswith(f"{min(counts)} ") and "digits alone" in reason


def test_more_classes_than_were_compared_are_said():
    assert "10 classes" in choose_method(table((2,) * 11))[1] and "10 classes" not in choose_method(table((2,) * 9))[1]


def test_even_and_uneven_classes_get_different_methods():
    assert choose_method(table((4, 4, 5)))[0] != choose_method(table((2, 4, 8)))[0]


def test_vectors_of_two_classes_get_another_method_than_images_of_two():
    vectors = open_table((np.random.default_rng(0).normal(size=(28, 5)), np.repeat([0, 1, -1], [4, 4, 20])))
    assert choose_method(vectors)[0] == "fixmatch" and choose_method(table((4, 4)))[0] == "layermatch"


def test_without_unlabeled_images_labels_are_all_there_is():
    assert choose_method(table((4, 4), unlabeled=0))[0] == "supervised"


def test_a_run_says_which_method_and_why(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["train", "digits", "--labels-per-class", "4", "--steps", "4", "--no-baseline", "--out", str(out)]
    assert main([*arguments, "--method", "auto"]) == 0
    said = capsys.readouterr().out
    config = yaml.safe_load((out / "config.yaml").read_text())
    name = config["method"]["name"]
    assert f"method {name}: {config['why']['method']}"[:40] in said
    assert main([*arguments, "--method", name]) == 0  # the same run


def test_options_of_a_method_that_is_not_known_are_refused(capsys):
    assert main(["train", "digits", "--method", "auto", "--method.threshold", "0.9"]) == 2
    assert "name one" in capsys.readouterr().err


def test_from_python(tmp_path):
    run = fewlabels.fit("digits", method="auto", labels_per_class=4, steps=2, baseline=False, out=tmp_path / "run")
    assert run.summary["method"] in method_names()
