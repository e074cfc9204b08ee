"""Copies that parted are brought together: each tensor by its rule."""

import pytest
import torch
from torch import nn

from fewlabels.averaging.copies import combine, combined, rules_of
from fewlabels.averaging.memory import Memory


def tensor(*values):
    return torch.tensor(values)


def test_the_mean_and_the_first():
    copies = [tensor(1.0, 5.0), tensor(2.0, 7.0), tensor(6.0, 0.0)]
    assert combine("mean", tensor(9.0, 9.0), copies).tolist() == [3.0, 4.0]
    assert combine("first", tensor(9.0, 9.0), copies).tolist() == [1.0, 5.0]


def test_an_entry_is_the_last_copys_that_changed_it():
    start = tensor(0, 1, 2, 3)
    found = combine("rows", start, [tensor(0, 11, 2, 13), tensor(0, 1, 22, 23), tensor(0, 1, 2, 3)])
    assert found.tolist() == [0, 11, 22, 23]


def test_a_row_of_several_numbers_is_taken_whole():
    start = torch.zeros(3, 2)
    first, second = start.clone(), start.clone()
    first[0], first[1], second[1] = tensor(1.0, 0.0), tensor(2.0, 3.0), tensor(0.0, 4.0)
    assert combine("rows", start, [first, second]).tolist() == [[1.0, 0.0], [0.0, 4.0], [0.0, 0.0]]
    assert combine("rows", start, [second, first]).tolist() == [[1.0, 0.0], [2.0, 3.0], [0.0, 0.0]]


def test_a_parameter_under_two_names_is_averaged_under_both():
    def tied(value):
        made = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        made[1].weight = made[0].weight
        nn.init.constant_(made[0].weight, value)
        return made

    start = tied(0.0)
    start.load_state_dict(combined(start, [tied(1.0), tied(3.0)]))
    assert (start[0].weight == 2).all()


@pytest.mark.parametrize(("start", "rule"), [(torch.zeros(2, dtype=torch.int64), "mean"), (torch.zeros(()), "rows")])
def test_a_rule_that_cannot_hold_is_refused(start, rule):
    with pytest.raises(ValueError, match=f"does not combine by '{rule}'"):
        Memory().remember("found", start, rule)


class Remembers(Memory):
    def __init__(self):
        super().__init__()
        self.remember("tau", torch.zeros(()), "mean")
        self.remember("last", torch.zeros(2), "rows")


def module():
    made = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), Remembers())
    made.register_buffer("counter", torch.zeros(()))
    return made


def test_a_module_says_by_which_rule_each_of_its_tensors_combines():
    means = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.tau"}
    assert rules_of(module()) == dict.fromkeys(means, "mean") | {"2.last": "rows"}
    assert rules_of(Remembers()) == {"tau": "mean", "last": "rows"}


@pytest.mark.parametrize("count", [1, 3])
def test_all_of_a_module_is_combined(count):
    start = module()
    copies = []
    for number in range(count):
        copy = module()
        for tensor in copy.state_dict().values():
            tensor.fill_(number + 1)
        copies.append(copy)
    found = combined(start, copies)
    assert found.keys() == start.state_dict().keys()
    expected = {"counter": 1, "1.num_batches_tracked": 1, "2.last": count}
    for name, value in found.items():
        assert (value == expected.get(name, (1 + count) / 2)).all(), name
