# SPDX-License-Identifier: Apache-2.0
"""For tests of handlers: which instructions reach one, and registers as arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from amdgpu import single
from amdgpu.decode.memory_names import ALIASES
from amdgpu.decode.target import Target
from amdgpu.library import library

OLD, NEW = ("gfx942", "gfx90a", "gfx950"), ("gfx1201", "gfx1100")  # by how they spell instructions


def names(pattern: str) -> set[str]:
    """The handlers whose whole names match."""
    return {name for name in library().handlers if re.fullmatch(pattern, name)}


def spellings(handler: str) -> list[str]:
    """The names by which assembly reaches a memory handler."""
    return [handler, *(new for new, old in ALIASES.items() if old == handler)]


@cache
def takes(target: str, text: str) -> bool:
    """Whether the assembler of a target knows these instructions."""
    try:
        single.assemble(text, target)
    except ValueError:
        return False
    return True


def forms(handler: str, text: str | Callable[[str], str]) -> list[tuple[str, str]]:
    """(target, assembly) of a target of each spelling that has the instruction; `text` has a {} for its name."""
    found = []
    for targets, mnemonics in ((OLD, [handler]), (NEW, [*spellings(handler)[1:], handler])):
        tries = [(t, (text if isinstance(text, str) else text(t)).format(m)) for t in targets for m in mnemonics]
        found += next(([one] for one in tries if takes(*one)), [])
    return found


def state(target: str, seed: int = 0, lds: int = 0) -> single.State:
    """Registers full of numbers, all lanes active."""
    made = single.State(Target(target).lanes, lds)
    random = np.random.default_rng(seed)
    mask = made.exec
    made.v[:] = random.integers(0, 1 << 32, made.v.shape, np.uint32)
    made.s[:] = random.integers(0, 1 << 32, made.s.shape, np.uint32)
    made.lds[:] = random.integers(0, 256, lds, np.uint8)
    made.exec = mask
    return made


def masks(lanes: int, seed: int = 1) -> Iterator[int]:
    """All lanes, none, one, and some."""
    everything = (1 << lanes) - 1
    yield everything
    yield 0
    yield 1 << (lanes - 3)
    yield int(np.random.default_rng(seed).integers(0, 1 << 63)) & everything


def active(mask: int, lanes: int) -> np.ndarray:
    """The lanes of a mask, as booleans."""
    return np.array([mask >> lane & 1 for lane in range(lanes)], bool)


def put64(v: np.ndarray, reg: int, values: np.ndarray) -> None:
    """64-bit values of all lanes into two registers."""
    v[reg], v[reg + 1] = values & np.uint64(0xFFFFFFFF), values >> np.uint64(32)


def span(first: int, count: int, file: str = "v") -> str:
    """Registers as assembly has them."""
    return f"{file}{first}" if count == 1 else f"{file}[{first}:{first + count - 1}]"


def bytes_of(words: np.ndarray) -> np.ndarray:
    """[registers, lanes] as [lanes, bytes]."""
    return np.ascontiguousarray(words.T).view(np.uint8).reshape(words.shape[1], -1)
