"""Which folders of a data set are classes and which are splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewlabels.data.sources.roles import Role, near_role, role_of
from fewlabels.data.sources.walk import Found, listed


@dataclass
class Branch:
    """A folder of the data: all its images, those directly in it, and those of each folder in it."""

    images: list[str] = field(default_factory=list[str])
    loose: list[str] = field(default_factory=list[str])
    folders: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, name: str, rest: str) -> None:
        """Add an image by its name, of which `rest` lies below this folder."""
        self.images.append(name)
        first, slash, _ = rest.partition("/")
        (self.folders.setdefault(first, []) if slash else self.loose).append(name)

    @property
    def is_split(self) -> bool:
        """Tell whether it holds folders of images."""
        return any(self.folders.values())


@dataclass
class Layout:
    """What each folder is. Names are as on disk; a class comes with its images to train on.

    Attributes:
        within: the folder of the class folders, "" or "train/".
        classes: by name.
        splits: the folders of validation and test images, by their names.
        unlabeled: images without labels.
        loose: images in no class folder.
        notes, problems: what was found while looking.
    """

    within: str = ""
    classes: dict[str, list[str]] = field(default_factory=dict[str, "list[str]"])
    splits: dict[str, tuple[Role, Branch]] = field(default_factory=dict[str, "tuple[Role, Branch]"])
    unlabeled: list[str] = field(default_factory=list[str])
    loose: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])


def read_layout(folder: Path, found: Found) -> Layout:
    """Tell what each folder is, by its name and what lies in it."""
    branches, loose = _branches(found)
    layout = Layout(loose=loose)
    train = {name: branch for name, branch in branches.items() if role_of(name) == "train" and branch.is_split}
    plain: dict[str, Branch] = {}
    for name, branch in branches.items():
        role = role_of(name)
        is_class = role in ("train", "val") and branch.loose and not branch.is_split and not train
        if role is None or is_class:
            plain[name] = branch
        else:
            _take_special(folder, layout, name, role, branch)
        if is_class:
            layout.notes.append(f"{folder}/{name} holds images and no folders of images, so it is a class")
    plain = _without_misspelled(folder, layout, plain, branches, train)
    if len(train) > 1:
        layout.problems.append(f"{listed(list(train))} all mean the training split; keep one of them")
    if train:
        _take_train(folder, layout, *next(iter(train.items())), plain)
    else:
        _take_classes(folder, layout, plain)
        if all(map(role_of, layout.classes)):  # images that were only divided into splits
            layout.loose += [image for images in layout.classes.values() for image in images]
            layout.classes = {}
    return layout


def _without_misspelled(
    folder: Path,
    layout: Layout,
    plain: Mapping[str, Branch],
    branches: Mapping[str, Branch],
    train: Mapping[str, Branch],
) -> dict[str, Branch]:
    """Ask for the folders whose names are perhaps misspelled special ones; give the others."""
    near = _misspelled(plain, branches)
    inner = {name: Branch(images) for branch in train.values() for name, images in branch.folders.items()}
    if "unlabeled" in map(role_of, [*branches, *inner]):  # then another of a near name is a class
        near = {name: role for name, role in near.items() if role != "unlabeled"}
    elif train:
        within = [(name, role) for name, role in _misspelled(inner, inner).items() if role == "unlabeled"]
        _ask_for(folder / next(iter(train)), layout, within)
    _ask_for(folder, layout, list(near.items()))
    return {name: branch for name, branch in plain.items() if name not in near}


def _misspelled(plain: Mapping[str, Branch], branches: Mapping[str, Branch]) -> dict[str, Role]:
    """Find folders whose names are perhaps misspelled splits: for all but unlabeled, what lies within must agree."""
    near: dict[str, Role] = {
        name: role for name, branch in plain.items() if branch.images and (role := near_role(name))
    }
    out: dict[str, Role] = {}
    for name, role in near.items():
        # A class of trains may have folders within; those of a split are called as the classes elsewhere are.
        elsewhere = {
            inner
            for other, branch in branches.items()
            if other != name
            for inner in ([other] if role_of(other) is None and other not in near else _filled(branch))
        }
        if role == "unlabeled" or elsewhere & set(_filled(plain[name])):
            out[name] = role
    return out


def _filled(branch: Branch) -> list[str]:
    return [inner for inner, images in branch.folders.items() if images]


def _ask_for(folder: Path, layout: Layout, near: Sequence[tuple[str, str]]) -> None:
    for name, role in near:
        otherwise = "make an empty folder unlabeled/ beside it" if role == "unlabeled" else "give it another name"
        layout.problems.append(
            f"{folder}/{name} would be a class: did you mean {role}/? rename it, or, if it is a class, {otherwise}"
        )


def _branches(found: Found) -> tuple[dict[str, Branch], list[str]]:
    """Sort all images by their first folder; those in none come apart."""
    branches: dict[str, Branch] = {}
    for name in found.folders:
        first, _, rest = name.partition("/")
        branch = branches.setdefault(first, Branch())
        if rest and "/" not in rest:
            branch.folders[rest] = []
    loose: list[str] = []
    for name in found.images:
        first, slash, rest = name.partition("/")
        if slash:
            branches[first].add(name, rest)
        else:
            loose.append(name)
    return branches, loose


def _take_special(folder: Path, layout: Layout, name: str, role: Role, branch: Branch) -> None:
    if name != role:
        layout.notes.append(f"{folder}/{name} is taken as {role}/")
    if not branch.images:
        layout.notes.append(f"{folder}/{name} has no images")
    if role == "unlabeled":
        layout.unlabeled += branch.images
        return
    layout.loose += branch.loose
    if role == "train":
        return
    same = [other for other, (taken, _) in layout.splits.items() if taken == role]
    if same:
        layout.problems.append(f"{listed([*same, name])} all mean the {role} split; keep one of them")
    layout.splits[name] = role, branch


def _take_train(folder: Path, layout: Layout, name: str, train: Branch, plain: Mapping[str, Branch]) -> None:
    """Take the folders in `train` as classes; then none may stand beside it."""
    layout.within = f"{name}/"
    beside = [other for other, branch in plain.items() if branch.images]
    if beside:
        layout.problems.append(
            f"folders with images stand beside {name}/: {listed(beside)}; move those of classes into {folder}/{name}/, "
            f"images without labels into {folder}/unlabeled/"
        )
    folders = dict(train.folders)
    for inner in [inner for inner in folders if role_of(inner) == "unlabeled"]:
        unlabeled = Branch(images=folders.pop(inner))
        _take_special(folder / name, layout, inner, "unlabeled", unlabeled)
    _take_classes(folder, layout, {inner: Branch(images) for inner, images in folders.items()})


def _take_classes(folder: Path, layout: Layout, plain: Mapping[str, Branch]) -> None:
    layout.classes = {name: branch.images for name, branch in plain.items() if branch.images}
    empty = [name for name, branch in plain.items() if not branch.images]
    if len(empty) == 1:
        layout.notes.append(f"no images in class folder {folder}/{layout.within}{empty[0]}; it is no class")
    elif empty:
        layout.notes.append(
            f"no images in {len(empty)} class folders of {folder}/{layout.within} ({listed(empty)}); they are no "
            "classes"
        )
