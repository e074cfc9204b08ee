"""The labeled rows as a reference: neighbors, images unlike every class, suspect labels."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.datasets import load_digits

from fewlabels.classify import reference as module
from fewlabels.classify.reference import FLAGGED, NEIGHBORS, SHRUNK, Reference, make_reference, suspects
from fewlabels.errors import UserError

D = 12


def blobs(seed, per_class, classes=4, spread=0.6):
    """Draw features of classes around centers that are the same for every seed."""
    centers = 2 * np.random.default_rng(1).standard_normal((8, D))
    labels = np.repeat(np.arange(classes), per_class)
    noise = spread * np.random.default_rng(seed).standard_normal((len(labels), D))
    return (centers[labels] + noise).astype(np.float32), labels


def strangers(seed, n):
    """Draw features of classes that `blobs` has not."""
    x, labels = blobs(seed, n, classes=8)
    return x[labels >= 4]


def make(labeled=10, free=100, held_out=0, strange=0, sure=0.99, seed=0):
    """Make a reference of the first rows of each class; with it features, labels, probabilities and names of all."""
    x, truth = blobs(seed, labeled + held_out + free)
    place = np.arange(len(x)) % (labeled + held_out + free)
    odd = strangers(seed + 1, strange)
    features = np.concatenate([x, odd])
    labels = np.concatenate([np.where(place < labeled + held_out, truth, -1), np.full(len(odd), -1)])
    probabilities = np.full((len(features), 4), (1 - sure) / 3, np.float32)
    probabilities[np.arange(len(x)), truth] = sure
    probabilities[len(x) :] = 0.25
    names = [f"{i}.png" for i in range(len(features))]
    made = make_reference(
        features, probabilities, labels, names,
        labeled=np.flatnonzero(place < labeled),
        held_out=np.flatnonzero((place >= labeled) & (place < labeled + held_out)),
        unlabeled=np.flatnonzero(labels < 0),
    )  # fmt: skip
    return made, features, labels, probabilities, names


def slow_similarity(features, rows, training):
    """Whiten by the shrunk covariance through its eigenvectors, and take cosines, in float64."""
    training = training.astype(np.float64)
    mean = training.mean(0)
    covariance = np.cov(training.T, bias=True)
    shrunk = (1 - SHRUNK) * covariance + SHRUNK * np.trace(covariance) / D * np.eye(D)
    values, vectors = np.linalg.eigh(shrunk)
    white = vectors @ np.diag(values**-0.5) @ vectors.T
    a, b = ((x - mean) @ white for x in (features, rows))
    return (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))


@pytest.mark.parametrize("part", [1, 50, 1 << 22])
def test_neighbors_are_those_of_the_slow_way(monkeypatch, part):
    monkeypatch.setattr(module, "_PART", part)
    made, features, labels, _, _ = make()
    expected = slow_similarity(features, features[labels >= 0], features)
    order = np.argsort(-expected, axis=1)[:, :NEIGHBORS]
    found = made.neighbors(features)
    np.testing.assert_array_equal(found.places, order)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(expected, order, 1), atol=1e-5)
    np.testing.assert_allclose(made.strangeness(features), 1 - np.sort(expected)[:, -3:].mean(1), atol=1e-5)


def test_a_row_is_no_neighbor_of_itself():
    made, features, labels, _, names = make()
    rows = np.flatnonzero(labels >= 0)
    own = made.places_of([names[row] for row in rows])
    np.testing.assert_array_equal(own, np.arange(len(rows)))
    np.testing.assert_array_equal(made.neighbors(features[rows], 1).places[:, 0], own)
    assert not (made.neighbors(features[rows], own=own).places == own[:, None]).any()
    everything = made.neighbors(features[rows], 10**6, own)
    assert everything.places.shape == (40, 40)
    np.testing.assert_array_equal(everything.places[:, -1], own)
    assert np.isneginf(everything.similarity[:, -1]).all() and np.isfinite(everything.strangeness).all()
    assert made.places_of(["elsewhere.png"]).tolist() == [-1]


def test_strangeness_does_not_depend_on_unit_and_origin_of_the_features():
    made, features, labels, probabilities, names = make()
    free, few = np.flatnonzero(labels < 0), np.flatnonzero(labels >= 0)
    moved = 7 * features + 3
    again = make_reference(
        moved, probabilities, labels, names, labeled=few, unlabeled=free, held_out=few[:0]
    )  # fmt: skip
    np.testing.assert_allclose(made.strangeness(features), again.strangeness(moved), atol=1e-4)


@pytest.mark.parametrize(("settings", "basis"), [({}, "unlabeled"), ({"held_out": 25, "free": 25}, "held out")])
def test_known_rows_are_seldom_flagged_and_unknown_ones_are_found(settings, basis):
    made, *_ = make(**settings)
    assert made.basis == basis
    known, _ = blobs(7, 500)
    assert made.unknown(known).mean() < 2.5 * FLAGGED
    assert made.unknown(strangers(8, 500)).mean() > 0.9


def test_strange_rows_among_the_unlabeled_that_are_not_sure_do_not_hide_each_other():
    made, features, *_ = make(strange=25)
    assert made.unknown(features[-100:]).mean() > 0.9
    assert make(strange=25, sure=0.3)[0].cutoff > made.cutoff  # nobody is sure: they count as known


def test_without_other_rows_the_cutoff_comes_from_labeled_rows_without_themselves():
    made, features, labels, _, names = make(free=0)
    assert made.basis == "labeled"
    alone = made.neighbors(features, own=made.places_of(names)).strangeness
    assert made.cutoff == pytest.approx(np.sort(alone)[38])  # the 39th of 40: (40 + 1) * .95 rounded up
    assert len(labels) == 40


def test_the_cutoff_flags_so_many_of_the_held_out_rows():
    made, features, labels, _, _ = make(held_out=50, free=1)
    place = np.arange(len(features)) % 61
    strangeness = made.strangeness(features[(place >= 10) & (place < 60)])
    assert (strangeness > made.cutoff).sum() == 200 - 191  # split conformal: the 191st of 200 is the limit
    assert (labels >= 0).sum() == 240


def test_many_labeled_rows_are_kept_evenly(monkeypatch):
    monkeypatch.setattr(module, "MOST", 20)
    x, labels = blobs(0, 30)
    kept = np.flatnonzero((labels > 0) | (np.arange(len(x)) < 3))
    made = make_reference(
        x, np.eye(4, dtype=np.float32)[labels], labels, [str(i) for i in range(len(x))],
        labeled=kept, unlabeled=kept[:0], held_out=kept[:0],
    )  # fmt: skip
    assert np.bincount(made.labels).tolist() == [3, 5, 5, 5]
    assert [labels[int(name)] for name in made.names] == made.labels.tolist()


def test_features_that_are_all_alike_are_no_trouble():
    x, labels = np.ones((40, D), np.float32), np.arange(40) % 2
    rows = np.arange(40)
    made = make_reference(
        x, np.eye(2, dtype=np.float32)[labels], labels, [str(i) for i in rows],
        labeled=rows[:4], unlabeled=rows[4:], held_out=rows[:0],
    )  # fmt: skip
    assert np.isfinite(made.strangeness(x)).all() and not made.unknown(x).any()


# --- files ----------------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    made, features, *_ = make(strange=25)
    made.save(tmp_path / "reference.safetensors")
    again = Reference.load(tmp_path / "reference.safetensors")
    assert (again.names, again.cutoff, again.basis) == (made.names, made.cutoff, made.basis)
    for name in ("mean", "whiten", "features", "labels"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made, name), strict=True)
    np.testing.assert_array_equal(again.unknown(features), made.unknown(features))
    assert [path.name for path in tmp_path.iterdir()] == ["reference.safetensors"]
    written = (tmp_path / "reference.safetensors").read_bytes()
    made.save(tmp_path / "reference.safetensors")
    assert (tmp_path / "reference.safetensors").read_bytes() == written


def change(path, **words):
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        before = json.loads(file.metadata()["reference"])
    kept = {name: word for name, word in (before | words).items() if word is not None}
    save_file(tensors, path, {"reference": json.dumps(kept)})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is damaged"),
        (lambda path: change(path, names=None), "is damaged: 'names'"),
        (lambda path: save_file({"mean": np.zeros(3)}, path, {"reference": "[1"}), "is damaged"),
        (lambda path: save_file({"mean": np.zeros(3)}, path), "is damaged: 'reference'"),
        (lambda path: change(path, format=99), "has format 99; install a newer"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, damage, said):
    path = tmp_path / "reference.safetensors"
    make()[0].save(path)
    damage(path)
    with pytest.raises(UserError, match=f"{path} {said}"):
        Reference.load(path)


def test_names_of_every_kind_are_kept(tmp_path):
    x, labels = blobs(0, 2)
    names = ["a;b.png", "ä/日.jpg", 'q"uote', "new\nline", "a, b", "\\udc80", "", " "]
    rows = np.arange(8)
    made = make_reference(
        x, np.eye(4, dtype=np.float32)[labels], labels, names, labeled=rows, unlabeled=rows[:0], held_out=rows[:0]
    )  # fmt: skip
    made.save(tmp_path / "r.safetensors")
    assert Reference.load(tmp_path / "r.safetensors").names == tuple(names)
    with safe_open(tmp_path / "r.safetensors", "np") as file:
        assert json.loads(file.metadata()["reference"])["names"] == names


# --- suspect labels -------------------------------------------------------------------------------------------


def test_flipped_labels_come_first():
    _, features, labels, probabilities, names = make(labeled=25, free=20)
    few = np.flatnonzero(labels >= 0)
    wrong = few[[3, 30, 55, 80]]
    labels[wrong] = (labels[wrong] + 1) % 4
    made = make_reference(
        features, probabilities, labels, names, labeled=few, unlabeled=np.flatnonzero(labels < 0), held_out=few[:0]
    )  # fmt: skip
    found, instead = suspects(made, features, probabilities, labels, names)
    assert instead.tolist() == [(labels[row] - 1) % 4 for row in found]  # what they were
    assert set(found[:4]) == set(wrong)
    assert len(found) == 4  # and no other


def test_labels_of_digits_that_are_flipped_are_found_among_the_pixels():
    """No network: the pixels are the features. 25 of 250 labels are wrong."""
    x, truth = load_digits(return_X_y=True)
    rows = np.concatenate([np.flatnonzero(truth == k)[:25] for k in range(10)])
    generator = np.random.default_rng(0)
    x, labels = x[rows].astype(np.float32), truth[rows].copy()
    wrong = generator.choice(250, 25, replace=False)
    labels[wrong] = (labels[wrong] + generator.integers(1, 10, 25)) % 10
    names = [str(i) for i in range(250)]
    unsure = np.full((250, 10), 0.1, np.float32)
    every = np.arange(250)
    made = make_reference(x, unsure, labels, names, labeled=every, unlabeled=every[:0], held_out=every[:0])
    found = suspects(made, x, unsure, labels, names).rows
    assert np.isin(found[:25], wrong).mean() >= 0.8
    assert np.isin(found[:10], wrong).all()
    assert np.isin(wrong, found).mean() >= 0.9


def test_sure_predictions_that_the_neighbors_contradict_are_suspect_and_unsure_ones_are_not():
    made, features, labels, probabilities, names = make()
    sure, unsure, right = np.flatnonzero(labels < 0)[[5, 6, 7]]
    probabilities[sure] = np.roll(probabilities[sure], 1)
    probabilities[unsure] = np.roll(probabilities[unsure], 1) * 0.5 + 0.125
    found = suspects(made, features, probabilities, labels, names).rows
    assert sure in found and unsure not in found and right not in found


def test_a_copy_with_another_label_is_suspect_though_a_row_is_no_neighbor_of_itself():
    _, features, labels, probabilities, names = make(labeled=5)
    few = np.flatnonzero(labels >= 0)
    features[few[0]] = features[few[7]]  # one image, labeled 0 and 1
    made = make_reference(
        features, probabilities, labels, names, labeled=few, unlabeled=np.flatnonzero(labels < 0), held_out=few[:0]
    )  # fmt: skip
    assert suspects(made, features, probabilities, labels, names).rows[0] == few[0]


def test_the_only_label_of_a_class_is_no_suspect():
    made, features, labels, probabilities, names = make(labeled=1)
    assert not np.isin(suspects(made, features, probabilities, labels, names).rows, np.flatnonzero(labels >= 0)).any()
