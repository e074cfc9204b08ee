"""Options: every wrong value is named, all at once, with what is allowed."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.config import Count, Fraction, Interval, NotNegative, Options, allowed_words, check_fields, option_values
from fewlabels.errors import UserError

FEW = settings(deadline=None, max_examples=30)


def message_of(**options):
    with pytest.raises(UserError) as error:
        Options(**options)
    return str(error.value)


def test_the_defaults_are_allowed():
    assert Options().method == "layermatch"


WRONG = {
    "method": (5, "give text"),
    "model": (None, "give text"),
    "pretrained": (1, "give True or False"),
    "weights": ("a.safetensors", "give a path or None"),
    "classify_freeze": ("yes", "give True or False"),
    "images_size": (0, "give a whole number, 1 to 4096 or None"),
    "images_resize": ("stretch", "give auto or crop or squash or pad"),
    "images_flip": ("vertical", "give auto or none or horizontal or dihedral"),
    "images_operations": (0, "give a whole number, at least 1 or None"),
    "unlabeled": ("more", "give a path or None"),
    "labels_per_class": (2.0, "give a whole number, at least 1 or None"),
    "split": (3, "give a path or None"),
    "classify_labeled_in_unlabeled": (None, "give True or False"),
    "seed": (-1, "give a whole number, 0 to 2147483647"),
    "budget": ("huge", "give quick or normal or full"),
    "steps": (True, "give a whole number, at least 1 or None"),
    "batch": ("8", "give a whole number, 1 to 16384 or None"),
    "unlabeled_ratio": (-3, "give a whole number, at least 1 or None"),
    "optimizer": ("adam", "give auto or sgd or adamw"),
    "lr": (0.0, "give a number, at least 1e-12 or None"),
    "weight_decay": (-0.1, "give a number, at least 0 or None"),
    "layer_decay": (1.5, "give a number, 1e-06 to 1 or None"),
    "accumulate": (0, "give a whole number, at least 1 or None"),
    "images_feed": ("memory", "give auto or resident or streamed"),
    "images_cache": ("here", "give a path or None"),
    "root": ("data", "give a path or None"),
    "baseline": ("no", "give True or False"),
    "device": (0, "give text"),
    "threads": (0, "give a whole number, at least 1 or None"),
    "precision": ("float16", "give auto or float32 or bfloat16"),
    "log": (True, "give none or tensorboard or wandb or mlflow"),
    "out": ("runs/a", "give a path or None"),
}


def test_every_option_is_checked():
    nothing = object()
    said = message_of(**{field.name: nothing for field in fields(Options)})
    assert said.removeprefix("options: ").count(repr(nothing)) == len(fields(Options))
    assert all(re.search(rf"\b{field.name} is <object", said) for field in fields(Options))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(name):
    value, allowed = WRONG[name]
    assert message_of(**{name: value}) == f"options: {name} is {value!r}; {allowed}"


def test_all_wrong_values_are_named_at_once():
    said = message_of(**{name: value for name, (value, _) in WRONG.items()})
    for name, (value, allowed) in WRONG.items():
        assert f"{name} is {value!r}; {allowed}" in said


@FEW
@given(st.sets(st.sampled_from(list(WRONG)), min_size=1))
def test_only_the_wrong_values_are_named(names):
    said = message_of(**{name: WRONG[name][0] for name in names})
    assert {name for name in WRONG if re.search(rf"\b{name} is ", said)} == names


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("lr", [1, 0.1, 1e-12, np.float64(0.1), None]),
        ("weight_decay", [0, 0.0, 3.5, None]),
        ("layer_decay", [1, 1e-6]),
        ("seed", [0, 2**31 - 1]),
        ("images_size", [1, 4096, None]),
        ("out", [Path("runs/a"), None]),
        ("log", ["none", "tensorboard", "wandb", "mlflow"]),
    ],
)
def test_values_up_to_both_ends_are_allowed(name, values):
    for value in values:
        assert getattr(Options(**{name: value}), name) == value


def test_true_and_false_are_no_numbers():
    assert "lr is True" in message_of(lr=True)
    assert "steps is True" in message_of(steps=True)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(value):
    assert "lr is" in message_of(lr=value)
    assert "weight_decay is" in message_of(weight_decay=value)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert Options(seed=np.int64(3)).seed == 3


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float, "a number"),
        (bool, "True or False"),
        (str, "text"),
        (Path, "a path"),
        (type(None), "None"),
        (dict, "dict"),
        (Fraction, "a number, 0 to 1"),
        (NotNegative, "a number, at least 0"),
        (Count, "a whole number, at least 1"),
        (Annotated[int, "a remark", Interval(2, 3)], "a whole number, 2 to 3"),
        (Annotated[int, Interval(0, 2**31 - 1)], "a whole number, 0 to 2147483647"),
        (Literal["a", 2], "a or 2"),
        (float | None, "a number or None"),
        (tuple[Fraction, bool], "2 values (a number, 0 to 1; True or False)"),
    ],
    ids=str,
)
def test_what_a_hint_allows_is_said_in_words(hint, words):
    assert allowed_words(hint) == words


@dataclass
class Pair:
    both: tuple[Fraction, int] = (0.5, 1)
    word: Literal[1, "a"] = 1


@pytest.mark.parametrize("both", [(0.5,), (0.5, 1, 1), (1.5, 1), (0.5, 1.0), [0.5, 1], None])
def test_each_value_of_a_pair_is_checked(both):
    with pytest.raises(UserError, match=r"pair: both is .*; give 2 values \(a number, 0 to 1; a whole number\)"):
        check_fields(Pair(both), "pair")
    check_fields(Pair((1, 1)), "pair")


@pytest.mark.parametrize("word", [True, 1.0, "1"])
def test_a_word_of_another_type_is_another_word(word):
    with pytest.raises(UserError, match="give 1 or a"):
        check_fields(Pair(word=word), "pair")


def test_option_values_leave_what_is_within_them_alone():
    inner = Pair()
    outer = Pair(both=(inner, 1))
    assert option_values(outer) == {"both": (inner, 1), "word": 1}
    assert option_values(outer)["both"][0] is inner
