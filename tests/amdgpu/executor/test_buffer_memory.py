# SPDX-License-Identifier: Apache-2.0
"""Raw buffers: what lies within the bounds is accessed as global memory is, what lies beyond is not."""

from __future__ import annotations

import numpy as np
import pytest

from amdgpu import single
from amdgpu.kernel import ExecutionError

from . import handlers
from .lane_access import ATOMICS, LOADS, STORES, loaded, operands_of, stored
from .test_global_memory import GLOBAL_ATOMICS, RETURNING

BYTES = 400  # of the buffer
SCALAR = 20  # the scalar offset


def test_every_handler_has_an_expectation() -> None:
    expected = {f"buffer_load_{name}" for name in LOADS} | {f"buffer_store_{name}" for name in STORES}
    expected |= {
        f"buffer_atomic_{name}{end}" for name in (*GLOBAL_ATOMICS, "cmpswap", "cmpswap_x2") for end in ("", "_rtn")
    }
    assert handlers.names(r"buffer_(?!load_\w+_lds).*") == expected  # those: test_loads_to_lds.py


def set_buffer(state: single.State, memory: np.ndarray, records: int = BYTES) -> None:
    """The descriptor in s[4:7], and s9 is the scalar offset."""
    state.s[4:6] = np.array([memory.ctypes.data], np.uint64).view(np.uint32)
    state.s[6], state.s[7], state.s[9] = records, 0x27000, SCALAR


# How a lane's offset is put together: the operands, whether there is a lane's and whether there is the scalar one.
FORMS = {
    "v2, s[4:7], s9 offen offset:40": (True, SCALAR + 40),
    "v2, s[4:7], {} offen": (True, 0),
    "off, s[4:7], s9 offset:8": (False, SCALAR + 8),
    "off, s[4:7], s9 offset:392": (False, SCALAR + 392),  # beyond
}


def within(text: str, target: str) -> str:
    return text.format("null" if target == "gfx1201" else "0")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", LOADS)
def test_loads(name: str, form: str) -> None:
    moves, random = LOADS[name], np.random.default_rng(3)
    by_lane, fixed = FORMS[form]
    memory = random.integers(0, 256, 1024, np.uint8)
    to = slice(2, 2 + moves.registers)
    found = handlers.forms(
        f"buffer_load_{name}", lambda t: f"{{}} {handlers.span(2, moves.registers)}, {within(form, t)}"
    )
    assert len(found) == 2
    for target, line in found:
        for mask in handlers.masks(64):
            state = handlers.state(target)
            set_buffer(state, memory)
            state.v[2] = random.integers(0, BYTES + 8, state.v.shape[1])
            state.v[2, 5] = 0xFFFFFFF0
            state.exec = mask & (1 << state.v.shape[1]) - 1
            expected = state.v.copy()
            single.run(line, target, state)
            for lane in np.flatnonzero(handlers.active(mask, state.v.shape[1])):
                at = int(expected[2, lane]) * by_lane + fixed
                data = np.zeros(moves.size, np.uint8)
                for first in range(0, moves.size, 4):  # each word by itself
                    size = min(4, moves.size)
                    if at + first + size <= BYTES:
                        data[first : first + size] = memory[at + first : at + first + size]
                expected[to, lane] = loaded(moves, data, expected[to, lane].copy())
            assert (state.v == expected).all(), (target, hex(mask))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", STORES)
def test_stores(name: str, form: str) -> None:
    moves, random = STORES[name], np.random.default_rng(4)
    by_lane, fixed = FORMS[form]
    found = handlers.forms(
        f"buffer_store_{name}", lambda t: f"{{}} {handlers.span(8, moves.registers)}, {within(form, t)}"
    )
    assert len(found) == 2
    for target, line in found:
        for mask in handlers.masks(64):
            state = handlers.state(target)
            memory = random.integers(0, 256, 2048, np.uint8)
            set_buffer(state, memory)
            lanes = state.v.shape[1]
            state.v[2] = random.permutation(BYTES // 5)[:lanes] * 5  # some overlap: the higher lane's bytes stay
            state.exec = mask & (1 << lanes) - 1
            expected, before = memory.copy(), state.v.copy()
            single.run(line, target, state)
            for lane in np.flatnonzero(handlers.active(mask, lanes)):
                at = int(state.v[2, lane]) * by_lane + fixed
                data = stored(moves, np.ascontiguousarray(state.v[8 : 8 + moves.registers, lane]))
                for first in range(0, moves.size, 4):
                    size = min(4, moves.size)
                    if at + first + size <= BYTES:
                        expected[at + first : at + first + size] = data[first : first + size]
            assert (memory == expected).all() and (state.v == before).all(), (target, hex(mask))


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize("name", [*GLOBAL_ATOMICS, "cmpswap", "cmpswap_x2"])
def test_atomics(name: str, returns: bool) -> None:
    operation, bits = GLOBAL_ATOMICS.get(name, ("swap", 64 if name.endswith("x2") else 32))
    compares, words = name.startswith("cmpswap"), bits // 32
    data_span = handlers.span(8, 2 * words if compares else words)
    found = handlers.forms(
        f"buffer_atomic_{name}",
        lambda t: f"{{}} {data_span}, {within('v2, s[4:7], {} offen', t)} {RETURNING[t] if returns else ''}",
    )
    assert found
    for target, line in found:
        state = handlers.state(target)
        lanes, random = state.v.shape[1], np.random.default_rng(5)
        memory = operands_of(operation, bits, lanes, random)
        data = operands_of(operation, bits, lanes, random)
        inside = lanes - 5
        set_buffer(state, memory, inside * bits // 8)
        state.v[2] = np.arange(lanes) * (bits // 8)
        state.v[8 : 8 + words] = data.view(np.uint32).reshape(lanes, -1).T
        compared = np.where(np.arange(lanes) % 3 == 0, ~memory, memory)
        state.v[8 + words : 8 + 2 * words] = compared.view(np.uint32).reshape(lanes, -1).T
        state.exec = 0x7FF5FFFE
        on = handlers.active(state.exec, lanes) & (np.arange(lanes) < inside)
        expected, old, before = memory.copy(), memory.copy(), state.v.copy()
        for lane in np.flatnonzero(on):
            if not compares or memory[lane] == compared[lane]:
                expected[lane] = ATOMICS[operation](int(memory[lane]), int(data[lane]), bits)
        old[inside:] = 0
        single.run(line, target, state)
        assert memory.tolist() == expected.tolist(), target
        if returns:
            lanes_on = handlers.active(state.exec, lanes)
            before[8 : 8 + words, lanes_on] = old.view(np.uint32).reshape(lanes, -1).T[:, lanes_on]
        assert (state.v == before).all(), target


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        ((5, 16 << 16), "off, s[4:7], 0", "a buffer that is swizzled or has a stride is not modelled"),
        ((5, 1 << 31), "off, s[4:7], 0", "a buffer that is swizzled or has a stride is not modelled"),
        ((7, 1 << 23), "off, s[4:7], 0", "a buffer that adds the lane's number is not modelled"),
        ((7, 0), "v2, s[4:7], 0 idxen", "a buffer with an index is not modelled"),
    ],
)
def test_other_buffers_are_refused(change: tuple[int, int], line: str, said: str) -> None:
    state = handlers.state("gfx942")
    set_buffer(state, np.zeros(BYTES, np.uint8))
    state.s[change[0]] |= change[1]
    with pytest.raises(ExecutionError, match=said):
        single.run(f"buffer_load_dword v1, {line}", "gfx942", state)
