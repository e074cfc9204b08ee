"""Randomness as a pure function of a key: a counter hash that gives the same numbers on every device.

A key is folded, part by part, from what a draw depends on: (seed, branch, stream, step, slot in the
global batch, view, operation). It never depends on time or on the number of processes, so samplers and
views keep no state but the step, and a killed run continues bit for bit.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Part: TypeAlias = "int | str | Tensor"

_BITS64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: SplitMix64's increment (Steele et al. 2014)
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # SplitMix64's finalizer
_SHIFTS = (30, 27, 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _mix_int(x: int) -> int:
    x = (x + _GOLDEN) & _BITS64
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        x = ((x ^ (x >> shift)) * multiplier) & _BITS64
    return x ^ (x >> _SHIFTS[-1])


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros; torch's own shift repeats the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(x: Tensor) -> Tensor:
    x = x + _signed(_GOLDEN)
    for shift, multiplier in zip(_SHIFTS, _MULTIPLIERS, strict=False):
        x = (x ^ _shift(x, shift)) * _signed(multiplier)
    return x ^ _shift(x, _SHIFTS[-1])


def _fold(state: int | Tensor, part: Part) -> int | Tensor:
    if isinstance(part, Tensor):
        return _mix_tensor(_mix_tensor(part.to(torch.int64)) ^ (_signed(state) if isinstance(state, int) else state))
    if isinstance(state, int):
        return _mix_int(state ^ _mix_int(_number(part)))
    return _mix_tensor(state ^ _signed(_mix_int(_number(part))))


def _number(part: int | str) -> int:
    return (crc32(part) if isinstance(part, str) else operator.index(part)) & _BITS64


def _crc32_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0xEDB88320 if byte & 1 else 0)
    return byte


_CRC32 = tuple(_crc32_of_byte(byte) for byte in range(256))


def crc32(name: str) -> int:
    """Return what `zlib.crc32` returns of the name's bytes; in Python, which `torch.compile` can trace."""
    found = 0xFFFFFFFF
    for byte in name.encode():
        found = (found >> 8) ^ _CRC32[(found ^ byte) & 0xFF]
    return found ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Key:
    """A point of the stream of random numbers: a whole number, or an int64 tensor of one key an element."""

    state: int | Tensor

    def fold(self, *parts: Part) -> Key:
        """Give the key that also depends on `parts`, in this order; tensors broadcast."""
        state = self.state
        for part in parts:
            state = _fold(state & _BITS64 if isinstance(state, int) else state, part)
        return Key(state)

    def each(self, numbers: range, device: torch.device) -> Key:
        """Return a key for each of `numbers`, [n] before the dimensions that the key has."""
        dims = self.state.ndim if isinstance(self.state, Tensor) else 0
        counted = torch.arange(numbers.start, numbers.stop, numbers.step, device=device)
        return self.fold(counted.view(-1, *[1] * dims))

    @property
    def tensor(self) -> Tensor:
        """The state of a key that has elements, int64.

        Raises:
            TypeError: it is a key of whole numbers, which has none.
        """
        if not isinstance(self.state, Tensor):
            raise TypeError("a key of whole numbers has no elements; fold a tensor, or use `each`")
        return self.state

    def seed(self) -> int:
        """Give a seed in [0, 2**63) for a generator of somebody else's; only from a whole-number key."""
        if isinstance(self.state, Tensor):
            raise TypeError("a seed comes from a key of whole numbers: reading a tensor would stop the device")
        return (self.state & _BITS64) >> 1

    def uniform(self) -> Tensor:
        """Draw one float32 in [0, 1) for each element of the key; 24 random bits."""
        state = self.state if isinstance(self.state, Tensor) else torch.tensor(_signed(self.state & _BITS64))
        return _shift(state, 40).to(torch.float32) * 2.0**-24

    def three(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw three float32 in [0, 1) for each element of the key, from one hash: of 24, 24 and 16 random bits.

        For many elements, where the hash is most of the work; the first is `uniform`'s.
        """
        assert isinstance(self.state, Tensor)
        second, third = (self.state >> 16) & 0xFFFFFF, self.state & 0xFFFF
        return self.uniform(), second.to(torch.float32) * 2.0**-24, third.to(torch.float32) * 2.0**-16

    def uniforms(self, count: int) -> Tensor:
        """Draw `count` numbers for each of the key's elements [n]: float32 [count, n] in [0, 1)."""
        device = self.state.device if isinstance(self.state, Tensor) else torch.device("cpu")
        return self.each(range(count), device).uniform()

    def integers(self, high: int) -> Tensor:
        """Draw one int64 in [0, high) for each element of the key; high is at most 2**24."""
        return integers(self.uniform(), high)


def normal(uniform: Tensor) -> Tensor:
    """Turn draws of 24 bits in [0, 1) into standard normal ones, from -5.4 to 5.4."""
    # The middles of the 2**24 equal parts of -1..1: never an end, whose quantile is infinite.
    return 2**0.5 * torch.erfinv(2 * uniform + (2.0**-24 - 1))


def integers(uniform: Tensor, high: int) -> Tensor:
    """Turn draws in [0, 1) into int64 in [0, high); high is at most 2**24."""
    return (uniform * high).to(torch.int64)
