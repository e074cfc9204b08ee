"""Packages of an extra: what is missing is named with its cure."""

import sys

import pytest

from fewlabels.errors import UserError
from fewlabels.extras import import_extra, import_if_there


def test_a_package_that_is_there_is_given():
    import numpy

    assert import_extra("numpy", "all", "this") is import_if_there("numpy") is numpy


def test_a_missing_one_is_named_with_its_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"--log wandb needs an extra \(.*wandb.*\): pip install fewlabels\[wandb\]"):
        import_extra("wandb", "wandb", "--log wandb")
    assert import_if_there("wandb") is None


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch):
    """W&B leaves a folder wandb, and many have one called datasets."""
    (tmp_path / "wandb_of_mine").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"wandb_of_mine is but a folder here"):
        import_extra("wandb_of_mine", "wandb", "--log wandb")
    assert import_if_there("wandb_of_mine") is None
