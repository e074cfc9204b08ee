"""Checkpoints: what was saved comes back; a damaged one gives way to the one before; two are kept."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from fewlabels.errors import UserError
from fewlabels.training import checkpoint
from fewlabels.training.checkpoint import load, save

pytestmark = pytest.mark.versions


def content(step):
    return {"w": torch.full((3,), float(step)), "step": torch.tensor(step)}


def bytes_of(tensor):
    return tensor.reshape(-1).view(torch.uint8)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def name_of(step):
    return f"step-{step:08d}.safetensors"


def save_steps(folder, *steps):
    for step in steps:
        save(folder, step, content(step), {"seconds": step / 10})


def loaded_step(folder):
    found = load(folder)
    if found is None:
        return None
    step, tensors, notes = found
    assert notes["step"] == step
    assert notes["seconds"] == step / 10
    assert tensors.keys() == content(step).keys()
    assert all(torch.equal(tensors[name], value) for name, value in content(step).items())
    return step


def test_tensors_of_all_kinds_and_notes_come_back(tmp_path):
    tensors = {
        "float": torch.randn(3, 4),
        "float64": torch.randn(2, dtype=torch.float64),
        "bfloat16": torch.randn(5).bfloat16(),
        "int": torch.arange(4),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "not finite": torch.tensor([float("nan"), float("inf")]),
        "transposed": torch.randn(3, 4).T,
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    notes = {"seconds": 1.5, "names": ["ä", "b"], "inner": {"x": None}}
    save(tmp_path, 7, tensors, notes)
    step, back, said = load(tmp_path)
    assert step == 7
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        assert torch.equal(bytes_of(back[name]), bytes_of(tensor.detach()))
    assert {name: said[name] for name in notes} == notes


def test_no_folder_and_no_checkpoint_are_none(tmp_path):
    assert load(tmp_path / "none") is None
    (tmp_path / "other.safetensors").write_bytes(b"")
    assert load(tmp_path) is None


def test_the_newest_is_loaded(tmp_path):
    save_steps(tmp_path, 5, 100)
    assert loaded_step(tmp_path) == 100


def test_only_the_last_two_are_kept(tmp_path):
    save_steps(tmp_path, 1, 20, 300, 4000)
    assert files_in(tmp_path) == [name_of(300), name_of(4000)]


def test_a_step_that_is_saved_again_is_replaced(tmp_path):
    save_steps(tmp_path, 1, 2)
    save(tmp_path, 2, {"w": torch.zeros(1)}, {})
    assert files_in(tmp_path) == [name_of(1), name_of(2)]
    assert load(tmp_path)[1]["w"].shape == (1,)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_a_cut_newest_gives_way_to_the_one_before(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cut")
    save_steps(folder, 10, 20)
    path = folder / name_of(20)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert loaded_step(folder) == 10


def with_notes(text):
    return lambda path: save_file(content(20), path, {"fewlabels": text})


DAMAGE = {
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "zeros": lambda path: path.write_bytes(bytes(1000)),
    "no notes": lambda path: save_file(content(20), path),
    "other notes": lambda path: save_file(content(20), path, {"pt": "x"}),
    "no JSON": with_notes("{"),
    "no format": with_notes('{"step": 20, "seconds": 2.0}'),
    "no step": with_notes('{"format": 1}'),
    "a list": with_notes("[1]"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path, damage):
    save_steps(tmp_path, 10, 20)
    DAMAGE[damage](tmp_path / name_of(20))
    assert loaded_step(tmp_path) == 10


def test_where_all_are_damaged_there_is_none(tmp_path):
    save_steps(tmp_path, 10, 20)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    assert load(tmp_path) is None


@pytest.mark.parametrize("damaged", [(20,), (10, 20)])
def test_after_damage_the_new_checkpoints_are_kept_though_their_steps_are_lower(tmp_path, damaged):
    save_steps(tmp_path, 10, 20)
    for step in damaged:
        (tmp_path / name_of(step)).write_bytes(b"")
    first = load(tmp_path)
    for step in range(first[0] + 1 if first else 1, 25):
        save_steps(tmp_path, step)
        assert loaded_step(tmp_path) == step
    assert files_in(tmp_path) == [name_of(23), name_of(24)]


def test_a_newer_format_is_refused_though_there_is_an_older_one(tmp_path):
    save_steps(tmp_path, 10)
    save_file(content(20), tmp_path / name_of(20), {"fewlabels": json.dumps({"format": 2, "step": 20})})
    with pytest.raises(UserError, match=r"step-00000020.* has format 2; this fewlabels reads up to 1\."):
        load(tmp_path)


def test_a_full_disk_is_said_and_leaves_the_older_ones(tmp_path, monkeypatch):
    save_steps(tmp_path, 10, 20)
    before = files_in(tmp_path)

    def write(tensors, path, header):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", write)
    with pytest.raises(UserError, match=r"checkpoint of step 30 .*No space left on device.*make room") as error:
        save_steps(tmp_path, 30)
    assert str(tmp_path) in str(error.value)
    assert files_in(tmp_path) == before
    assert loaded_step(tmp_path) == 20


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        save_steps(tmp_path / "file", 1)
