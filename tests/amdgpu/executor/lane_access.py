# SPDX-License-Identifier: Apache-2.0
"""What loads and stores of each name move, and what atomics do: the expectations of the tests of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Moves(NamedTuple):
    """`half`: 16 bits go to (or come from) that half of the register, 0 or 1; None: all of it."""

    size: int
    signed: bool = False
    half: int | None = None

    @property
    def registers(self) -> int:
        """How many registers that takes."""
        return max(self.size // 4, 1)


LOADS = {
    "ubyte": Moves(1),
    "sbyte": Moves(1, True),
    "ushort": Moves(2),
    "sshort": Moves(2, True),
    "dword": Moves(4),
    "dwordx2": Moves(8),
    "dwordx3": Moves(12),
    "dwordx4": Moves(16),
    "ubyte_d16": Moves(1, False, 0),
    "ubyte_d16_hi": Moves(1, False, 1),
    "sbyte_d16": Moves(1, True, 0),
    "sbyte_d16_hi": Moves(1, True, 1),
    "short_d16": Moves(2, False, 0),
    "short_d16_hi": Moves(2, False, 1),
}
STORES = {
    "byte": Moves(1),
    "byte_d16_hi": Moves(1, False, 1),
    "short": Moves(2),
    "short_d16_hi": Moves(2, False, 1),
    "dword": Moves(4),
    "dwordx2": Moves(8),
    "dwordx3": Moves(12),
    "dwordx4": Moves(16),
}


def loaded(moves: Moves, data: np.ndarray, old: np.ndarray) -> np.ndarray:
    """A lane's registers after its load of `data`, bytes; `old`: before."""
    if moves.size >= 4:
        return data.view(np.uint32)
    value = int.from_bytes(data.tobytes(), "little", signed=moves.signed)
    if moves.half is None:
        return np.array([value & 0xFFFFFFFF], np.uint32)
    kept = int(old[0]) & (0xFFFF0000 if moves.half == 0 else 0xFFFF)
    return np.array([kept | (value & 0xFFFF) << 16 * moves.half], np.uint32)


def stored(moves: Moves, registers: np.ndarray) -> np.ndarray:
    """The bytes that a lane's store writes."""
    return registers.view(np.uint8)[2 * (moves.half or 0) :][: moves.size]


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _floats(operation: Callable[[float, float], float]) -> Callable[[int, int, int], int]:
    def apply(old: int, x: int, bits: int) -> int:
        kind, word = (np.float32, np.uint32) if bits == 32 else (np.float64, np.uint64)
        a, b = (np.array([n], word).view(kind)[0] for n in (old, x))
        return int(np.array([operation(a, b)], kind).view(word)[0])

    return apply


def _halves(old: int, x: int, bits: int) -> int:
    a, b = (np.array([n], np.uint32).view(np.float16) for n in (old, x))
    return int((a + b).view(np.uint32)[0])


def _brain_halves(old: int, x: int, bits: int) -> int:
    a, b = (np.array([n << 16 & 0xFFFFFFFF, n & 0xFFFF0000], np.uint32).view(np.float32) for n in (old, x))
    words = (a + b).view(np.uint32)  # of small integers: nothing is rounded
    return int(words[0]) >> 16 | int(words[1])


# The new value of memory from the old one, a lane's, and the number of bits.
ATOMICS: dict[str, Callable[[int, int, int], int]] = {
    "add": lambda old, x, bits: (old + x) % (1 << bits),
    "sub": lambda old, x, bits: (old - x) % (1 << bits),
    "rsub": lambda old, x, bits: (x - old) % (1 << bits),
    "smin": lambda old, x, bits: min(old, x, key=lambda n: _signed(n, bits)),
    "smax": lambda old, x, bits: max(old, x, key=lambda n: _signed(n, bits)),
    "umin": lambda old, x, bits: min(old, x),
    "umax": lambda old, x, bits: max(old, x),
    "and": lambda old, x, bits: old & x,
    "or": lambda old, x, bits: old | x,
    "xor": lambda old, x, bits: old ^ x,
    "swap": lambda old, x, bits: x,
    "inc": lambda old, x, bits: 0 if old >= x else old + 1,
    "dec": lambda old, x, bits: x if old == 0 or old > x else old - 1,
    "fadd": _floats(lambda a, b: a + b),
    "fmin": _floats(min),
    "fmax": _floats(max),
    "pk_add_f16": _halves,
    "pk_add_bf16": _brain_halves,
}


def operands_of(operation: str, bits: int, count: int, random: np.random.Generator) -> np.ndarray:
    """Values that such an operation is tried on, as unsigned integers of that size; small integers as floats."""
    word = np.uint32 if bits == 32 else np.uint64
    small = random.integers(-8, 8, count)
    if operation in ("fadd", "fmin", "fmax"):
        return small.astype(np.float32 if bits == 32 else np.float64).view(word)
    if operation.startswith("pk_add"):
        pair = np.stack([small, random.integers(-8, 8, count)], 1)
        if operation == "pk_add_f16":
            return pair.astype(np.float16).view(np.uint32)[:, 0]
        return (pair.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint32)[:, 0]
    if operation in ("inc", "dec"):
        return random.integers(0, 4, count).astype(word)
    return random.integers(0, 1 << bits, count, word)
