"""Sources: a name, an .npz, a folder, arrays and Datasets become one table; what is wrong is said, all at once."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from fewlabels.classify.describe_data import describe_data
from fewlabels.data.sources.open import open_table
from fewlabels.data.splits import draw_split
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm, decode

X = np.random.default_rng(0).integers(0, 256, (4, 5, 6), np.uint8)
Y = np.array([0, 1, 2, -1])


def npz(path, **given):
    np.savez(path, **given)
    return path


def photos(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(X[0]).save(folder / name)
    return folder


class Items(Dataset):
    def __init__(self, *items, classes=None):
        self.items = items
        if classes is not None:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


def pixels_of(table):
    return np.stack([decode(image, ImageForm(1, (5, 6)))[..., 0] for image in table.contents])


def refused(data, *said, unlabeled=None):
    """Check that this is refused, and that the message holds each of these."""
    with pytest.raises(UserError) as error:
        open_table(data, unlabeled)
    for part in said:
        assert part in str(error.value)


# --- names ---


def test_digits_are_1797_labeled_images_of_8x8():
    table = open_table("digits")
    assert (table.name, len(table), table.classes) == ("digits", 1797, tuple("0123456789"))
    assert len(table.labeled_rows) == 1797
    assert np.bincount(table.labels).min() == 174
    assert table.contents[0].shape == (8, 8)
    assert max(image.max() for image in table.contents) == 255


def test_a_table_passes_as_it_is():
    table = open_table((X, Y))
    assert open_table(table) is table


def test_a_misspelled_name_gets_the_nearest(tmp_path):
    refused("digit", "no data at 'digit'", "Did you mean digits")
    photos(tmp_path, "photos/cat/a.png")
    refused(
        str(tmp_path / "fotos"),
        f"Did you mean {tmp_path / 'photos'}?",
        "digits",
        "a folder or a file that ends in .npz, .csv, .tsv, .parquet",
    )


def test_a_name_like_nothing_gets_no_guess(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        open_table("qqqqqqqq")
    assert "Did you mean" not in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    refused(photos(tmp_path, "a.png") / "a.png", "a.png is not a folder or a file that ends in .npz, .csv", "digits")


@pytest.mark.parametrize("data", [5, [X, Y], (X, Y, X), None])
def test_data_of_another_type_is_refused_with_the_allowed_ones(data):
    refused(data, type(data).__name__, "(x, y)", "Dataset")


# --- arrays and npz ---


def test_arrays_keep_order_labels_and_pixels():
    table = open_table((X, Y))
    assert table.labels.tolist() == [0, 1, 2, -1]
    assert table.labels.dtype == np.int64
    assert table.classes == ("0", "1", "2")
    assert (table.labeled_rows.tolist(), table.unlabeled_rows.tolist(), table.test_rows.tolist()) == (
        [0, 1, 2],
        [3],
        [],
    )
    assert table.truth.tolist() == [-1] * 4
    assert np.array_equal(pixels_of(table), X)


@pytest.mark.parametrize("x", [X / 255, X[:, None], X[..., None], torch.from_numpy(X), list(X), X.astype(np.int64)])
@pytest.mark.parametrize("y", [Y, torch.from_numpy(Y), Y.tolist(), Y.astype(np.int8)], ids=lambda y: type(y).__name__)
def test_arrays_of_all_kinds_give_the_same_table(x, y):
    table = open_table((x, y))
    assert np.array_equal(pixels_of(table), X)
    assert np.array_equal(table.labels, Y)


def test_an_npz_equals_its_arrays(tmp_path):
    table = open_table(npz(tmp_path / "few.npz", x=X, y=Y))
    assert table.name == "few"
    assert np.array_equal(pixels_of(table), X)
    assert np.array_equal(table.labels, Y)


def test_an_npz_brings_its_test_split_and_class_names(tmp_path):
    path = npz(tmp_path / "a.npz", x=X, y=Y, x_test=X[:2], y_test=[2, 0], classes=["a", "b", "c"])
    table = open_table(str(path))
    assert table.classes == ("a", "b", "c")
    assert table.test.tolist() == [False] * 4 + [True] * 2
    assert table.labels.tolist() == [0, 1, 2, -1, 2, 0]
    assert np.array_equal(pixels_of(table), np.concatenate([X, X[:2]]))
    assert table.names == ("x[0]", "x[1]", "x[2]", "x[3]", "x_test[0]", "x_test[1]")


def test_pickled_objects_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = npz(tmp_path / "a.npz", x=np.array([Trap()], dtype=object), y=[0])
    refused(path, "a.npz", "plain arrays", "run code")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "bit", "npy"])
def test_a_damaged_npz_is_named(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=X, y=Y)
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 255
    np.save(tmp_path / "a.npy", X)
    damaged = {"cut": data[:100], "text": b"hello", "empty": b"", "bit": data, "npy": (tmp_path / "a.npy").read_bytes()}
    path.write_bytes(damaged[damage])
    refused(path, f"{path} is no .npz of plain arrays")


WRONG = {
    "missing": ({"X": X}, ["x is missing; y is missing; 'X' is none of x, y, x_test, y_test, classes"]),
    "half a test": ({"x": X, "y": Y, "x_test": X}, ["x_test comes without y_test"]),
    "other half": ({"x": X, "y": Y, "y_test": Y}, ["y_test comes without x_test"]),
    "lengths": (
        {"x": X, "y": Y[:3]},
        ["y has shape [3]", "the number of rows is 4", "give [4] whole numbers, -1 for unlabeled"],
    ),
    "no labels": ({"x": X, "y": None}, ["y has shape []"]),
    "columns": ({"x": X, "y": np.eye(4, dtype=int)}, ["y has shape [4, 4]"]),
    "floats": ({"x": X, "y": Y / 1.0}, ["type float64", "whole numbers"]),
    "text": ({"x": X, "y": list("abca")}, ["type <U1", "whole numbers"]),
    "test lengths": (
        {"x": X, "y": Y, "x_test": X, "y_test": [0]},
        ["y_test has shape [1]", "the number of rows is 4"],
    ),
    "too high": (
        {"x": X, "y": Y, "classes": ["a", "b"]},
        ["labels run from -1 to 2 for 2 classes; give 0 to 1, and -1"],
    ),
    "too low": ({"x": X, "y": [0, 1, -2, 1]}, ["labels run from -2 to 1", "-1 for unlabeled"]),
    "test too high": (
        {"x": X, "y": [0, 1, 0, 1], "x_test": X[:1], "y_test": [2], "classes": "ab"},
        ["to 2 for 2 classes"],
    ),
    "unlabeled test": ({"x": X, "y": Y, "x_test": X, "y_test": Y}, ["test rows without a label: 1"]),
    "no images": ({"x": X[0, 0], "y": Y}, ["shape [6]", "[n, H, W]"]),
    "no channels": ({"x": np.zeros((4, 5, 5, 5)), "y": Y}, ["shape [4, 5, 5, 5]", "fewer of them than pixels"]),
    "normalized": ({"x": X - 128.0, "y": Y}, ["from -1", "undo a normalization"]),
    "one image": ({"x": Image.fromarray(X[0]), "y": [0]}, ["give [image]"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays_are_refused_with_what_was_given_and_what_is_allowed(name):
    arrays, said = WRONG[name]
    refused(arrays, *said)


def test_two_classes_of_one_name_are_refused():
    refused({"x": X, "y": Y, "classes": ["a", "b", "a"]}, "a")


def test_class_names_in_bytes_are_text():
    table = open_table({"x": X[:2], "y": [0, 1], "classes": np.array([b"cat", b"dog"])})
    assert table.classes == ("cat", "dog")


@pytest.mark.parametrize("arrays", [(None, Y), (X, [[0], [1, 2], 0, 1])], ids=["no x", "ragged y"])
def test_arrays_that_are_none_are_refused(arrays):
    refused(arrays)


def test_no_rows_are_refused():
    with pytest.raises(UserError, match="no rows"):
        draw_split(open_table((X[:0], Y[:0])), None, 0)


# --- torch Datasets ---


def test_a_dataset_gives_its_images_and_labels():
    table = open_table(TensorDataset(torch.from_numpy(X)[:, None] / 255, torch.from_numpy(Y)))
    assert np.array_equal(pixels_of(table), X)
    assert np.array_equal(table.labels, Y)
    assert table.name == "dataset"


def test_a_dataset_of_pil_images_with_class_names():
    items = [(Image.fromarray(x), int(y)) for x, y in zip(X, Y, strict=True)]
    table = open_table(Items(*items, classes=["a", "b", "c", "d"]))
    assert np.array_equal(pixels_of(table), X)
    assert table.unlabeled_rows.tolist() == [3]
    assert table.classes == ("a", "b", "c", "d")


def test_a_dataset_of_other_items_is_refused():
    refused(Items(X[0]), "(image, label)", "-1")
    refused(Items((X[0], 1, 2)), "(image, label)")


def test_a_dataset_without_a_length_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield X[0], 0

    refused(Stream(), "__len__")


def test_labels_of_a_dataset_outside_its_classes_are_refused():
    refused(Items((X[0], 3), classes=["a", "b"]), "labels run from 3 to 3 for 2 classes")


@pytest.mark.parametrize("items", [(), ((X[0], None),), ((X[0], "cat"),), ((X[0], torch.eye(3)[0]),)], ids=str)
def test_datasets_whose_labels_are_no_whole_numbers_are_refused(items):
    refused(Items(*items))


# --- more images without labels ---


def more_as_folder(folder):
    return photos(folder / "more", "b/u.png", "v.png")


MORE = {
    "folder": lambda folder: more_as_folder(folder),
    "folder name": lambda folder: str(more_as_folder(folder)),
    "array": lambda _: X[:2],
    "tensor": lambda _: torch.from_numpy(X[:2]),
    "list": lambda _: [X[0], Image.fromarray(X[1])],
    "dataset": lambda _: Items(X[0], X[1]),
    "dataset with labels": lambda _: Items((X[0], 1), (X[1], 0)),
}


@pytest.mark.parametrize("kind", MORE)
def test_more_images_come_after_the_data_without_labels(tmp_path, kind):
    data = {"x": X, "y": [0, 1, 0, 1], "x_test": X[:1], "y_test": [1]}
    table = open_table(data, MORE[kind](tmp_path))
    assert table.labels.tolist() == [0, 1, 0, 1, 1, -1, -1]
    assert table.test.tolist() == [False] * 4 + [True, False, False]
    assert table.truth.tolist() == [-1] * 7
    assert len(table.contents) == len(set(table.names)) == 7
    assert np.array_equal(decode(table.contents[5], ImageForm(1, (5, 6)))[..., 0], X[0])


def test_a_folder_without_images_is_refused(tmp_path):
    refused((X, Y), f"no images in {tmp_path}", "unlabeled", unlabeled=tmp_path)


def test_names_are_unique_where_the_unlabeled_folder_lies_within_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(photos(tmp_path, "cat/a.png", "dog/a.png", "unlabeled/u.png"))
    table = open_table(".", "unlabeled")
    assert len(set(table.names)) == len(table)


def test_names_are_unique_where_images_are_added_twice():
    table = open_table(open_table((X, Y), X), X)
    assert len(set(table.names)) == len(table)


# --- describe ---


def test_a_data_set_is_described_by_class_split_and_size(tmp_path):
    path = npz(tmp_path / "few.npz", x=X, y=Y, x_test=X[:2], y_test=[2, 2], classes=["ant", "bee", "cat"])
    lines = [line.split() for line in describe_data(str(path)).splitlines()]
    assert lines[0] == ["few:", "6", "images,", "3", "classes"]
    assert lines[1:6] == [
        ["class", "train", "test"],
        ["ant", "1", "0"],
        ["bee", "1", "0"],
        ["cat", "1", "2"],
        ["unlabeled", "1", "0"],
    ]
    assert lines[6][-2:] == ["5x6x1", "(6)"]


def test_unreadable_images_and_other_sizes_are_counted(tmp_path):
    photos(tmp_path, *(f"cat/{k}.png" for k in range(2)))
    (tmp_path / "cat/broken.png").write_text("no image")
    for side in range(1, 6):
        Image.new("RGB", (side, side)).save(tmp_path / f"cat/side{side}.png")
    *_, sizes, aside, broken = describe_data(str(tmp_path)).splitlines()
    assert "sizes of 8 images" in sizes
    assert "5x6x1 (2)" in sizes
    assert sizes.endswith("and 1 other sizes")
    assert aside == "files set aside: 1"
    assert broken == "  cat/broken.png: not an image in a format that is read"


def test_a_data_set_without_any_label_is_described(tmp_path):
    path = npz(tmp_path / "few.npz", x=X, y=np.full(4, -1))
    assert "unlabeled" in describe_data(str(path))


def test_opening_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_table((X, Y), X)


def test_paths_are_only_resolved_to_join_files(tmp_path, monkeypatch):
    photos(tmp_path, "data/cat/a.png", "data/dog/a.png", "data/unlabeled/u.png")
    table = open_table(tmp_path / "data")
    assert len(open_table(table, tmp_path / "data/unlabeled")) == 3

    def resolve(*_):
        pytest.fail("a path was resolved")

    monkeypatch.setattr(type(tmp_path), "resolve", resolve)
    assert len(open_table(table, X)) == 7


def test_only_the_last_part_of_a_path_is_compared_for_a_suggestion(tmp_path):
    photos(tmp_path, "photos/cat/a.png")
    with pytest.raises(UserError) as error:
        open_table(str(tmp_path / "qqqqq"))
    assert "Did you mean" not in str(error.value)


def test_control_characters_of_class_names_are_written_out():
    assert open_table({"x": X, "y": Y, "classes": ["a", "b\x1b[2J", "c"]}).classes == ("a", "b\\x1b[2J", "c")
