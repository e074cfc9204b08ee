"""Datasets of Hugging Face, saved or in memory, become one table; images stay where they lie."""

import io
import json
import pickle
import socket
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import fewlabels
from fewlabels.data.sources.hub import from_hub, from_hub_folder, is_hub_folder, is_hub_object
from fewlabels.data.sources.open import open_table
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm, decode

hub = pytest.importorskip("datasets", reason="the extra hub is not installed")

X = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        pytest.fail("a network access")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def make(labels=(0, 1, 1, 0), classes=("cat", "dog"), label="label", image="image", **columns):
    features = {image: hub.Image()}
    data = {image: [png(X[i % 4]) for i in range(len(labels))]}
    if label:
        data[label] = list(labels)
        features[label] = hub.ClassLabel(names=list(classes)) if classes else hub.Value("int64")
    for name, (feature, values) in columns.items():
        data[name], features[name] = values, feature
    return hub.Dataset.from_dict(data, features=hub.Features(features))


def pixels_of(table):
    return np.stack([decode(image, ImageForm(3, (5, 6))) for image in table.contents])


def refused(data, *said):
    with pytest.raises(UserError) as error:
        from_hub(data)
    for part in said:
        assert part in str(error.value)


def test_a_saved_dataset_gives_its_pixels_and_labels(tmp_path):
    make((0, -1, 1, None)).save_to_disk(tmp_path / "pets")
    table = open_table(tmp_path / "pets")
    assert (table.name, table.classes) == ("pets", ("cat", "dog"))
    assert table.labels.tolist() == [0, -1, 1, -1]
    assert table.names == tuple(f"train[{i}]" for i in range(4))
    assert np.array_equal(pixels_of(table), X)


def test_saved_splits_become_the_tables(tmp_path):
    splits = {"train": make((0, 1)), "test": make((1, 0)), "unsupervised": make((-1, -1, -1))}
    hub.DatasetDict(splits).save_to_disk(tmp_path)
    table = open_table(str(tmp_path))
    assert table.labels.tolist() == [0, 1, 1, 0, -1, -1, -1]
    assert np.flatnonzero(table.test).tolist() == [2, 3]
    assert table.names[-1] == "unsupervised[2]"
    assert np.array_equal(pixels_of(table), X[[0, 1, 0, 1, 0, 1, 2]])


def test_a_dataset_in_memory_equals_the_saved_one(tmp_path):
    data = hub.DatasetDict(train=make())
    data.save_to_disk(tmp_path)
    assert open_table(data).fingerprint() == open_table(tmp_path).fingerprint()


def test_a_chosen_and_shuffled_dataset_keeps_images_and_labels_together():
    data = make((0, 1, 2, 3), "abcd").shuffle(seed=1).select([2, 0, 3])
    table = from_hub(data)
    assert np.array_equal(pixels_of(table), X[table.labels])


def test_a_format_or_transform_of_the_user_changes_nothing():
    for data in (make().with_format("torch"), make().with_transform(lambda rows: {"image": [0] * len(rows["image"])})):
        assert np.array_equal(pixels_of(from_hub(data)), X)


@pytest.mark.parametrize(
    ("others", "test", "said"),
    [
        (["validation"], "validation", "serve as the test split"),
        (
            ["val", "test"],
            "test",
            "are left out, since there is a test split and nothing is chosen by them yet: 1 (val,",
        ),
        (["extra"], None, "extra is left out"),
    ],
)
def test_other_splits(others, test, said):
    table = from_hub(hub.DatasetDict(train=make(), **{name: make((0, 1)) for name in others}))
    assert [name for name, is_test in zip(table.names, table.test, strict=True) if is_test] == (
        [f"{test}[0]", f"{test}[1]"] if test else []
    )
    assert any(said in note for note in table.notes)


def test_a_test_split_with_hidden_labels_gives_way_to_validation():
    table = from_hub(hub.DatasetDict(train=make(), validation=make((0, 1)), test=make((-1, -1))))
    assert [name for name, is_test in zip(table.names, table.test, strict=True) if is_test] == [
        "validation[0]",
        "validation[1]",
    ]
    assert any("test splits without labels" in note and "test, rows: 2" in note for note in table.notes)


def test_labels_of_an_unlabeled_split_are_not_used():
    table = from_hub(hub.DatasetDict(train=make(), unlabeled=make((0, 1)), unsupervised=make((0, 0), label=None)))
    assert table.labels.tolist() == [0, 1, 1, 0] + [-1] * 4
    assert any("not used" in note for note in table.notes)


def test_classes_in_another_order_are_matched_by_name():
    table = from_hub(hub.DatasetDict(train=make((0, 1)), test=make((0, 1), ("dog", "cat"))))
    assert table.labels.tolist() == [0, 1, 1, 0]


def test_a_class_of_one_split_alone_is_refused():
    refused(hub.DatasetDict(train=make(), test=make((0, 1), ("cat", "wolf"))), "wolf", "test[1]", "cat, dog")


def test_numbers_and_names_without_classes():
    assert from_hub(make((0, 2, 1, -1), None, "labels")).classes == ("0", "1", "2")
    data = make(label=None, label_=(hub.Value("string"), ["b", "a", None, "b"])).rename_column("label_", "label")
    table = from_hub(data)
    assert (table.classes, table.labels.tolist()) == (("a", "b"), [1, 0, -1, 1])


def test_the_only_class_label_is_the_label():
    table = from_hub(make(label="species", image="photo", size=(hub.Value("int64"), [1, 2, 3, 4])))
    assert table.classes == ("cat", "dog")


def test_wrong_columns_are_listed():
    numbers = (hub.Value("int64"), [1, 2, 3, 4])
    refused(
        make(image="a", b=(hub.Image(), [png(X[0])] * 4)),
        "not one column of feature Image, but 2",
        "a (Image)",
        "b (Image)",
    )
    refused(hub.Dataset.from_dict({"x": [1], "label": [0]}), "not one column of feature Image, but 0", "x (int64)")
    refused(make(label=None, size=numbers), "no column named label or labels", "size (int64)", "rename_column")
    refused(make(label="fine", coarse=(hub.ClassLabel(names=["a"]), [0] * 4)), "2 of feature ClassLabel")
    floats = (hub.Value("float32"), [0.5] * 4)
    refused(make(label=None, share=floats).rename_column("share", "label"), "float32", "whole numbers")


def test_splits_without_training_rows_and_streams_are_refused():
    refused(hub.DatasetDict(test=make()), "splits test", "train")
    refused(hub.DatasetDict(full=make()), "splits full", "train")
    refused(hub.DatasetDict(), "splits none")
    refused(make().to_iterable_dataset(), "IterableDataset", "streaming")


def test_images_are_read_when_they_are_asked_for(tmp_path):
    Image.fromarray(X[1]).save(tmp_path / "b.png")
    images = [png(X[0]), {"bytes": None, "path": str(tmp_path / "b.png")}, None, png(X[3])]
    data = hub.Dataset.from_dict(
        {"image": images, "label": [0, 1, 0, 1]}, hub.Features({"image": hub.Image(), "label": hub.Value("int64")})
    )
    images = from_hub(data).contents
    assert not isinstance(images, list)
    assert [type(image) for image in images[:2]] == [bytes, type(tmp_path)]
    assert np.array_equal(decode(images[1], ImageForm(3, (5, 6))), X[1])
    with pytest.raises(ValueError, match="empty"):
        decode(images[2], ImageForm(3, (5, 6)))
    again = pickle.loads(pickle.dumps(images))
    assert (again[0], again[-1]) == (images[0], images[3])
    with pytest.raises(IndexError):
        images[4]


def test_an_address_of_the_network_is_not_followed():
    image = {"bytes": None, "path": "https://example.com/a.png"}
    data = hub.Dataset.from_dict(
        {"image": [image], "label": [0]}, hub.Features({"image": hub.Image(), "label": hub.Value("int64")})
    )
    with pytest.raises(FileNotFoundError):
        decode(from_hub(data).contents[0], ImageForm(3, (5, 6)))


@pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow"])
def test_a_damaged_folder_is_named(tmp_path, name):
    make().save_to_disk(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with pytest.raises(UserError, match="cannot be read as a saved dataset"):
        from_hub_folder(tmp_path)


def test_saved_folders_are_recognized_without_the_package(tmp_path, monkeypatch):
    hub.DatasetDict(train=make()).save_to_disk(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert is_hub_folder(tmp_path)
    assert is_hub_folder(tmp_path / "train")
    assert not is_hub_folder(tmp_path.parent)
    with pytest.raises(UserError, match=r"pip install fewlabels\[hub\]"):
        open_table(tmp_path)


def test_other_objects_are_no_datasets_of_the_hub():
    class Mine(torch.utils.data.Dataset):
        __module__ = "datasets.mine"  # a module of the user's own

    assert not is_hub_object(Mine())
    assert not is_hub_object({})
    assert is_hub_object(make())
    assert is_hub_object(hub.DatasetDict())


def test_a_splits_file_that_is_no_list_is_refused(tmp_path):
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    with pytest.raises(UserError, match="cannot be read"):
        open_table(tmp_path)


def test_blank_labels_are_unlabeled():
    def text(*labels):
        data = make(labels, label=None, other=(hub.Value("string"), list(labels)))
        return data.rename_column("other", "label")

    splits = hub.DatasetDict(train=text("b", "", " ", "a"), validation=text("a", "b"), test=text("", ""))
    table = from_hub(splits)
    assert (table.classes, table.labels.tolist()) == (("a", "b"), [1, -1, -1, 0, 0, 1])
    assert table.test.tolist() == [False] * 4 + [True] * 2
    assert any("validation splits that serve as the test split: 1 (validation, rows: 2)" in n for n in table.notes)


def test_images_are_not_read_to_join_others(tmp_path, monkeypatch):
    def read(*_):
        pytest.fail("an image was read")

    table = from_hub(make())
    Image.fromarray(X[0]).save(tmp_path / "u.png")
    monkeypatch.setattr(type(table.contents), "__getitem__", read)
    assert len(open_table(table, tmp_path)) == 5
    assert len(open_table(open_table(table.take(np.arange(2)), X[:1]), tmp_path)) == 4


def test_control_characters_are_written_out():
    table = from_hub(hub.DatasetDict(train=make(classes=("c\x1bat", "dog")), **{"no\x1bne": make()}))
    assert table.classes == ("c\\x1bat", "dog")
    assert not any("\x1b" in note for note in table.notes)


@pytest.fixture(scope="module")
def digit_files(tmp_path_factory):
    """Real image files as `imagefolder` reads them: 60 to train and 20 to test, of three classes."""
    root = tmp_path_factory.mktemp("imagefolder")
    digits = load_digits(n_class=3)
    for row, (pixels, label) in enumerate(zip(digits.images[:80], digits.target, strict=False)):
        path = root / ("test" if row >= 60 else "train") / f"class {label}" / f"{row:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(pixels * 15)).save(path)
    return root


def loaded(tmp_path, kind, **where):
    hub.disable_progress_bars()
    return hub.load_dataset(kind, cache_dir=str(tmp_path / "cache"), **where)


def train_on(data, out):
    options = {
        "method": "fixmatch",
        "labels_per_class": 4,
        "steps": 5,
        "baseline": False,
        "device": "cpu",
        "threads": 1,
    }
    return fewlabels.fit(data, out=out, **options).summary


def test_a_folder_of_images_loaded_by_datasets_is_trained_on(digit_files, tmp_path):
    data = loaded(tmp_path, "imagefolder", data_dir=str(digit_files))
    summary = train_on(data, tmp_path / "run")
    assert (summary["labeled"], summary["unlabeled"], summary["test"]) == (12, 48, 20)
    given, there = open_table(data), open_table(digit_files)
    assert given.classes == there.classes == ("class 0", "class 1", "class 2")

    def seen(table):
        pixels = [decode(image, ImageForm(1, (8, 8))).tobytes() for image in table.contents]
        return sorted(zip(pixels, table.labels.tolist(), table.test.tolist(), strict=True))

    assert seen(given) == seen(there)


def test_parquet_of_datasets_is_trained_on(digit_files, tmp_path):
    data = loaded(tmp_path, "imagefolder", data_dir=str(digit_files))
    files = {name: str(tmp_path / f"{name}.parquet") for name in data}
    for name, file in files.items():
        data[name].to_parquet(file)
    again = loaded(tmp_path, "parquet", data_files=files)
    assert open_table(again).fingerprint() == open_table(data).fingerprint()
    assert train_on(again, tmp_path / "run")["test"] == 20
    assert train_on(again["train"], tmp_path / "of one split")["test"] == 11  # a fifth of each class


def test_parquet_that_does_not_say_it_holds_images_is_mended_as_the_message_says(digit_files, tmp_path):
    data = loaded(tmp_path, "imagefolder", data_dir=str(digit_files / "train"))["train"]
    data.to_parquet(tmp_path / "a.parquet")
    plain = pq.read_table(tmp_path / "a.parquet").replace_schema_metadata(None)
    pq.write_table(plain, tmp_path / "a.parquet")
    again = loaded(tmp_path, "parquet", data_files=str(tmp_path / "a.parquet"))
    refused(again, 'dataset.cast_column("image", Image())')
    table = from_hub(again.cast_column("image", hub.Image()))
    assert table.classes == ("0", "1", "2") and len(table) == 60


def test_images_loaded_without_labels_are_the_unlabeled_ones(digit_files, tmp_path):
    data = loaded(tmp_path, "imagefolder", data_dir=str(digit_files))
    data["unlabeled"] = loaded(tmp_path, "imagefolder", data_dir=str(digit_files / "test"), drop_labels=True)["train"]
    table = open_table(data)
    assert (len(table.labeled_rows), len(table.unlabeled_rows), len(table.test_rows)) == (60, 20, 20)
