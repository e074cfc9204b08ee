"""Tar shards become one table: samples by key, images read where they lie; what is damaged or odd is named."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fewlabels.data.image import Slice
from fewlabels.data.sources import shards
from fewlabels.data.sources.archives import shard_paths
from fewlabels.data.sources.open import open_table
from fewlabels.data.sources.shards import from_shards
from fewlabels.errors import UserError
from fewlabels.inputs.images.decode import ImageForm, decode

X = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)


def png(place=0):
    file = io.BytesIO()
    Image.fromarray(X[place]).save(file, "png")
    return file.getvalue()


def tar(path, *members, form=tarfile.PAX_FORMAT):
    """Write a tar of (name, content) pairs and of headers without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def samples(*labels, first=0):
    """Give members of one sample a label; None for unlabeled."""
    out = []
    for place, label in enumerate(labels, first):
        out.append((f"{place:03}.png", png(place % 4)))
        if label is not None:
            out.append((f"{place:03}.cls", f"{label}".encode()))
    return out


def pixels_of(table):
    return np.stack([decode(image, ImageForm(3, (5, 6))) for image in table.contents])


def refused(paths, *said):
    with pytest.raises(UserError) as error:
        from_shards(paths, "shards")
    for part in said:
        assert part in str(error.value)


# --- samples ---


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_a_shard_gives_its_pixels_and_labels(tmp_path, form):
    path = tar(tmp_path / "few.tar", *samples(1, 0, None, -1), form=form)
    table = open_table(path)
    assert (table.name, table.classes) == ("few", ("0", "1"))
    assert table.names == ("few.tar/000", "few.tar/001", "few.tar/002", "few.tar/003")
    assert table.labels.tolist() == [1, 0, -1, -1]
    assert all(isinstance(image, Slice) and image.path == path for image in table.contents)
    assert np.array_equal(pixels_of(table), X)
    assert not table.notes
    assert not table.quarantine


def test_what_webdataset_writes_is_read(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with webdataset.TarWriter(str(tmp_path / "train-000.tar")) as writer:
        for place in range(4):
            writer.write({"__key__": f"a/{place}", "png": X[place], "cls": 3 - place, "json": {"label": "no"}})
    table = open_table(tmp_path)
    assert table.names == tuple(f"train-000.tar/a/{place}" for place in range(4))
    assert table.labels.tolist() == [3, 2, 1, 0]
    assert np.array_equal(pixels_of(table), X)


def test_long_names_and_nested_keys(tmp_path):
    long = "folder.d/" + "é" * 150
    path = tar(
        tmp_path / "a.tar", (f"{long}.PNG", png()), (f"{long}.cls", b"3\n"), ("b/.hidden.png", png()), ("c", b"")
    )
    table = from_shards([path], "a")
    assert table.names == (f"a.tar/{long}",)
    assert table.classes == ("3",)


def test_json_labels_are_numbers_or_names(tmp_path):
    said = [{"label": "dog"}, {"label": "cat", "x": 1}, {"label": None}, {}, [], "dog"]
    members = [
        (f"{k}.{e}", c) for k, v in enumerate(said) for e, c in (("jpg", png()), ("json", json.dumps(v).encode()))
    ]
    table = from_shards([tar(tmp_path / "a.tar", *members)], "a")
    assert (table.classes, table.labels.tolist()) == (("cat", "dog"), [1, 0, -1, -1, -1, -1])
    numbers = [
        ("0.png", png()),
        ("0.json", b'{"label": 7}'),
        ("1.png", png()),
        ("1.cls", b"5"),
        ("1.json", b'{"label": 7}'),
    ]
    table = from_shards([tar(tmp_path / "b.tar", *numbers)], "b")
    assert (table.classes, table.labels.tolist()) == (("5", "7"), [1, 0])


def test_numbers_and_names_together_are_refused_with_examples(tmp_path):
    path = tar(tmp_path / "a.tar", *samples(4), ("x.png", png()), ("x.json", b'{"label": "cat"}'))
    refused([path], "numbers and names", "4 of a.tar/000", "'cat' of a.tar/x")


@pytest.mark.parametrize("content", [b"cat", b"", b"1.0", b"1_0", b"9" * 5000, b"\xff", b"1 2"])
def test_a_cls_that_is_no_number_is_named(tmp_path, content):
    refused([tar(tmp_path / "a.tar", *samples(0), ("x.png", png()), ("x.cls", content))], "a.tar/x.cls", "whole number")


@pytest.mark.parametrize(
    "content", [b"{", b'{"label": 1.5}', b'{"label": true}', b'{"label": [1]}', b"[" * 100_000, b"\xff"]
)
def test_a_json_without_a_usable_label_is_named(tmp_path, content):
    refused([tar(tmp_path / "a.tar", *samples(0), ("x.png", png()), ("x.json", content))], "a.tar/x.json", "label")


def test_all_problems_are_said_at_once(tmp_path):
    refused([tar(tmp_path / "a.tar", *samples("cat", 0, "dog", -5))], "000.cls", "002.cls", "-5")


def test_classes_beside_the_shards_name_the_numbers(tmp_path):
    (tmp_path / "classes.txt").write_text("\ufeffant\nbee\r\ncat\n\n")
    table = from_shards([tar(tmp_path / "a.tar", *samples(2, 0))], "a")
    assert (table.classes, table.labels.tolist()) == (("ant", "bee", "cat"), [2, 0])
    refused([tar(tmp_path / "b.tar", *samples(0, 3))], "b.tar/001", "3", "ant, bee, cat")


def test_odd_samples_are_noted_or_set_aside(tmp_path):
    members = [("a.left.png", png(1)), ("a.right.png", png(2)), ("a.cls", b"0"), ("b.cls", b"0"), ("c.txt", b"words")]
    table = from_shards([tar(tmp_path / "s.tar", *members)], "s")
    assert np.array_equal(pixels_of(table), X[1:2])
    assert any("several images" in note and "s.tar/a" in note for note in table.notes)
    assert table.quarantine == {"s.tar/b": "no image among its members"}


def test_two_labels_of_one_sample_are_refused(tmp_path):
    refused([tar(tmp_path / "a.tar", *samples(0), ("000.cls", b"1"))], "000.cls comes twice", "0 and 1")


# --- splits ---


def test_a_shards_name_begins_with_its_split(tmp_path):
    for name, labels in {
        "Train-0": (0, 1),
        "test-0": (1, 0),
        "unlabeled-0": (None, 0),
        "more": (0,),
        "val-0": (0,),
    }.items():
        tar(tmp_path / f"{name}.tar", *samples(*labels))
    table = open_table(tmp_path)
    rows = dict(zip(table.names, zip(table.labels.tolist(), table.test.tolist(), strict=True), strict=True))
    assert rows == {
        "Train-0.tar/000": (0, False),
        "Train-0.tar/001": (1, False),
        "more.tar/000": (0, False),
        "test-0.tar/000": (1, True),
        "test-0.tar/001": (0, True),
        "unlabeled-0.tar/000": (-1, False),
        "unlabeled-0.tar/001": (-1, False),
    }
    assert any("val-0.tar" in note and "left out" in note for note in table.notes)
    assert any("not used" in note and "unlabeled-0.tar/001" in note for note in table.notes)


def test_validation_serves_as_test_where_there_is_none(tmp_path):
    shards = [tar(tmp_path / f"{name}.tar", *samples(0, 1)) for name in ("train", "validation")]
    table = from_shards(shards, "a")
    assert table.test.tolist() == [False, False, True, True]
    assert any("serve as the test split" in note for note in table.notes)


def test_a_split_elsewhere_in_a_name_is_noted(tmp_path):
    table = from_shards([tar(tmp_path / "birds-test-0.tar", *samples(0, 1))], "a")
    assert not table.test.any()
    assert any("birds-test-0.tar" in note for note in table.notes)


def test_one_key_in_two_shards_is_two_rows(tmp_path):
    shards = [tar(tmp_path / name / "s.tar", *samples(0)) for name in "ab"]
    assert from_shards([*shards, shards[0]], "x").names == ("a/s.tar/000", "b/s.tar/000")


# --- hostile and damaged archives ---


def header(name, kind, target=""):
    out = tarfile.TarInfo(name)
    out.type, out.linkname = kind, target
    return out


def test_links_devices_and_names_that_lead_out_are_set_aside(tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(3))
    path = tar(
        tmp_path / "a.tar",
        *samples(0),
        header("folder.png", tarfile.DIRTYPE),
        header("link.png", tarfile.SYMTYPE, str(secret)),
        header("hard.png", tarfile.LNKTYPE, "000.png"),
        header("device.png", tarfile.CHRTYPE),
        header("pipe.png", tarfile.FIFOTYPE),
        ("/absolute.png", png(1)),
        ("x/../../up.png", png(1)),
    )
    table = from_shards([path], "a")
    assert table.names == ("a.tar/000",)
    assert {name: reason.split(",")[0] for name, reason in table.quarantine.items()} == {
        "a.tar/link.png": "a link",
        "a.tar/hard.png": "a link",
        "a.tar/device.png": "not a file",
        "a.tar/pipe.png": "not a file",
        "a.tar//absolute.png": "a name that leads out of the archive",
        "a.tar/x/../../up.png": "a name that leads out of the archive",
    }


def offset_of(path, name):
    with tarfile.open(path) as archive:
        return archive.getmember(name).offset_data


def test_a_cut_shard_keeps_its_rows_at_every_length(tmp_path):
    whole = tar(tmp_path / "whole.tar", *samples(0, 1, 0)).read_bytes()
    ends = [offset_of(tmp_path / "whole.tar", f"00{k}.png") + len(png(k)) for k in range(3)]
    last = offset_of(tmp_path / "whole.tar", "002.cls") + 512
    other = tar(tmp_path / "other.tar", *samples(0, 1))
    path = tmp_path / "cut.tar"
    for length in range(0, last + 1, 64):
        path.write_bytes(whole[:length])
        table = from_shards([path, other], "a")
        assert len(table) - 2 == sum(length >= end for end in ends)
        assert table.quarantine["cut.tar"].startswith("damaged: ")
        assert len(pixels_of(table)) == len(table)


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"x" + b"\0" * 511])
def test_a_damaged_header_in_the_middle_is_named(tmp_path, damage):
    path = tar(tmp_path / "a.tar", *samples(0, 1, 0))
    content, place = bytearray(path.read_bytes()), offset_of(path, "001.png") - 512
    content[place : place + 512] = damage
    path.write_bytes(content)
    table = from_shards([path], "a")
    assert len(table) == 1
    assert "damaged: not a header" in table.quarantine["a.tar"]
    assert "images before that, which are kept: 1" in table.quarantine["a.tar"]


def test_what_follows_the_end_is_not_passed_over(tmp_path):
    first, second = (tar(tmp_path / f"{name}.tar", *samples(0, 1)) for name in "ab")
    first.write_bytes(first.read_bytes() + second.read_bytes())
    assert "more follows its end" in from_shards([first], "a").quarantine["a.tar"]


def test_a_shard_of_another_kind_is_refused(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"hello" * 1000)
    refused([tmp_path / "a.tar"], "no images", "a.tar: damaged")
    refused([tar(tmp_path / "b.tar")], "no images")
    refused([tmp_path / "gone.tar"], "gone.tar cannot be read: no such file")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar", "A.TAR.GZ"])
def test_a_compressed_shard_is_refused_with_the_reason(tmp_path, name):
    plain = tar(tmp_path / "plain.tar", *samples(0)).read_bytes()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / name).write_bytes(gzip.compress(plain))
    for data in (tmp_path / "packed" / name, tmp_path / "packed"):
        with pytest.raises(UserError, match=r"compressed(.|\n)*gunzip"):
            open_table(data)


# --- which files ---


def test_patterns_name_shards(tmp_path):
    shards = [tar(tmp_path / f"train-{k:03}.tar", *samples(k)) for k in range(12)]
    (tmp_path / "notes.txt").write_text("")
    assert shard_paths(str(shards[0])) == shards[:1]
    assert shard_paths(str(tmp_path)) == shards
    assert shard_paths(f"{tmp_path}/*.tar") == shards
    assert shard_paths(f"{tmp_path}/train-{{000..011}}.tar") == shards
    assert shard_paths(f"{tmp_path}/{{train,train}}-{{008..009}}.tar") == shards[8:10] * 2
    assert shard_paths(f"{tmp_path}/train-00{{7..9}}.tar") == shards[7:10]
    assert shard_paths(f"{tmp_path}/train-{{000,001}}*.tar") == shards[:2]
    assert open_table(f"{tmp_path}/*.tar").name == tmp_path.name


@pytest.mark.parametrize("text", ["nothing.tar", "*.tar", "digits", "a.png", "{a,b}", ".", ""])
def test_what_names_no_shards_gives_none(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(png())
    assert shard_paths(text) == []


def test_missing_shards_of_a_range_are_named(tmp_path):
    tar(tmp_path / "a-0.tar", *samples(0))
    with pytest.raises(UserError, match=r"files that are not there \(2\): .*a-1.tar.*a-2.tar"):
        shard_paths(f"{tmp_path}/a-{{0..2}}.tar")
    for bounds in ("3..1", "0..99999999999"):
        with pytest.raises(UserError, match="no range"):
            shard_paths(f"{tmp_path}/a-{{{bounds}}}.tar")


def test_a_folder_of_class_folders_is_no_folder_of_shards(tmp_path):
    tar(tmp_path / "backup.tar", *samples(0))
    assert shard_paths(str(tmp_path))
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(png())
    assert shard_paths(str(tmp_path)) == []
    assert open_table(tmp_path).classes == ("cat", "dog")


# --- classes, splits and what is lost ---


def test_the_first_word_of_a_name_is_its_split(tmp_path):
    names = ["valley", "testament", "Testing_0", "train0", "unlabelled-1", "trains"]
    table = from_shards([tar(tmp_path / f"{name}.tar", *samples(0, 1)) for name in names], "a")
    tests = {name.partition(".")[0] for name, test in zip(table.names, table.test, strict=True) if test}
    assert tests == {"Testing_0"}
    assert {table.names[row].partition(".")[0] for row in table.unlabeled_rows} == {"unlabelled-1"}
    assert any("no split" in note and "valley.tar, testament.tar" in note for note in table.notes)


def test_a_class_that_lost_all_its_images_is_still_a_class(tmp_path):
    members = [*samples(0), ("x.cls", b"3"), ("y.txt", b""), header("z.png", tarfile.SYMTYPE, "000.png")]
    members += [header("000.left.png", tarfile.SYMTYPE, "000.png")]
    table = from_shards([tar(tmp_path / "a.tar", *members)], "a")
    assert (table.classes, table.names, table.labels.tolist()) == (("0", "3"), ("a.tar/000",), [0])
    assert table.lost == 2


def test_blank_labels_are_unlabeled(tmp_path):
    members = [*samples(0, None), ("x.png", png()), ("x.json", b'{"label": " "}')]
    table = from_shards([tar(tmp_path / "a.tar", *members, ("001.json", b'{"label": ""}'))], "a")
    assert (table.classes, table.labels.tolist()) == (("0",), [0, -1, -1])


def test_blank_lines_among_class_names_are_refused(tmp_path):
    path = tar(tmp_path / "a.tar", *samples(0, 1))
    (tmp_path / "classes.txt").write_text("ant\n\nbee\n\n")
    refused([path], "classes.txt has blank lines among the names (2)")
    (tmp_path / "classes.txt").write_text("ant\nbee\n\n \n")
    assert from_shards([path], "a").classes == ("ant", "bee")


def test_shards_on_several_drives_have_full_names(tmp_path, monkeypatch):
    path = tar(tmp_path / "a.tar", *samples(0))

    def several(_):
        raise ValueError("Paths don't have the same drive")

    monkeypatch.setattr(shards.os.path, "commonpath", several)
    assert from_shards([path], "a").names == (f"{path}/000",)


def test_control_characters_are_written_out(tmp_path):
    (tmp_path / "classes.txt").write_text("a\x1bnt\n")
    table = from_shards([tar(tmp_path / "a.tar", ("k\x1b.png", png()), ("k\x1b.cls", b"0"))], "a")
    assert (table.names, table.classes) == (("a.tar/k\\x1b",), ("a\\x1bnt",))
    member = ("1.json", b'{"label": "\\u001b"}')
    with pytest.raises(UserError) as error:
        from_shards([tar(tmp_path / "b.tar", ("1.png", png()), member)], "b")
    assert "\x1b" not in str(error.value)
