"""Runs on vectors: the same loop, checkpoints and files as on images."""

import json
import re

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
import yaml
from sklearn.datasets import load_digits, load_wine
from torch import nn

import fewlabels
from fewlabels import UserError
from fewlabels.classify.predict import predict
from fewlabels.classify.preparation import begin
from fewlabels.classify.training_free.recipes import BASELINES
from fewlabels.data.sources.open import open_table
from fewlabels.data.vectors import VectorForm
from fewlabels.inputs.kinds import form_of
from fewlabels.inputs.vectors.store import Vectors
from fewlabels.methods import make_method, method_names
from fewlabels.models.classifier import read_card
from fewlabels.training import checkpoint
from fewlabels.training.loop import update
from tests.data.test_vector_sources import wine_sheet, write_csv

X, Y = load_digits(return_X_y=True)
WINE = load_wine()
SMALL = {"steps": 8, "batch": 8, "unlabeled_ratio": 2, "device": "cpu", "threads": 1}
RUN = {"labels_per_class": 4, "seed": 1000, "steps": 100, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    return fewlabels.fit((X, Y), out=tmp_path_factory.mktemp("vectors") / "digits", **RUN)


def hidden(run):
    return {row["name"]: row["hidden"]["accuracy"] for row in run.summary["rows"]}


# --- what comes out -------------------------------------------------------------------------------------


def test_layermatch_learns_from_unlabeled_vectors(digits_run):
    found = hidden(digits_run)
    assert found["layermatch + propagation"] > found["supervised"] + 0.03
    assert found["layermatch + propagation"] > 0.85
    labels = [row["label"] for row in digits_run.summary["rows"]]
    assert labels[1:-1] == [f"{recipe.words} on vectors" for recipe in BASELINES.values()]
    assert found["linear"] > 0.75 and found["knn"] > 0.75


def test_fixmatch_learns_from_unlabeled_vectors(digits_run, tmp_path):
    run = fewlabels.fit((X, Y), method="fixmatch", baseline=False, out=tmp_path / "run", **RUN)
    assert hidden(run)["fixmatch + propagation"] > hidden(digits_run)["supervised"] + 0.03


def test_the_card_says_what_the_vectors_are(digits_run):
    card = read_card(digits_run.path / "model.json")
    assert card.form == VectorForm(64)
    assert card.model == "mlp"
    assert len(card.mean) == 64
    assert card.std[0] == 0  # the corner of a digit is always empty
    config = yaml.safe_load((digits_run.path / "config.yaml").read_text())
    assert form_of(config["form"]) == card.form
    assert {"vectors_noise", "vectors_replaced", "vectors_mixed", "steps", "lr", "model", "batch"} <= config[
        "why"
    ].keys()


def test_the_loaded_classifier_gives_the_predictions_of_the_run(digits_run):
    table = parquet.read_table(digits_run.path / "predictions.parquet").to_pydict()
    rows = np.array([int(name[2:-1]) for name in table["path"]])
    labels, probabilities = fewlabels.load(digits_run.path).predict(X[rows])
    np.testing.assert_allclose(probabilities[:, 3], table["p_3"], atol=1e-5)
    test = np.array(table["split"]) == "test"
    assert (labels[test] == Y[rows[test]].astype(str)).mean() == pytest.approx(digits_run.accuracy)
    for form in (X[:5].tolist(), [*X[:5]], torch.from_numpy(X[:5])):
        again, _ = digits_run.classifier.predict(form)
        assert np.array_equal(again, digits_run.classifier.predict(X[:5])[0])


def test_the_report_is_written_without_pictures(digits_run):
    text = (digits_run.path / "report.html").read_text()
    words = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", "", text, flags=re.DOTALL)
    assert "layermatch" in text and "<img" not in text
    assert re.findall(r".*\bimages?\b.*", words) == [] and "unlabeled vectors" in words


def test_the_layer_probe_works_on_vectors(digits_run):
    layers = fewlabels.probe(digits_run.path, (X, Y))["layers"]
    assert [layer["layer"] for layer in layers] == ["backbone.layer1.0", "backbone.layer1.1", "head"]
    assert all(-1 <= layer["cosine_all"] <= 1 for layer in layers)


def test_a_stopped_run_goes_on_to_the_same_bytes(digits_run, tmp_path, monkeypatch):
    class PulledPlugError(Exception):
        pass

    save, saved = checkpoint.save, []

    def save_some(folder, step, *rest):
        save(folder, step, *rest)
        saved.append(step)
        if len(saved) == 7:
            raise PulledPlugError

    monkeypatch.setattr(checkpoint, "save", save_some)
    with pytest.raises(PulledPlugError):
        fewlabels.fit((X, Y), baseline=False, out=tmp_path / "run", **RUN)
    monkeypatch.undo()
    run = fewlabels.fit((X, Y), baseline=False, out=tmp_path / "run", **RUN)
    assert 0 < saved[-1] < RUN["steps"]
    for name in ("model.safetensors", "predictions.parquet"):
        assert (run.path / name).read_bytes() == (digits_run.path / name).read_bytes()


def test_other_vectors_do_not_continue_a_run(digits_run):
    with pytest.raises(UserError, match="the data is not the same"):
        fewlabels.fit((X + 1, Y), out=digits_run.path, **RUN)


# --- sheets ---------------------------------------------------------------------------------------------


def test_a_sheet_is_trained_and_its_columns_are_found_again(tmp_path):
    run = fewlabels.fit(wine_sheet(tmp_path / "wine.parquet"), out=tmp_path / "run", **SMALL)
    assert run.summary["labeled"] > 40  # some of each class stand apart
    assert run.classifier.card.form == VectorForm(13, tuple(WINE.feature_names))
    order = np.random.default_rng(0).permutation(13)
    header = [WINE.feature_names[i] for i in order]
    new = write_csv(tmp_path / "new.csv", header, WINE.data[:, order].tolist())
    predict(run.path, [new], tmp_path / "out.parquet")
    out = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    labels, probabilities = run.classifier.predict(WINE.data)
    assert out["label"] == labels.tolist()
    np.testing.assert_allclose(out["p_0"], probabilities[:, 0], atol=1e-6)
    assert out["path"][:2] == ["line 2", "line 3"]


def test_predict_names_what_is_set_aside_and_goes_on(digits_run, tmp_path, capsys):
    x = X[:4].copy()
    x[1, 5] = np.nan
    np.savez(tmp_path / "a.npz", x=x)
    np.savez(tmp_path / "b.npz", x=X[:2])
    predict(digits_run.path, [tmp_path / "a.npz", tmp_path / "b.npz"], None)
    said = capsys.readouterr()
    assert [line.split("\t")[0][-4:] for line in said.out.splitlines()] == ["x[0]", "x[2]", "x[3]", "x[0]", "x[1]"]
    assert "a.npz: x[1]: no number at 5" in said.err
    np.savez(tmp_path / "c.npz", x=x[1:2])
    with pytest.raises(UserError, match=r"none of the 1 vectors can be read; the first, x\[0\]: no number"):
        predict(digits_run.path, [tmp_path / "c.npz"], None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (X[:, :63], "vectors of 63 numbers; this classifier takes vectors of 64 numbers"),
        (X[0], r"shape \[64\]; this classifier takes vectors of 64 numbers"),
        (X.reshape(-1, 8, 8), r"shape \[1797, 8, 8\]; this classifier takes vectors"),
        (["a.jpg"], "type list; this classifier takes vectors"),
        (np.full((2, 64), np.nan), "2 of the vectors cannot be read: vector 0: no number at 0 and in 63 more"),
    ],
)
def test_a_classifier_refuses_what_it_was_not_trained_for(digits_run, given, said):
    with pytest.raises(UserError, match=said):
        digits_run.classifier.predict(given)


# --- rows that cannot be used ---------------------------------------------------------------------------


def test_vectors_that_are_not_finite_are_set_aside_by_name(tmp_path):
    x = WINE.data.copy()
    x[3, 0], x[10, 2] = np.nan, 1e300  # more than float32 holds
    run = fewlabels.fit((x, WINE.target), labels_per_class=4, out=tmp_path / "run", **SMALL)
    aside = (run.path / "quarantine.csv").read_text().splitlines()
    assert aside[1:] == ["x[3],no number at 0", "x[10],an infinite number at 2"]
    assert run.summary["set_aside"] == 2
    x[:90, 4] = np.inf
    with pytest.raises(UserError, match="of 178 vectors 90 cannot be read, more than half"):
        fewlabels.fit((x, WINE.target), labels_per_class=4, out=tmp_path / "other", **SMALL)


def test_copies_on_both_sides_of_the_split_are_said(tmp_path):
    test = {"x_test": np.concatenate([WINE.data[:2], WINE.data[5:6] + 1]), "y_test": WINE.target[[0, 1, 5]]}
    run = fewlabels.fit({"x": WINE.data, "y": WINE.target} | test, out=tmp_path / "run", **SMALL)
    assert any(
        note.startswith("2 of 3 test vectors are equal to a training vector, such as x_test[0] and x[0];")
        for note in run.summary["notes"]
    )


# --- models and options ---------------------------------------------------------------------------------


def test_a_backbone_of_ones_own(tmp_path):
    module = nn.Sequential(nn.Linear(13, 7), nn.Tanh())
    run = fewlabels.fit((WINE.data, WINE.target), model=module, labels_per_class=4, out=tmp_path / "run", **SMALL)
    classifier = fewlabels.load(run.path, backbone=nn.Sequential(nn.Linear(13, 7), nn.Tanh()))
    assert classifier.head.in_features == 7
    with pytest.raises(UserError, match="does not take vectors of 13 numbers"):
        fewlabels.fit((WINE.data, WINE.target), model=nn.Conv2d(1, 2, 3), labels_per_class=4, out=tmp_path / "no")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"images_size": 32, "images_flip": "none", "pretrained": True},
            "holds vectors: --pretrained, --images.size, --images.flip means",
        ),
        (
            {"images_resize": "pad", "images_operations": 2, "images_cache": "here"},
            "--images.resize, --images.operations, --images.cache",
        ),
        ({"model": "small_cnn"}, "small_cnn is a model for images, and this data holds vectors"),
        ({"method": "regmixmatch"}, "pastes images into each other"),
        ({"method": "crmatch"}, "--method.rotation 0"),
    ],
)
def test_options_for_images_are_refused(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        fewlabels.fit((WINE.data, WINE.target), labels_per_class=4, out=tmp_path / "run", **SMALL | options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"vectors_noise": 0.1}, "holds images: --vectors.noise means"), ({"model": "mlp"}, "a model for vectors")],
)
def test_options_for_vectors_are_refused_for_images(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        fewlabels.fit("digits", labels_per_class=4, out=tmp_path / "run", **SMALL | options)


def test_strengths_that_are_given_are_used(tmp_path):
    given = {"vectors_noise": 0.5, "vectors_replaced": 0.25, "vectors_mixed": 0.0}
    run = fewlabels.fit((WINE.data, WINE.target), labels_per_class=4, out=tmp_path / "run", **SMALL | given)
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    assert {name: config["options"][name] for name in given} == given
    assert config["why"]["vectors_noise"] == "given"


# --- every method ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(method_names()) - {"regmixmatch"}))
def test_every_method_takes_vectors(vector_job, name):
    method = make_method(name)
    if hasattr(method, "rotation"):
        method.rotation = 0.0
    job = vector_job(steps=30, batch=16, unlabeled_batch=32)
    state, feed = begin(job, method)
    for step in range(30):
        assert all(bool(value.isfinite().all()) for value in update(state, feed.batch(step, state.step)).values())
    assert isinstance(job.store, Vectors)


def test_an_image_card_of_before_is_read(tmp_path):
    old = {
        "model": "small_cnn", "classes": ["a", "b"], "mean": [0.5], "std": [0.2], "format": 1,
        "form": {"channels": 1, "size": [8, 8], "resize": "crop", "white": 65535.0},
    }  # fmt: skip
    (tmp_path / "model.json").write_text(json.dumps(old))
    assert read_card(tmp_path / "model.json").form.size == (8, 8)
    assert open_table((X, Y)).contents.form.words == "vectors of 64 numbers"
