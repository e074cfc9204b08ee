"""Folders: usual layouts become one table; strange files and links are set aside; what is wrong is said at once."""

import ntpath
import os

import pytest
from PIL import Image

from fewlabels.data.sources import walk
from fewlabels.data.sources.folders import from_folder, images_in
from fewlabels.data.sources.open import open_table
from fewlabels.errors import UserError
from tests.data.tables import noted, rows_of


def photos(folder, *names):
    """Make files of these names; their content is looked at only where the suffix says nothing."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def refused(folder, *said, unsaid=()):
    """Check that this is refused, and that the message holds each of these."""
    with pytest.raises(UserError) as error:
        from_folder(folder)
    for part in said:
        assert part in str(error.value)
    for part in unsaid:
        assert part not in str(error.value)


# --- layouts ---


def test_a_folder_gives_sorted_classes_with_nested_images(tmp_path):
    photos(tmp_path / "pets", "dog/b.png", "dog/a.JPG", "cat/deep/er/c.png", "ant/z.bmp", "dog/notes.png.d/n.webp")
    table = from_folder(tmp_path / "pets")
    assert table.name == "pets"
    assert table.classes == ("ant", "cat", "dog")
    assert rows_of(table) == {
        "ant/z.bmp": ("ant", False),
        "cat/deep/er/c.png": ("cat", False),
        "dog/a.JPG": ("dog", False),
        "dog/b.png": ("dog", False),
        "dog/notes.png.d/n.webp": ("dog", False),
    }
    assert list(table.names) == sorted(table.names)
    assert all(image == tmp_path / "pets" / name for image, name in zip(table.contents, table.names, strict=True))
    assert not table.notes
    assert not table.quarantine


def test_images_lie_in_the_order_of_their_paths_and_not_of_their_text(tmp_path):
    table = from_folder(photos(tmp_path, "cat/a/z.png", "cat/a.png", "cat/a-b/x.png", "dog/a.png"))
    assert table.names == ("cat/a/z.png", "cat/a-b/x.png", "cat/a.png", "dog/a.png")


def test_a_folder_has_unlabeled_and_test_images(tmp_path):
    photos(
        tmp_path, "cat/a.png", "dog/a.png", "unlabeled/x/u.png", "unlabeled/v.png", "test/dog/t.png", "test/cat/s.png"
    )
    table = open_table(str(tmp_path))
    assert table.classes == ("cat", "dog")
    assert rows_of(table) == {
        "cat/a.png": ("cat", False),
        "dog/a.png": ("dog", False),
        "test/cat/s.png": ("cat", True),
        "test/dog/t.png": ("dog", True),
        "unlabeled/v.png": ("", False),
        "unlabeled/x/u.png": ("", False),
    }


@pytest.mark.parametrize("train", ["train", "Training"])
def test_classes_lie_in_a_train_folder(tmp_path, train):
    names = [
        f"{train}/cat/a.png",
        f"{train}/dog/a.png",
        f"{train}/unlabeled/u.png",
        "unlabeled/v.png",
        "test/dog/t.png",
    ]
    table = from_folder(photos(tmp_path, *names))
    assert table.classes == ("cat", "dog")
    assert rows_of(table) == {
        names[0]: ("cat", False),
        names[1]: ("dog", False),
        names[2]: ("", False),
        names[3]: ("", False),
        names[4]: ("dog", True),
    }


def test_class_folders_beside_train_are_refused(tmp_path):
    photos(tmp_path, "train/cat/a.png", "train/dog/a.png", "wolf/a.png", "fox/deep/a.png", "empty/notes.txt")
    refused(
        tmp_path, "beside train/: fox, wolf;", f"into {tmp_path}/train/", f"{tmp_path}/unlabeled/", unsaid=["empty"]
    )


def test_two_folders_for_one_split_are_refused(tmp_path):
    photos(tmp_path, "cat/a.png", "dog/a.png", "test/cat/a.png", "Testing/cat/a.png")
    refused(tmp_path, "Testing, test all mean the test split")
    photos(tmp_path, "train/cat/a.png", "Training/cat/a.png")
    refused(tmp_path, "Training, train all mean the training split")


@pytest.mark.parametrize(
    ("name", "role"),
    [("Unlabelled", "unlabeled"), ("UNLABELED", "unlabeled"), ("Testing", "test"), ("Valid", "val")],
)
def test_a_special_folder_of_a_near_name_is_taken_and_noted(tmp_path, name, role):
    table = from_folder(photos(tmp_path, "cat/a.png", "dog/a.png", f"{name}/cat/a.png"))
    assert table.classes == ("cat", "dog")
    assert rows_of(table)[f"{name}/cat/a.png"] == (("", False) if role == "unlabeled" else ("cat", True))
    noted(table, f"{tmp_path}/{name} is taken as {role}/")


def test_special_folders_of_the_usual_names_are_not_noted(tmp_path):
    names = ["train/cat/a.png", "train/dog/a.png", "train/unlabeled/a.png", "test/cat/a.png", "unlabeled/a.png"]
    assert not from_folder(photos(tmp_path, *names)).notes


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_special_folder_that_directly_holds_images_is_a_class(tmp_path, name):
    table = from_folder(photos(tmp_path, "car/a.png", f"{name}/a.png", f"{name}/.hidden/a.png", "test/car/a.png"))
    assert table.classes == ("car", name)
    assert rows_of(table)[f"{name}/a.png"] == (name, False)
    noted(table, f"{tmp_path}/{name} holds images", "so it is a class")


def test_images_that_are_only_divided_into_splits_have_no_classes(tmp_path):
    refused(
        photos(tmp_path, "train/a.png", "val/b.png", "test/c.png"),
        "no class folders",
        "images that lie in no class folder: 3",
    )


def test_loose_images_are_left_out_and_noted(tmp_path):
    photos(tmp_path, "train/cat/a.png", "train/dog/a.png", "loose.png", "train/b.png", "test/c.png", "val/d.png")
    table = from_folder(tmp_path)
    assert table.names == ("train/cat/a.png", "train/dog/a.png")
    noted(table, "images that lie in no class folder: 4", "such as loose.png", "left out")


# --- val ---


def test_val_serves_as_the_test_split_where_there_is_none(tmp_path):
    table = from_folder(photos(tmp_path, "cat/a.png", "dog/a.png", "val/cat/v.png", "val/loose.png", "test/loose.png"))
    assert rows_of(table)["val/cat/v.png"] == ("cat", True)
    noted(table, "validation images that serve as the test split: 1")


def test_val_is_left_out_and_counted_where_there_is_a_test_split(tmp_path):
    names = ["cat/a.png", "dog/a.png", "test/cat/t.png", "val/cat/v.png", "val/dog/w.png"]
    table = from_folder(photos(tmp_path, *names))
    assert set(table.names) == set(names[:3])
    assert table.test_rows.tolist() == [table.names.index("test/cat/t.png")]
    noted(table, "validation images that are left out", "nothing is chosen by them yet: 2")


# --- classes ---


def test_empty_class_folders_are_noted(tmp_path):
    photos(tmp_path, "cat/a.png", "dog/a.png", "ant/.hidden.png")
    noted(from_folder(tmp_path), f"no images in class folder {tmp_path}/ant; it is no class")
    (tmp_path / "bee/deep").mkdir(parents=True)
    table = from_folder(tmp_path)
    assert table.classes == ("cat", "dog")
    noted(table, "no images in 2 class folders", "(ant, bee)")


@pytest.mark.parametrize("name", ["unlabeled", "test", "train/unlabeled"])
def test_empty_special_folders_are_noted(tmp_path, name):
    photos(tmp_path, *(["train/cat/a.png", "train/dog/a.png"] if "train" in name else ["cat/a.png", "dog/a.png"]))
    (tmp_path / name).mkdir()
    noted(from_folder(tmp_path), f"{tmp_path}/{name} has no images")


@pytest.mark.parametrize("within", ["", "train/"])
def test_classes_that_lie_one_folder_too_deep_are_asked_for(tmp_path, within):
    photos(tmp_path, f"{within}photos/cat/a.png", f"{within}photos/dog/deep/a.png", f"{within}photos/readme.png")
    refused(tmp_path, "only class", ": cat, dog (", f"(did you mean {tmp_path}/{within}photos?)")


def test_one_class_without_folders_of_its_own_is_a_class(tmp_path):
    assert from_folder(photos(tmp_path, "cat/a.png")).classes == ("cat",)


@pytest.mark.parametrize("split", ["test", "val"])
def test_a_class_that_has_no_training_folder_is_refused_with_the_nearest(tmp_path, split):
    photos(tmp_path, "CAT/a.png", "dog/a.png", f"{split}/cat/a.png", f"{split}/wolf/a.png", f"{split}/empty/a.txt")
    refused(
        tmp_path,
        f"{tmp_path}/{split} has classes without images to train on",
        "cat (did you mean CAT?), wolf; known are CAT, dog",
        unsaid=["empty"],
    )


def test_all_problems_of_a_folder_are_said_at_once(tmp_path):
    photos(tmp_path, "train/photos/cat/a.png", "fox/a.png", "test/wolf/a.png", "val/bear/a.png")
    refused(tmp_path, "4 problems", "beside train/: fox", "did you mean", "wolf", "bear")


@pytest.mark.parametrize("name", [None, "loose.png", "unlabeled/a.png", "test/cat/a.png"])
def test_a_folder_without_classes_is_refused_with_the_layout(tmp_path, name):
    if name:
        photos(tmp_path, name)
    refused(tmp_path, "no class folders", "<class>/", "unlabeled/", "test/<class>/")


def test_where_nothing_can_be_read_the_reason_is_said(tmp_path):
    photos(tmp_path, "cat/a.heic", "dog/a.heic")
    refused(
        tmp_path, "no class folders", "files and folders that are not read: 2, such as cat/a.heic: HEIC is not read"
    )


@pytest.mark.parametrize("name", ["new\nline", "caf\u00e9", "a b", "\udcff"])
def test_any_name_of_a_class_can_be_written_down(tmp_path, name):
    table = from_folder(photos(tmp_path, f"{name}/{name}.png", "zebra/a.png", f"test/{name}/t.png", f"{name}/n.txt"))
    shown = name.replace("\udcff", "\\udcff")
    assert rows_of(table)[f"{shown}/{shown}.png"] == (shown, False)
    assert rows_of(table)[f"test/{shown}/t.png"] == (shown, True)
    assert (tmp_path / f"{name}/{name}.png") in table.contents
    assert f"{shown}/n.txt" in table.quarantine
    assert table.fingerprint()


# --- files ---


def test_hidden_files_and_what_systems_leave_are_passed_over(tmp_path):
    names = ["cat/._a.png", "cat/.thumbs/a.png", ".git/b.png", "unlabeled/.u.png", "test/.x/a.png", ".DS_Store"]
    names += ["cat/Thumbs.db", "cat/desktop.ini", "__MACOSX/cat/a.png", "cat/__MACOSX/a.png", "unlabeled/THUMBS.DB"]
    table = from_folder(photos(tmp_path, "cat/a.png", *names))
    assert table.names == ("cat/a.png",)
    assert table.classes == ("cat",)
    assert not table.quarantine


def test_images_below_a_hidden_folder_count_where_the_user_points_there(tmp_path):
    assert len(from_folder(photos(tmp_path / ".cache/pets", "cat/a.png"))) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
@pytest.mark.parametrize("name", ["scan", "scan.dat", "scan.001"])
def test_images_without_the_suffix_of_one_are_rows(tmp_path, kind, name):
    photos(tmp_path, "cat/a.png", "dog/a.png", f"unlabeled/{name}")
    Image.new("RGB", (3, 2)).save(tmp_path / "unlabeled" / name, kind)
    table = from_folder(tmp_path)
    assert f"unlabeled/{name}" in table.names
    assert not table.quarantine


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("notes.txt", b"BM is a format of images", "not an image file (.txt)"),
        ("notes.txt", b"P6 is another", "not an image file (.txt)"),
        ("notes", b"", "not an image file (no suffix)"),
        ("film.MP4", b"\0\0\0\x20ftypisom", "not an image file (.mp4)"),
        ("a.HEIC", b"\0\0\0\x20ftypheic", "HEIC is not read; convert it to JPEG"),
        ("a.heif", b"", "HEIC is not read; convert it to JPEG"),
        *[(f"a{s}", b"II*\0", f"camera raw ({s}) is not read; convert it to JPEG") for s in (".cr2", ".nef", ".dng")],
        ("a.ARW", b"II*\0", "camera raw (.arw) is not read; convert it to JPEG"),
    ],
)
@pytest.mark.parametrize("place", ["cat/deep", "unlabeled", "test", "test/cat", "val/cat"])
def test_other_files_are_set_aside_with_the_reason(tmp_path, place, name, content, reason):
    photos(tmp_path, "cat/a.png", "dog/a.png", f"{place}/{name}")
    (tmp_path / place / name).write_bytes(content)
    table = from_folder(tmp_path)
    assert table.names == ("cat/a.png", "dog/a.png")
    assert table.quarantine == {f"{place}/{name}": reason}


def test_a_jpeg_that_is_called_heic_is_a_row(tmp_path):
    photos(tmp_path, "cat/a.png")
    Image.new("RGB", (3, 2)).save(tmp_path / "cat/b.heic", "JPEG")
    assert from_folder(tmp_path).names == ("cat/a.png", "cat/b.heic")


@pytest.mark.parametrize("within", ["", "train/"])
def test_other_files_beside_the_class_folders_are_passed_over(tmp_path, within):
    photos(tmp_path, f"{within}cat/a.png", f"{within}dog/a.png", "labels.csv", *(["notes/a.xml"] if within else []))
    assert not from_folder(tmp_path).quarantine


def test_a_pipe_is_never_opened(tmp_path):
    photos(tmp_path, "cat/a.png")
    os.mkfifo(tmp_path / "cat/pipe")
    os.mkfifo(tmp_path / "cat/pipe.png")
    reason = "not a file, but a pipe or a device"
    assert from_folder(tmp_path).quarantine == {"cat/pipe": reason, "cat/pipe.png": reason}


def deny(monkeypatch, *denied):
    """Let the walk find these folders unreadable, for every user."""

    def scandir(folder, scandir=os.scandir):
        if os.fspath(folder) in map(str, denied):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(walk.os, "scandir", scandir)


def test_a_folder_that_cannot_be_read_is_set_aside(tmp_path, monkeypatch):
    photos(tmp_path, "cat/a.png", "cat/deep/b.png", "dog/a.png", "fox/a.png")
    deny(monkeypatch, tmp_path / "cat/deep", tmp_path / "fox")
    table = from_folder(tmp_path)
    assert table.names == ("cat/a.png", "dog/a.png")
    assert table.quarantine == {"cat/deep": "Permission denied", "fox": "Permission denied"}


def test_data_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    deny(monkeypatch, photos(tmp_path, "cat/a.png"))
    refused(tmp_path, f"{tmp_path} cannot be read: Permission denied")


def test_a_file_that_cannot_be_looked_at_is_set_aside(tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied", "b")

    photos(tmp_path, "cat/a.png", "cat/b")
    monkeypatch.setattr(walk, "open", denied, raising=False)
    assert from_folder(tmp_path).quarantine == {"cat/b": "Permission denied"}


# --- links ---


@pytest.fixture
def linked(tmp_path):
    """Give a folder to link from, beside one that is none of its business."""
    photos(tmp_path, "secret/other.png", "secret/cat/b.png")
    return photos(tmp_path / "pets", "cat/a.png", "dog/a.png", ".store/s.png")


def test_links_that_lead_outside_are_refused(linked):
    secret = linked.parent / "secret"
    (linked / "cat/file.png").symlink_to("../../secret/other.png")
    (linked / "cat/folder").symlink_to(secret)
    (linked / "fox").symlink_to(secret)
    (linked / "cat/chain.png").symlink_to("file.png")
    table = from_folder(linked)
    assert table.names == ("cat/a.png", "dog/a.png")
    assert table.quarantine == {
        "cat/chain.png": f"a link that leads outside of {linked} (to {secret}/other.png)",
        "cat/file.png": f"a link that leads outside of {linked} (to {secret}/other.png)",
        "cat/folder": f"a link that leads outside of {linked} (to {secret})",
        "fox": f"a link that leads outside of {linked} (to {secret})",
    }


def test_a_folder_beside_whose_name_begins_alike_is_outside(linked):
    photos(linked.parent, "pets2/a.png")
    (linked / "cat/x.png").symlink_to(linked.parent / "pets2/a.png")
    assert "outside" in from_folder(linked).quarantine["cat/x.png"]


def test_links_to_nothing_or_in_a_circle_are_refused(linked):
    (linked / "cat/gone.png").symlink_to("nowhere.png")
    (linked / "cat/self.png").symlink_to("self.png")
    assert from_folder(linked).quarantine == {"cat/gone.png": "a link to nothing", "cat/self.png": "a link to nothing"}


def test_links_to_files_within_are_rows(linked):
    (linked / "cat/link.png").symlink_to("../.store/s.png")
    (linked / "cat/link").symlink_to("a.txt")
    (linked / "cat/a.txt").write_text("no image")
    table = from_folder(linked)
    assert table.names == ("cat/a.png", "cat/link.png", "dog/a.png")
    assert table.quarantine["cat/link"] == "not an image file (no suffix)"


def test_links_to_folders_within_are_not_followed(linked):
    (linked / "cat/up").symlink_to("..")
    (linked / "cat/self").symlink_to(".")
    (linked / "fox").symlink_to("dog")
    table = from_folder(linked)
    assert table.names == ("cat/a.png", "dog/a.png")
    assert table.quarantine == dict.fromkeys(["cat/self", "cat/up", "fox"], "a link to another folder of the data")


def test_the_data_themselves_may_be_a_link(linked):
    (linked / "cat/link.png").symlink_to(linked / ".store/s.png")
    (linked.parent / "alias").symlink_to("pets")
    table = from_folder(linked.parent / "alias")
    assert table.names == ("cat/a.png", "cat/link.png", "dog/a.png")
    assert table.contents[0] == linked.parent / "alias/cat/a.png"
    assert not table.quarantine


# --- images alone ---


def test_images_of_a_folder_come_in_order_and_without_others(tmp_path, monkeypatch):
    photos(tmp_path, "b/u.png", "a.png", "notes.txt", ".hidden.png")
    assert images_in(tmp_path)[0] == [tmp_path / "a.png", tmp_path / "b/u.png"]
    monkeypatch.chdir(tmp_path)
    assert [str(image) for image in images_in(type(tmp_path)("."))[0]] == ["a.png", "b/u.png"]


def test_a_sheet_beside_the_class_folders_is_named(tmp_path):
    photos(tmp_path, "cat/a.png", "dog/a.png", "labels.csv", "cat/notes.csv")
    assert [note for note in from_folder(tmp_path).notes if "sheet" in note] == [
        f"labels are those of the folders; to take them from a sheet give {tmp_path / 'labels.csv'}"
    ]


def test_a_folder_of_unlabeled_images_names_what_it_sets_aside(tmp_path):
    photos(tmp_path, "data/cat/a.png", "data/dog/a.png", "more/u.png", "more/notes.txt", "data/cat/c.txt")
    table = open_table(tmp_path / "data", tmp_path / "more")
    assert rows_of(table)[f"{tmp_path}/more/u.png"] == ("", False)
    assert list(table.quarantine) == ["cat/c.txt", f"{tmp_path}/more/notes.txt"]


def test_an_unlabeled_folder_without_images_is_refused_with_what_it_holds(tmp_path):
    photos(tmp_path, "data/cat/a.png", "more/a.heic", "more/b.txt", "more/c.txt")
    with pytest.raises(UserError) as error:
        open_table(tmp_path / "data", tmp_path / "more")
    said = [f"no images in {tmp_path}/more, which was given as the folder of unlabeled images", ".jpg, .png"]
    said += ["it holds a.heic (HEIC is not read; convert it to JPEG) and b.txt (not an image file (.txt))"]
    assert all(part in str(error.value) for part in said)
    with pytest.raises(UserError, match=r"there is no folder .*/nowhere"):
        open_table(tmp_path / "data", tmp_path / "nowhere")


def test_links_among_unlabeled_images_are_taken_once(tmp_path):
    photos(tmp_path, "data/cat/a.png", "more/u.png")
    (tmp_path / "more/link.png").symlink_to("u.png")
    (tmp_path / "more/gone.png").symlink_to("nothing")
    table = open_table(tmp_path / "data", tmp_path / "more")
    assert table.names == ("cat/a.png", f"{tmp_path}/more/u.png")
    assert table.quarantine[f"{tmp_path}/more/link.png"] == "a link to another file of the data"
    assert table.lost == 1


def test_a_misspelled_folder_of_unlabeled_images_gets_the_nearest_beside_it(tmp_path):
    photos(tmp_path, "data/cat/a.png", "spare/u.png", "other/u.png", "spare.png")
    with pytest.raises(UserError) as error:
        open_table(tmp_path / "data", tmp_path / "spaer")
    assert str(error.value).endswith(f"Did you mean {tmp_path}/spare?")


# --- misspelled folders ---


@pytest.mark.parametrize("within", ["", "train/"])
@pytest.mark.parametrize("name", ["unlabled", "Unlabeld", "unlabelde", "unlabelled_"])
def test_a_misspelled_folder_of_unlabeled_images_is_no_class(tmp_path, within, name):
    photos(tmp_path, f"{within}cat/a.png", f"{within}dog/a.png", f"{within}{name}/u.png")
    refused(tmp_path, f"{tmp_path}/{within}{name} would be a class: did you mean unlabeled/? rename it")
    (tmp_path / within / "unlabeled").mkdir()
    assert name in from_folder(tmp_path).classes


@pytest.mark.parametrize("name", ["labeled", "labelled", "labled", "unlabeled_images", "table"])
def test_classes_of_other_names_than_unlabeled_stay(tmp_path, name):
    assert name in from_folder(photos(tmp_path, "cat/a.png", f"{name}/a.png")).classes


@pytest.mark.parametrize(
    ("name", "meant"), [("testt", "test"), ("validaton", "val"), ("Tests", "test"), ("vall", "val")]
)
def test_a_misspelled_split_that_holds_the_classes_is_no_class(tmp_path, name, meant):
    refused(
        photos(tmp_path, "cat/a.png", "dog/a.png", f"{name}/cat/a.png"), f"{name} would be", f"did you mean {meant}/"
    )


def test_a_misspelled_train_folder_is_no_class(tmp_path):
    photos(tmp_path, "trian/cat/a.png", "trian/dog/a.png", "test/cat/a.png")
    refused(tmp_path, "trian would be a class: did you mean train/?", "give it another name")
    (tmp_path / "test").rename(tmp_path / "tesst")
    refused(tmp_path, "did you mean train/?", "did you mean test/?")


@pytest.mark.parametrize("name", ["trains", "rain", "oval", "tests"])
def test_classes_of_names_near_to_splits_stay(tmp_path, name):
    table = from_folder(photos(tmp_path, f"{name}/a.png", "car/deep/a.png", f"{name}/steam/a.png"))
    assert table.classes == tuple(sorted(["car", name]))
    assert len(table) == 3


# --- one file, rows that are lost, names on other systems ---


def test_links_to_other_files_of_the_data_are_set_aside(linked):
    (linked / "cat/again.png").symlink_to("a.png")
    (linked / "test/cat").mkdir(parents=True)
    (linked / "test/cat/t.png").symlink_to("../../cat/a.png")
    (linked / "dog/first.png").symlink_to("../.store/s.png")
    (linked / "dog/second.png").symlink_to("../.store/s.png")
    table = from_folder(linked)
    assert table.names == ("cat/a.png", "dog/a.png", "dog/first.png")
    again = ["cat/again.png", "test/cat/t.png", "dog/second.png"]
    assert table.quarantine == dict.fromkeys(again, "a link to another file of the data")
    assert table.lost == 0


def test_a_link_to_an_image_that_is_no_row_stays(linked):
    photos(linked, "loose.png")
    (linked / "cat/link.png").symlink_to("../loose.png")
    assert from_folder(linked).names == ("cat/a.png", "cat/link.png", "dog/a.png")


def test_refused_images_are_counted_as_lost(linked):
    for place, target in enumerate(["nowhere", "../../secret/other.png"]):
        (linked / f"cat/{place}.png").symlink_to(target)
    (linked / "cat/gone.txt").symlink_to("nowhere")
    (linked / "cat/folder.png").symlink_to("../dog")
    photos(linked, "cat/notes.txt")
    table = from_folder(linked)
    assert len(table.quarantine) == 5
    assert (table.lost, table.take(table.labeled_rows[:1]).lost, table.with_note("x").lost) == (2, 2, 2)


class WindowsEntry:
    """An entry of a folder whose path is written as on Windows."""

    def __init__(self, entry, top):
        self.entry, self.name = entry, entry.name
        self.path = f"{top}/" + entry.path[len(f"{top}/") :].replace("/", "\\")

    def __getattr__(self, name):
        return getattr(self.entry, name)


def test_names_have_slashes_on_windows_too(tmp_path, monkeypatch):
    photos(tmp_path, "cat/deep/a.png", "dog/a.png", "test/cat/t.png", "unlabeled/u.png")
    entries = walk._entries

    def windows_entries(folder):
        return [WindowsEntry(entry, tmp_path) for entry in entries(str(folder).replace("\\", "/"))]

    monkeypatch.setattr(walk, "_entries", windows_entries)
    monkeypatch.setattr(walk.os, "sep", "\\")
    table = from_folder(tmp_path)
    assert rows_of(table) == {
        "cat/deep/a.png": ("cat", False),
        "dog/a.png": ("dog", False),
        "test/cat/t.png": ("cat", True),
        "unlabeled/u.png": ("", False),
    }


def test_another_drive_is_outside(monkeypatch):
    with monkeypatch.context() as windows:
        windows.setattr(walk.os, "path", ntpath)
        found = [walk.is_within(path, "C:\\data") for path in ("D:\\data\\a.png", "c:\\DATA\\a.png", "C:\\data2")]
    assert found == [False, True, False]


@pytest.mark.parametrize("control", ["\x1b[2J", "\a", "\x9b2J", "\x7f"])
def test_no_name_can_drive_a_terminal(tmp_path, control):
    shown = "\\x" + f"{ord(control[0]):02x}" + control[1:]
    photos(tmp_path, f"c{control}/a{control}.png", "dog/a.png", f"dog/n{control}.txt")
    table = from_folder(tmp_path)
    assert table.names == (f"c{shown}/a{shown}.png", "dog/a.png")
    assert table.classes == (f"c{shown}", "dog")
    assert list(table.quarantine) == [f"dog/n{shown}.txt"]
    assert walk.written("a\tb\nc\r\n") == "a\tb\nc\r\n"
