"""Files are replaced whole or not at all."""

import csv
import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fewlabels.errors import UserError
from fewlabels.files import csv_text, plain_cell, read_csv, replace_file, replace_text, safe_cell


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_is_written_with_its_folders(tmp_path):
    replace_text(tmp_path / "a/b/c.txt", "new")
    assert (tmp_path / "a/b/c.txt").read_text() == "new"
    assert names_in(tmp_path / "a/b") == ["c.txt"]


def test_an_old_file_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("old and longer")
    replace_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "no space left"), ValueError("bad"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("old", ["old", None])
def test_a_write_that_raises_leaves_the_old_file_and_no_part(tmp_path, error, old):
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)

    def write(aside):
        aside.write_text("half of the ne")
        raise error

    with pytest.raises(type(error)):
        replace_file(path, write)
    assert {name: (tmp_path / name).read_text() for name in names_in(tmp_path)} == ({"a.txt": "old"} if old else {})


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / ".a.txt.part"
    left.mkdir()
    (left / ".tmpX1").write_text("half of it, by a library that writes aside itself")
    replace_text(tmp_path / "a.txt", "new")
    assert names_in(tmp_path) == ["a.txt"]


def test_a_file_can_be_read_by_whom_the_system_lets_read(tmp_path):
    for name in ("plain", "safe"):
        save = (lambda path: save_file({"a": np.zeros(3)}, path)) if name == "safe" else (lambda path: path.touch())
        replace_file(tmp_path / name, save)
    assert (tmp_path / "safe").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_while_it_is_written_readers_see_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    seen = []
    replace_file(path, lambda aside: (aside.write_text("new"), seen.append(path.read_text())))
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_the_content_is_on_the_disk_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("replace"), replace(old, new)))
    replace_text(tmp_path / "a.txt", "new")
    assert calls == ["fsync", "replace", "fsync"]


def test_text_is_written_as_given(tmp_path):
    replace_text(tmp_path / "a.txt", "ä\r\n漢\n\u2028")
    assert (tmp_path / "a.txt").read_bytes() == "ä\r\n漢\n\u2028".encode()


FORMULAS = ("=", "+", "-", "@", "\t", "\r", "'")
cells = st.text(max_size=8) | st.builds(str.__add__, st.text("=+-@\t\r\n'\",", max_size=3), st.text(max_size=4))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_csv_gives_back_its_cells(rows):
    text = csv_text(("one", "two"), rows)
    read = [[plain_cell(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline=""))]
    assert read == [["one", "two"], *map(list, rows)]


@settings(deadline=None, max_examples=200)
@given(cells)
def test_a_safe_cell_is_no_formula_and_gives_its_text_back(text):
    cell = safe_cell(text)
    assert plain_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell == text or text.startswith(FORMULAS)


def test_a_column_is_read_as_it_was_written(tmp_path):
    names = ["=1+1", "a\rb", "@x", "'quoted", "''", 'say "a,b"', "-3", "two\nlines", "ä漢", ""]
    replace_text(tmp_path / "a.csv", csv_text(("name", "more"), [(name, "=2") for name in names]))
    assert read_csv(tmp_path / "a.csv", "name") == names
    assert read_csv(tmp_path / "a.csv", "more") == ["=2"] * len(names)
    assert read_csv(tmp_path / "a.csv", "none") == [""] * len(names)


@pytest.mark.parametrize("content", [b"", b"name,more\na,b\nc\n", b"name\n\xff\n"])
def test_what_is_no_written_column_is_refused(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.csv cannot be read"):
        read_csv(tmp_path / "a.csv", "name")
