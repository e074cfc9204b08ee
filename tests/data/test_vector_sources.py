"""Vectors from arrays and sheets: the same table, whatever they lie in, and errors that name what is wrong."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from sklearn.datasets import load_wine
from torch.utils.data import TensorDataset

from fewlabels.classify.describe_data import describe_data
from fewlabels.data.sources.open import open_table
from fewlabels.data.sources.vector_files import read_vectors
from fewlabels.errors import UserError

WINE = load_wine()
COLUMNS = tuple(WINE.feature_names)
LABELS = np.where(np.arange(178) % 3 == 0, WINE.target, -1)


def matrix_of(table):
    return table.contents.matrix


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows([header, *rows])
    return path


def wine_sheet(path):
    cells = [[*row, "" if label < 0 else label] for row, label in zip(WINE.data.tolist(), LABELS, strict=True)]
    if path.suffix == ".parquet":
        columns = {name: WINE.data[:, i] for i, name in enumerate(COLUMNS)}
        labels = [None if label < 0 else int(label) for label in LABELS]
        parquet.write_table(pa.table(columns | {"label": labels}), path)
        return path
    return write_csv(path, [*COLUMNS, "label"], cells)


# --- arrays ---------------------------------------------------------------------------------------------


def as_npz(tmp_path):
    np.savez(tmp_path / "wine.npz", x=WINE.data, y=LABELS)
    return tmp_path / "wine.npz"


FORMS = {
    "npz": as_npz,
    "arrays": lambda _: (WINE.data, LABELS),
    "float16 would lose digits, float32 does not": lambda _: (WINE.data.astype(np.float32), LABELS),
    "mapping of tensors": lambda _: {"x": torch.from_numpy(WINE.data), "y": LABELS},
    "lists": lambda _: (WINE.data.tolist(), LABELS),
    "rows": lambda _: ([*WINE.data], LABELS),
    "Dataset": lambda _: [*zip(torch.from_numpy(WINE.data), LABELS.tolist(), strict=True)],
    "csv": lambda folder: wine_sheet(folder / "wine.csv"),
    "tsv": lambda folder: wine_sheet(folder / "wine.tsv"),
    "parquet": lambda folder: wine_sheet(folder / "wine.parquet"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_vectors_and_labels(tmp_path, form):
    data = FORMS[form](tmp_path)
    table = open_table(_Pairs(data) if form == "Dataset" else data)
    assert np.array_equal(matrix_of(table), WINE.data.astype(np.float32))
    assert np.array_equal(table.labels, LABELS)
    assert table.classes == ("0", "1", "2")
    assert table.contents.columns == (COLUMNS if form in ("csv", "tsv", "parquet") else ())


class _Pairs(TensorDataset):
    def __init__(self, pairs):
        super().__init__()
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, place):
        return self.pairs[place]


def test_whole_numbers_are_vectors_too():
    table = open_table((np.arange(12, dtype=np.uint8).reshape(6, 2), np.array([0, 1, -1, -1, -1, -1])))
    assert np.array_equal(matrix_of(table), np.arange(12).reshape(6, 2))


def test_a_test_split_and_classes_are_kept():
    x = np.arange(20.0).reshape(10, 2)
    data = {"x": x[:6], "y": [0, 1, -1, -1, -1, -1], "x_test": x[6:], "y_test": [0, 1, 0, 1], "classes": ["a", "b"]}
    table = open_table({key: np.array(value) for key, value in data.items()})
    assert np.array_equal(matrix_of(table), x)
    assert table.test.tolist() == [False] * 6 + [True] * 4
    assert table.names[6] == "x_test[0]"
    rows = np.array([9, 0])
    assert np.array_equal(matrix_of(table.take(rows).take(np.array([1]))), x[[0]])


def test_more_unlabeled_vectors_are_appended(tmp_path):
    np.savez(tmp_path / "more.npz", x=np.ones((3, 13)))
    for more in (np.ones((3, 13)), tmp_path / "more.npz", [(row, 0) for row in np.ones((3, 13))]):
        table = open_table((WINE.data, LABELS), unlabeled=_Pairs(more) if isinstance(more, list) else more)
        assert len(table) == 181
        assert (matrix_of(table)[178:] == 1).all()
        assert (table.labels[178:] == -1).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ((np.zeros((4, 0)), np.zeros(4, int)), r"shape \[4, 0\]"),
        (([[1.0, 2.0], [1.0]], np.array([0, 1])), "different lengths, 2 in the first and 1 at 1"),
        (([[1.0, "two"], [1.0, 2.0]], np.array([0, 1])), "no numbers|type <U"),
        ((np.zeros((4, 2), complex), np.zeros(4, int)), "complex128"),
        ((np.zeros((4, 2)), np.zeros(3, int)), r"y has shape \[3\]"),
        (
            {"x": np.zeros((2, 3)), "y": np.array([0, 1]), "x_test": np.zeros((1, 4)), "y_test": np.array([0])},
            "x_test holds vectors of 4 numbers where the other rows are vectors of 3 numbers",
        ),
        (
            {"x": np.zeros((2, 3)), "y": np.array([0, 1]), "x_test": np.zeros((1, 8, 8)), "y_test": np.array([0])},
            "x_test holds images where the other rows are vectors of 3 numbers",
        ),
    ],
)
def test_what_is_no_matrix_is_refused(data, said):
    with pytest.raises(UserError, match=said):
        open_table(data)


def test_other_unlabeled_rows_are_refused(tmp_path):
    for more, said in ((np.ones((3, 12)), "vectors of 12 numbers"), (tmp_path, "no file of vectors")):
        with pytest.raises(UserError, match=said):
            open_table((WINE.data, LABELS), unlabeled=more)


# --- sheets ---------------------------------------------------------------------------------------------


def test_a_column_of_lists_splits_groups_and_names(tmp_path):
    x = np.arange(12.0).reshape(6, 2)
    columns = {
        "vector": x.tolist(), "label": ["a", "b", None, "a", "b", ""], "split": ["", "", "train", "test", "test", ""],
        "group": ["g", "", "g", "", "", ""], "name": list("uvwxyz"), "else": list("abcdef"),
    }  # fmt: skip
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)):
        parquet.write_table(pa.table(columns | {"vector": pa.array(x.tolist(), kind)}), tmp_path / "few.parquet")
        table = open_table(tmp_path / "few.parquet")
        assert np.array_equal(matrix_of(table), x)
        assert table.contents.columns == ()
        assert table.names == tuple("uvwxyz")
        assert table.labels.tolist() == [0, 1, -1, 0, 1, -1]
        assert table.test.tolist() == [False, False, False, True, True, False]
        assert table.groups == ("g", "", "g", "", "", "")
        assert "columns that are not read: else" in table.notes


def test_columns_of_no_numbers_are_named_and_left_out(tmp_path):
    rows = [[1, "x", 2.5, "a", ""], [2, "y", "", "b", ""], [3, "z", 1e3, "", ""]]
    table = open_table(write_csv(tmp_path / "few.csv", ["one", "word", "two", "label", "empty"], rows))
    assert table.contents.columns == ("one", "two")
    np.testing.assert_array_equal(matrix_of(table), [[1, 2.5], [2, np.nan], [3, 1000]])
    assert "columns that are not read: word, empty" in table.notes
    assert any("one, two" in note for note in table.notes)
    assert table.names == ("line 2", "line 3", "line 4")


def test_numbers_may_be_written_in_several_ways(tmp_path):
    cells = ["+1", " -2.5 ", "1E3", ".5", "5.", "N/A", "NaN", ""]
    rows = [[cell, f"{k}_0", "c"] for k, cell in enumerate(cells)]
    table = open_table(write_csv(tmp_path / "few.csv", ["a", "id", "label"], rows))
    assert table.contents.columns == ("a",)
    np.testing.assert_array_equal(matrix_of(table)[:, 0], [1, -2.5, 1000, 0.5, 5, np.nan, np.nan, np.nan])


def test_parquet_of_gaps_truth_values_and_whole_numbers(tmp_path):
    columns = {"a": pa.array([1, None, 3]), "b": [True, False, True], "label": ["x", "y", None]}
    parquet.write_table(pa.table(columns), tmp_path / "few.parquet")
    table = open_table(tmp_path / "few.parquet")
    np.testing.assert_array_equal(matrix_of(table), [[1, 1], [np.nan, 0], [3, 1]])
    assert table.names == ("row 1", "row 2", "row 3")


def test_lists_with_a_gap_are_not_a_number(tmp_path):
    columns = {"vector": [[1.0, 2.0], None, [3.0, None]], "label": [0, 1, None]}
    parquet.write_table(pa.table(columns), tmp_path / "few.parquet")
    np.testing.assert_array_equal(
        matrix_of(open_table(tmp_path / "few.parquet")), [[1, 2], [np.nan, np.nan], [3, np.nan]]
    )


@pytest.mark.parametrize(
    ("header", "rows", "said"),
    [
        (["a", "b", "target"], [[1, 2, "x"]], "no column label .rename target to label"),
        (["a", "a", "label"], [[1, 2, "x"]], "several columns called a"),
        (["a", "label", "name"], [[1, "x", "n"], [2, "y", "n"]], "several rows are called n"),
        (["a", "label", "split"], [[1, "x", "toast"]], "split 'toast' in line 2"),
        (["a", "label", "group", "split"], [[1, "x", "g", "train"], [2, "x", "g", "test"]], "both in training and in"),
        (["a", "label"], [[1, "x"], [1]], "line 3 has another number of fields"),
        (["vector", "label"], [["[1, 2]", "x"]], "holds no lists of numbers"),
        (["word", "label"], [["w", "x"]], "no column path"),
        (["photo", "width", "label"], [["a/1.jpg", 12, "x"]], "no column path"),
        (["filename", "width", "label"], [["1", 12, "x"]], "rename filename to path"),
    ],
)
def test_a_wrong_sheet_is_refused(tmp_path, header, rows, said):
    with pytest.raises(UserError, match=said):
        open_table(write_csv(tmp_path / "few.csv", header, rows))


def test_lists_of_different_lengths_are_refused(tmp_path):
    columns = {"vector": [None, [1.0, 2.0], [1.0, 2.0], [1.0]], "label": [0, 1, 1, 0]}
    parquet.write_table(pa.table(columns), tmp_path / "few.parquet")
    with pytest.raises(UserError, match="different lengths, 2 at first and 1 in row 4"):
        open_table(tmp_path / "few.parquet")


# --- without labels -------------------------------------------------------------------------------------


def test_columns_are_found_by_name_in_any_order(tmp_path):
    write_csv(tmp_path / "new.csv", ["b", "extra", "a"], [[2, 9, 1], [4, 9, 3]])
    rows, names = read_vectors(tmp_path / "new.csv", ("a", "b"))
    assert np.array_equal(rows.matrix, [[1, 2], [3, 4]])
    assert names == ["line 2", "line 3"]
    with pytest.raises(UserError, match="has no column c"):
        read_vectors(tmp_path / "new.csv", ("a", "c"))


def test_what_holds_no_vectors_is_refused(tmp_path):
    np.savez(tmp_path / "images.npz", x=np.zeros((2, 8, 8)))
    write_csv(tmp_path / "paths.csv", ["path"], [["a.jpg"]])
    for name, said in {"images.npz": "x of shape", "paths.csv": "names images", "gone.npz": "no such file"}.items():
        with pytest.raises(UserError, match=said):
            read_vectors(tmp_path / name)


def test_data_says_what_the_vectors_are(tmp_path):
    x = WINE.data.copy()
    x[7, 2] = np.inf
    np.savez(tmp_path / "wine.npz", x=x, y=LABELS)
    said = describe_data(str(tmp_path / "wine.npz"))
    assert "178 vectors, 3 classes" in said
    assert "vectors of 13 numbers" in said
    assert "x[7]: an infinite number at 2" in said
