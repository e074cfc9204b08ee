"""The command line as a user meets it."""

import json
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fewlabels.cli import main
from fewlabels.cli_words import split_method_words

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = ["--steps", "6", "--batch", "8", "--unlabeled-ratio", "2", "--device", "cpu"]


def run(*words):
    """Give exit code, as the shell sees it; argparse-like errors leave by SystemExit."""
    try:
        return main([str(word) for word in words])
    except SystemExit as error:
        return error.code


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    words = ["train", "digits", "--labels-per-class", "2", "--method", "fixmatch", "--method.threshold", "0.5", *SMALL]
    assert run(*words, "--out", out) == 0
    return out, words


def test_train_takes_the_methods_options(trained):
    out, _ = trained
    assert "threshold: 0.5" in (out / "config.yaml").read_text()
    assert json.loads((out / "summary.json").read_text())["method"] == "fixmatch"


def test_train_ends_with_the_table_and_the_verdict(trained, capsys):
    out, words = trained
    assert run(*words, "--out", out) == 0
    said = capsys.readouterr().out
    for line in (
        "supervised",
        "kNN on pixels",
        "linear probe on pixels",
        "label propagation on pixels",
        "fixmatch",
    ):
        assert line in said
    assert "points against the supervised baseline" in said and "report.html" in said


def test_the_default_folder_is_named_by_data_method_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", "digits", "--labels-per-class", "2", "--method", "supervised", "--seed", "7", *SMALL) == 0
    assert (tmp_path / "runs/digits-supervised-7/report.html").is_file()


def test_predict_lines_and_files(trained, tmp_path, capsys):
    out, _ = trained
    for i in range(3):
        Image.fromarray(np.full((20, 20, 3), 80 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(b"broken")
    assert run("predict", out, tmp_path) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 3 and lines[0].startswith(f"{tmp_path}/0.png\t") and "set aside" in said.err
    assert run("predict", out, tmp_path, "--out", tmp_path / "p.parquet") == 0
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.num_rows == 3 and {"path", "label", "probability", "p_0", "p_9"} <= set(table.column_names)
    assert run("predict", out, tmp_path / "0.png", "--out", tmp_path / "p.csv") == 0
    assert (tmp_path / "p.csv").read_text().startswith('"path","label"')


def test_predict_leaves_no_file_where_no_image_can_be_read(trained, tmp_path, capsys):
    (tmp_path / "4.png").write_bytes(b"broken")
    assert run("predict", trained[0], tmp_path / "4.png", "--out", tmp_path / "p.csv", "--batch", "32") == 2
    assert "none of the 1 files can be read" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.png"]


def test_a_batch_is_a_whole_number(capsys):
    assert run("predict", "run", "photos", "--batch", "auto") == 2
    assert "Error parsing --batch" in capsys.readouterr().err


def test_predict_ends_well_where_nobody_reads_on(trained, tmp_path):
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "0.png")
    words = [sys.executable, "-m", "fewlabels", "predict", str(trained[0]), str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 0)
    process.stderr.close()


def test_models_say_which_are_at_hand_and_what_they_cost(capsys):
    assert run("models") == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "installed, 19 MB, Apache-2.0" in lines["efficientnet_lite0"] and "224" in lines["efficientnet_lite0"]
    assert "scratch" in lines["small_cnn"] and "wrn_28_2" in lines and "mlp" not in lines


def test_methods_and_data(capsys):
    assert run("methods") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("supervised", "pseudo_label", "fixmatch", "freematch", "layermatch"))
    assert run("methods", "freematch") == 0
    shown = capsys.readouterr().out
    assert "--method.fairness (default 0.01" in shown and "the loss that keeps classes apart" in shown
    assert run("methods", "mixmatch") == 0
    mixes = capsys.readouterr().out
    assert ("no --policy" in mixes, "no --policy" in shown) == (True, False)
    assert run("methods", "supervised") == 0  # which has no options
    alone = capsys.readouterr().out
    assert "Options" not in alone and len(alone.splitlines()) > 3
    assert run("data", "digits") == 0
    assert "8x8x1 (1000)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "digitz"], "Did you mean digits"),
        (["train", "digits", "--method", "layermach"], "Did you mean layermatch"),
        (["train", "digits", "--labels-per-class", "100000"], "from 1 to"),
        (["train", "digits", "--labels-per-class", "2", "--method.confidence", "1.5"], "0 to 1"),
        (["train", "digits", "--steps", "0"], "at least 1"),
        (["train", "digits", "--stepps", "3"], "--steps"),
        (["train", "digits", "--method", "fixmatch", "--method.confidence", ".9"], "confidence"),
        (["predict", "nowhere", "x.png"], "no trained model"),
        (["methods", "fixmatchh"], "Did you mean fixmatch"),
        (["data", "nowhere.npz"], "no data at"),
        (["data", "digits", "--method.threshold", "1"], "go with `fewlabels train`"),
    ],
)
def test_user_errors_leave_with_code_2_and_no_traceback(words, message, capsys):
    assert run(*words) == 2
    said = capsys.readouterr()
    text = " ".join((said.err + said.out).split())
    assert message in text and "Traceback" not in text


def test_the_methods_words_are_parted_from_the_others():
    words = ["train", "d", "--method.a", "1", "2", "--seed", "3", "--method.b=4", "--out", "x"]
    assert split_method_words(words) == (
        ["train", "d", "--seed", "3", "--out", "x"],
        ["--method.a", "1", "2", "--method.b=4"],
    )
    words = ["train", "--method.threshold", "soft", "digits", "--method.weight", "-1", "x"]
    assert split_method_words(words) == (
        ["train", "digits", "x"],
        ["--method.threshold", "soft", "--method.weight", "-1"],
    )


@pytest.mark.parametrize(
    "words", [["-c", "import fewlabels"], ["-m", "fewlabels", "--help"], ["-m", "fewlabels", "train", "--help"]]
)
def test_help_needs_no_torch(words):
    """What makes them quick; how quick is measured by benchmarks/start.py."""
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\ntry:\n  %s\nexcept SystemExit: pass\n"
        "assert not {'torch', 'numpy', 'sklearn'} & set(sys.modules)"
    )
    body = "import fewlabels" if words[0] == "-c" else "runpy.run_module('fewlabels', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code % body, *words[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_option_of_a_method_without_a_value_takes_no_other_option_for_it():
    words = ["train", "d", "--method.align", "--out", "x"]
    assert split_method_words(words) == (["train", "d", "--out", "x"], ["--method.align"])
