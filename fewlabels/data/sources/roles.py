"""The words for splits that people use, and what becomes of validation rows. For all sources alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewlabels.data.table import Labels

Role: TypeAlias = Literal["train", "val", "test", "unlabeled"]

_ROLES: dict[str, Role] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "unlabeled": "unlabeled",
    "unlabelled": "unlabeled",
}
_OPPOSITE = ("labeled", "labelled")  # near to unlabeled, but no misspelling of it


def role_of(word: str) -> Role | None:
    """Tell what a word means, without regard to case."""
    return _ROLES.get(word.strip().casefold())


def near_role(word: str) -> Role | None:
    """Tell what a word is perhaps meant to say that means nothing, as unlabled does."""
    if role_of(word):
        return None
    near = difflib.get_close_matches(word.strip().casefold(), [*_ROLES, *_OPPOSITE], n=1, cutoff=0.8)
    return _ROLES.get(near[0]) if near else None


def settle_validation(roles: Sequence[Role], what: str = "images") -> tuple[Labels, NDArray[np.bool_], list[str]]:
    """Make validation rows the test split where there is no other, or leave them out.

    Args:
        roles: of rows, or of what holds rows of one split.
        what: these are called in the notes.

    Returns:
        The places to keep, whether each of these is of the test split, and notes.
    """
    given = np.array(roles, dtype=np.str_)
    validation, test = given == "val", given == "test"
    count = int(validation.sum())
    if not count:
        return np.arange(len(given)), test, []
    if not test.any():
        return np.arange(len(given)), validation, [f"validation {what} that serve as the test split: {count}"]
    kept = np.flatnonzero(~validation)
    note = (
        f"validation {what} that are left out, since there is a test split and nothing is chosen by them yet: {count}"
    )
    return kept, test[kept], [note]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Give the most similar of the known words, without regard to case; None where none is similar."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), folded, n=1)
    return folded[near[0]] if near else None
