"""The record: means over the steps of a line, the same whether or not the run was stopped between."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewlabels.errors import UserError
from fewlabels.training.record import EXPLODED, ExplodedError, Record, read_lines, rewind

numbers = st.floats(-100, 100, width=32)


def metrics_of(loss, **others):
    return {name: torch.tensor(float(value)) for name, value in {"loss": loss, **others}.items()}


def record_losses(record, losses, first=1):
    """Do what the loop does: take in each step, write a line where one is due; the last step always has one."""
    last = first + len(losses) - 1
    for step, loss in enumerate(losses, first):
        record.add(step, metrics_of(loss, kept=-loss))
        if record.due(step) or step == last:
            record.write(step, record.flush(step))


@settings(deadline=None, max_examples=30)
@given(losses=st.lists(numbers, min_size=1, max_size=12), every=st.integers(1, 5))
def test_a_line_holds_the_means_since_the_line_before(tmp_path_factory, losses, every):
    path = tmp_path_factory.mktemp("record") / "metrics.jsonl"
    record_losses(Record(path, every), losses)
    lines = read_lines(path)
    expected = [losses[start : start + every] for start in range(0, len(losses), every)]
    assert [line["step"] for line in lines] == [min((k + 1) * every, len(losses)) for k in range(len(expected))]
    for line, part in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(sum(part) / len(part), abs=1e-4)
        assert line["kept"] == pytest.approx(-line["loss"], abs=1e-4)


@pytest.mark.parametrize("stop", [1, 4, 5, 7])
def test_sums_of_an_unfinished_line_continue(tmp_path, stop):
    losses = [float(k * k) for k in range(1, 11)]
    whole = Record(tmp_path / "whole.jsonl", 5)
    record_losses(whole, losses)
    first = Record(tmp_path / "parts.jsonl", 5)
    for step in range(1, stop + 1):
        first.add(step, metrics_of(losses[step - 1], kept=-losses[step - 1]))
        if first.due(step):
            first.write(step, first.flush(step))
    second = Record(tmp_path / "parts.jsonl", 5)
    second.load(first.tensors(), first.counts)
    record_losses(second, losses[stop:], stop + 1)
    assert read_lines(second.path) == read_lines(whole.path)


def test_the_record_keeps_no_hold_of_the_tensors_it_is_given(tmp_path):
    record, metrics = Record(tmp_path / "m.jsonl", 2), metrics_of(1.0)
    record.add(1, metrics)
    metrics["loss"].fill_(100)
    record.add(2, metrics_of(3.0))
    assert record.flush(2) == {"loss": 2.0}


def test_what_begins_within_a_line_is_averaged_over_its_own_steps(tmp_path):
    record = Record(tmp_path / "m.jsonl", 4)
    for step in range(1, 5):
        record.add(step, metrics_of(1.0, late=6.0) if step > 2 else metrics_of(1.0))
    assert record.flush(4) == {"loss": 1.0, "late": 6.0}


def test_means_are_read_in_float64(tmp_path):
    record = Record(tmp_path / "m.jsonl", 1)
    record.add(1, {"loss": torch.tensor(1.0), "big": torch.tensor(2**24 + 1, dtype=torch.int64)})
    assert record.flush(1)["big"] == 2**24 + 1


# --- explosions ---


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), EXPLODED, -2 * EXPLODED])
def test_the_first_bad_step_is_named(tmp_path, bad):
    record = Record(tmp_path / "m.jsonl", 10)
    for step in range(1, 11):
        record.add(step, metrics_of(bad if step in (4, 7) else 1.0))
    assert record.first_bad() == 4
    with pytest.raises(ExplodedError, match="not finite, or above 10000, at step 4") as error:
        record.flush(10)
    assert error.value.step == 4
    assert isinstance(error.value, UserError)


def test_a_bad_step_is_known_before_the_line_is_due(tmp_path):
    record = Record(tmp_path / "m.jsonl", 10)
    record.add(1, metrics_of(0.9 * EXPLODED))
    assert record.first_bad() is None
    record.add(2, metrics_of(float("nan")))
    assert record.first_bad() == 2


def test_another_metric_may_be_of_any_size(tmp_path):
    record = Record(tmp_path / "m.jsonl", 1)
    record.add(1, metrics_of(1.0, seen=1e9))
    assert record.flush(1) == {"loss": 1.0, "seen": 1e9}


# --- the file ---


def lines_file(path, *steps, tail=""):
    path.write_text("".join(json.dumps({"step": step, "loss": step / 2}) + "\n" for step in steps) + tail)
    return Record(path, 5)


@pytest.mark.parametrize(("step", "kept"), [(0, []), (9, [5]), (10, [5, 10]), (99, [5, 10, 15])])
def test_rewinding_removes_later_lines(tmp_path, step, kept):
    record = lines_file(tmp_path / "m.jsonl", 5, 10, 15)
    rewind(record.path, step)
    assert read_lines(record.path) == [{"step": k, "loss": k / 2} for k in kept]
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize("tail", ['{"step": 15, "lo', "{", '{"step": 1', "\0\0\0\0"])
def test_a_torn_last_line_is_left_out_and_rewinding_removes_it(tmp_path, tail):
    record = lines_file(tmp_path / "m.jsonl", 5, 10, tail=tail)
    assert [line["step"] for line in read_lines(record.path)] == [5, 10]
    rewind(record.path, 10)
    record.write(15, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in record.path.read_text().splitlines()] == [5, 10, 15]


def test_bytes_that_are_no_text_are_left_out(tmp_path):
    record = lines_file(tmp_path / "m.jsonl", 5)
    record.path.write_bytes(record.path.read_bytes() + b"\xff\xfe\x80\n")
    assert [line["step"] for line in read_lines(record.path)] == [5]


def test_without_a_file_there_are_no_lines_and_rewinding_begins_one(tmp_path):
    record = Record(tmp_path / "run" / "m.jsonl", 5)
    assert read_lines(record.path) == []
    rewind(record.path, 0)
    record.write(5, {"loss": 0.5})
    assert record.path.read_text() == '{"step": 5, "loss": 0.5}\n'


def test_a_line_is_due_every_so_many_steps(tmp_path):
    record = Record(tmp_path / "m.jsonl", 4)
    assert [step for step in range(1, 13) if record.due(step)] == [4, 8, 12]
