# SPDX-License-Identifier: Apache-2.0
"""Values that instructions are tried on: what is special of each type, in all pairs, and random ones."""

from __future__ import annotations

import numpy as np

from amdgpu import single

# Where sources of each type lie; the n-th source is two registers further for each.
FIRST = {"f": 0, "u": 8, "i": 8, "t": 16, "s": 16, "h": 24, "d": 32, "U": 40, "I": 40, "p": 8, "q": 48, "F": 56, "M": 0,
         "N": 8}  # fmt: skip
_SINGLES = [0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFA00000, 0x00000001,
            0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0x3F7FFFFF, 0x3F000000, 0xBFC00000, 0x4B000001, 0x40490FDB, 0xC2FC0000,
            0x7E800000, 0x00C00000, 0x4EFFFFFF, 0x4F800000, 0xCF000001, 0x33800000, 0x42280000, 0xC3960000]  # fmt: skip
_HALVES = [0x0000, 0x8000, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7E01, 0xFD00, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x3BFF, 0x3800,
           0xBE00, 0x4248, 0xCC80, 0x1400, 0x5640, 0x6C00]  # fmt: skip
_DOUBLES = [0x0000000000000000, 0x8000000000000000, 0x3FF0000000000000, 0xBFF0000000000000, 0x7FF0000000000000,
            0xFFF0000000000000, 0x7FF8000000000001, 0xFFF4000000000000, 0x0000000000000001, 0x800FFFFFFFFFFFFF,
            0x0010000000000000, 0x7FEFFFFFFFFFFFFF, 0x3FEFFFFFFFFFFFFF, 0x3FE0000000000000, 0x400921FB54442D18,
            0x41DFFFFFFFC00000, 0xC1E0000000200000, 0x36A0000000000000, 0x47F0000000000000, 0x7FD0000000000000]  # fmt: skip
_WORDS = [0, 1, 2, 3, 31, 32, 33, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFF, 0x800000, 0xFFFFFF,
          0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x80000001, 0xFFFFFFFE, 0x00010203, 0x0C0D0607, 0x8000FFFF, 63, 64]  # fmt: skip
_LONGS = [0, 1, 2, 63, 64, 0x7FFFFFFF, 0xFFFFFFFF, 0x100000000, 0x7FFFFFFFFFFFFFFF, 0x8000000000000000,
          0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF00000000, 0x123456789ABCDEF0]  # fmt: skip


def _column(special: list[int], bits: int, stride: int, turn: int, lanes: int, rng: np.random.Generator) -> np.ndarray:
    """One register's lanes in one round: half of them of the special values, so that all pairs come up."""
    count = turn * lanes + np.arange(lanes)
    chosen = np.array(special, np.uint64)[count // stride % len(special)]
    random = rng.integers(0, 1 << bits, lanes, np.uint64, endpoint=False) if bits < 64 else _random64(lanes, rng)
    return np.where(rng.random(lanes) < 0.6, chosen, random)


def _random64(lanes: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, (1 << 64) - 1, lanes, np.uint64, endpoint=True)


def _usual_floats(lanes: int, rng: np.random.Generator) -> np.ndarray:
    return (rng.standard_normal(lanes) * 2.0 ** rng.integers(-8, 8, lanes)).astype(np.float32)


def fill(state: single.State, turn: int, rng: np.random.Generator) -> None:
    """Sources of all types, and VCC."""
    lanes = state.v.shape[1]
    kinds = ((FIRST["f"], _SINGLES, 32), (FIRST["u"], _WORDS, 32), (FIRST["t"], _WORDS, 32), (FIRST["h"], _HALVES, 16),
             (FIRST["d"], _DOUBLES, 64), (FIRST["U"], _LONGS, 64))  # fmt: skip
    for first, special, bits in kinds:
        for at in range(4):
            stride = (1, len(special), 7, 3)[at]
            column = _column(special, bits, stride, turn, lanes, rng)
            state.v[first + 2 * at] = column & np.uint64(0xFFFFFFFF)
            if bits == 64:
                state.v[first + 2 * at + 1] = column >> np.uint64(32)
            if bits == 16:  # what is above must not matter
                state.v[first + 2 * at] |= rng.integers(0, 1 << 16, lanes, np.uint32) << np.uint32(16)
            if first == FIRST["f"] and turn % 3 == 2:
                state.v[first + 2 * at] = _usual_floats(lanes, rng).view(np.uint32)
    for at in range(4):
        low = _column(_HALVES, 16, (1, len(_HALVES), 7, 3)[at], turn, lanes, rng)
        high = _column(_HALVES, 16, (3, 1, len(_HALVES), 7)[at], turn, lanes, rng)
        state.v[FIRST["q"] + 2 * at] = low | high << np.uint64(16)
        for word in range(2):
            state.v[FIRST["F"] + 2 * at + word] = _column(_SINGLES, 32, (1, len(_SINGLES), 7)[(at + word) % 3], turn,
                                                          lanes, rng)  # fmt: skip
    state.vcc = int.from_bytes(rng.bytes(lanes // 8), "little")
