# SPDX-License-Identifier: Apache-2.0
"""Every scalar ALU handler, on each target that has an instruction for it, against exact arithmetic."""

from __future__ import annotations

import re
import zlib
from functools import cache
from typing import Any

import numpy as np
import pytest

from amdgpu import single
from amdgpu.decode.target import Target
from amdgpu.library import library

from . import instructions, values
from .expected_scalar import SAVED_MASKS, SCALARS
from .instructions import TARGETS, WIDTH, Within

ROUNDS = 160
# Scalar registers: two for each source, one that SCC comes from, then two for each result and one for its SCC.
SOURCES, SCC, RESULTS = 4, 14, 16
IN_PROGRAM = 26
SPECIAL_VALUES = {"f": values.SINGLES, "h": values.HALVES, "d": values.DOUBLES, "U": values.LONGS, "I": values.LONGS}
CONSTANT = {"s": 0xFFF3, "t": 0x8003, "f": 0x3F9D70A4}  # of instructions that have one in them
_HAS_CONSTANT = re.compile(r"s_(cmpk|addk|mulk|movk|cmovk|fmaak|fmamk)_")


def register(first: int, letter: str) -> str:
    return f"s[{first}:{first + 1}]" if WIDTH[letter] == 64 else f"s{first}"


def constant_at(name: str) -> int:
    """Which source is a constant, or -1."""
    if not _HAS_CONSTANT.match(name):
        return -1
    return 0 if name.startswith("s_movk") else 2 if name.startswith("s_fmaak") else 1


def text_of(name: str, mnemonic: str, result: int) -> str:
    handler = library().handlers[name]
    operands = [register(SOURCES + 2 * at, letter) for at, letter in enumerate(handler.sources)]
    if (at := constant_at(name)) >= 0:
        operands[at] = hex(CONSTANT[handler.sources[at]])
    if reads_old(name):
        del operands[2 if name.startswith("s_fmac") else 0]
    if handler.results:
        operands.insert(0, register(result, handler.results))
    elif name.startswith("s_cmpk"):
        pass
    return f"{mnemonic} {', '.join(operands)}"


def reads_old(name: str) -> bool:
    """Whether the destination is also a source."""
    return instructions.ACCUMULATES.match(name) is not None or instructions.READS_OLD.match(name) is not None


@cache
def forms(target: str) -> dict[str, str]:
    """The mnemonic of each handler that the target has an instruction for."""
    pairs = [(name, mnemonic) for name in SCALARS for mnemonic in instructions.spellings(name)]
    found = instructions.assembled([text_of(name, mnemonic, RESULTS) for name, mnemonic in pairs], target)
    return {
        name: mnemonic
        for (name, mnemonic), canonical in zip(pairs, found, strict=True)
        if canonical in instructions.spellings(name)
    }


def program(names: list[str], target: str) -> str:
    """Each instruction with SCC as given before it and put away behind it."""
    lines = []
    for at, name in enumerate(names):
        handler, result = library().handlers[name], RESULTS + 3 * at + at % 2  # an even one
        if reads_old(name):
            old = SOURCES + (4 if name.startswith("s_fmac") else 0)
            bits = "b64" if WIDTH[handler.results] == 64 else "b32"
            lines.append(f"s_mov_{bits} {register(result, handler.results)}, {register(old, handler.results)}")
        lines.append(f"s_cmp_lg_u32 s{SCC}, 0")
        lines.append(text_of(name, forms(target)[name], result))
        lines.append(f"s_cselect_b32 s{RESULTS + 3 * at + (0 if at % 2 else 2)}, 1, 0")
    return "\n".join(lines)


def column(letter: str, turn: int, stride: int, rng: np.random.Generator) -> int:
    special = SPECIAL_VALUES.get(letter, values.WORDS)
    if rng.random() < 0.7:
        return special[turn // stride % len(special)]
    return int(rng.integers(0, 1 << min(WIDTH[letter], 63))) * (2 if WIDTH[letter] == 64 else 1)


@cache
def outcomes(target: str) -> dict[str, list[tuple[bool, list[int], int, bool]]]:
    """SCC, the sources' bits, the result's and SCC afterwards, for each round of each instruction."""
    found: dict[str, list[Any]] = {}
    rest = [name for name in forms(target) if name not in SAVED_MASKS]
    by_types: dict[str, list[str]] = {}
    for name in rest:
        by_types.setdefault(library().handlers[name].sources, []).append(name)
    for letters, names in by_types.items():
        for start in range(0, len(names), IN_PROGRAM):
            part = names[start : start + IN_PROGRAM]
            text = program(part, target)
            rng = np.random.default_rng(zlib.crc32(f"{target}{letters}{start}".encode()))
            for turn in range(ROUNDS):
                state = single.State(Target(target).lanes)
                sources = []
                for at, letter in enumerate(letters):
                    bits = column(letter, turn, (1, 13, 7)[at], rng)
                    first = SOURCES + 2 * at
                    state.s[first], state.s[first + 1] = bits & 0xFFFFFFFF, bits >> 32
                    sources.append(bits & (1 << WIDTH[letter]) - 1)
                state.s[SCC] = scc = int(rng.integers(2))
                single.run(text, target, state)
                for at, name in enumerate(part):
                    result, low = library().handlers[name].results, RESULTS + 3 * at + at % 2
                    after = int(state.s[low]) | (int(state.s[low + 1]) << 32 if result and WIDTH[result] == 64 else 0)
                    used = list(sources)
                    if (place := constant_at(name)) >= 0:
                        used[place] = CONSTANT[letters[place]]
                    new = bool(state.s[RESULTS + 3 * at + (0 if at % 2 else 2)])
                    found.setdefault(name, []).append((bool(scc), used, after, new))
    return found


@pytest.mark.parametrize("name", sorted(SCALARS.keys() - SAVED_MASKS.keys()))
def test_instruction(name: str) -> None:
    """On every target that has it; at least one does."""
    targets = [target for target in TARGETS if name in forms(target)]
    assert targets, f"{name} is an instruction of none of {TARGETS}"
    handler = library().handlers[name]
    for target in targets:
        for scc, bits, after, new in outcomes(target)[name]:
            sources = [instructions.value_of(x, letter) for x, letter in zip(bits, handler.sources, strict=True)]
            wanted, wanted_scc = SCALARS[name](scc, *sources)
            shown = f"{name} on {target}: of SCC {scc}, {', '.join(map(hex, bits))}"
            assert new == (scc if wanted_scc is None else wanted_scc), f"{shown}: SCC is {new}"
            if wanted is None:
                continue
            if isinstance(wanted, Within):
                assert wanted.holds(after), f"{shown}: {after:#x}, expected {wanted}"
            else:
                expected = instructions.bits_of(wanted, handler.results)
                assert instructions.same(after, expected, handler.results), (
                    f"{shown}: {after:#x}, expected {expected:#x}"
                )


@pytest.mark.parametrize("name", sorted(SAVED_MASKS))
def test_execution_mask(name: str) -> None:
    """EXEC becomes a function of the source and of itself, at once for the next vector instruction."""
    targets = [target for target in TARGETS if name in forms(target)]
    assert targets, f"{name} is an instruction of none of {TARGETS}"
    for target in targets:
        lanes, bits = Target(target).lanes, int(name[-2:])
        ones = (1 << bits) - 1
        rng = np.random.default_rng(7)
        for source, old in [
            (0, ones),
            (ones, ones),
            (ones, 1),
            *(map(int, rng.integers(1, ones, 2, np.uint64)) for _ in range(20)),
        ]:
            state = single.State(lanes)
            state.exec = old
            state.s[4], state.s[5] = source & 0xFFFFFFFF, source >> 32
            mnemonic, letter = forms(target)[name], "U" if bits == 64 else "u"
            single.run(
                f"{mnemonic} {register(16, letter)}, {register(4, letter)}\nv_mov_b32 v1, 1\ns_cselect_b32 s20, 1, 0",
                target, state,
            )  # fmt: skip
            new = SAVED_MASKS[name](source, old) & ones
            saved = int(state.s[16]) | (int(state.s[17]) << 32 if bits == 64 else 0)
            assert state.exec == new, f"{name} on {target}: {source:#x}, {old:#x}"
            assert saved == (new if "wrexec" in name else old)
            assert bool(state.s[20]) == (new != 0)
            active = new & (1 << lanes) - 1
            assert [int(x) for x in state.v[1]] == [active >> lane & 1 for lane in range(lanes)]
