# SPDX-License-Identifier: Apache-2.0
"""Global and scalar loads, stores and atomics, against arrays."""

from __future__ import annotations

import ctypes
import mmap
import re

import numpy as np
import pytest

from amdgpu import single
from amdgpu.decode.memory_names import ALIASES
from amdgpu.kernel import ExecutionError
from amdgpu.library import library

from . import handlers, support
from .lane_access import ATOMICS, LOADS, STORES, Moves, loaded, operands_of, stored

OFFSET = 64  # of the instruction
GLOBAL_ATOMICS = {
    **{f"{name}": (name, 32) for name in ATOMICS if not name.startswith(("f", "pk", "rsub"))},
    **{f"{name}_x2": (name, 64) for name in ATOMICS if not name.startswith(("f", "pk", "rsub"))},
    **{f"{name}_f{bits}": (f"f{name}", bits) for name in ("add", "min", "max") for bits in (32, 64)},
    "pk_add_f16": ("pk_add_f16", 32),
    "pk_add_bf16": ("pk_add_bf16", 32),
}
SCALARS = {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16, "dwordx8": 32, "dwordx16": 64}
SMALL_SCALARS = {"u8": (1, False), "i8": (1, True), "u16": (2, False), "i16": (2, True)}


def test_every_handler_has_an_expectation() -> None:
    expected = {f"global_load_{name}" for name in LOADS} | {f"global_store_{name}" for name in STORES}
    expected |= {
        f"global_atomic_{name}{end}" for name in (*GLOBAL_ATOMICS, "cmpswap", "cmpswap_x2") for end in ("", "_rtn")
    }
    expected |= {f"s_load_{name}" for name in (*SCALARS, *SMALL_SCALARS)} | {
        f"s_buffer_load_{name}" for name in SCALARS
    }
    assert (
        handlers.names(r"global_(?!load_lds_).*|s_load_.*|s_buffer_load_.*") == expected
    )  # those: test_loads_to_lds.py


def test_every_alias_leads_to_a_handler() -> None:
    assert set(ALIASES.values()) <= set(library().handlers)
    assert not set(ALIASES) & set(library().handlers)


def addresses(memory: np.ndarray, lanes: int, size: int, how: str, random: np.random.Generator) -> np.ndarray:
    """Where lanes access memory, from its beginning on: no two of them the same bytes."""
    if how == "neighbours":
        return np.arange(lanes) * size + 128
    places = random.permutation((len(memory) - 2 * OFFSET) // 24)[:lanes] * 24
    return places + random.integers(0, 8, lanes) + OFFSET  # of any alignment


@pytest.mark.parametrize("how", ["neighbours", "anywhere"])
@pytest.mark.parametrize("base", ["off", "s[4:5]"])
@pytest.mark.parametrize("name", LOADS)
def test_loads(name: str, base: str, how: str) -> None:
    moves, random = LOADS[name], np.random.default_rng(3)
    memory = random.integers(0, 256, 4096, np.uint8)
    # The destination is where the address is.
    text = f"{{}} {handlers.span(2, moves.registers)}, {'v[2:3]' if base == 'off' else 'v2'}, {base} offset:{OFFSET}"
    forms = handlers.forms(f"global_load_{name}", text)
    assert {target[:4] for target, _ in forms} >= {"gfx9", "gfx1"}
    for target, line in forms:
        for mask in handlers.masks(single.State(64 if target.startswith("gfx9") else 32).v.shape[1]):
            state = handlers.state(target)
            lanes = state.v.shape[1]
            at = addresses(memory, lanes, moves.size, how, random)
            if base == "off":
                handlers.put64(state.v, 2, (memory.ctypes.data + at - OFFSET).astype(np.uint64))
            else:
                state.v[2] = at - OFFSET
                state.s[4:6] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
            state.exec = mask
            before = state.v.copy()
            single.run(line, target, state)
            expected = before.copy()
            for lane in np.flatnonzero(handlers.active(mask, lanes)):
                data = memory[at[lane] : at[lane] + moves.size]
                to = slice(2, 2 + moves.registers)
                expected[to, lane] = loaded(moves, data, before[to, lane])
            assert (state.v == expected).all(), (target, hex(mask))


def test_a_scalar_base_takes_an_unsigned_offset() -> None:
    """A lane's offset has no sign; that of the instruction has."""
    memory = np.arange(8, dtype=np.uint32)
    for target, line in handlers.forms("global_load_dword", "{} v1, v2, s[4:5] offset:-8"):
        state = handlers.state(target)
        state.v[2] = 0xFFFFFFFC
        base = memory.ctypes.data + 24 + 8 - 0xFFFFFFFC
        state.s[4:6] = np.array([base], np.uint64).view(np.uint32)
        single.run(line, target, state)
        assert (state.v[1] == 6).all()


@pytest.mark.parametrize("base", ["off", "s[4:5]"])
@pytest.mark.parametrize("name", STORES)
def test_stores(name: str, base: str) -> None:
    moves, random = STORES[name], np.random.default_rng(4)
    data = handlers.span(8, moves.registers)
    text = f"{{}} {'v[2:3]' if base == 'off' else 'v2'}, {data}, {base} offset:{OFFSET}"
    forms = handlers.forms(f"global_store_{name}", text)
    assert {target[:4] for target, _ in forms} >= {"gfx9", "gfx1"}
    for target, line in forms:
        for how in ("neighbours", "anywhere"):
            for mask in handlers.masks(32):
                state = handlers.state(target)
                memory = random.integers(0, 256, 4096, np.uint8)
                at = addresses(memory, state.v.shape[1], moves.size, how, random)
                if base == "off":
                    handlers.put64(state.v, 2, (memory.ctypes.data + at - OFFSET).astype(np.uint64))
                else:
                    state.v[2] = at - OFFSET
                    state.s[4:6] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
                state.exec = mask
                before, expected = state.v.copy(), memory.copy()
                single.run(line, target, state)
                for lane in np.flatnonzero(handlers.active(mask, state.v.shape[1])):
                    registers = np.ascontiguousarray(before[8 : 8 + moves.registers, lane])
                    expected[at[lane] : at[lane] + moves.size] = stored(moves, registers)
                assert (memory == expected).all() and (state.v == before).all(), (target, how, hex(mask))


RETURNING = {"gfx90a": "glc", "gfx942": "sc0", "gfx950": "sc0", "gfx1100": "glc", "gfx1201": "th:TH_ATOMIC_RETURN"}


def atomic_forms(name: str, bits: int, returns: bool, operands: int = 1) -> list[tuple[str, str]]:
    data, to = handlers.span(8, operands * bits // 32), handlers.span(4, bits // 32)
    if returns:
        return handlers.forms(f"global_atomic_{name}", lambda t: f"{{}} {to}, v2, {data}, s[4:5] {RETURNING[t]}")
    return handlers.forms(f"global_atomic_{name}", f"{{}} v2, {data}, s[4:5]")


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("name", GLOBAL_ATOMICS)
def test_atomics(name: str, returns: bool) -> None:
    operation, bits = GLOBAL_ATOMICS[name]
    forms = atomic_forms(name, bits, returns)
    assert forms
    word = np.uint32 if bits == 32 else np.uint64
    for target, line in forms:
        state = handlers.state(target)
        lanes, random = state.v.shape[1], np.random.default_rng(5)
        memory = operands_of(operation, bits, 6, random)
        data, at = operands_of(operation, bits, lanes, random), random.integers(0, 6, lanes)  # several lanes a place
        state.v[2] = at * (bits // 8)
        state.s[4:6] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
        state.v[8 : 8 + bits // 32] = data.view(np.uint32).reshape(lanes, -1).T
        state.exec = 0x7FF5FFFE
        expected, old = memory.copy(), np.zeros(lanes, word)
        before = state.v.copy()
        for lane in np.flatnonzero(handlers.active(state.exec, lanes)):
            old[lane] = expected[at[lane]]
            expected[at[lane]] = ATOMICS[operation](int(old[lane]), int(data[lane]), bits)
        single.run(line, target, state)
        assert memory.tolist() == expected.tolist(), target
        if returns:
            on = handlers.active(state.exec, lanes)
            before[4 : 4 + bits // 32, on] = old.view(np.uint32).reshape(lanes, -1).T[:, on]
        assert (state.v == before).all(), target


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("bits", [32, 64])
def test_compare_and_swap(bits: int, returns: bool) -> None:
    forms = atomic_forms("cmpswap" if bits == 32 else "cmpswap_x2", bits, returns, 2)
    assert len(forms) == 2
    word = np.uint32 if bits == 32 else np.uint64
    for target, line in forms:
        state = handlers.state(target)
        lanes = state.v.shape[1]
        memory = np.arange(lanes).astype(word) << word(bits - 8)
        state.v[2] = np.arange(lanes) * (bits // 8)
        state.s[4:6] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
        new, compared = memory + word(1), memory + (np.arange(lanes) % 3 == 0).astype(word)
        state.v[8 : 8 + bits // 16] = np.stack([new, compared], 1).view(np.uint32).T
        before = memory.copy()
        single.run(line, target, state)
        assert memory.tolist() == np.where(compared == before, new, before).tolist()
        if returns:
            returned = state.v[4 : 4 + bits // 32].T
            assert (returned == before.view(np.uint32).reshape(lanes, -1)).all()


def test_atomics_are_aligned() -> None:
    memory = np.zeros(4, np.uint32)
    state = handlers.state("gfx942")
    state.v[2] = 2
    state.s[4:6] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
    with pytest.raises(ExecutionError, match="lane 0: an atomic access must be aligned to its 4 bytes"):
        single.run("global_atomic_add v2, v3, s[4:5]", "gfx942", state)


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_loads(name: str) -> None:
    count = SCALARS[name] // 4
    memory = np.random.default_rng(6).integers(0, 1 << 32, 64, np.uint32)
    to = handlers.span(16, count, "s")
    texts = (f"{{}} {to}, s[16:17], 0x10", f"{{}} {to}, s[16:17], s18", f"{{}} {to}, s[16:17], s18 offset:0x8")
    for text in texts:
        forms = handlers.forms(f"s_load_{name}", text)
        assert forms
        for target, line in forms:
            state = handlers.state(target)
            state.s[16:18] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
            state.s[18] = 12
            state.exec = 0
            expected = state.s.copy()
            at = {"0": 4, "8": 5 if "offset" in line else 3}["8" if "s18" in line else "0"]
            single.run(line, target, state)
            expected[16 : 16 + count] = memory[at : at + count]
            assert (state.s == expected).all(), (target, line)


@pytest.mark.parametrize("name", SMALL_SCALARS)
def test_scalar_loads_of_bytes(name: str) -> None:
    size, signed = SMALL_SCALARS[name]
    memory = np.array([0x7F, 0x80, 0x92, 0xA3], np.uint8)
    (form,) = handlers.forms(f"s_load_{name}", "{} s7, s[16:17], 0x2")
    state = handlers.state(form[0])
    state.s[16:18] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
    single.run(form[1], form[0], state)
    assert int(state.s[7]) == int.from_bytes(memory[2 : 2 + size].tobytes(), "little", signed=signed) % (1 << 32)


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_loads_of_buffers(name: str) -> None:
    """What lies beyond the end is 0."""
    count = SCALARS[name] // 4
    memory = np.arange(1, 33, dtype=np.uint32)
    forms = handlers.forms(f"s_buffer_load_{name}", f"{{}} {handlers.span(32, count, 's')}, s[16:19], 0x8")
    assert forms
    for target, line in forms:
        for records in (0, 8, 11, 12, 40, 128):
            state = handlers.state(target)
            state.s[16:18] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
            state.s[18] = records
            single.run(line, target, state)
            there = 4 * np.arange(3, 3 + count) <= records
            assert (state.s[32 : 32 + count] == np.where(there, memory[2 : 2 + count], 0)).all(), (target, records)


@pytest.mark.parametrize(
    ("line", "high", "said"),
    [
        ("s_load_dword s7, s[16:17], 0x2", 0, "a scalar load must be aligned"),
        ("s_buffer_load_dword s7, s[16:19], 0x0", 4 << 16, "a buffer that is swizzled or has a stride is not modelled"),
    ],
)
def test_scalar_loads_that_are_refused(line: str, high: int, said: str) -> None:
    memory = np.zeros(4, np.uint32)
    state = handlers.state("gfx942")
    state.s[16:18] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
    state.s[17] |= high
    with pytest.raises(ExecutionError, match=said):
        single.run(line, "gfx942", state)


def page_before_nothing() -> np.ndarray:
    """A page behind which nothing may be accessed."""
    both = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    array = np.frombuffer(both, np.uint8)
    second = ctypes.c_void_p(array.ctypes.data + mmap.PAGESIZE)
    assert ctypes.CDLL(None).mprotect(second, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return array[: mmap.PAGESIZE]


@pytest.mark.parametrize(("stride", "lane"), [(16, 60), (20, 48), (-16, None)])
def test_a_load_beyond_the_end_names_lane_and_address(stride: int, lane: int | None) -> None:
    """Neighbouring lanes or not; `lane` is the first of several that are beyond the page."""
    page = page_before_nothing()
    moves = Moves(16)
    start = page.ctypes.data + len(page) - (60 * 16 if stride > 0 else 16)
    before = support.load_argument("gfx942") + f"v_mul_i32_i24 v1, {stride}, v0\nv_ashrrev_i32 v2, 31, v1\n"
    body = (
        before
        + "v_mov_b32 v3, s8\nv_add_co_u32 v4, vcc, v3, v1\nv_mov_b32 v3, s9\nv_addc_co_u32 v5, vcc, v3, v2, vcc\n"
    )
    body += "global_load_dwordx4 v[8:11], v[4:5], off"
    kernel = support.kernel(body, "gfx942")
    argument = start.to_bytes(8, "little") + bytes(8)
    if lane is None:
        kernel.launch((1, 1, 1), (64, 1, 1), [argument])
        return
    with pytest.raises(ExecutionError) as error:
        kernel.launch((1, 1, 1), (64, 1, 1), [argument])
    found = re.search(r"wave 0: lane (\d+): bad address (0x\w+)", str(error.value))
    assert found and int(found[1]) >= lane
    assert 0 <= int(found[2], 16) - (start + int(found[1]) * stride) < moves.size
