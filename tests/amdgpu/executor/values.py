# SPDX-License-Identifier: Apache-2.0
"""Values that instructions are tried on: what is special of each type, in all pairs, and random ones."""

from __future__ import annotations

import numpy as np

from amdgpu import single

# Where sources of each type lie; the n-th source is two registers further for each.
FIRST = {"f": 0, "u": 8, "i": 8, "t": 16, "s": 16, "h": 24, "d": 32, "U": 40, "I": 40, "p": 8, "q": 48, "F": 56, "M": 0,
         "N": 8}  # fmt: skip


def _bits(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


SINGLES = _bits(
    """
    0 80000000 3f800000 bf800000 7f800000 ff800000 7fc00001 ffa00000 1 807fffff 800000 7f7fffff 3f7fffff
    3f000000 bfc00000 4b000001 40490fdb c2fc0000 7e800000 c00000 4effffff 4f800000 cf000001 33800000 42280000
    c3960000
    """
)
HALVES = _bits(
    """
    0 8000 3c00 bc00 7c00 fc00 7e01 fd00 1 83ff 400 7bff 3bff 3800 be00 4248 cc80 1400 5640 6c00
    """
)
DOUBLES = _bits(
    """
    0 8000000000000000 3ff0000000000000 bff0000000000000 7ff0000000000000 fff0000000000000 7ff8000000000001
    fff4000000000000 1 800fffffffffffff 10000000000000 7fefffffffffffff 3fefffffffffffff 3fe0000000000000
    400921fb54442d18 41dfffffffc00000 c1e0000000200000 36a0000000000000 47f0000000000000 7fd0000000000000
    """
)
WORDS = _bits(
    """
    0 1 2 3 1f 20 21 7f 80 ff 7fff 8000 ffff 10000 7fffff 800000 ffffff 7fffffff 80000000 ffffffff 80000001
    fffffffe 10203 c0d0607 8000ffff 3f 40
    """
)
LONGS = _bits(
    """
    0 1 2 3f 40 7fffffff ffffffff 100000000 7fffffffffffffff 8000000000000000 ffffffffffffffff ffffffff00000000
    123456789abcdef0
    """
)


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
    kinds = ((FIRST["f"], SINGLES, 32), (FIRST["u"], WORDS, 32), (FIRST["t"], WORDS, 32), (FIRST["h"], HALVES, 16),
             (FIRST["d"], DOUBLES, 64), (FIRST["U"], LONGS, 64))  # fmt: skip
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
        low = _column(HALVES, 16, (1, len(HALVES), 7, 3)[at], turn, lanes, rng)
        high = _column(HALVES, 16, (3, 1, len(HALVES), 7)[at], turn, lanes, rng)
        state.v[FIRST["q"] + 2 * at] = low | high << np.uint64(16)
        for word in range(2):
            state.v[FIRST["F"] + 2 * at + word] = _column(SINGLES, 32, (1, len(SINGLES), 7)[(at + word) % 3], turn,
                                                          lanes, rng)  # fmt: skip
    state.vcc = int.from_bytes(rng.bytes(lanes // 8), "little")
