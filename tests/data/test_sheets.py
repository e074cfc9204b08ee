"""Sheets: .csv, .tsv and .parquet become one table; labels are never guessed; what is wrong is said with its line."""

import csv
import io
import math
import ntpath
import os
import re

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewlabels.data.sources import paths
from fewlabels.data.sources.cells import read_sheet
from fewlabels.data.sources.open import open_table
from fewlabels.data.sources.paths import Files
from fewlabels.data.sources.sheets import from_sheet
from fewlabels.errors import UserError
from tests.data.tables import noted, rows_of

IMAGES = [f"{letter}.jpg" for letter in "abcdefgh"]


@pytest.fixture
def folder(tmp_path):
    """Give a folder with images a.jpg to h.jpg and deep/x.jpg."""
    photos = tmp_path / "photos"
    for name in [*IMAGES, "deep/x.jpg"]:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).touch()
    return photos


def sheet(folder, *lines, name="few.csv", encoding="utf-8", end="\n"):
    (folder / name).write_bytes(end.join([*lines, ""]).encode(encoding))
    return folder / name


def labeled(folder, *labels, name="few.csv"):
    """Write a sheet with these labels for a.jpg, b.jpg, ..."""
    lines = [f"{image},{label}" for image, label in zip(IMAGES, labels, strict=False)]
    return sheet(folder, "path,label", *lines, name=name)


def columns(folder, **given):
    parquet.write_table(pa.table(given), folder / "few.parquet")
    return folder / "few.parquet"


def refused(path, *said, unsaid=()):
    """Check that this is refused, and that the message holds each of these."""
    with pytest.raises(UserError) as error:
        from_sheet(path)
    for part in said:
        assert part in str(error.value)
    for part in unsaid:
        assert part not in str(error.value)


# --- forms ---

FEW = ["path,label", "a.jpg,cat", "b.jpg,dog", "deep/x.jpg,", "c.jpg,cat"]


def is_few(table, folder):
    assert table.name == "few"
    assert table.classes == ("cat", "dog")
    assert rows_of(table) == {
        "a.jpg": ("cat", False),
        "b.jpg": ("dog", False),
        "deep/x.jpg": ("", False),
        "c.jpg": ("cat", False),
    }
    assert table.contents == [folder / name for name in table.names]
    assert (table.notes, dict(table.quarantine), table.groups) == ((), {}, ())
    return True


@pytest.mark.parametrize("name", ["few.csv", "few.tsv", "few.CSV"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\r")])
def test_text_of_all_usual_forms_gives_the_same_table(folder, name, separator, encoding, end):
    lines = [line.replace(",", separator) for line in FEW]
    assert is_few(open_table(sheet(folder, *lines, name=name, encoding=encoding, end=end)), folder)


def test_quotes_blank_lines_and_the_case_of_columns_do_not_matter(folder):
    path = sheet(folder, "", '"Path", LABEL ', "a.jpg, cat", "", '"b.jpg","dog"', "deep/x.jpg,", "  ", "c.jpg,cat ")
    assert is_few(from_sheet(path), folder)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
def test_parquet_gives_the_same_table(folder, kind):
    names = pa.array(["a.jpg", "b.jpg", "deep/x.jpg", "c.jpg"], pa.string()).cast(kind)
    path = columns(folder, path=names, label=pa.array(["cat", "dog", None, "cat"], pa.string()).cast(kind))
    assert is_few(open_table(str(path)), folder)


def test_separators_and_new_lines_may_lie_in_quotes(folder):
    (folder / "x,y.jpg").touch()
    table = from_sheet(sheet(folder, "path,label", '"x,y.jpg","big\ncat"', 'a.jpg,"a ""dog"""', "gone.jpg,"))
    assert rows_of(table) == {"x,y.jpg": ("big\ncat", False), "a.jpg": ('a "dog"', False)}


def test_further_columns_are_noted(folder):
    noted(from_sheet(sheet(folder, ",path,label,age", "0,a.jpg,cat,3")), "not read", "(no name), age")
    noted(from_sheet(columns(folder, path=["a.jpg"], age=[3], label=["cat"])), "not read", "age")


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("filename,label", "no column path (rename filename to path?); found are filename, label"),
        ("path,Target", "no column label (rename Target to label?); found are path, Target"),
        ("path,labels", "no column label (rename labels to label?)"),
        ("path,zzz", "no column label; found are path, zzz"),
        ("image;class", "rename class to label"),
        ("image;class", "rename image to path"),
        ("a.jpg,cat", "found are a.jpg, cat"),
        ("path,label,Label", "2 columns are called label"),
    ],
)
def test_missing_columns_are_refused_with_those_found(folder, header, hint):
    refused(sheet(folder, header, "a.jpg,1"), hint)


def test_missing_columns_of_parquet_are_refused(folder):
    refused(columns(folder, file=["a.jpg"], label=["cat"]), "rename file to path", "found are file, label")


def test_parquet_of_other_columns_is_refused(folder):
    refused(columns(folder, path=[1], label=["cat"]), "column path holds int64; give text")
    refused(columns(folder, path=["a.jpg"], label=[[1, 2]]), "column label holds list<", "text or numbers")


@pytest.mark.parametrize("name", ["few.csv", "few.parquet"])
def test_files_that_cannot_be_read_are_refused(folder, name):
    (folder / name).write_bytes(b"path,label\na.jpg,cat\n\xff\xfe,dog\n")
    refused(folder / name, str(folder / name), "line 3" if name == "few.csv" else "not a readable Parquet file")
    (folder / name).unlink()
    refused(folder / name, "cannot be read: no such file")


def test_a_damaged_parquet_file_is_refused(folder):
    path = columns(folder, path=IMAGES, label=list("abcdefgh"))
    path.write_bytes(path.read_bytes().replace(b"a.jpg", b"\xff" * 5))
    refused(path, "not a readable Parquet file")


@pytest.mark.parametrize("content", ["", "\n\n", "path,label\n"])
def test_empty_sheets_are_refused(folder, content):
    (folder / "few.csv").write_text(content)
    refused(folder / "few.csv", "path,label" if content.strip() == "" else "no rows")


def test_rows_of_other_lengths_are_refused_with_their_lines(folder):
    path = sheet(folder, "path,label", '"a.jpg","a\nb"', "", "b.jpg,dog,big", "c.jpg")
    refused(path, "line 5 has another number of fields, 3, than the header, 2", "line 6 has", "quotes")


def test_a_quote_that_does_not_end_is_refused_with_its_line(folder):
    refused(sheet(folder, "path,label", "a.jpg,cat", 'b.jpg,"dog', "c.jpg,cat"), "line 3", "quote that does not end")


def test_text_behind_a_quote_is_refused_with_its_line(folder):
    refused(sheet(folder, "path,label", 'a.jpg,"cat', 'or" dog', "b.jpg,dog"), "line 2", "not doubled")


def test_a_header_may_be_long_and_hold_quotes(folder):
    path = sheet(folder, "  ", 'path, "la', f'bel,{"x" * 2_000_000}",label', "a.jpg,x,cat")
    assert read_sheet(path, ("path", "label"), ()).columns == {"path": ["a.jpg"], "label": ["cat"]}
    assert read_sheet(path, ("path", "label"), ()).lines == [4]


def slow_rows(text):
    """Give the line and the cells of each row by Python's own reader; None where a quote is wrong."""
    rows, lines = (
        csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True),
        re.split("\r\n?|\n", text),
    )
    found, line = [], 1
    try:
        for cells in rows:
            if lines[line - 1].strip(" "):
                found.append((line, cells))
            line = rows.line_num + 1
    except csv.Error:
        return None
    return found


few_cells = st.sampled_from(["", "a", " b", 'c"d', '"e,f"', '"g\nh"', ' "i\r\n""j"', '"k" ', '"', '""', "ü"])
few_lines = st.lists(few_cells, max_size=3).map(",".join)


@settings(deadline=None, max_examples=300)
@given(st.lists(few_lines, max_size=6), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
@example(['"a\n\n",b', "", "  ", "c,d,e", '"f\n",g,h', "i,j"], "\n", True)
def test_any_text_is_read_as_by_a_slow_reader(tmp_path_factory, lines, end, whole):
    text = end.join(["path,label", *lines]) + end * whole
    path, rows = tmp_path_factory.getbasetemp() / "any.csv", slow_rows(text)
    path.write_bytes(text.encode())
    if rows is None or any(len(cells) != 2 for _, cells in rows):
        with pytest.raises(UserError) as error:
            read_sheet(path, ("path", "label"), ())
        said = [int(line) for line in re.findall(r"line (\d+)", str(error.value))]
        assert rows is None or said == [line for line, cells in rows if len(cells) != 2]
    else:
        found = read_sheet(path, ("path", "label"), ())
        assert found.lines == [line for line, _ in rows[1:]]
        assert [*zip(*found.columns.values(), strict=True)] == [tuple(cells) for _, cells in rows[1:]]


def test_sheets_beside_a_misspelled_path_are_suggested(folder):
    path = labeled(folder, "cat")
    with pytest.raises(UserError, match=f"Did you mean {path}"):
        open_table(folder / "fewer.csv")


# --- labels ---


@pytest.mark.parametrize(
    ("labels", "classes", "given"),
    [
        (["10", "9", "-1", "", "9.0"], ("9", "10"), [1, 0, -1, -1, 0]),
        (["3.0", "", "1.0"], ("1", "3"), [1, -1, 0]),
        (["-1.0", "0", "007"], ("0", "7"), [-1, 0, 1]),
        (["b", "", "a", " b "], ("a", "b"), [1, -1, 0, 1]),
        (["1.5", "0.5"], ("0.5", "1.5"), [1, 0]),
        (["", "-1"], (), [-1, -1]),
    ],
)
def test_labels_are_numbers_or_names(folder, labels, classes, given):
    table = from_sheet(labeled(folder, *labels))
    assert table.classes == classes
    assert table.labels.tolist() == given


@pytest.mark.parametrize(
    ("labels", "classes", "given"),
    [
        (pa.array([10, 9, -1, None]), ("9", "10"), [1, 0, -1, -1]),
        (pa.array([10.0, 9.0, math.nan, None]), ("9", "10"), [1, 0, -1, -1]),
        (pa.array([True, False, None, True]), ("False", "True"), [1, 0, -1, 1]),
        (pa.nulls(4), (), [-1] * 4),
    ],
    ids=["int", "float", "bool", "null"],
)
def test_labels_of_parquet_keep_their_meaning(folder, labels, classes, given):
    table = from_sheet(columns(folder, path=IMAGES[:4], label=labels))
    assert table.classes == classes
    assert table.labels.tolist() == given


def test_numbers_among_names_are_refused_with_an_example_of_each(folder):
    refused(labeled(folder, "cat", "cat", "3", "dog"), "whole numbers and names: 3 in line 4, cat in lines 2, 3;")
    refused(labeled(folder, "cat", "-1", "dog"), "-1 in line 3", "leave the label empty for unlabeled")
    refused(labeled(folder, "1", "1.5"), "1 in line 2, 1.5 in line 3")
    refused(columns(folder, path=IMAGES[:2], label=["cat", "3"]), "3 in row 2, cat in row 1")


def test_numbers_below_unlabeled_are_refused(folder):
    refused(labeled(folder, "0", "-2", "1"), "label -2 (line 3); give whole numbers from 0")


def test_labels_that_differ_by_case_or_white_space_are_noted_and_stay_apart(folder):
    table = from_sheet(labeled(folder, "Cat", "cat", "red fox", "redfox", "dog"))
    assert table.classes == ("Cat", "cat", "dog", "red fox", "redfox")
    noted(table, "stay apart: 'Cat', 'cat'")
    noted(table, "stay apart: 'red fox', 'redfox'")
    assert not any("dog" in note for note in table.notes)


def test_labels_that_mean_nothing_are_noted(folder):
    noted(from_sheet(labeled(folder, "cat", "NaN")), "'NaN' is taken as the name of a class", "leave labels empty")


# --- splits and groups ---


def test_a_split_is_named_by_the_usual_words(folder):
    lines = ['a.jpg,cat," "', "b.jpg,dog,Train", "c.jpg,,training", "d.jpg,cat, TEST ", "e.jpg,dog,testing"]
    table = from_sheet(sheet(folder, "path,label,split", *lines))
    assert table.test.tolist() == [False, False, False, True, True]


def test_other_words_for_a_split_are_refused_with_their_lines(folder):
    lines = ["a.jpg,cat,holdout", "b.jpg,dog,train", "c.jpg,dog,holdout", "d.jpg,,unlabeled"]
    refused(
        sheet(folder, "path,label,split", *lines),
        "split 'holdout' in lines 2, 4; give train, val or test",
        "split 'unlabeled' in line 5",
    )


@pytest.mark.parametrize("word", ["val", "Valid", "validation"])
def test_val_serves_as_test_or_is_left_out(folder, word):
    lines = ["path,label,split", "a.jpg,cat,", "b.jpg,dog,", f"c.jpg,cat,{word}"]
    table = from_sheet(sheet(folder, *lines))
    assert table.test.tolist() == [False, False, True]
    noted(table, "validation images that serve as the test split: 1")
    table = from_sheet(sheet(folder, *lines, "d.jpg,dog,test", f"e.jpg,,{word}"))
    assert table.names == ("a.jpg", "b.jpg", "d.jpg")
    assert table.test.tolist() == [False, False, True]
    noted(table, "validation images that are left out", "yet: 2")


def test_test_rows_without_a_label_are_refused(folder):
    refused(sheet(folder, "path,label,split", "a.jpg,cat,", "b.jpg,,test"), "test rows without a label: 1", "b.jpg")


def test_groups_are_text_or_numbers_or_none(folder):
    table = from_sheet(sheet(folder, "path,label,group", "a.jpg,cat,p1", "b.jpg,dog,", "c.jpg,dog,7"))
    assert table.groups == ("p1", "", "7")
    table = from_sheet(columns(folder, path=IMAGES[:3], label=["cat", "dog", ""], group=[7.0, None, 8.0]))
    assert table.groups == ("7", "", "8")


def test_a_group_on_both_sides_is_refused(folder):
    lines = ["a.jpg,cat,train,p1", "b.jpg,dog,test,p1", "c.jpg,dog,train,p2"]
    refused(sheet(folder, "path,label,split,group", *lines), "groups", "both in training and in test: p1")


def test_more_images_without_labels_have_no_group(folder):
    table = open_table(sheet(folder, "path,label,group", "a.jpg,cat,p1", "b.jpg,dog,p2"), folder / "deep")
    assert table.groups == ("p1", "p2", "")
    assert table.take(table.unlabeled_rows).groups == ("",)


# --- paths ---


def test_ways_to_write_a_path_give_one_name(folder):
    table = from_sheet(sheet(folder, "path,label", "./a.jpg,cat", "deep//x.jpg,dog", "deep/../b.jpg,dog"))
    assert table.names == ("a.jpg", "deep/x.jpg", "b.jpg")


def test_paths_of_windows_are_read(folder):
    (folder / "back\\slash.jpg").touch()
    table = from_sheet(sheet(folder, "path,label", "deep\\x.jpg,dog", "back\\slash.jpg,cat"))
    assert table.names == ("deep/x.jpg", "back\\slash.jpg")


def test_absolute_paths_may_lead_anywhere_and_become_relative_within_the_folder(folder):
    elsewhere = folder.parent / "elsewhere.jpg"
    elsewhere.touch()
    table = from_sheet(sheet(folder, "path,label", f"{elsewhere},cat", f"{folder}/deep/../a.jpg,dog"))
    assert table.names == (str(elsewhere), "a.jpg")
    assert table.contents[0] == elsewhere


def test_paths_that_lead_outside_are_set_aside(folder):
    secret = folder.parent / "secret"
    secret.mkdir()
    (secret / "s.jpg").touch()
    (folder / "link").symlink_to(secret)
    (folder / "link.jpg").symlink_to(secret / "s.jpg")
    (folder / "within.jpg").symlink_to("a.jpg")
    names = ["../secret/s.jpg", "../gone.jpg", "link/s.jpg", "link.jpg", "..", "within.jpg"]
    table = from_sheet(sheet(folder, "path,label", *(f"{name},cat" for name in names)))
    assert table.names == ("within.jpg",)
    targets = [secret / "s.jpg", folder.parent / "gone.jpg", secret / "s.jpg", secret / "s.jpg", folder.parent]
    assert table.quarantine == {
        name: f"a path that leads outside of {folder} (to {target})"
        for name, target in zip(names[:5], targets, strict=True)
    }


def test_a_sheet_may_lie_behind_a_link(folder):
    (folder.parent / "alias").symlink_to("photos")
    labeled(folder, "cat", "dog")
    assert len(from_sheet(folder.parent / "alias/few.csv")) == 2


def test_files_that_are_no_images_are_set_aside(folder):
    (folder / "notes.txt").write_text("no image")
    os.mkfifo(folder / "pipe.jpg")
    names = ["gone.jpg", "deep", "notes.txt", "pipe.jpg", "a.jpg/b.jpg", "nul\0.jpg"]
    table = from_sheet(sheet(folder, "path,label", "a.jpg,cat", *(f"{name},dog" for name in names)))
    assert table.names == ("a.jpg",)
    assert table.classes == ("cat", "dog")
    assert table.lost == len(names)
    assert list(table.quarantine) == [*names[:-1], "nul\\x00.jpg"]
    assert [table.quarantine[name] for name in names[:4]] == [
        "no such file",
        "a folder, not a file",
        "not an image file (.txt)",
        "not a file, but a pipe or a device",
    ]


def test_where_no_file_is_there_the_first_is_named(folder):
    refused(
        sheet(folder, "path,label", "x/a,cat", "x/b,dog"),
        "no file that it names can be used",
        "x/a: no such file",
        str(folder),
    )


def test_empty_paths_are_refused_with_their_lines(folder):
    refused(sheet(folder, "path,label", "a.jpg,cat", ",dog", ",", " ,cat"), "no path in lines 3, 4, 5;", unsaid=["two"])


def test_a_path_that_comes_twice_with_one_label_is_kept_once(folder):
    table = from_sheet(sheet(folder, "path,label", "a.jpg,3", "b.jpg,4", "./a.jpg,3.0"))
    assert table.names == ("a.jpg", "b.jpg")
    noted(table, "rows named more than once, of which one is kept: 1")


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("cat,train,", "dog,train,", "two labels, cat in line 2 and dog in line 4; keep one"),
        ("cat,train,", ",train,", "two labels, cat in line 2 and none in line 4; keep one"),
        ("cat,train,", "cat,test,", "two splits, train in line 2 and test in line 4; keep one"),
        ("cat,train,p1", "cat,train,p2", "two groups, p1 in line 2 and p2 in line 4; keep one"),
    ],
)
def test_a_path_that_says_two_things_is_refused_once_with_both_lines(folder, first, second, said):
    path = sheet(folder, "path,label,split,group", f"a.jpg,{first}", "b.jpg,dog,,", f"./a.jpg,{second}")
    refused(path, f"few: a.jpg has {said}", unsaid=["problems"])


def test_all_problems_of_a_sheet_are_said_at_once(folder):
    lines = ["a.jpg,cat,,p", "a.jpg,dog,,p", ",dog,,", "b.jpg,3,later,", "c.jpg,dog,test,p"]
    refused(
        sheet(folder, "path,label,split,group", *lines),
        "5 problems",
        "whole numbers and names: 3 in line 5, cat in line 2",
        "no path in line 4",
        "split 'later' in line 5",
        "a.jpg has two labels",
        "both in training and in test: p",
    )


# --- one name a file ---


def test_absolute_paths_within_the_folder_are_the_relative_ones(folder):
    (folder.parent / "alias").symlink_to("photos")
    lines = [f"{folder}/a.jpg,cat", "a.jpg,cat", f"{folder.parent}/alias/b.jpg,dog", f"{folder}/c.jpg,dog"]
    table = from_sheet(folder.parent / "alias" / sheet(folder, "path,label", *lines).name)
    assert table.names == ("a.jpg", "b.jpg", "c.jpg")
    refused(sheet(folder, "path,label", f"{folder}/a.jpg,cat", "a.jpg,dog"), "a.jpg has two labels")


def test_an_absolute_path_within_that_leads_elsewhere_stays_absolute(folder):
    (folder.parent / "big").mkdir()
    (folder.parent / "big/x.jpg").touch()
    (folder / "big").symlink_to("../big")
    assert from_sheet(sheet(folder, "path,label", f"{folder}/big/x.jpg,cat")).names == (f"{folder}/big/x.jpg",)


def test_a_file_under_two_names_is_taken_once_or_refused(folder):
    (folder / "link.jpg").symlink_to("a.jpg")
    (folder / "also").symlink_to("deep")
    names = ["a.jpg", "link.jpg", "deep/x.jpg", "also/x.jpg"]
    table = from_sheet(sheet(folder, "path,label", *(f"{name},cat" for name in names)))
    assert table.names == ("a.jpg", "deep/x.jpg")
    assert table.quarantine == {"link.jpg": "the same file as a.jpg", "also/x.jpg": "the same file as deep/x.jpg"}
    assert table.lost == 0
    lines = ["a.jpg,cat,train", "link.jpg,dog,train", "deep/x.jpg,dog,train", "also/x.jpg,dog,test"]
    refused(
        sheet(folder, "path,label,split", *lines),
        "link.jpg, the same file as a.jpg, has two labels, cat in line 2 and dog in line 3",
        "also/x.jpg, the same file as deep/x.jpg, has two splits, train in line 4 and test in line 5",
    )


def test_a_file_under_an_alias_outside_is_the_same(folder):
    (folder.parent / "alias").symlink_to("photos")
    refused(sheet(folder, "path,label", "a.jpg,cat", f"{folder.parent}/alias/a.jpg,dog"), "the same file as a.jpg")


def test_a_long_path_with_a_backslash_is_set_aside(folder):
    table = from_sheet(sheet(folder, "path,label", "a.jpg,cat", f"b\\{'x' * 5000}.jpg,dog"))
    assert table.names == ("a.jpg",)
    assert list(table.quarantine.values()) == ["File name too long"]


def test_paths_of_windows_are_read_on_windows(folder, monkeypatch):
    (folder / "back\\slash.jpg").touch()  # as a file that is there: on Windows both are one
    (folder / "back").mkdir()
    (folder / "back/slash.jpg").touch()
    files = Files(folder)
    assert files.name("back\\slash.jpg") == "back\\slash.jpg"
    monkeypatch.setattr(paths.os, "sep", "\\")
    assert files.name("back\\slash.jpg") == "back/slash.jpg"


def test_drives_of_windows_are_absolute(monkeypatch):
    with monkeypatch.context() as windows:
        windows.setattr(paths.os, "path", ntpath)
        windows.setattr(paths.os, "sep", "\\")
        files = Files("C:\\photos")
        names = [files.name(text) for text in ("C:\\photos\\deep\\a.jpg", "D:\\a.jpg", "deep\\.\\a.jpg")]
        assert names == ["deep/a.jpg", "D:/a.jpg", "deep/a.jpg"]
        assert [files.why_aside(name) for name in names] == ["no such file"] * 3


# --- what is lost ---


def test_a_class_that_lost_all_its_files_is_still_a_class(folder):
    table = from_sheet(sheet(folder, "path,label", "a.jpg,cat", "gone.jpg,dog", "gone2.jpg,", "gone.jpg,dog"))
    assert table.classes == ("cat", "dog")
    assert table.counts() == [("cat", 1, 0), ("dog", 0, 0)]
    assert table.lost == 2
    assert from_sheet(sheet(folder, "path,label", "a.jpg,10", "gone.jpg,9")).classes == ("9", "10")


# --- groups and names ---


def test_groups_are_stripped_and_those_that_look_alike_noted(folder):
    lines = ['a.jpg,cat," p1 "', "b.jpg,dog,p1", "c.jpg,dog,P1", "d.jpg,dog,"]
    table = from_sheet(sheet(folder, "path,label,group", *lines))
    assert table.groups == ("p1", "p1", "P1", "")
    noted(table, "groups that differ only by case or white space stay apart: 'P1', 'p1'")


def test_control_characters_of_a_sheet_are_written_out(folder):
    (folder / "e\x1b.jpg").touch()
    table = from_sheet(sheet(folder, "path,label,group", "e\x1b.jpg,c\x1bat,g\x1b", "gone\x1b.jpg,dog,"))
    assert (table.names, table.classes, table.groups) == (("e\\x1b.jpg",), ("c\\x1bat", "dog"), ("g\\x1b",))
    assert list(table.quarantine) == ["gone\\x1b.jpg"]
    refused(sheet(folder, "path,label", "a\x1b.jpg,cat", "a\x1b.jpg,dog"), "a\\x1b.jpg has two", unsaid=["\x1b"])
