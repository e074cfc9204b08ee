"""A folder for the Hub: it loads, its card is honest, and nothing is sent unless asked for."""

import json
import socket
from dataclasses import replace
from unittest import mock

import huggingface_hub
import numpy as np
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError

import fewlabels
from fewlabels.classify.model_card import card_of, model_card
from fewlabels.cli import main
from fewlabels.errors import UserError
from fewlabels.export.hub import FILES, push, write_hub_folder

pytestmark = pytest.mark.versions


@pytest.fixture
def hub(monkeypatch):
    """The Hub, with the calls that the installed `huggingface_hub` takes."""
    api = mock.create_autospec(huggingface_hub.HfApi, instance=True)
    api.create_repo.return_value = "https://huggingface.co/me/digits"
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: api)
    return api


def test_the_folder_gives_the_same_classifier(run, photos, tmp_path, capsys):
    assert main(["export", str(run), "--hub", str(tmp_path / "hub")]) == 0
    assert "choose a license" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == sorted(FILES)
    files = sorted((photos / "test").rglob("*.png"))
    one, other = (fewlabels.load(folder).predict(files)[1] for folder in (run, tmp_path / "hub"))
    assert np.array_equal(one, other)


def test_a_card_that_was_edited_stays_and_a_folder_of_other_things_is_refused(run, tmp_path, capsys):
    folder = tmp_path / "hub"
    assert main(["export", str(run), "--hub", str(folder)]) == 0
    (folder / "README.md").write_text("mine, under the MIT license")
    assert main(["export", str(run), "--hub", str(folder)]) == 0
    assert "is left as it is" in capsys.readouterr().out
    assert (folder / "README.md").read_text() == "mine, under the MIT license"
    (tmp_path / "project").mkdir()
    (tmp_path / "project/README.md").write_text("of something else")
    assert main(["export", str(run), "--hub", str(tmp_path / "project")]) == 2
    assert "holds no model" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["README.md"]


def test_the_card_says_what_the_run_says(run, tmp_path):
    assert write_hub_folder(run, tmp_path, card_of(run))
    _, head, text = (tmp_path / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(head)
    assert (fields["library_name"], fields["pipeline_tag"]) == ("fewlabels", "image-classification")
    assert "license" not in fields
    summary = json.loads((run / "summary.json").read_text())
    assert f"{summary['labeled']} labeled and {summary['unlabeled']} unlabeled images of my photos" in text
    assert "| | test accuracy | balanced accuracy | macro F1 |\n| --- | ---: | ---: | ---: |\n" in text
    for row in summary["rows"]:
        scores = [f"{100 * row['test'][name]:.1f} %" for name in ("accuracy", "balanced_accuracy", "macro_f1")]
        assert f"| {row['label']} | {' | '.join(scores)} |\n" in text
    assert 'fewlabels.load("DIR")' in text and "`0`, `1`, `2`" in text


def test_the_card_says_what_is_known_of_the_calibration(run):
    summary = json.loads((run / "summary.json").read_text())
    card = replace(fewlabels.load(run).card, scale=(), bias=())
    measured = summary["calibration"]["calibrated"]
    said = f"accuracy are {100 * measured['ece']:.1f} points apart (expected calibration error; 95 % interval "
    assert said in model_card(card, summary) and "not calibrated" in model_card(card, summary)
    calibration = {"kind": "vector", "temperature": 2.0, "rows": 60, "promised": False, "calibrated": None}
    fitted = replace(card, scale=(0.5,) * 3, bias=(0.0,) * 3)
    text = model_card(fitted, summary | {"calibration": calibration})
    assert "calibrated (vector, temperature 2.00) on 60 labeled images" in text and "too few to rely on" in text
    text = model_card(fitted, summary | {"calibration": calibration | {"promised": True}})
    assert "too few" not in text and "not calibrated" not in text


def test_a_card_without_a_test_split_claims_no_accuracy(run):
    summary = json.loads((run / "summary.json").read_text())
    unknown = {"test": None, "hidden": None}
    rows, chosen = [row | unknown for row in summary["rows"]], summary["chosen"] | unknown
    text = model_card(
        fewlabels.load(run).card, summary | {"rows": rows, "chosen": chosen, "test": 0, "calibration": None}
    )
    assert "There is no test split" in text and "| ---" not in text


def test_a_push_brings_the_files_to_a_private_repository(run, tmp_path, hub, capsys):
    assert main(["export", str(run), "--hub", str(tmp_path / "hub"), "--push", "me/digits"]) == 0
    hub.create_repo.assert_called_once_with("me/digits", private=True, exist_ok=True)
    sent = hub.upload_folder.call_args.kwargs
    assert sent["repo_id"] == "me/digits" and sent["folder_path"] == tmp_path / "hub"
    assert sorted(sent["allow_patterns"]) == sorted(FILES)
    assert "pushed to https://huggingface.co/me/digits" in capsys.readouterr().out


def test_without_push_nothing_is_sent(run, tmp_path, hub):
    assert main(["export", str(run), "--hub", str(tmp_path / "hub")]) == 0
    assert not hub.mock_calls


def test_a_refusal_of_the_hub_says_how_to_mend_it(run, tmp_path, hub, capsys):
    hub.upload_folder.side_effect = HfHubHTTPError("401 Unauthorized.", response=mock.Mock())
    assert main(["export", str(run), "--hub", str(tmp_path / "hub"), "--push", "me/digits"]) == 2
    assert "me/digits could not be written on the Hub: 401 Unauthorized. `hf auth login`" in capsys.readouterr().err
    assert fewlabels.load(tmp_path / "hub")


def test_a_hub_that_cannot_be_reached_or_asked_is_said(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nobody)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", nobody)
    for repo, said in (("me/digits", "refused"), ("di gits", "Repo id must")):
        with pytest.raises(UserError, match=f"{repo} could not be written on the Hub: .*{said}"):
            push(tmp_path, repo)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give --onnx FILE, --hub DIR, --label-studio FILE or --csv FILE"),
        (["--onnx", "x.onnx", "--push", "me/x"], "--push me/x goes with --hub DIR"),
        (["--hub", "x", "--url-prefix", "http"], "--url-prefix http goes with --label-studio FILE"),
        (["--onnx", "x.pt"], "ends in .pt"),
        (["--csv", "x.parquet"], "ends in .parquet"),
    ],
)
def test_wrong_commands_write_nothing(run, tmp_path, monkeypatch, words, said, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_no_run_no_export(tmp_path, capsys):
    for words in (["--hub", "x"], ["--label-studio", "x.json"], ["--onnx", "x.onnx"], ["--csv", "x.csv"]):
        assert main(["export", str(tmp_path), *words]) == 2
        assert "train one with `fewlabels train`" in capsys.readouterr().err
