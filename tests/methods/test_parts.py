"""The steps that methods share, by themselves."""

import numpy as np
import pytest
import torch

from fewlabels.errors import UserError
from fewlabels.inputs.mix import beta_quantiles
from fewlabels.keys import Key
from fewlabels.methods.parts.banks import LabeledBank, RecentBank
from fewlabels.methods.parts.draws import directions, mix_rows, of_rows, unit
from fewlabels.methods.parts.graph import contrast, target_graph
from fewlabels.methods.parts.marginals import RecentMean
from fewlabels.methods.parts.memory import last_of
from fewlabels.methods.parts.pairs import of_class, shuffled
from fewlabels.methods.parts.ramps import cosine_ramp, ramp
from fewlabels.methods.parts.rotation import turned
from fewlabels.methods.parts.targets import align, sharpen
from fewlabels.methods.parts.thresholds import CurriculumThreshold


def images(n, side=4):
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(0))


def test_directions_are_of_length_one_and_all_equally_likely():
    found = directions(Key(1), torch.zeros(4000, 1, 2, 2)).flatten(1)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4000))
    assert found.mean(0).abs().max() < 0.04  # 5 standard errors of 4000 draws with variance 1/4
    torch.testing.assert_close(found.T @ found / 4000, torch.eye(4) / 4, atol=0.03, rtol=0)


def test_the_ends_of_what_is_drawn_make_directions_too(monkeypatch):
    ends = torch.tensor([0.0, 1 - 2.0**-24, 0.5, 0.25])  # the least and the most of 24 bits
    monkeypatch.setattr(Key, "uniforms", lambda self, count: ends[:, None].expand(count, 2))
    found = directions(Key(0), torch.zeros(2, 1, 2, 2))
    assert found.isfinite().all()
    assert found[0, 0, 0, 0] < 0 < found[0, 0, 0, 1]


def test_a_direction_of_nothing_is_nothing():
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_draws_belong_to_rows_and_streams():
    rows, key = torch.zeros(6), Key(3)
    first, second = (of_rows(key, name, rows).uniform() for name in ("one", "two"))
    assert torch.equal(first[:4], of_rows(key, "one", rows[:4]).uniform())
    assert not torch.equal(first, second) and len(first.unique()) == 6


def test_of_a_mixed_row_at_least_half_is_its_own():
    x, y = torch.arange(50.0).view(50, 1, 1, 1), torch.eye(50)
    mixed, targets = mix_rows(Key(0), x.split([10, 40]), y.split([10, 40]), beta_quantiles(0.75))
    own = targets.diagonal()
    assert own.min() >= 0.5 and own.max() < 1.01
    torch.testing.assert_close(targets.sum(1), torch.ones(50))
    torch.testing.assert_close(mixed.flatten(), targets @ torch.arange(50.0), rtol=1e-4, atol=1e-4)


def test_turns_are_counter_clockwise_quarters():
    x = images(40)
    seen, turns = turned(Key(0), x)
    assert set(turns.tolist()) == {0, 1, 2, 3}
    for image, turn, original in zip(seen, turns.tolist(), x, strict=True):
        np.testing.assert_array_equal(image, np.rot90(original, turn, axes=(1, 2)))


def test_images_that_are_not_square_cannot_be_turned():
    with pytest.raises(UserError, match=r"of 2 by 3 pixels.*--images.size"):
        turned(Key(0), torch.zeros(1, 1, 2, 3))


def test_the_recent_mean_forgets_what_is_older_than_its_window():
    mean = RecentMean(2, window=2)
    seen = [torch.tensor([[p, 1 - p]]) for p in (0.2, 0.4, 0.9)]
    found = [mean(p)[0].item() for p in seen]
    assert found == pytest.approx([0.2, 0.3, 0.65])
    assert mean(torch.zeros(0, 2))[0].item() == pytest.approx(0.65)  # without rows nothing changes


def test_of_several_slots_of_a_row_the_last_chosen_counts():
    rows = torch.tensor([5, 7, 5, 5, 8])
    chosen = torch.tensor([True, False, True, False, True])
    assert last_of(rows, chosen).tolist() == [2, 1, 2, 2, 4]


def test_a_sure_prediction_is_remembered_until_another_sure_one():
    threshold = CurriculumThreshold(3, rows=4, unlabeled=4, threshold=0.8)
    sure, unsure = torch.tensor([[0.1, 0.9, 0.0]]), torch.tensor([[0.6, 0.4, 0.0]])
    for p, expected in ((unsure, -1), (sure, 1), (unsure, 1)):
        threshold(p, torch.tensor([2]))
        assert threshold.selected.tolist() == [-1, -1, expected, -1]


def test_chosen_rows_get_each_other():
    chosen = torch.tensor([True, False, True, True, False])
    other = shuffled(chosen, torch.tensor([0.9, 0.0, 0.1, 0.5, 0.3]))
    assert other[chosen].tolist() == [2, 3, 0]


def test_a_partner_is_of_the_wished_class_or_there_is_none():
    classes, allowed = torch.tensor([0, 1, 1, 2]), torch.tensor([True, True, True, False])
    draws = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).repeat(3, 1)
    found, there = of_class(torch.tensor([0, 1, 2]), classes, allowed, draws)
    assert there.tolist() == [True, True, False] and found[:2].tolist() == [0, 2]


def test_the_ring_of_recent_rows_wraps():
    bank = RecentBank(3, embedding=1, classes=2)
    for value in (1.0, 2.0):
        bank.take_in(torch.full((2, 1), value), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert bank.embeddings.flatten().tolist() == [2.0, 1.0, 2.0]
    assert bank.targets[:, 0].tolist() == [0.0, 0.0, 1.0]


def test_rows_of_a_bank_that_are_not_filled_are_like_nothing():
    bank, labeled = RecentBank(4, embedding=1, classes=2), LabeledBank(3, embedding=1)
    bank.take_in(torch.ones(1, 1), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(bank.targets_near(torch.ones(1, 1), 0.1), torch.tensor([[0.0, 1.0]]))
    labeled.take_in(torch.ones(2, 1), torch.tensor([1, 0]), torch.tensor([2, 2]))
    assert labeled.similarity(torch.ones(1, 1), 0.5).tolist() == [[-torch.inf, -torch.inf, 2.0]]
    assert labeled.classes(2).tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]


def test_a_graph_joins_rows_with_like_targets_and_each_with_itself():
    q = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    graph = target_graph(q, edge=0.7)
    torch.testing.assert_close(graph[2], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(graph[0], torch.tensor([1.0, 0.74, 0.0]) / 1.74)
    alike, unlike = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert contrast(unlike, unlike, graph, 0.1) < contrast(alike, alike, graph, 0.1)


def test_sharpening_and_alignment():
    p = torch.tensor([[0.8, 0.2]])
    torch.testing.assert_close(sharpen(p, 0.5), torch.tensor([[0.64, 0.04]]) / 0.68)
    torch.testing.assert_close(sharpen(p, 1.0), p)
    assert sharpen(torch.tensor([[1.0, 0.0]]), 1e-6).isfinite().all()
    torch.testing.assert_close(align(p, 1.0, torch.tensor([0.8, 0.2])), torch.tensor([[0.5, 0.5]]))
    assert align(p, 1.0, torch.tensor([1.0, 0.0])).isfinite().all()


def test_ramps_rise_from_zero_to_one():
    shares = torch.linspace(0, 1, 11)
    assert [float(ramp(s, 0.4)) for s in shares[[0, 2, 4, 10]]] == pytest.approx([0, 0.5, 1, 1])
    assert float(ramp(shares[0], 0.0)) == float(ramp(shares[0], 0.0, "exp")) == 1
    assert float(ramp(shares[0], 1e-50)) == 0
    exp = [float(ramp(s, 0.4, "exp")) for s in shares[[0, 2, 4, 10]]]
    assert exp == pytest.approx([2.718281828**-5, 2.718281828**-1.25, 1, 1])
    assert [float(cosine_ramp(s)) for s in (shares[0], torch.tensor(0.25), shares[5], shares[10])] == pytest.approx(
        [0, 0.5, 1, 1], abs=1e-6
    )
