"""`fit` from data to the files of a run, as a Python programmer uses it."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import fewlabels
from fewlabels import UserError
from fewlabels.classify import preparation, prepare
from fewlabels.classify.training_free.recipes import BASELINES
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.methods.layermatch import LayerMatch
from tests.conftest import assert_same

pytestmark = [pytest.mark.versions, pytest.mark.usefixtures("undrawn")]

FILES = {
    "config.yaml", "summary.json", "split.csv", "quarantine.csv", "metrics.jsonl", "checkpoint", "model.safetensors",
    "next_to_label.csv",
    "model.json", "predictions.parquet", "reference.safetensors", "report.html", "supervised",
    "training_free.json", ".lock", "propagated.npy",
}  # fmt: skip
SMALL = {"steps": 8, "batch": 8, "unlabeled_ratio": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return fewlabels.fit("digits", labels_per_class=4, out=tmp_path_factory.mktemp("run") / "digits", **SMALL)


def test_a_run_writes_its_files(digits_run):
    assert {p.name for p in digits_run.path.iterdir()} == FILES
    summary = json.loads((digits_run.path / "summary.json").read_text())
    assert summary == digits_run.summary
    assert [row["name"] for row in summary["rows"]] == ["supervised", *BASELINES, "layermatch + propagation"]
    assert all(0 < row["test"]["accuracy"] <= 1 and row["seconds"] > 0 for row in summary["rows"])
    assert summary["labeled"] == 40 and summary["unlabeled"] == 1402 and summary["test"] == 355
    assert 0 < summary["chosen"]["hidden"]["accuracy"] < 1
    best = max(row["test"]["accuracy"] for row in summary["rows"] if row["kind"] == "training_free")
    gain = summary["gain_over_training_free"]
    assert gain["value"] == pytest.approx(summary["chosen"]["test"]["accuracy"] - best) and gain["standard_error"] > 0


def test_few_rows_are_evaluated_while_training_and_all_at_the_end(tmp_path, monkeypatch):
    seen, predict = [], preparation.predict_rows

    def counted(classifier, rows, chosen):
        seen.append(len(chosen))
        return predict(classifier, rows, chosen)

    monkeypatch.setattr(preparation, "predict_rows", counted)
    monkeypatch.setattr(preparation, "TESTED_ROWS", 30)
    monkeypatch.setattr(preparation, "HIDDEN_ROWS", 20)
    run = fewlabels.fit("digits", labels_per_class=4, out=tmp_path / "run", baseline=False, **SMALL)
    assert set(seen) == {30, 20}
    assert run.accuracy * 355 == pytest.approx(round(run.accuracy * 355))
    assert run.accuracy * 30 != pytest.approx(round(run.accuracy * 30))


def test_the_reported_accuracy_is_that_of_the_saved_classifier(digits_run):
    """Drawn again from the split that was written, and from the predictions that were written."""
    pixels = dict(zip(*_digits(), strict=True))
    with open(digits_run.path / "split.csv", newline="") as file:
        test = [row for row in csv.DictReader(file) if row["split"] == "test"]
    labels, probabilities = digits_run.classifier.predict([pixels[row["name"]] for row in test])
    right = np.mean(labels == np.array([row["label"] for row in test]))
    assert right == pytest.approx(digits_run.accuracy)
    assert probabilities.shape == (355, 10)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    written = pq.read_table(digits_run.path / "predictions.parquet").to_pydict()
    said = dict(zip(written["path"], written["label"], strict=True))
    assert [said[row["name"]] for row in test] == labels.tolist()


def _digits():
    table = fewlabels.open_table("digits")
    return table.names, table.contents


def test_predictions_hold_a_line_for_each_row_and_keep_given_labels(digits_run):
    table = pq.read_table(digits_run.path / "predictions.parquet").to_pydict()
    assert len(table["path"]) == 1797
    assert table["source"].count("given") == 40
    with open(digits_run.path / "split.csv", newline="") as file:
        given = {row["name"]: row["label"] for row in csv.DictReader(file) if row["split"] == "train" and row["label"]}
    for path, source, label in zip(table["path"], table["source"], table["label"], strict=True):
        assert (source == "given") == (path in given)
        assert source != "given" or label == given[path]


def test_a_finished_run_is_not_trained_again(digits_run):
    before = (digits_run.path / "model.safetensors").stat().st_mtime_ns
    again = fewlabels.fit("digits", labels_per_class=4, out=digits_run.path, **SMALL)
    assert again.summary == digits_run.summary
    assert (digits_run.path / "model.safetensors").stat().st_mtime_ns == before


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(digits_run):
    with pytest.raises(UserError, match="seed was 0 and is 1 now"):
        fewlabels.fit("digits", labels_per_class=4, seed=1, out=digits_run.path, **SMALL)
    with pytest.raises(UserError, match=r"confidence was 0\.95 and is 0\.5 now"):
        method = LayerMatch(confidence=0.5)
        fewlabels.fit("digits", labels_per_class=4, method=method, out=digits_run.path, **SMALL)


def test_a_split_can_be_given_back(digits_run, tmp_path):
    again = fewlabels.fit("digits", split=digits_run.path / "split.csv", out=tmp_path / "again", **SMALL)
    assert (tmp_path / "again/split.csv").read_text() == (digits_run.path / "split.csv").read_text()
    assert again.accuracy == digits_run.accuracy


def test_the_same_call_gives_the_same_bytes_elsewhere(digits_run, tmp_path):
    fewlabels.fit("digits", labels_per_class=4, out=tmp_path / "other", **SMALL)
    for name in ("model.safetensors", "predictions.parquet"):
        assert (tmp_path / "other" / name).read_bytes() == (digits_run.path / name).read_bytes()


def test_supervised_and_the_method_begin_with_the_same_parameters_but_end_apart(tmp_path, rng_images, monkeypatch):
    begun, begin = {}, preparation.begin

    def noted(job, method, recipe, propagated):
        state, feed = begin(job, method, recipe, propagated)
        parameters = {name: t.clone() for name, t in state.learner.network.classifier.state_dict().items()}
        begun.setdefault(type(method).__name__, []).append(parameters)
        return state, feed

    monkeypatch.setattr(preparation, "begin", noted)
    run = fewlabels.fit(rng_images, labels_per_class=5, out=tmp_path / "r", **SMALL)
    assert begun.keys() == {"Supervised", "LayerMatch"}
    first, *others = (parameters for several in begun.values() for parameters in several)
    for other in others:
        assert_same(first, other)
    ends = [load_file(max(folder.glob("checkpoint/*"))) for folder in (run.path, run.path / "supervised")]
    heads = [end["learner/network.classifier.head.weight"] for end in ends]
    assert not torch.equal(*heads)
    assert all(not torch.equal(head, first["head.weight"]) for head in heads)


def test_a_network_is_built_once_for_all_trainings_of_a_run(tmp_path, rng_images, monkeypatch):
    built, build = [], prepare.build_classifier

    def counted(card, **options):
        built.append(card.model)
        return build(card, **options)

    monkeypatch.setattr(prepare, "build_classifier", counted)
    options = SMALL | {"labels_per_class": 5, "classify_calibrate": "cross"}
    fewlabels.fit(rng_images, out=tmp_path / "r", **options)  # a baseline, a method, and two that calibrate
    assert built == ["small_cnn"]


def test_arrays_without_a_test_split_keep_all_their_labels(tmp_path, rng_images):
    x, y = rng_images
    y = y.copy()
    y[10:] = -1
    run = fewlabels.fit((x, y), method="fixmatch", out=tmp_path / "r", **SMALL)
    assert run.accuracy is None
    assert run.summary["labeled"] == 10 and run.summary["unlabeled"] == 50 and run.summary["test"] == 0
    assert "not known" in (run.path / "report.html").read_text()


@pytest.fixture(scope="module")
def rng_images():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = (rng.uniform(0, 80, (60, 12, 12)) + 150 * y[:, None, None]).astype(np.uint8)
    return x, y


def test_a_torch_dataset_and_a_method_object(tmp_path, rng_images):
    x, y = rng_images
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    run = fewlabels.fit(data, method=FixMatch(threshold=0.6), labels_per_class=5, out=tmp_path / "r", **SMALL)
    assert run.summary["method"] == "fixmatch" and run.summary["labeled"] == 10


def test_a_backbone_of_ones_own(tmp_path, rng_images):
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 12), nn.ReLU())
    before = backbone[1].weight.detach().clone()
    run = fewlabels.fit(rng_images, model=backbone, labels_per_class=5, out=tmp_path / "r", **SMALL)
    assert torch.equal(backbone[1].weight, before)  # the user's module is copied
    loaded = fewlabels.load(run.path, backbone=nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 12), nn.ReLU()))
    labels, _ = loaded.predict(rng_images[0][:4])
    assert set(labels) <= {"0", "1"}
    with pytest.raises(UserError, match="to `load` as backbone="):
        fewlabels.load(run.path)


def test_weights_and_freeze(tmp_path, rng_images, digits_run):
    options = {
        "weights": digits_run.path / "model.safetensors",
        "labels_per_class": 5,
        "classify_freeze": True,
        "optimizer": "sgd",
        "budget": "quick",
        "classify_calibrate": "no",
    }
    with pytest.raises(UserError, match="keeps pseudo-labels from all that learns"):
        fewlabels.fit(rng_images, out=tmp_path / "r", model="small_cnn", **options, **SMALL)
    run = fewlabels.fit(rng_images, method="fixmatch", out=tmp_path / "r", model="small_cnn", **options, **SMALL)
    first, second = digits_run.classifier.backbone.state_dict(), run.classifier.backbone.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)  # parameters and batch statistics
    names = [row["label"] for row in run.summary["rows"]]
    assert "linear probe on features" in names


def test_weights_that_do_not_fit_are_refused(tmp_path, rng_images, digits_run):
    with pytest.raises(UserError, match="does not fit"):
        fewlabels.fit(
            rng_images, model="wrn_28_2", weights=digits_run.path / "model.safetensors", labels_per_class=5,
            out=tmp_path / "r", **SMALL,
        )  # fmt: skip
    with pytest.raises(UserError, match="no file"):
        fewlabels.fit(
            rng_images, weights=tmp_path / "none.safetensors", labels_per_class=5, out=tmp_path / "q", **SMALL
        )


def test_a_folder_with_a_broken_image(tmp_path, rng_images):
    x, y = rng_images
    for i, (image, k) in enumerate(zip(x, y, strict=True)):
        place = tmp_path / "photos" / (f"class{k}" if i < 12 else "unlabeled" if i < 40 else f"test/class{k}")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert("RGB").save(place / f"{i}.png")
    (tmp_path / "photos/unlabeled/broken.jpg").write_bytes(b"no image")
    run = fewlabels.fit(tmp_path / "photos", out=tmp_path / "r", images_flip="none", **SMALL)
    assert run.summary["set_aside"] == 1 and run.summary["test"] == 20 and run.summary["unlabeled"] == 28
    assert "unlabeled/broken.jpg,not an image in a format that is read" in (run.path / "quarantine.csv").read_text()
    labels, _ = run.classifier.predict([tmp_path / "photos/test/class1/41.png"])
    assert labels.shape == (1,)


def test_without_the_baseline(tmp_path, rng_images):
    run = fewlabels.fit(rng_images, labels_per_class=5, baseline=False, out=tmp_path / "r", **SMALL)
    assert run.summary["gain"] is None
    assert not (run.path / "supervised").exists()


def test_supervised_is_the_baseline(tmp_path, rng_images):
    run = fewlabels.fit(rng_images, method="supervised", labels_per_class=5, out=tmp_path / "r", **SMALL)
    assert [row["name"] for row in run.summary["rows"]].count("supervised") == 1
    assert run.summary["method"] == "supervised"


def test_an_exploding_loss_stops_the_run_with_the_step_and_what_to_try(tmp_path, rng_images):
    with pytest.raises(UserError, match=r"at step \d+; .*--lr"):
        fewlabels.fit(
            rng_images, labels_per_class=5, lr=1e30, out=tmp_path / "r", baseline=False, **SMALL | {"steps": 40}
        )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels_per_class": 500}, "from 1 to"),
        ({"method": "fixmach"}, "Did you mean fixmatch"),
        ({"stepps": 3}, "no option is named stepps"),
        ({"model": "resnet19"}, "the nearest are resnet1"),
        ({"device": "tpu"}, "cpu, cuda"),
        ({"steps": 0, "lr": -1.0}, "steps is 0.*lr is -1.0"),
        ({"layer_decay": 0.5, "labels_per_class": 5}, "needs a timm backbone"),
    ],
)
def test_bad_options_get_a_clear_error(tmp_path, rng_images, options, message):
    with pytest.raises(UserError, match=message):
        fewlabels.fit(rng_images, **{"out": tmp_path / "r"} | SMALL | options)


def test_a_timm_model(tmp_path, rng_images):
    run = fewlabels.fit(
        rng_images, model="test_resnet", images_size=32, labels_per_class=5, baseline=False, out=tmp_path / "r",
        **SMALL | {"steps": 2},
    )  # fmt: skip
    assert run.classifier.card.model == "test_resnet"


def test_a_timm_transformer_with_layer_decay(tmp_path, rng_images):
    run = fewlabels.fit(
        rng_images, model="test_vit", images_size=32, optimizer="adamw", layer_decay=0.5,
        labels_per_class=5, baseline=False, out=tmp_path / "r", **SMALL | {"steps": 2},
    )  # fmt: skip
    assert run.classifier.card.form.size == (32, 32)


def test_hidden_and_test_labels_never_reach_the_training(tmp_path, rng_images):
    """Other labels there, the same parameters: the test that a leak would fail."""
    from dataclasses import replace

    from fewlabels.data.splits import draw_split

    table = draw_split(fewlabels.open_table(rng_images), labels_per_class=5, seed=0)
    labels = np.where(table.test, 1 - table.labels, table.labels)
    other = replace(table, labels=labels, truth=np.where(table.truth < 0, -1, 1 - table.truth))
    runs = [fewlabels.fit(t, out=tmp_path / name, **SMALL) for name, t in (("a", table), ("b", other))]
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert runs[0].accuracy == pytest.approx(1 - runs[1].accuracy)
    assert runs[0].summary["chosen"]["hidden"]["accuracy"] == pytest.approx(
        1 - runs[1].summary["chosen"]["hidden"]["accuracy"]
    )


def test_an_update_that_explodes_at_the_very_end_is_no_result(tmp_path, rng_images):
    with pytest.raises(UserError, match="not finite"):
        fewlabels.fit(
            rng_images, labels_per_class=5, lr=1e39, out=tmp_path / "r", baseline=False, **SMALL | {"steps": 1}
        )  # fmt: skip
    assert not (tmp_path / "r/model.safetensors").exists()


def test_a_split_of_data_with_a_broken_image_can_be_given_back(tmp_path, rng_images):
    x, y = rng_images
    for i, (image, k) in enumerate(zip(x, y, strict=True)):
        place = tmp_path / f"photos/class{k}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    (tmp_path / "photos/class0/broken.png").write_bytes(b"no image")
    options = SMALL | {"baseline": False, "images_flip": "none"}
    first = fewlabels.fit(tmp_path / "photos", labels_per_class=5, out=tmp_path / "a", **options)
    again = fewlabels.fit(tmp_path / "photos", split=str(tmp_path / "a/split.csv"), out=str(tmp_path / "b"), **options)
    assert first.accuracy == again.accuracy


def test_a_folder_left_by_a_kill_at_the_very_start_is_taken_up(tmp_path, rng_images):
    (tmp_path / "r").mkdir()
    (tmp_path / "r/.config.yaml.part").write_text("form")
    fewlabels.fit(rng_images, labels_per_class=5, out=tmp_path / "r", baseline=False, **SMALL)
    assert (tmp_path / "r/summary.json").is_file()


def test_another_backbone_of_ones_own_is_another_configuration(tmp_path, rng_images):
    def backbone(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(256, 4))

    options = SMALL | {"labels_per_class": 5, "baseline": False, "out": tmp_path / "r"}
    fewlabels.fit(rng_images, model=backbone(0), **options)
    with pytest.raises(UserError, match="begun with other parameters"):
        fewlabels.fit(rng_images, model=backbone(1), **options)


def test_without_unlabeled_images_it_says_so(tmp_path, rng_images):
    run = fewlabels.fit(rng_images, out=tmp_path / "r", **SMALL)
    assert run.summary["unlabeled"] == 0
    assert "there are no unlabeled images" in (run.path / "report.html").read_text()


def test_a_network_that_cannot_be_leaves_no_folder_behind(tmp_path, rng_images, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(UserError, match="no model is named"):
        patched.setattr("fewlabels.inputs.images.kind.bring_images", None)  # before the images are decoded
        fewlabels.fit(rng_images, model="resnet81", labels_per_class=5, out=tmp_path / "r", **SMALL)
    assert not (tmp_path / "r").exists()
    fewlabels.fit(rng_images, labels_per_class=5, baseline=False, out=tmp_path / "r", **SMALL)
