"""The estimator: scikit-learn's own checks, its tools, and the three kinds of data."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewlabels import FewLabelClassifier, UserError
from fewlabels.methods.fixmatch import FixMatch
from fewlabels.models.feature_mlp import FeatureMLP

pytestmark = pytest.mark.versions

X, TRUTH = load_digits(return_X_y=True)
LABELED = np.flatnonzero(np.random.default_rng(1000).random(len(TRUTH)) < 0.05)
Y = np.full(len(TRUTH), -1)
Y[LABELED] = TRUTH[LABELED]
UNLABELED = np.flatnonzero(Y < 0)
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], object)
IMAGES = X.reshape(-1, 8, 8)[:120] / 16
SMALL = {"steps": 6, "random_state": 0, "options": {"batch": 8, "unlabeled_ratio": 2, "threads": 1}}

EXPECTED = {
    "check_classifiers_classes": "takes -1 for one of two classes, which here is unlabeled: one class is left",
}


@parametrize_with_checks([FewLabelClassifier(steps=20)], expected_failed_checks=lambda estimator: EXPECTED)
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    return FewLabelClassifier(steps=150, random_state=1000).fit(X, Y)


@pytest.fixture(scope="module")
def small():
    return FewLabelClassifier(**SMALL).fit(X, Y)


# --- what comes out -------------------------------------------------------------------------------------


def test_unlabeled_rows_help(digits):
    supervised = FewLabelClassifier(method="supervised", steps=150, random_state=1000).fit(X, Y)
    right, before = ((c.transduction_ == TRUTH)[UNLABELED].mean() for c in (digits, supervised))
    assert right > before + 0.02
    assert right > 0.9


def test_transduction_keeps_the_labels_that_were_given():
    wrong = Y.copy()
    wrong[LABELED[0]] = (TRUTH[LABELED[0]] + 1) % 10
    found = FewLabelClassifier(**SMALL).fit(X, wrong)
    assert np.array_equal(found.transduction_[LABELED], wrong[LABELED])
    assert np.array_equal(found.transduction_[UNLABELED], found.predict(X)[UNLABELED])
    assert np.array_equal(found.label_distributions_, found.predict_proba(X))


def test_history_has_the_metrics_of_the_training(digits):
    steps = [line["step"] for line in digits.history_]
    assert steps == sorted(set(steps)) and steps[-1] == 150
    assert {"loss", "kept"} <= digits.history_[0].keys()
    assert digits.history_[-1]["labeled_loss"] < digits.history_[0]["labeled_loss"]


def test_probabilities_are_calibrated_where_labels_can_be_held_out(small):
    assert small.classifier_.card.scale == ()
    found = FewLabelClassifier(**SMALL).fit(X[:800], TRUTH[:800])
    assert len(found.classifier_.card.scale) == 10


def test_training_in_memory_ends_as_a_run_does(small, tmp_path):
    run = FewLabelClassifier(**SMALL, out=tmp_path / "run").fit(X, Y)
    assert np.array_equal(run.label_distributions_, small.label_distributions_)
    assert [line["loss"] for line in run.history_] == [line["loss"] for line in small.history_]
    assert (tmp_path / "run" / "report.html").is_file()
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert rows[0]["name"] == "supervised"  # whoever keeps the report gets the baseline


# --- repeatable, and without a trace --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["layermatch", "comatch"])  # comatch has parameters of its own
def test_the_outcome_is_a_function_of_random_state(method):
    def fitted(seed, before):
        torch.manual_seed(before)
        return FewLabelClassifier(**{**SMALL, "method": method, "random_state": seed}).fit(X, Y).label_distributions_

    assert np.array_equal(fitted(0, 1), fitted(0, 2))
    assert not np.array_equal(fitted(0, 1), fitted(1, 1))


def test_a_generator_is_drawn_from():
    generator = np.random.RandomState(0)
    first, second = (FewLabelClassifier(**{**SMALL, "random_state": generator}).fit(X, Y) for _ in range(2))
    again = FewLabelClassifier(**{**SMALL, "random_state": np.random.RandomState(0)}).fit(X, Y)
    assert not np.array_equal(first.label_distributions_, second.label_distributions_)
    assert np.array_equal(first.label_distributions_, again.label_distributions_)


def test_generators_and_threads_are_left_as_they_were():
    torch.set_num_threads(2)
    try:
        before, drawn = torch.get_rng_state(), np.random.get_state()[1].copy()
        FewLabelClassifier(**SMALL).fit(X, Y)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], drawn)
    finally:
        torch.set_num_threads(1)


def test_a_pickle_predicts_the_same(small):
    again = pickle.loads(pickle.dumps(small))
    assert np.array_equal(again.predict_proba(X), small.predict_proba(X))
    assert not hasattr(clone(small), "classifier_")


# --- labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [None, "", -1, "-1"])
def test_names_as_classes(blank):
    names = NAMES[Y]
    names[UNLABELED] = blank
    found = FewLabelClassifier(**SMALL).fit(X, names)
    assert found.classes_.tolist() == sorted(NAMES)
    assert set(found.transduction_) <= set(NAMES)
    assert np.array_equal(found.transduction_[LABELED], NAMES[TRUTH[LABELED]])
    assert found.score(X, names) == (found.predict(X)[LABELED] == NAMES[TRUTH[LABELED]]).mean()


def test_numbers_with_gaps_train_as_those_without(small):
    gaps = np.where(Y < 0, -1, 10 * Y + 7)
    found = FewLabelClassifier(**SMALL).fit(X, gaps)
    assert found.classes_.tolist() == list(range(7, 100, 10))
    assert np.array_equal(found.label_distributions_, small.label_distributions_)
    assert np.array_equal(found.predict(X), 10 * small.predict(X) + 7)
    holes = gaps.astype(object)
    holes[UNLABELED] = None
    assert np.array_equal(FewLabelClassifier(**SMALL).fit(X, holes).predict(X), found.predict(X))


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.full(len(X), -1), "none of the 1797 labels"),
        (np.where(TRUTH == 3, 3, -1), "1 class only, 3"),
        (np.array([*["one", 2] * 898, "one"], object), "numbers and names"),
        (Y[:-1], "inconsistent numbers of samples"),
        (TRUTH + 0.5, "continuous"),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(y, said):
    with pytest.raises(ValueError, match=said):
        FewLabelClassifier(**SMALL).fit(X, y)


# --- parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"options": {"seed": 1}}, "random_state"),
        ({"options": {"labels_per_class": 1}}, "X and y"),
        ({"options": {"sise": 1}}, "no option is named sise"),
        ({"options": {"images_size": 8}}, "--images.size means nothing"),
        ({"options": {"batch": 9, "accumulate": 2}}, "cannot be divided among 1 processes in 2 parts each"),
        ({"method": "layermach"}, "Did you mean layermatch"),
        ({"budget": "huge"}, "budget is 'huge'"),
        ({"random_state": -1}, "seed is -1"),
    ],
)
def test_what_cannot_be_is_said(given, said):
    with pytest.raises(UserError, match=said):
        FewLabelClassifier(**SMALL | given).fit(X, Y)


def test_a_method_with_options_a_policy_and_a_backbone_are_used(small):
    outcomes = [small.label_distributions_]
    backbone = FeatureMLP(64, 16)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    for given in (
        {"method": FixMatch(threshold=0.5)},
        {"method": "fixmatch"},
        {"method": "fixmatch", "options": {**SMALL["options"], "policy": "head_only"}},
        {"model": backbone},
    ):
        outcomes.append(clone(FewLabelClassifier(**SMALL | given)).fit(X, Y).label_distributions_)
        assert not any(np.array_equal(outcomes[-1], other) for other in outcomes[:-1])
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_auto_chooses_the_method_by_the_labels():
    found = FewLabelClassifier(**SMALL | {"method": "auto"}).fit(X[:200], TRUTH[:200])
    assert "unlabeled_loss" not in found.history_[0]  # nothing is unlabeled: labels only


def test_cross_calibration_goes_through_a_run():
    options = {**SMALL["options"], "classify_calibrate": "cross"}
    found = FewLabelClassifier(**SMALL | {"options": options}).fit(X, Y)
    assert len(found.classifier_.card.scale) == 10


# --- tools of scikit-learn ------------------------------------------------------------------------------


def test_in_a_pipeline_with_folds_that_have_unlabeled_rows():
    model = make_pipeline(StandardScaler(), FewLabelClassifier(**SMALL | {"steps": 60}))
    own = cross_val_score(model, X, Y, cv=StratifiedKFold(3))  # -1 is a class to the folds: each has its share

    def labeled_alone(estimator, x, y):
        return accuracy_score(y[y >= 0], estimator.predict(x[y >= 0]))

    scoring = {"labeled": labeled_alone, "all": "accuracy"}
    found = cross_validate(model, X, Y, cv=StratifiedKFold(3), scoring=scoring)
    assert np.array_equal(own, found["test_labeled"])
    assert own.mean() > 0.6
    assert found["test_all"].max() < 0.1  # there an unlabeled row is a mistake


def test_grid_search_over_methods():
    search = GridSearchCV(FewLabelClassifier(**SMALL), {"method": ["supervised", "fixmatch"], "steps": [6, 40]}, cv=2)
    search.fit(X, Y)
    assert search.best_params_["steps"] == 40
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert (search.predict(X) == TRUTH).mean() > 0.5


def test_a_fold_without_labels_has_no_score(small):
    with pytest.raises(UserError, match="none of 20 rows has a label"):
        small.score(X[:20], np.full(20, -1))


def test_a_function_as_model_is_for_images():
    x, y = (each[:400] for each in load_digits(return_X_y=True))
    y = np.where(np.arange(len(y)) < 60, y, -1)
    images = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    made = FewLabelClassifier(model=lambda seen: seen.flatten(1), steps=10, random_state=0).fit(images, y)
    assert made.score(images[:60], y[:60]) > 0.5
    with pytest.raises(UserError, match="call it on your vectors"):
        FewLabelClassifier(model=lambda seen: seen, steps=10, random_state=0).fit(x, y)


# --- images ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    made = [folder / f"{i}.png" for i in range(len(IMAGES))]
    for path, pixels in zip(made, IMAGES, strict=True):
        Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(path)
    return made


@pytest.fixture(scope="module")
def of_arrays():
    return FewLabelClassifier(**SMALL).fit(IMAGES, some_labels())


def some_labels():
    y = TRUTH[: len(IMAGES)].copy()
    y[60:] = -1
    return y


def test_arrays_of_images(of_arrays):
    assert of_arrays.classifier_.card.form.what == "images"
    assert of_arrays.label_distributions_.shape == (120, 10)
    assert np.array_equal(of_arrays.transduction_[:60], TRUTH[:60])
    assert len(of_arrays.history_) == 6 and not hasattr(of_arrays, "n_features_in_")
    again = pickle.loads(pickle.dumps(of_arrays))  # the folder of the run is gone
    assert np.array_equal(again.predict_proba(IMAGES), of_arrays.label_distributions_)


@pytest.mark.parametrize("form", ["paths", "strings", "array of strings", "PIL", "list of arrays", "one more axis"])
def test_every_form_of_the_same_images_trains_the_same(of_arrays, paths, form):
    texts = [str(path) for path in paths]
    x = {
        "paths": paths,
        "strings": texts,
        "array of strings": np.array(texts),
        "PIL": [Image.open(path).copy() for path in paths],
        "list of arrays": list(IMAGES),
        "one more axis": IMAGES[..., None],
    }[form]
    found = FewLabelClassifier(**SMALL).fit(x, some_labels())
    assert np.allclose(found.predict_proba(x), of_arrays.label_distributions_, atol=1e-6)


def test_cross_validation_over_a_list_of_paths(paths):
    scores = cross_val_score(FewLabelClassifier(**SMALL), paths, some_labels(), cv=2, error_score="raise")
    assert scores.shape == (2,) and np.isfinite(scores).all()


def test_images_that_cannot_be_read_are_warned_of_and_get_no_class(paths, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    given = [*paths[:5], broken, *paths[5:], broken]
    y = some_labels()
    with pytest.warns(UserWarning, match="2 of 122 images cannot be read"):
        found = FewLabelClassifier(**SMALL).fit(given, [*y[:5], 3, *y[5:], -1])
    assert found.transduction_[5] == 3 and found.transduction_[-1] == -1
    assert np.isnan(found.label_distributions_[[5, -1]]).all()
    assert np.allclose(np.delete(found.label_distributions_, [5, 121], 0), found.predict_proba(paths))
    with pytest.raises(UserError, match=r"broken\.png"):
        found.predict(given)


def test_a_backbone_with_weights_trains_on_its_features(of_arrays, tmp_path):
    of_arrays.classifier_.save(tmp_path)
    options = {**SMALL["options"], "weights": tmp_path / "model.safetensors", "classify_features": "only"}
    found = FewLabelClassifier(**SMALL | {"model": "small_cnn", "options": options}).fit(IMAGES, some_labels())
    assert found.history_[-1]["step"] == SMALL["steps"]  # nothing else is trained
    assert found.classifier_.card.model == "small_cnn+unit"
    assert found.predict(IMAGES[:3]).shape == (3,)


def test_vectors_after_images_are_another_fit(of_arrays):
    found = clone(of_arrays).fit(X, Y)
    assert found.n_features_in_ == 64
    with pytest.raises(ValueError, match="dim 3"):
        found.predict(IMAGES)
    found.fit(IMAGES, some_labels())
    assert not hasattr(found, "n_features_in_")
