"""Copies of images in folders by what they are said to be."""

import errno
import os
import shutil

import pytest

from fewlabels.classify import sort
from fewlabels.classify.sort import RECORD, Sorter, folder_names
from fewlabels.errors import UserError

DECISIONS = ("unsure", "unknown", "cat", "dog")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/model.safetensors").write_bytes(b"parameters")
    return tmp_path / "run"


@pytest.fixture
def sorter(run, tmp_path):
    return lambda least=0.5: Sorter(tmp_path / "sorted", DECISIONS, run, least)


def file(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD
    }


def test_images_are_copied_under_their_path_and_keep_their_time(sorter, tmp_path):
    image = file(tmp_path / "photos/a/1.jpg", "one")
    os.utime(image, (1e9, 1e9))
    made = sorter()
    made.copy(image, image.relative_to(tmp_path / "photos"), "dog")
    assert files(tmp_path / "sorted") == {"dog/a/1.jpg": "one"}
    assert (tmp_path / "sorted/dog/a/1.jpg").stat().st_mtime == 1e9
    assert image.read_text() == "one" and (made.copied, made.there) == (1, 0)


def test_files_of_one_name_do_not_overwrite_each_other_and_the_same_command_goes_on(sorter, tmp_path):
    images = [file(tmp_path / f"{place}/1.jpg", text) for place, text in zip("abcd", ("x", "y", "x", "z"), strict=True)]
    expected = {"cat/1.jpg": "mine", "cat/1-2.jpg": "x", "cat/1-3.jpg": "y", "cat/1-4.jpg": "x", "cat/1-5.jpg": "z"}
    sorter()
    file(tmp_path / "sorted/cat/1.jpg", "mine")
    for count in (2, 4, 4):
        made = sorter()
        for image in images[:count]:
            made.copy(image, image.relative_to(image.parent), "cat")
    assert files(tmp_path / "sorted") == expected
    assert (made.copied, made.there) == (0, 4)


def test_a_folder_of_other_things_is_not_sorted_into(sorter, tmp_path):
    """Such as the folder of labeled images: guesses among them would become labels."""
    file(tmp_path / "sorted/cat/1.jpg", "labeled")
    with pytest.raises(UserError, match="sorted is there, and was not sorted into"):
        sorter()
    assert files(tmp_path / "sorted") == {"cat/1.jpg": "labeled"}


def test_another_model_or_confidence_needs_another_folder(sorter, run, tmp_path):
    sorter(0.5)
    with pytest.raises(UserError, match="with another --min-confidence"):
        sorter(0.6)
    (run / "model.safetensors").write_bytes(b"others")
    with pytest.raises(UserError, match="by another run"):
        sorter(0.5)


@pytest.mark.parametrize("half", [True, False])
def test_a_full_disk_leaves_nothing_half_copied(sorter, tmp_path, monkeypatch, half):
    def full(source, target):
        if half:
            target.write_text("on")
        raise OSError(errno.ENOSPC, "No space left on device")

    image = file(tmp_path / "1.jpg", "one")
    made = sorter()
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match=r"No space left on device: .*cat/1\.jpg"):
        made.copy(image, image.relative_to(tmp_path), "cat")
    assert files(tmp_path / "sorted") == {}
    monkeypatch.undo()
    made = sorter()
    made.copy(image, image.relative_to(tmp_path), "cat")
    assert files(tmp_path / "sorted") == {"cat/1.jpg": "one"}


def test_a_system_without_times_copies_all_the_same(sorter, tmp_path, monkeypatch):
    def refused(source, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(sort.shutil, "copystat", refused)
    image = file(tmp_path / "1.jpg", "one")
    sorter().copy(image, image.relative_to(tmp_path), "cat")
    assert files(tmp_path / "sorted") == {"cat/1.jpg": "one"}


@pytest.mark.parametrize(
    ("decision", "name"),
    [
        ("cat", "cat"),
        ("long haired cat", "long haired cat"),
        ("a/b", "a_b"),
        ("../up", "_.._up"),
        ("..", "_"),
        ("", "_"),
        (".hidden", "_.hidden"),
        ("C:\\x", "C__x"),
        ("what?", "what_"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        ("dot.", "dot"),
        ("line\nbreak", "line_break"),
        ("x" * 300, "x" * 100),
        ("日本", "日本"),
    ],
)
def test_every_decision_gets_a_name_that_every_system_allows(decision, name):
    assert folder_names([decision]) == [name]


def test_names_of_folders_differ_by_more_than_case():
    assert folder_names(["unsure", "Cat", "cat", "a/b", "a:b", "Unsure"]) == [
        "unsure", "Cat", "cat-2", "a_b", "a_b-2", "Unsure-2",
    ]  # fmt: skip
