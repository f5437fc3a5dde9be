# SPDX-License-Identifier: Apache-2.0
"""LDS: loads, stores, atomics, bounds, and the permutations of lanes that go through its hardware."""

from __future__ import annotations

import numpy as np
import pytest

from amdgpu import single
from amdgpu.kernel import ExecutionError

from . import handlers
from .lane_access import ATOMICS, LOADS, STORES, loaded, operands_of, stored

SIZE = 4096
READS = {
    "u8": "ubyte", "i8": "sbyte", "u16": "ushort", "i16": "sshort",
    "b32": "dword", "b64": "dwordx2", "b96": "dwordx3", "b128": "dwordx4",
    "u8_d16": "ubyte_d16", "u8_d16_hi": "ubyte_d16_hi", "i8_d16": "sbyte_d16", "i8_d16_hi": "sbyte_d16_hi",
    "u16_d16": "short_d16", "u16_d16_hi": "short_d16_hi",
}  # fmt: skip
WRITES = {
    "b8": "byte", "b8_d16_hi": "byte_d16_hi", "b16": "short", "b16_d16_hi": "short_d16_hi",
    "b32": "dword", "b64": "dwordx2", "b96": "dwordx3", "b128": "dwordx4",
}  # fmt: skip
# Bytes that each of the two offsets counts.
PAIRS = {"2_b32": 4, "2_b64": 8, "2st64_b32": 256, "2st64_b64": 512}
_PLAIN = {
    "add": "u", "sub": "u", "rsub": "u", "inc": "u", "dec": "u", "and": "b", "or": "b", "xor": "b",
}  # fmt: skip
# The handler's name without _rtn, what it does and on how many bits.
SHARED_ATOMICS = {
    **{f"{name}_{kind}{bits}": (name, bits) for name, kind in _PLAIN.items() for bits in (32, 64)},
    **{f"{which}_{kind}{bits}": ({"i": "s", "u": "u", "f": "f"}[kind] + which, bits)
       for which in ("min", "max") for kind in "iuf" for bits in (32, 64)},
    **{f"add_f{bits}": ("fadd", bits) for bits in (32, 64)},
    "pk_add_f16": ("pk_add_f16", 32),
    "pk_add_bf16": ("pk_add_bf16", 32),
}  # fmt: skip
COMPARES = ("cmpst_b32", "cmpst_b64", "cmpstore_b32", "cmpstore_b64")
PERMUTES = ("bpermute_b32", "bpermute_fi_b32", "permute_b32", "swizzle_b32")


def returning(name: str) -> str:
    """ds_add_u32 as ds_add_rtn_u32."""
    stem, _, kind = name.rpartition("_")
    return f"{stem}_rtn_{kind}"


def test_every_handler_has_an_expectation() -> None:
    expected = {f"read_{name}" for name in READS} | {f"write_{name}" for name in WRITES} | set(PERMUTES)
    expected |= {f"{what}{name}" for what in ("read", "write") for name in PAIRS} | {"read_b64_tr_b16"}
    expected |= {*SHARED_ATOMICS, *map(returning, SHARED_ATOMICS), *COMPARES, *map(returning, COMPARES)}
    expected |= {"wrxchg_rtn_b32", "wrxchg_rtn_b64"}
    assert handlers.names("ds_.*") == {f"ds_{name}" for name in expected}


def places(lanes: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Addresses without alignment, none of which overlap."""
    return random.permutation(SIZE // 48)[:lanes] * 24 + random.integers(0, 24 - size + 1, lanes)


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    moves, random = LOADS[READS[name]], np.random.default_rng(7)
    found = handlers.forms(f"ds_read_{name}", f"{{}} {handlers.span(2, moves.registers)}, v2 offset:1000")
    assert len(found) == 2
    for target, line in found:
        for mask in handlers.masks(64):
            state = handlers.state(target, lds=SIZE)
            lanes = state.v.shape[1]
            state.v[2] = places(lanes, moves.size, random)
            state.exec = mask & (1 << lanes) - 1
            expected, lds = state.v.copy(), state.lds.copy()
            single.run(line, target, state)
            for lane in np.flatnonzero(handlers.active(mask, lanes)):
                at, to = int(expected[2, lane]) + 1000, slice(2, 2 + moves.registers)
                expected[to, lane] = loaded(moves, lds[at : at + moves.size], expected[to, lane].copy())
            assert (state.v == expected).all() and (state.lds == lds).all(), (target, hex(mask))


@pytest.mark.parametrize("name", WRITES)
def test_writes(name: str) -> None:
    moves, random = STORES[WRITES[name]], np.random.default_rng(8)
    found = handlers.forms(f"ds_write_{name}", f"{{}} v2, {handlers.span(8, moves.registers)} offset:1000")
    assert len(found) == 2
    for target, line in found:
        for mask in handlers.masks(64):
            state = handlers.state(target, lds=SIZE)
            lanes = state.v.shape[1]
            state.v[2] = places(lanes, moves.size, random)
            state.exec = mask & (1 << lanes) - 1
            expected, before = state.lds.copy(), state.v.copy()
            single.run(line, target, state)
            for lane in np.flatnonzero(handlers.active(mask, lanes)):
                at = int(state.v[2, lane]) + 1000
                registers = np.ascontiguousarray(state.v[8 : 8 + moves.registers, lane])
                expected[at : at + moves.size] = stored(moves, registers)
            assert (state.lds == expected).all() and (state.v == before).all(), (target, hex(mask))


@pytest.mark.parametrize("name", PAIRS)
def test_reads_of_two_addresses(name: str) -> None:
    scale, words = PAIRS[name], int(name[-2:]) // 32
    found = handlers.forms(f"ds_read{name}", f"{{}} {handlers.span(2, 2 * words)}, v2 offset0:3 offset1:1")
    assert len(found) == 2
    for target, line in found:
        state = handlers.state(target, lds=SIZE)
        state.v[2] = np.arange(state.v.shape[1]) * 27
        state.exec = 0x7FF5FFFE
        expected = state.v.copy()
        for lane in np.flatnonzero(handlers.active(state.exec, state.v.shape[1])):
            at = int(expected[2, lane])
            both = [state.lds[at + offset * scale :][: 4 * words].view(np.uint32) for offset in (3, 1)]
            expected[2 : 2 + 2 * words, lane] = np.concatenate(both)
        single.run(line, target, state)
        assert (state.v == expected).all(), target


@pytest.mark.parametrize("name", PAIRS)
def test_writes_of_two_addresses(name: str) -> None:
    """Each lane's two places lie beside those of other lanes, and overlap none."""
    scale, words = PAIRS[name], int(name[-2:]) // 32
    text = f"{{}} v2, {handlers.span(8, words)}, {handlers.span(12, words)} offset0:3 offset1:1"
    found = handlers.forms(f"ds_write{name}", text)
    assert len(found) == 2
    for target, line in found:
        state = handlers.state(target, lds=SIZE)
        lane = np.arange(state.v.shape[1])
        state.v[2] = 1 + lane * (4 * words if scale > 8 else 4 * scale)
        if scale > 8:
            state.v[2] += (lane // 64 * 64 + lane % 64 // 32 * (scale * 4)).astype(np.uint32)
        state.exec = 0x7FF5FFFE
        expected = state.lds.copy()
        for lane in np.flatnonzero(handlers.active(state.exec, state.v.shape[1])):
            for first, offset in ((8, 3), (12, 1)):
                at = int(state.v[2, lane]) + offset * scale
                expected[at : at + 4 * words] = np.ascontiguousarray(state.v[first : first + words, lane]).view(
                    np.uint8
                )
        single.run(line, target, state)
        assert (state.lds == expected).all(), target


@pytest.mark.parametrize(
    ("name", "returns"),
    [
        *((name, returns) for name in SHARED_ATOMICS for returns in (False, True)),
        ("wrxchg_b32", True),
        ("wrxchg_b64", True),
    ],
)
def test_atomics(name: str, returns: bool) -> None:
    operation, bits = SHARED_ATOMICS.get(name, ("swap", int(name[-2:])))
    words = bits // 32
    handler = f"ds_{returning(name) if returns else name}"
    to = f"{handlers.span(4, words)}, " if returns else ""
    found = handlers.forms(handler, f"{{}} {to}v2, {handlers.span(8, words)} offset:16")
    assert found
    for target, line in found:
        state = handlers.state(target, lds=256)
        lanes, random = state.v.shape[1], np.random.default_rng(9)
        memory = operands_of(operation, bits, 6, random)
        data, at = operands_of(operation, bits, lanes, random), random.integers(0, 6, lanes)
        state.lds[16 : 16 + memory.nbytes] = memory.view(np.uint8)
        state.v[2] = at * (bits // 8)
        state.v[8 : 8 + words] = data.view(np.uint32).reshape(lanes, -1).T
        state.exec = 0x7FF5FFFE
        old, before, lds = np.zeros(lanes, memory.dtype), state.v.copy(), state.lds.copy()
        on = handlers.active(state.exec, lanes)
        for lane in np.flatnonzero(on):
            old[lane] = memory[at[lane]]
            memory[at[lane]] = ATOMICS[operation](int(old[lane]), int(data[lane]), bits)
        lds[16 : 16 + memory.nbytes] = memory.view(np.uint8)
        single.run(line, target, state)
        assert (state.lds == lds).all(), target
        if returns:
            before[4 : 4 + words, on] = old.view(np.uint32).reshape(lanes, -1).T[:, on]
        assert (state.v == before).all(), target


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("name", COMPARES)
def test_compare_and_store(name: str, returns: bool) -> None:
    """gfx9 has what is compared before the new value, later targets behind it."""
    words = int(name[-2:]) // 32
    to = f"{handlers.span(4, words)}, " if returns else ""
    text = f"{{}} {to}v2, {handlers.span(8, words)}, {handlers.span(12, words)}"
    ((target, line),) = handlers.forms(f"ds_{returning(name) if returns else name}", text)
    state = handlers.state(target, lds=1024)
    lanes = state.v.shape[1]
    memory = np.random.default_rng(10).integers(0, 1 << 32, (lanes, words), np.uint32)
    state.lds[: memory.nbytes] = memory.view(np.uint8).ravel()
    state.v[2] = np.arange(lanes) * 4 * words
    new, compared = memory + 1, memory.copy()
    compared[::3, words - 1] += 1
    first, second = (compared, new) if name.startswith("cmpst_") else (new, compared)
    state.v[8 : 8 + words], state.v[12 : 12 + words] = first.T, second.T
    before = state.v.copy()
    single.run(line, target, state)
    same = (memory == compared).all(1)[:, None]
    assert (state.lds[: memory.nbytes].view(np.uint32).reshape(lanes, words) == np.where(same, new, memory)).all()
    if returns:
        before[4 : 4 + words] = memory.T
    assert (state.v == before).all()


@pytest.mark.parametrize(
    ("line", "last"),
    [
        ("ds_read_b128 v[4:7], v2", 1024 - 16),
        ("ds_read_b32 v4, v2 offset:1000", 1024 - 4 - 1000),
        ("ds_write_b8 v2, v4", 1023),
        ("ds_write2st64_b32 v2, v4, v5 offset0:1 offset1:3", 1024 - 4 - 768),
        ("ds_read2_b64 v[4:7], v2 offset0:9 offset1:1", 1024 - 8 - 72),
        ("ds_add_u32 v2, v4", 1024 - 4),
        ("ds_read_b64 v[4:5], v2 offset:1020", None),
    ],
)
def test_bounds(line: str, last: int | None) -> None:
    """`last`: the greatest address within bounds."""
    state = handlers.state("gfx942", lds=1024)
    state.v[2] = last or 0
    state.exec = 1 << 40 | 1 << 41
    if last is not None:
        single.run(line, "gfx942", state)
    state.v[2, 41] = 0 if last is None else last + 1
    state.v[2, 3] = 0xFFFFFFFF  # a lane that is off
    lane = 40 if last is None else 41
    with pytest.raises(ExecutionError, match=rf": wave 0: lane {lane}, LDS address \d+, \d+ bytes: LDS has 1024 bytes"):
        single.run(line, "gfx942", state)
    state.v[2, 41] = 0xFFFFFFFC
    with pytest.raises(ExecutionError, match=r"LDS has 1024 bytes"):
        single.run(line, "gfx942", state)


def test_transposed_read() -> None:
    """Within 16 lanes, lane i gets as element k what lane 4 k + i / 4 reads as its element i % 4."""
    state = handlers.state("gfx950", lds=SIZE)
    state.v[2] = np.random.default_rng(11).permutation(64) * 8
    halves = np.stack([state.lds[at + 24 : at + 32].view(np.uint16) for at in state.v[2]])
    single.run("ds_read_b64_tr_b16 v[2:3], v2 offset:24", "gfx950", state)
    lane = np.arange(64)
    expected = np.stack([halves[lane // 16 * 16 + 4 * k + lane % 16 // 4, lane % 4] for k in range(4)], 1)
    assert (handlers.bytes_of(state.v[2:4]).view(np.uint16) == expected).all()
    state.exec = 1
    with pytest.raises(ExecutionError, match="with lanes off in EXEC is not modelled"):
        single.run("ds_read_b64_tr_b16 v[2:3], v4", "gfx950", state)


@pytest.mark.parametrize("name", ["bpermute_b32", "bpermute_fi_b32"])
def test_backward_permute(name: str) -> None:
    found = handlers.forms(f"ds_{name}", "{} v4, v4, v5 offset:8")
    assert found
    for target, line in found:
        for mask in handlers.masks(64):
            state = handlers.state(target)
            lanes = state.v.shape[1]
            state.exec = mask & (1 << lanes) - 1
            on = handlers.active(mask, lanes)
            source = (state.v[4] + np.uint32(8)) // 4 % lanes
            given = state.v[5] if "fi" in name else np.where(on, state.v[5], 0)
            expected = np.where(on, given[source], state.v[4])
            single.run(line, target, state)
            assert (state.v[4] == expected).all(), (target, hex(mask))


def test_forward_permute() -> None:
    for target, line in handlers.forms("ds_permute_b32", "{} v4, v4, v5 offset:8"):
        for mask in handlers.masks(64):
            state = handlers.state(target)
            lanes = state.v.shape[1]
            state.exec = mask & (1 << lanes) - 1
            on, got = handlers.active(mask, lanes), np.zeros(lanes, np.uint32)
            for lane in np.flatnonzero(on):
                got[(int(state.v[4, lane]) + 8) % (1 << 32) // 4 % lanes] = state.v[5, lane]
            expected = np.where(on, got, state.v[4])
            single.run(line, target, state)
            assert (state.v[4] == expected).all(), (target, hex(mask))


def bitmask(keep: int, put: int, flip: int) -> list[int]:
    return [((lane & keep) | put) ^ flip for lane in range(32)]


SWIZZLES = {
    "swizzle(SWAP,16)": [lane ^ 16 for lane in range(32)],
    "swizzle(REVERSE,8)": [lane ^ 7 for lane in range(32)],
    "swizzle(BROADCAST,8,3)": [lane // 8 * 8 + 3 for lane in range(32)],
    'swizzle(BITMASK_PERM,"01pip")': bitmask(0b00111, 0b01000, 0b00010),
    "swizzle(QUAD_PERM,2,0,3,1)": [lane // 4 * 4 + (2, 0, 3, 1)[lane % 4] for lane in range(32)],
    "0x6d5": bitmask(0b10101, 0b10110, 0b00001),
    "swizzle(ROTATE,0,5)": [(lane + 5) % 32 for lane in range(32)],
    "swizzle(ROTATE,1,5)": [(lane - 5) % 32 for lane in range(32)],
    "0xc0a7": [lane & 7 | (lane + 5) & 0b11000 for lane in range(32)],
    "swizzle(FFT,0)": [int(f"{lane:05b}"[::-1], 2) for lane in range(32)],
    "swizzle(FFT,3)": [int(f"{lane:05b}"[::-1], 2) >> 2 | lane & 3 for lane in range(32)],
    "swizzle(FFT,31)": list(range(32)),
}


@pytest.mark.parametrize("pattern", SWIZZLES)
def test_swizzle(pattern: str) -> None:
    found = handlers.forms("ds_swizzle_b32", f"{{}} v4, v5 offset:{pattern}")
    assert found
    for target, line in found:
        for mask in handlers.masks(64):
            state = handlers.state(target)
            lanes = state.v.shape[1]
            state.exec = mask & (1 << lanes) - 1
            on = handlers.active(mask, lanes)
            source = np.array([lane & 32 | SWIZZLES[pattern][lane % 32] for lane in range(lanes)])
            expected = np.where(on, np.where(on, state.v[5], 0)[source], state.v[4])
            single.run(line, target, state)
            assert (state.v[4] == expected).all(), (target, hex(mask))
