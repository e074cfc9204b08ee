"""Features first: embedded once, learned from in seconds, then the whole network where that may add something."""

import json
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

import fewlabels
from fewlabels import UserError
from fewlabels.classify import embedding
from fewlabels.classify.training_free.recipes import BASELINES
from fewlabels.console import Show
from fewlabels.data.sources.open import open_table
from fewlabels.errors import Interrupted
from fewlabels.inputs.images.cache import KeptArray
from fewlabels.inputs.kinds import VECTORS
from fewlabels.keys import Key
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.models.build import build_classifier, on_features

pytestmark = [pytest.mark.versions, pytest.mark.usefixtures("undrawn")]

QUICK = {"device": "cpu", "threads": 1, "budget": "quick"}


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Let a quick training on features be one of 40 steps, a fifth of them: enough to tell five digits apart."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(VECTORS.steps, "quick", 40)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A backbone that learned other digits than those that are asked for: 5 to 9."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rows = y >= 5
    images = (x.reshape(-1, 8, 8)[rows] * 15).astype(np.uint8)
    out = tmp_path_factory.mktemp("before") / "run"
    fewlabels.fit((images, y[rows] - 5), method="supervised", out=out, steps=120, **QUICK)
    return out / "model.safetensors"


@pytest.fixture(scope="module")
def data():
    """Some digits 0 to 4, five labels each."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    rows = (y < 5) & (np.arange(len(y)) < 900)
    return (x.reshape(-1, 8, 8)[rows] * 15).astype(np.uint8), y[rows]


@pytest.fixture(scope="module")
def quick(weights, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "run"
    return fewlabels.fit(data, weights=weights, model="small_cnn", labels_per_class=5, out=out, **QUICK)


def names(run):
    return [row["name"] for row in run.summary["rows"]]


def test_budget_quick_ends_with_the_features_and_says_why(quick):
    assert names(quick) == ["supervised", *BASELINES, "layermatch", "blend"]
    last = quick.summary["rows"][-1]
    assert "budget quick ends with the features" in quick.summary["chosen"]["why"]
    assert all("on features" in row["label"] for row in quick.summary["rows"])
    best = max(row["test"]["accuracy"] for row in quick.summary["rows"][1:-2])
    assert last["added"] == pytest.approx(last["test"]["accuracy"] - best)
    assert quick.accuracy > 0.6


def assert_images_are_judged_as_in_the_run(run, images):
    """From files alone: the backbone that gave the features, what follows it, and the head."""
    import pyarrow.parquet as pq

    labels, probabilities = fewlabels.load(run.path).predict(images)
    table = pq.read_table(run.path / "predictions.parquet").to_pydict()
    place = {name: i for i, name in enumerate(table["path"])}
    order = [place[f"x[{i}]"] for i in range(len(images))]
    expected = np.stack([np.array(table[f"p_{k}"])[order] for k in range(5)], axis=1)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    return labels


def test_what_was_trained_on_features_classifies_images(quick, data):
    labels = assert_images_are_judged_as_in_the_run(quick, data[0])
    assert np.mean(labels.astype(int) == data[1]) > 0.6


def test_a_linear_head_of_the_blend_is_handed_over_and_says_how_good_it_is(quick):
    chosen = quick.summary["chosen"]
    assert fewlabels.load(quick.path).card.model == "small_cnn+unit"
    assert chosen["name"] == "blend" and chosen["test"] == quick.summary["rows"][-1]["test"]
    assert 0.5 < chosen["cross_validated"] <= 1 and 0 <= chosen["margin"] < 0.5
    assert "on 25 labeled rows that were held out, blend reaches" in chosen["why"]


@pytest.mark.parametrize(
    ("choose", "name", "model"),
    [
        ("method", "fixmatch", "small_cnn+mlp"),
        ("blend", "blend", "small_cnn+unit"),
        ("label_propagation", "label_propagation_head", "small_cnn+unit"),
    ],
)
def test_what_is_handed_over_can_be_chosen(weights, data, tmp_path, choose, name, model):
    run = fewlabels.fit(
        data, weights=weights, model="small_cnn", labels_per_class=2, steps=5, method="fixmatch", choose=choose,
        classify_features="only", out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    assert (run.summary["chosen"]["name"], names(run)[-1]) == (name, name)
    assert fewlabels.load(run.path).card.model == model
    assert choose == "method" or run.accuracy > 0.5


@pytest.mark.parametrize(
    ("labels", "flip", "model"),
    [(3, "horizontal", "stages+mirrored+unit"), (5, "none", "stages+unit"), (2, "horizontal", "mirrored+unit")],
)
def test_earlier_stages_are_learned_from_where_labels_can_tell_whether_they_help(data, tmp_path, labels, flip, model):
    rows = np.arange(len(data[0])) % 3 == 0
    run = fewlabels.fit(
        (data[0][rows], data[1][rows]), model="efficientnet_lite0", images_size=32, images_flip=flip,
        labels_per_class=labels, steps=5, baseline=False, out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    assert (run.summary["chosen"]["name"], fewlabels.load(run.path).card.model) == (
        "blend",
        f"efficientnet_lite0+{model}",
    )
    assert run.accuracy > 0.5
    assert_images_are_judged_as_in_the_run(run, data[0][rows])


def test_only_rows_that_are_there_can_be_chosen(weights, data, tmp_path):
    with pytest.raises(UserError, match="choose is 'best'; give labels, method, or a row: blend, knn"):
        fewlabels.fit(data, choose="best", labels_per_class=5, out=tmp_path / "run", **QUICK)
    with pytest.raises(UserError, match="this run does not train on features"):
        fewlabels.fit(data, choose="knn", labels_per_class=5, out=tmp_path / "run", **QUICK)


def test_what_learns_from_unlabeled_rows_cannot_be_chosen_without_any(weights, data, tmp_path):
    options = dict(weights=weights, model="small_cnn", steps=2, baseline=False, classify_features="only", **QUICK)
    for choose in ("blend", "poisson"):
        with pytest.raises(UserError, match=f"--choose {choose} learns from unlabeled rows, and there are none"):
            fewlabels.fit(data, choose=choose, out=tmp_path / choose, **options)
    assert names(fewlabels.fit(data, choose="ridge", out=tmp_path / "ridge", **options))[-1] == "ridge_head"
    assert names(fewlabels.fit(data, out=tmp_path / "none", **options))[-1] == "layermatch"


def test_probabilities_are_calibrated_by_labels_that_were_left_out(quick):
    found = quick.summary["calibration"]
    assert (found["how"], found["rows"], found["promised"]) == ("cross-fitted", 25, False)
    assert found["kind"] == "temperature" and len(list((quick.path / "features").glob("cross-*"))) == 5


def test_features_are_made_once(weights, data, tmp_path, monkeypatch):
    made, few = [], tuple(each[:150] for each in data)
    make = embedding._made
    monkeypatch.setattr(embedding, "_made", lambda *given: made.append(given) or make(*given))
    options = QUICK | {
        "weights": weights,
        "model": "small_cnn",
        "labels_per_class": 5,
        "steps": 2,
        "baseline": False,
        "classify_calibrate": "no",
    }
    counts = []
    for method, cache in (("supervised", "a"), ("fixmatch", "a"), ("supervised", "b")):
        made.clear()
        fewlabels.fit(few, out=tmp_path / f"{method}{cache}", images_cache=tmp_path / cache, method=method, **options)
        counts.append(len(made))
    assert counts == [1, 0, 1]


def test_features_are_the_same_for_any_number_of_threads(weights, data, tmp_path):
    """Each part of the images is on one thread, and the features are those that the classifier itself gives."""
    found = []
    for threads in (1, 2):
        fewlabels.fit(
            data, weights=weights, model="small_cnn", labels_per_class=2, baseline=False, steps=2,
            classify_features="only", images_cache=tmp_path / f"{threads}", out=tmp_path / f"run{threads}",
            **QUICK | {"threads": threads},
        )  # fmt: skip
        found.append(np.load(next((tmp_path / f"{threads}").glob("*/array.npy"))))
    assert len(found[0]) == len(data[0]) and found[0].std() > 0 and np.array_equal(*found)


def test_making_features_can_be_stopped_and_keeps_none(weights, data, tmp_path, monkeypatch):
    made, batches = embedding._made, []

    def interrupted(preparation, classifier, show, stop):
        return made(preparation, classifier, show, lambda: batches.append(1) or len(batches) > 2)

    monkeypatch.setattr(embedding, "_made", interrupted)
    with pytest.raises(Interrupted, match="stopped while features were made"):
        fewlabels.fit(
            data, weights=weights, model="small_cnn", labels_per_class=2, steps=2, classify_features="only",
            images_cache=tmp_path / "cache", out=tmp_path / "run", **QUICK,
        )  # fmt: skip
    assert len(batches) == 3 and not [*(tmp_path / "cache").glob("*/array.npy")]


def test_an_array_that_was_cut_is_made_anew(tmp_path):
    kept = KeptArray(tmp_path, "one", 2)
    kept.write(np.ones((3, 2), np.float32))
    assert np.array_equal(KeptArray(tmp_path, "one", 2).open(), np.ones((3, 2)))
    assert KeptArray(tmp_path, "one", 3).open() is None
    path = kept.folder / "array.npy"
    path.write_bytes(path.read_bytes()[:-4])
    assert kept.open() is None


def test_the_whole_network_comes_after_the_features_and_the_table_says_what_it_added(weights, data, tmp_path):
    run = fewlabels.fit(
        data, weights=weights, model="small_cnn", labels_per_class=5, steps=20, method="fixmatch",
        classify_calibrate="no", out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    rows = {row["name"]: row for row in run.summary["rows"]}
    assert [*rows] == [
        "supervised", *BASELINES, "supervised_of_another_stage", "fixmatch_of_another_stage",
        "blend_of_another_stage", "fixmatch",
    ]  # fmt: skip
    before, last = rows["blend_of_another_stage"], rows["fixmatch"]
    assert before["label"] == "blend, linear head on features" and last["label"] == "fixmatch"
    assert run.summary["chosen"]["cross_validated"] is None  # the choice was made before
    assert last["added"] == pytest.approx(last["test"]["accuracy"] - before["test"]["accuracy"])
    assert fewlabels.load(run.path).card.model == "small_cnn"


def test_training_on_that_adds_nothing_on_held_out_labels_is_not_kept(weights, data, tmp_path, monkeypatch):
    """A learning rate that destroys the backbone."""
    monkeypatch.setitem(VECTORS.steps, "quick", 200)  # of fewer the blend is the better one
    monkeypatch.setattr("fewlabels.classify.task.enough", lambda work, features: None)
    run = fewlabels.fit(
        data, weights=weights, model="small_cnn", labels_per_class=60, steps=10, lr=1.0, optimizer="sgd",
        method="fixmatch", classify_features="first", out=tmp_path / "run", baseline=False, **QUICK,
    )  # fmt: skip
    assert "added nothing on 60 labels that were left out" in run.summary["chosen"]["why"]
    assert names(run)[-2:] == ["fixmatch_of_another_stage", "fixmatch"]
    assert fewlabels.load(run.path).card.model == "small_cnn+mlp"
    assert json.loads((run.path / "summary.json").read_text())["calibration"]["how"] == "held out"


def test_a_backbone_that_begins_with_nothing_gives_zero_features(data, tmp_path):
    run = fewlabels.fit(data, labels_per_class=2, steps=2, out=tmp_path / "run", baseline=False, **QUICK)
    assert names(run)[0] == "knn" and not (run.path / "features").exists()
    assert all(row["added"] is None for row in run.summary["rows"])


def test_features_of_a_backbone_of_ones_own(data, tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU())
    run = fewlabels.fit(
        data,
        model=module,
        classify_features="only",
        labels_per_class=5,
        out=tmp_path / "run",
        method="fixmatch",
        classify_calibrate="no",
        **QUICK,
    )
    assert run.accuracy > 0.6 and names(run)[-2:] == ["fixmatch", "blend"]
    assert fewlabels.load(run.path, backbone=module).card.model == "custom+unit"
    with pytest.raises(UserError, match="a backbone of your own: give it again"):
        fewlabels.load(run.path)


def test_a_function_gives_features_and_nothing_else_is_trained(data, tmp_path):
    def function(x):
        return torch.nn.functional.avg_pool2d(x, 2).flatten(1)

    run = fewlabels.fit(
        data, model=function, labels_per_class=5, out=tmp_path / "run", classify_calibrate="no", **QUICK
    )
    assert run.accuracy > 0.6 and "on features" in run.summary["rows"][-1]["label"]
    labels, _ = fewlabels.load(run.path, backbone=function).predict(data[0][:5])
    assert len(labels) == 5
    same = dict(labels_per_class=5, out=tmp_path / "run", classify_calibrate="no", **QUICK)
    assert fewlabels.fit(data, model=function, **same).summary == run.summary
    with pytest.raises(
        UserError, match="it was begun with other parameters, from another run or with another backbone"
    ):  # another function is another run
        fewlabels.fit(data, model=lambda x: function(x).flip(1), **same)
    with pytest.raises(UserError, match="give a name, a module, or a function"):
        fewlabels.fit(data, model=3, out=tmp_path / "none", **QUICK)


@pytest.mark.parametrize("features", ["only", pytest.param("no", marks=pytest.mark.slow)])
def test_a_run_stopped_again_and_again_ends_in_the_same_bytes(weights, data, tmp_path, monkeypatch, features):
    """In each of its trainings: labels only, the method, and those that judge what was left out."""
    options = dict(
        weights=weights, model="small_cnn", classify_features=features, labels_per_class=5, steps=12, method="fixmatch",
        classify_calibrate="cross", **QUICK,
    )  # fmt: skip
    whole, out, sittings = fewlabels.fit(data, out=tmp_path / "whole", **options), tmp_path / "run", 0

    @contextmanager
    def sitting():
        asked = count()
        yield lambda: next(asked) > 20

    monkeypatch.setattr("fewlabels.runs.fit.noted_signals", sitting)
    while not (out / "summary.json").exists():
        with suppress(Interrupted):
            fewlabels.fit(data, out=out, **options)
        sittings += 1
    assert 2 < sittings < 20
    for name in ("model.safetensors", "reference.safetensors", "predictions.parquet", "next_to_label.csv"):
        assert (out / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_labels_of_one_group_a_class_judge_nothing(weights, data, tmp_path):
    """What is trained without a class cannot judge it: the probabilities would be ruined."""
    x, y = data
    table = open_table((x[:150], np.where(np.arange(150) < 60, y[:150], -1)))
    groups = tuple(f"video of {k}" if k >= 0 else "" for k in table.labels)
    run = fewlabels.fit(
        replace(table, groups=groups), weights=weights, model="small_cnn", method="fixmatch",
        classify_features="only", steps=5, baseline=False, out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    assert run.summary["calibration"]["kind"] == "none" and run.summary["labeled"] == 60


def test_a_method_that_turns_images_does_without_features_and_says_so(weights, data, tmp_path, capsys):
    options = dict(
        weights=weights, model="small_cnn", method="crmatch", labels_per_class=5, steps=2, baseline=False,
        out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"crmatch does not learn from features .* give --method.rotation 0"):
        fewlabels.fit(data, classify_features="only", **options)
    run = fewlabels.fit(data, show=Show(Console(width=400)), **options)  # nothing was left behind
    assert "crmatch does not learn from features" in capsys.readouterr().out
    assert names(run) == [*BASELINES, "crmatch"] and "features" not in run.summary["rows"][-1]
    assert "crmatch does not learn from features" in (run.path / "config.yaml").read_text().replace("\n    ", " ")


def test_a_method_of_ones_own_that_fails_on_features_is_trained_without(weights, data, tmp_path):
    class Flips(FixMatch):
        """As FixMatch, of images alone."""

        def forward(self, net, batch):
            batch.labeled[0].flip(3)
            return super().forward(net, batch)

    run = fewlabels.fit(
        data, weights=weights, model="small_cnn", method=Flips(), classify_features="first", labels_per_class=5,
        steps=2, baseline=False, out=tmp_path / "run", **QUICK,
    )  # fmt: skip
    assert "features" not in run.summary["rows"][-1]["label"]


def test_where_labels_are_left_out_in_turn_they_judge_both_stages(weights, data, tmp_path):
    """A learning rate that destroys the backbone, and five labels a class."""
    run = fewlabels.fit(
        data, weights=weights, model="small_cnn", labels_per_class=5, steps=10, lr=1.0, optimizer="sgd",
        method="fixmatch", classify_calibrate="cross", out=tmp_path / "run", baseline=False, **QUICK,
    )  # fmt: skip
    assert "added nothing on 25 labels that were left out" in run.summary["chosen"]["why"]
    assert fewlabels.load(run.path).card.model == "small_cnn+unit"


def test_two_parts_make_the_whole(weights):
    card = fewlabels.load(weights.parent).card
    backbone = build_classifier(card, key=Key(0), weights=weights).backbone.eval()
    x = torch.rand(6, 1, *card.form.size)
    features = backbone(x).detach()
    from fewlabels.data.vectors import VectorForm
    from fewlabels.inputs.vectors.store import Vectors
    from fewlabels.models.classifier import Card

    mean, std = features.mean(0).tolist(), features.std(0).tolist()
    std[0] = 0.0
    of = Card("mlp", card.classes, VectorForm(features.shape[1]), tuple(mean), tuple(std))
    trained = build_classifier(of, key=Key(1)).eval()
    whole = on_features(backbone, trained, card)
    expected = trained.outputs(Vectors(features), np.arange(6)).logits
    torch.testing.assert_close(whole(x).detach(), expected, rtol=1e-4, atol=1e-5)
