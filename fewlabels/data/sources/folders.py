"""Folders of images as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fewlabels.data.sources.layout import Layout, read_layout
from fewlabels.data.sources.roles import Role, nearest, role_of, settle_validation
from fewlabels.data.sources.walk import Found, beside, listed, twice, walk, written
from fewlabels.data.table import UNLABELED, Table, make_table
from fewlabels.errors import UserError, all_of


def from_folder(folder: Path) -> Table:
    """Read a folder of class folders; classes in order of name.

    ::

        DIR/<class>/*  or  DIR/train/<class>/*     images to train on, in nested folders too
        DIR/unlabeled/*, DIR/train/unlabeled/*     images without labels
        DIR/test/<class>/*, DIR/val/<class>/*      images to report on; val counts where there is no test

    The special names go without regard to case, and training, valid, validation, testing and unlabelled mean the
    same. Files that are no images, and links that lead elsewhere, are set aside in the table's quarantine.

    Raises:
        UserError: all problems at once: there is no class folder with images, or they lie too deep; class folders
            beside train/; test classes that are none of training; or the folder cannot be read.
    """
    found = walk(folder)
    layout = read_layout(folder, found)
    if not layout.classes:
        raise _no_classes(folder, found, layout)
    layout.problems += [*_too_deep(folder, layout), *_unknown_classes(folder, layout)]
    layout.notes += _sheets(folder, found)
    return _table(folder, found, layout)


# --- what is wrong with it ------------------------------------------------------------------------------


def _no_classes(folder: Path, found: Found, layout: Layout) -> UserError:
    problems = [*layout.problems, "there are no class folders with images"]
    if layout.loose:
        problems.append(_loose(layout))
    aside = found.refused | found.others
    if aside:
        name, reason = next(iter(aside.items()))
        problems.append(f"files and folders that are not read: {len(aside)}, such as {name}: {reason}")
    mend = (
        f"Put the images of each class into {folder}/<class>/, those without a label into {folder}/unlabeled/, "
        f"and those to report on into {folder}/test/<class>/."
    )
    return all_of(written(str(folder)), [written(problem) for problem in problems], written(mend))


def _loose(layout: Layout) -> str:
    return f"images that lie in no class folder: {len(layout.loose)}, such as {layout.loose[0]}"


def _too_deep(folder: Path, layout: Layout) -> list[str]:
    """Find that the only class is a folder of class folders."""
    (name, images), *others = layout.classes.items()
    top = f"{layout.within}{name}"
    nested = {image[len(top) + 1 :].partition("/")[0] for image in images if image.count("/") > top.count("/") + 1}
    if others or not nested:
        return []
    return [
        f"{folder}/{top} is the only class, and has folders with images of its own: {listed(sorted(nested))} "
        f"(did you mean {folder}/{top}?)"
    ]


def _unknown_classes(folder: Path, layout: Layout) -> list[str]:
    known = list(layout.classes)
    problems: list[str] = []
    for name, (_, branch) in layout.splits.items():
        unknown = [inner for inner, images in branch.folders.items() if images and inner not in layout.classes]
        if unknown:
            near = {inner: nearest(inner, known) for inner in unknown}
            asked = listed([f"{inner} (did you mean {near[inner]}?)" if near[inner] else inner for inner in unknown])
            problems.append(
                f"{folder}/{name} has classes without images to train on in {folder}/{layout.within}: {asked}; known "
                f"are {listed(known)}"
            )
    return problems


# --- as a table -----------------------------------------------------------------------------------------


def _table(folder: Path, found: Found, layout: Layout) -> Table:
    rows: list[tuple[str, int, Role]] = []
    for k, (name, images) in enumerate(layout.classes.items()):
        rows += _as_rows(images, k, "train")
        for role, branch in layout.splits.values():
            rows += _as_rows(branch.folders.get(name, []), k, role)
    rows += _as_rows(layout.unlabeled, UNLABELED, "train")
    kept, test, notes = settle_validation([role for _, _, role in rows])
    again = twice([rows[i][0] for i in kept], found.links)
    single = np.array([rows[i][0] not in again for i in kept], bool)
    kept, test = kept[single], test[single]
    names = [rows[i][0] for i in kept]
    notes += [f"{_loose(layout)}; they are left out"] if layout.loose else []
    return make_table(
        name_of(folder),
        [found.images[name] for name in names],
        [written(name) for name in names],
        np.array([rows[i][1] for i in kept], np.int64),
        [written(name) for name in layout.classes],
        test=test,
        notes=[written(note) for note in (*layout.notes, *notes)],
        quarantine={written(name): written(reason) for name, reason in (_set_aside(found, layout) | again).items()},
        problems=[written(problem) for problem in layout.problems],
        lost=found.lost,
    )


def _as_rows(images: Sequence[str], label: int, role: Role) -> list[tuple[str, int, Role]]:
    return [(image, label, role) for image in images]


def _sheets(folder: Path, found: Found) -> list[str]:
    """Note the sheets that lie beside the class folders: perhaps they hold the labels."""
    sheets = [name for name in found.others if "/" not in name and name.lower().endswith((".csv", ".tsv", ".parquet"))]
    return [f"labels are those of the folders; to take them from a sheet give {folder / sheets[0]}"] if sheets else []


def _set_aside(found: Found, layout: Layout) -> dict[str, str]:
    """Give all that is refused, and the other files of class folders and splits: not those that lie beside them."""
    return found.refused | {
        name: reason
        for name, reason in found.others.items()
        if "/" in name and (not layout.within or role_of(name.partition("/")[0]))
    }


# --- images alone ----------------------------------------------------------------------------------------------


def name_of(folder: Path) -> str:
    """Name data by its folder."""
    return written(folder.resolve().name) or "data"


def images_in(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Give all image files in a folder and below, in order of path, and why others are none; hidden ones are left.

    Raises:
        UserError: the folder cannot be read.
    """
    found = walk(folder)
    aside = {str(folder / name): reason for name, reason in (found.refused | found.others).items()}
    return list(found.images.values()), aside


def unlabeled_in(folder: Path) -> tuple[dict[str, Path], dict[str, str], int]:
    """Give the images of a folder of unlabeled ones by their names, why others are none, and how many are lost.

    Raises:
        UserError: there is no such folder, or it has no images.
    """
    given = f"{folder}, which was given as the folder of unlabeled images"
    if not folder.is_dir():
        near = beside(folder, lambda other: other.is_dir() and not other.name.startswith("."))
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise UserError(written(f"there is no folder {given}.{hint}"))
    found = walk(folder)
    aside = found.refused | found.others
    if not found.images:
        some = " and ".join(f"{name} ({reason})" for name, reason in list(aside.items())[:2])
        raise UserError(
            written(
                f"no images in {given}; give one with .jpg, .png, .webp, .tif, .bmp, .gif or .ppm files, in nested "
                "folders too" + (f"; it holds {some}" if some else "")
            )
        )
    again = twice(list(found.images), found.links)
    above = folder.as_posix()
    images = {written(f"{above}/{name}"): image for name, image in found.images.items() if name not in again}
    aside = {written(f"{above}/{name}"): written(reason) for name, reason in (aside | again).items()}
    return images, aside, found.lost
