# SPDX-License-Identifier: Apache-2.0
"""Values from lane to lane: reads and writes of single lanes, permutations, DPP."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from amdgpu import single
from amdgpu.decode.target import Target
from amdgpu.kernel import ExecutionError

from . import handlers, support

each = pytest.mark.parametrize("target", support.ONE_EACH)


def test_every_handler_is_tested_here() -> None:
    """By a test that has its name, or for DPP by those below."""
    expected = {f"v_{name}" for name in ("readfirstlane_b32", "readlane_b32", "writelane_b32")}
    expected |= {f"v_permlane{name}_b32" for name in ("16", "x16", "64", "16_swap", "32_swap")} | {"dpp", "dpp_end"}
    assert handlers.names(r"v_read.*lane.*|v_writelane.*|v_perml.*|dpp.*") == expected


@each
def test_readfirstlane(target: str) -> None:
    for mask in handlers.masks(Target(target).lanes):
        state = handlers.state(target)
        state.exec = mask
        first = (mask & -mask).bit_length() - 1 if mask else 0
        single.run("v_readfirstlane_b32 s7, v3", target, state)
        assert state.s[7] == state.v[3, first]


@each
@pytest.mark.parametrize("lane", ["5", "63", "s9"])
def test_readlane_and_writelane(target: str, lane: str) -> None:
    """Whether a lane is active does not matter."""
    state = handlers.state(target)
    lanes = state.v.shape[1]
    state.exec = 0
    at = int(state.s[9] if lane == "s9" else int(lane)) % lanes
    single.run(f"v_readlane_b32 s7, v3, {lane}", target, state)
    assert state.s[7] == state.v[3, at]
    expected = state.v.copy()
    value = "17" if lane == "s9" else "s8"  # gfx9 takes one scalar register
    expected[4, at] = 17 if lane == "s9" else state.s[8]
    single.run(f"v_writelane_b32 v4, {value}, {lane}", target, state)
    assert (state.v == expected).all()


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("options", ["", " op_sel:[1,0]", " op_sel:[0,1]", " op_sel:[1,1]"])
@pytest.mark.parametrize("target", ["gfx1100", "gfx1201"])
def test_permlane16(target: str, options: str, other: bool) -> None:
    """op_sel: whether lanes that are off give their values, and else whether they give 0 or change nothing."""
    for mask, sources in itertools.product(handlers.masks(32), ("s7, s8", "s7, 0xfedcba98", "1, 2")):
        state = handlers.state(target)
        state.exec = mask
        words = {"s7": int(state.s[7]), "s8": int(state.s[8]), "0xfedcba98": 0xFEDCBA98, "1": 1, "2": 2}
        low, high = (words[name] for name in sources.split(", "))
        chosen = low | high << 32
        expected = state.v[4].copy()
        for lane in np.flatnonzero(handlers.active(mask, 32)).tolist():
            source = ((lane & 16) ^ (16 * other)) + (chosen >> 4 * (lane & 15) & 15)
            if mask >> source & 1 or "[1," in options:
                expected[lane] = state.v[5, source]
            elif ",1]" in options:
                expected[lane] = 0
        single.run(f"v_permlane{'x' * other}16_b32 v4, v5, {sources}{options}", target, state)
        assert (state.v[4] == expected).all(), (hex(mask), sources)


@pytest.mark.parametrize("target", ["gfx1100", "gfx1201"])
def test_permlane64_does_nothing_to_waves_of_32_lanes(target: str) -> None:
    state = handlers.state(target)
    before = state.v.copy()
    single.run("v_permlane64_b32 v4, v5", target, state)
    assert (state.v == before).all()


@pytest.mark.parametrize("size", [16, 32])
def test_swaps(size: int) -> None:
    state = handlers.state("gfx950")
    a, b = (state.v[reg].reshape(-1, size) for reg in (4, 5))
    expected = np.stack([a[0::2], b[0::2]], 1).ravel(), np.stack([a[1::2], b[1::2]], 1).ravel()
    single.run(f"v_permlane{size}_swap_b32 v4, v5", "gfx950", state)
    assert (state.v[4] == expected[0]).all() and (state.v[5] == expected[1]).all()
    state.exec = 1
    with pytest.raises(ExecutionError, match="with lanes off in EXEC is not modelled"):
        single.run(f"v_permlane{size}_swap_b32 v4, v5", "gfx950", state)


Source = Callable[[int, int], int | None]


def rows(function: Callable[[int], int]) -> Source:
    """Of a lane's number in its 16, the source; None if that lies outside."""

    def source(lane: int, lanes: int) -> int | None:
        at = function(lane % 16)
        return lane // 16 * 16 + at if 0 <= at < 16 else None

    return source


EVERYWHERE: dict[str, Source] = {
    "quad_perm:[2,0,3,1]": lambda lane, lanes: lane // 4 * 4 + (2, 0, 3, 1)[lane % 4],
    "row_shl:3": rows(lambda at: at + 3),
    "row_shr:15": rows(lambda at: at - 15),
    "row_ror:5": rows(lambda at: (at - 5) % 16),
    "row_mirror": rows(lambda at: 15 - at),
    "row_half_mirror": rows(lambda at: at // 8 * 8 + 7 - at % 8),
}
CONTROLS: dict[tuple[str, str], Source] = {
    **{(target, control): source for target in support.ONE_EACH for control, source in EVERYWHERE.items()},
    ("gfx942", "wave_shl:1"): lambda lane, lanes: lane + 1 if lane + 1 < lanes else None,
    ("gfx942", "wave_rol:1"): lambda lane, lanes: (lane + 1) % lanes,
    ("gfx942", "wave_shr:1"): lambda lane, lanes: lane - 1 if lane else None,
    ("gfx942", "wave_ror:1"): lambda lane, lanes: (lane - 1) % lanes,
    ("gfx942", "row_bcast:15"): lambda lane, lanes: lane // 16 * 16 - 1 if lane >= 16 else None,
    ("gfx942", "row_bcast:31"): lambda lane, lanes: 31 if lane >= 32 else None,
    ("gfx942", "row_newbcast:9"): rows(lambda at: 9),
    ("gfx1100", "row_share:9"): rows(lambda at: 9),
    ("gfx1201", "row_share:0"): rows(lambda at: 0),
    ("gfx1100", "row_xmask:4"): rows(lambda at: at ^ 4),
    ("gfx1201", "row_xmask:15"): rows(lambda at: at ^ 15),
}


@pytest.mark.parametrize("bound", ["", " bound_ctrl:1"])
@pytest.mark.parametrize("masks", ["row_mask:0xf bank_mask:0xf", "row_mask:0xa bank_mask:0x6"])
@pytest.mark.parametrize(("target", "control"), CONTROLS)
def test_dpp(target: str, control: str, masks: str, bound: str) -> None:
    """A lane without a source keeps its old value, or takes 0 for it with bound_ctrl."""
    source = CONTROLS[target, control]
    row_mask, bank_mask = (0xF, 0xF) if "0xf" in masks else (0xA, 0x6)
    lanes = Target(target).lanes
    for mask, inactive in itertools.product(handlers.masks(lanes), ("", " fi:1") if lanes == 32 else ("",)):
        state = handlers.state(target)
        state.exec = mask
        expected = state.v.copy()
        for lane in np.flatnonzero(handlers.active(mask, lanes)).tolist():
            if not (row_mask >> lane // 16 & 1 and bank_mask >> lane % 16 // 4 & 1):
                continue
            at = source(lane, lanes)
            given = at is not None and (mask >> at & 1 or bool(inactive))
            if given or bound:
                expected[4, lane] = ~state.v[5, at] if given else 0xFFFFFFFF
        single.run(f"v_not_b32_dpp v4, v5 {control} {masks}{bound}{inactive}", target, state)
        assert (state.v[:512] == expected[:512]).all(), (hex(mask), inactive)
        assert state.exec == mask


def test_every_control_of_dpp() -> None:
    """Each shift, rotation, broadcast and mask once: they have consecutive numbers."""
    source = np.arange(64, dtype=np.uint32)
    for n in range(1, 16):
        for control, expected in (
            (f"row_shl:{n}", np.where(source % 16 + n < 16, source + n, 99)),
            (f"row_shr:{n}", np.where(source % 16 >= n, source - n, 99)),
            (f"row_ror:{n}", source // 16 * 16 + (source - n) % 16),
            (f"row_newbcast:{n}", source // 16 * 16 + n),
        ):
            state = handlers.state("gfx90a")
            state.v[5], state.v[4] = source, 99
            single.run(f"v_mov_b32_dpp v4, v5 {control} row_mask:0xf bank_mask:0xf", "gfx90a", state)
            assert (state.v[4] == expected).all(), control


@pytest.mark.parametrize("inactive", ["", " fi:1"])
@pytest.mark.parametrize("target", ["gfx1100", "gfx1201"])
def test_dpp_of_eight_lanes(target: str, inactive: str) -> None:
    chosen = (7, 1, 6, 0, 0, 5, 2, 3)
    for mask in handlers.masks(32):
        state = handlers.state(target)
        state.exec = mask
        on, lane = handlers.active(mask, 32), np.arange(32)
        given = state.v[5] if inactive else np.where(on, state.v[5], 0)
        expected = np.where(on, given[lane // 8 * 8 + np.array(chosen)[lane % 8]], state.v[4])
        single.run(f"v_mov_b32_dpp v4, v5 dpp8:[{','.join(map(str, chosen))}]{inactive}", target, state)
        assert (state.v[4] == expected).all(), hex(mask)


@each
def test_dpp_of_a_sum_onto_itself(target: str) -> None:
    """The source is read before the destination, which is the same register, is written; signs change afterwards."""
    state = handlers.state(target)
    values = np.arange(state.v.shape[1], dtype=np.float32)
    state.v[4] = values.view(np.uint32)
    single.run("v_add_f32_dpp v4, -v4, v4 row_shr:1 row_mask:0xf bank_mask:0xf", target, state)
    expected = np.where(np.arange(len(values)) % 16 == 0, values, 1)
    assert (state.v[4].view(np.float32) == expected).all()


def test_dpp_of_64_bits() -> None:
    state = handlers.state("gfx942")
    lane = np.arange(64)
    expected = state.v[6:8, lane // 16 * 16 + 3].copy()
    single.run("v_mov_b64_dpp v[4:5], v[6:7] row_newbcast:3 row_mask:0xf bank_mask:0xf", "gfx942", state)
    assert (state.v[4:6] == expected).all()


def test_dpp_of_a_comparison() -> None:
    """Lanes that take no part have no bit in the mask."""
    state = handlers.state("gfx1100")
    state.v[4] = state.v[5] = 1
    single.run("v_cmp_eq_u32_e64_dpp s7, v4, v5 row_shl:2 row_mask:0xf bank_mask:0xf", "gfx1100", state)
    assert state.s[7] == 0x3FFF3FFF
