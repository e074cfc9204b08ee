"""Keys against a SplitMix64 in NumPy's unsigned arithmetic, and the statistics of what they draw."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewlabels.keys import Key, normal

quick = settings(deadline=None, max_examples=40)
whole_numbers = st.integers(-(2**70), 2**70)
int64s = st.integers(-(2**63), 2**63 - 1)
parts = st.one_of(whole_numbers, st.text("abyz 01é", max_size=8))

available = ["cpu"]
available += ["cuda"] if torch.cuda.is_available() else []
available += ["mps"] if torch.backends.mps.is_available() else []


def mix(x):
    """One output of SplitMix64 (Steele et al. 2014) from state x, uint64 [...]."""
    x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def folded(state, *parts):
    """The state that a key of `state` must have after `parts`: whole numbers, strings or int64 arrays."""
    with np.errstate(over="ignore"):
        for part in parts:
            if isinstance(part, str):
                part = zlib.crc32(part.encode())
            part = part.astype(np.uint64) if isinstance(part, np.ndarray) else np.uint64(part % 2**64)
            state = mix(state ^ mix(part))
    return state


def unsigned(state):
    return state.cpu().numpy().view(np.uint64) if isinstance(state, torch.Tensor) else np.uint64(state)


def grid(*sizes, seed=7):
    """One key an element of a grid, folded axis by axis."""
    axes = [torch.arange(n).reshape([-1] + [1] * (len(sizes) - 1 - i)) for i, n in enumerate(sizes)]
    return Key(seed).fold(*axes)


def correlation(first, second):
    return np.corrcoef(first.flatten().numpy(), second.flatten().numpy())[0, 1]


# --- the hash --------------------------------------------------------------------------------------------


def test_reference_gives_the_published_outputs_of_splitmix64():
    with np.errstate(over="ignore"):
        states = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
        assert mix(states).tolist() == outputs


@quick
@given(st.integers(0, 2**64 - 1), st.lists(parts, min_size=1, max_size=4))
def test_whole_numbers_and_strings_fold_as_the_reference(seed, parts):
    assert Key(seed).fold(*parts).state == folded(np.uint64(seed), *parts)


@quick
@given(st.integers(0, 2**64 - 1), st.lists(int64s, min_size=1, max_size=5), st.lists(parts, max_size=2))
def test_tensors_fold_as_the_reference(seed, values, more):
    values = np.array(values, np.int64)
    for device in available:
        key = Key(seed).fold(torch.from_numpy(values).to(device), *more)
        assert unsigned(key.state).tolist() == folded(np.uint64(seed), values, *more).tolist()


@quick
@given(st.integers(0, 2**64 - 1), int64s, parts)
def test_a_tensor_folds_as_the_whole_number_it_holds(seed, value, more):
    as_number = Key(seed).fold(value, more)
    as_tensor = Key(seed).fold(torch.tensor(value), more)
    assert as_number.state == unsigned(as_tensor.state)
    assert torch.equal(as_number.uniform(), as_tensor.uniform())
    assert torch.equal(as_number.integers(1000), as_tensor.integers(1000))


@quick
@given(st.integers(0, 2**32), parts, parts)
def test_folding_twice_is_folding_both_in_order(seed, first, second):
    assert Key(seed).fold(first, second) == Key(seed).fold(first).fold(second)
    assert Key(seed).fold() == Key(seed)


def test_the_order_of_parts_matters():
    for first, second in ((1, 2), ("x", "y"), (0, "x"), (-1, 1)):
        assert Key(3).fold(first, second) != Key(3).fold(second, first)


def test_a_number_beyond_64_bits_counts_modulo_2_to_the_64():
    assert Key(3).fold(-1) == Key(3).fold(2**64 - 1)
    assert Key(3).fold(2**64 + 5) == Key(3).fold(5)


@pytest.mark.parametrize("device", available)
def test_pinned_values_never_change(device):
    """A change here breaks the resuming of runs that were begun before it."""
    assert Key(0).fold(0).state == 0xA706DD2F4D197E6F
    slots = torch.tensor([0, 1, -1, 2**62], device=device)
    key = Key(1000).fold(0, "views").fold(torch.tensor(12, device=device)).fold("unlabeled").fold(slots)
    assert [hex(state) for state in unsigned(key.state)] == PINNED_STATES
    assert key.uniform().tolist() == PINNED_UNIFORM
    assert key.integers(1000).tolist() == [int(1000 * draw) for draw in PINNED_UNIFORM]


PINNED_STATES = ["0x9f71fd8f6bbfe61b", "0x1b9e1b7c00c5ca0", "0x2cfe3edc2a9471b8", "0x85a54e4253443ad0"]
PINNED_UNIFORM = [0.6228330731391907, 0.006742537021636963, 0.17575442790985107, 0.522053599357605]


@pytest.mark.parametrize("device", available)
def test_devices_draw_the_same(device):
    slots = torch.arange(-5000, 5000)
    here, there = (Key(5).fold("weak", slots.to(d), 3) for d in ("cpu", device))
    assert there.uniform().device.type == device
    assert torch.equal(here.state, there.state.cpu())
    assert torch.equal(here.uniform(), there.uniform().cpu())
    assert unsigned(here.state).tolist() == folded(np.uint64(5), "weak", slots.numpy(), 3).tolist()


def test_fold_broadcasts_tensors_with_tensors():
    steps, slots = torch.arange(4)[:, None], torch.arange(3)
    state = Key(2).fold(steps).fold(slots).state
    assert state.shape == (4, 3)
    for step in range(4):
        for slot in range(3):
            assert unsigned(state[step, slot]) == Key(2).fold(step, slot).state


# --- draws -----------------------------------------------------------------------------------------------


def test_uniform_is_the_highest_24_bits():
    highest = torch.tensor([0, 2**40 - 1, 2**40, 2**63 - 1, -(2**63), -1])
    expected = [0, 0, 2**-24, 0.5 - 2**-24, 0.5, 1 - 2**-24]
    assert Key(highest).uniform().tolist() == expected
    assert [Key(s % 2**64).uniform().item() for s in highest.tolist()] == expected


def test_uniform_is_uniform():
    draws = grid(100_000).uniform().to(torch.float64)
    assert draws.dtype == torch.float64 and draws.min() >= 0 and draws.max() < 1
    n = len(draws)
    assert abs(draws.mean() - 1 / 2) < 4 * (1 / 12 / n) ** 0.5
    assert abs(draws.var() - 1 / 12) < 4 * (1 / 180 / n) ** 0.5
    counts = torch.bincount((draws * 256).long(), minlength=256)
    chi_square = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi_square - 255) < 4 * (2 * 255) ** 0.5


@pytest.mark.parametrize("shape", [(100, 1000), (1000, 100)])
def test_neighbours_do_not_correlate(shape):
    draws = grid(*shape).uniform()
    bound = 4 / draws.numel() ** 0.5
    assert abs(correlation(draws[1:], draws[:-1])) < bound
    assert abs(correlation(draws[:, 1:], draws[:, :-1])) < bound


def test_names_and_seeds_do_not_correlate():
    key = grid(100_000)
    others = [key.fold("x"), key.fold("y"), key.fold(0), key.fold(1), grid(100_000, seed=8)]
    draws = [other.uniform() for other in [key, *others]]
    worst = max(abs(correlation(draws[i], draws[j])) for i in range(6) for j in range(i))
    assert worst < 4 / 100_000**0.5


def test_each_bit_of_a_part_moves_half_of_the_bits_of_the_state():
    values = np.random.default_rng(0).integers(-(2**63), 2**63, (400, 1))
    flipped = values ^ (np.int64(1) << np.arange(64))
    before, after = (unsigned(Key(9).fold(torch.from_numpy(part)).state) for part in (values, flipped))
    moved = np.unpackbits((before ^ after).view(np.uint8).reshape(400, 64, 8), axis=2)
    assert np.abs(moved.mean((0, 2)) - 0.5).max() < 0.02  # n = 400 * 64 bits, sigma = .003
    assert np.abs(moved.mean(0) - 0.5).max() < 0.13  # n = 400, sigma = .025


def test_no_state_repeats_over_steps_slots_and_views():
    states = grid(300, 300, 3).state
    assert len(torch.unique(states)) == states.numel()


def test_step_and_slot_do_not_change_places():
    states = grid(50, 50).state
    off_diagonal = ~torch.eye(50, dtype=torch.bool)
    assert (states != states.T)[off_diagonal].all()


@quick
@given(st.integers(1, 2**24))
def test_integers_reach_but_do_not_exceed_their_range(high):
    ends = Key(torch.tensor([0, -1])).integers(high)
    assert ends.dtype == torch.int64
    assert ends.tolist() == [0, high - 1]


def test_integers_are_uniform():
    counts = torch.bincount(grid(70_000).integers(7), minlength=7)
    assert len(counts) == 7
    assert (counts - 10_000).abs().max() < 4 * (70_000 * 6 / 49) ** 0.5


# --- seeds -----------------------------------------------------------------------------------------------


def test_a_seed_does_not_come_from_a_tensor():
    with pytest.raises(TypeError, match="whole numbers"):
        Key(1).fold(torch.tensor(2)).seed()


@quick
@given(whole_numbers, parts)
def test_a_seed_fits_the_generators_of_torch_and_differs_by_part(seed, part):
    given = Key(seed).fold(part).seed()
    assert 0 <= given < 2**63
    assert torch.Generator().manual_seed(given).initial_seed() == given
    assert given != Key(seed).fold(part, 0).seed()


def test_three_draws_from_one_hash_are_its_bits_and_do_not_depend_on_each_other():
    key = Key(5).fold(torch.arange(20_000))
    first, second, third = (draws.numpy().astype(np.float64) for draws in key.three())
    state = key.state.numpy().view(np.uint64)
    assert np.array_equal(first, key.uniform().numpy())
    assert np.array_equal(first * 2**24, state >> np.uint64(40))
    assert np.array_equal(second * 2**24, (state >> np.uint64(16)) & np.uint64(0xFFFFFF))
    assert np.array_equal(third * 2**16, state & np.uint64(0xFFFF))
    assert np.abs(np.corrcoef([first, second, third]) - np.eye(3)).max() < 0.03


def test_normal_draws_are_quantiles_and_always_finite():
    ends = normal(torch.tensor([0.0, 0.5 - 2.0**-24, 0.5, 1 - 2.0**-24]))
    assert ends[0] == -ends[3] and ends[1] == -ends[2]
    assert 5.3 < float(ends[3]) < 5.5
    drawn = normal(Key(3).fold(torch.arange(20_000)).uniform())
    assert stats.kstest(drawn.numpy(), "norm").pvalue > 0.01
