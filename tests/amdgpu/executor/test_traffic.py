# SPDX-License-Identifier: Apache-2.0
"""Counters of memory instructions and the walk through waves, on patterns whose figures are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from amdgpu import gpu
from amdgpu.decode.target import Target
from amdgpu.disassembly import Line
from amdgpu.kernel import Kernel
from amdgpu.traffic import STALLS, Costs, Memory, Traffic

from . import support

ALL = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")


@pytest.fixture(autouse=True)
def counted() -> Iterator[None]:
    gpu.schedule(counting=True)
    yield
    gpu.schedule()


def spelled(body: str, target: str) -> str:
    """gfx9's names in those of a newer target."""
    if target.startswith("gfx9"):
        return body
    for old, new in (
        ("ds_read", "ds_load"),
        ("ds_write", "ds_store"),
        ("_load2st64", "_load_2addr_stride64"),
        ("_load2", "_load_2addr"),
        ("_store2", "_store_2addr"),
        ("dwordx16", "b512"),
        ("dwordx4", "b128"),
        ("dwordx2", "b64"),
        ("dword", "b32"),
        ("v_add_u32", "v_add_nc_u32"),
    ):
        body = body.replace(old, new)
    if target.startswith("gfx12"):
        body = body.replace("s_waitcnt vmcnt(0)", "s_wait_loadcnt 0x0").replace(
            "s_waitcnt lgkmcnt(0)", "s_wait_dscnt 0x0"
        )
    return body


def run(body: str, target: str, out: np.ndarray | None = None, lds: int = 0, threads: int = 0) -> Traffic:
    """Traffic of one workgroup, of one wave unless `threads` says otherwise; v0 is the lane."""
    buffer = np.zeros(1, np.uint8) if out is None else out
    code: Kernel = support.kernel(support.load_argument(target) + spelled(body, target), target, lds)
    code.traffic()
    code.launch((1, 1, 1), (threads or Target(target).lanes, 1, 1), [support.pointer(buffer)])
    return code.traffic()


def only(mask: int, target: str) -> str:
    """Leaves these of the first 32 lanes active."""
    return f"s_mov_b32 exec_lo, {mask}\n" + ("s_mov_b32 exec_hi, 0\n" if Target(target).lanes == 64 else "")


def room(size: int) -> np.ndarray:
    """Bytes from a multiple of 512 on."""
    buffer = np.zeros(size + 512, np.uint8)
    return buffer[-buffer.ctypes.data % 512 :][:size]


def of_lds(instruction: str, target: str, stride: int, lanes: str = "") -> Memory:
    """One LDS instruction with v1 = lane * stride as its address, in some of the lanes."""
    body = f"v_mov_b32 v2, {stride}\nv_mul_u32_u24 v1, v2, v0\n{lanes}\n{instruction}\ns_waitcnt lgkmcnt(0)"
    return run(body, target, lds=1 << 16).of("ds_")


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize(("stride", "ways"), [(0, 1), (4, 1), (8, 2), (12, 1), (64, 16), (128, 32), (132, 1)], ids=str)
def test_words_of_one_bank_take_turns(target: str, stride: int, ways: int) -> None:
    """Of each 32 lanes; the same word is read once. 64 banks halve what is a multiple of 8 bytes apart."""
    groups = Target(target).lanes // 32
    if target == "gfx950" and ways > 1:
        ways //= 2
    found = of_lds("ds_read_b32 v3, v1", target, stride)
    assert (found.lds_clocks, found.least_lds_clocks) == (groups * ways, groups)
    assert found.bytes == 4 * Target(target).lanes and found.lines == 0


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("store", [False, True])
def test_wide_accesses_are_taken_in_groups_of_128_bytes(target: str, store: bool) -> None:
    lanes = Target(target).lanes
    for bits, registers in ((64, "v[4:5]"), (128, "v[4:7]")):
        name = f"ds_write_b{bits} v1, {registers}" if store else f"ds_read_b{bits} {registers}, v1"
        size = bits // 8
        found = of_lds(name, target, size)
        assert found.lds_clocks == found.least_lds_clocks == lanes * size // 128
        found = of_lds(name, target, 256)  # all lanes in the same banks
        assert found.least_lds_clocks == lanes * size // 128
        assert found.lds_clocks == lanes


@pytest.mark.parametrize("target", ALL)
def test_inactive_lanes_take_no_clocks(target: str) -> None:
    found = of_lds("ds_read_b32 v3, v1", target, 128, only(0xF0, target))
    assert found.lds_clocks == (2 if target == "gfx950" else 4)
    assert found.least_lds_clocks == 1 and found.bytes == 16


@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx1201"])
def test_groups_of_16_byte_loads_are_crossed_on_cdna(target: str) -> None:
    """Lanes 0-3 go with 20-23 there, and with 4-7 elsewhere and in stores."""
    body = """
        v_and_b32 v1, 3, v0
        v_lshrrev_b32 v2, 4, v0
        v_and_b32 v2, 1, v2
        v_lshlrev_b32 v2, 2, v2
        v_or_b32 v1, v1, v2
        v_lshlrev_b32 v1, 4, v1
        v_lshlrev_b32 v2, 7, v0
        v_or_b32 v1, v1, v2
    """
    lanes = Target(target).lanes
    load = run(body + "ds_read_b128 v[4:7], v1\ns_waitcnt lgkmcnt(0)", target, lds=1 << 14).of("ds_")
    store = run(body + "ds_write_b128 v1, v[4:7]\ns_waitcnt lgkmcnt(0)", target, lds=1 << 14).of("ds_")
    assert load.lds_clocks == (lanes // 4 if target == "gfx1201" else lanes // 8)
    assert store.lds_clocks == lanes // 4
    assert load.least_lds_clocks == store.least_lds_clocks == lanes // 8


@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_two_addresses_are_two_accesses(target: str) -> None:
    groups = Target(target).lanes // 32
    found = of_lds("ds_read2_b32 v[4:5], v1 offset1:1", target, 8)
    assert (found.lds_clocks, found.least_lds_clocks) == (4 * groups, 2 * groups)
    found = of_lds("ds_read2st64_b32 v[4:5], v1 offset1:1", target, 4)
    assert (found.lds_clocks, found.least_lds_clocks) == (2 * groups, 2 * groups)
    assert found.bytes == 8 * Target(target).lanes


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("shift", [0, 64, 4])
def test_lines_of_contiguous_loads(target: str, shift: int) -> None:
    """A wave's 16 bytes a lane, from a line's start, from half of one on gfx942 and later, or 4 bytes in."""
    lanes, line = Target(target).lanes, Target(target).line_bytes
    out = room(1 << 13)
    body = f"v_lshlrev_b32 v1, 4, v0\nglobal_load_dwordx4 v[4:7], v1, s[8:9] offset:{shift}\ns_waitcnt vmcnt(0)"
    found = run(body, target, out)
    assert found.of("global").fewest_lines == lanes * 16 // line
    assert found.of("global").lines == lanes * 16 // line + (shift % line > 0)
    assert found.of("global").bytes == 16 * lanes
    assert found.line_bytes == line


@pytest.mark.parametrize("target", ALL)
def test_lines_of_strided_and_equal_addresses(target: str) -> None:
    lanes, line = Target(target).lanes, Target(target).line_bytes
    out = room(1 << 14)
    far = run("v_lshlrev_b32 v1, 8, v0\nglobal_store_dword v1, v1, s[8:9]", target, out).of("global")
    assert far == Memory(0, 0, lanes, 4 * lanes // line, 4 * lanes)
    same = run("v_mov_b32 v1, 0\nglobal_load_dwordx2 v[2:3], v1, s[8:9]", target, out).of("global")
    assert same == Memory(0, 0, 1, 1, 8 * lanes)
    few = run(f"v_lshlrev_b32 v1, 8, v0\n{only(7, target)}global_store_dword v1, v1, s[8:9]", target, out)
    assert few.of("global") == Memory(0, 0, 3, 1, 12)


@pytest.mark.parametrize("target", ALL)
def test_footprint_has_each_line_once(target: str) -> None:
    """Addresses of 64 bits, loaded twice, and the line behind them stored to."""
    lanes, line = Target(target).lanes, Target(target).line_bytes
    out = room(1 << 13)
    body = """
        v_lshlrev_b32 v1, 2, v0
        v_mov_b32 v3, s9
        v_mov_b32 v2, s8
        v_or_b32 v2, v2, v1
        global_load_dword v4, v[2:3], off
        global_load_dword v5, v[2:3], off
        global_store_dword v[2:3], v1, off offset:1024
    """
    out[:1024] = 0
    found = run(body, target, out)
    argument = 1  # the kernel's arguments, which a scalar load reads
    assert found.footprint == (4 * lanes // line + argument, 4 * lanes // line)
    assert found.of("global_load").lines == 2 * 4 * lanes // line


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_scalar_loads_access_once(target: str) -> None:
    found = run("s_load_dwordx16 s[16:31], s[8:9], 0x40\ns_waitcnt lgkmcnt(0)", target, room(1 << 10))
    load = found.by_mnemonic()[spelled("s_load_dwordx16", target)]
    assert load == Memory(0, 0, 1, 1, 64)


def walk(body: str, target: str, costs: Costs, threads: int = 0) -> Traffic:
    """As `run`, timed; without the instructions that load the argument."""
    code: Kernel = support.kernel(spelled(body, target), target, 64)
    code.time(costs)
    try:
        code.launch((2, 1, 1), (threads or Target(target).lanes, 1, 1), [bytes(16)])
        return code.traffic()
    finally:
        code.time(None)


def costs(_: str, line: Line) -> tuple[int, int, int, int]:
    """Issue 4, one unit that is busy for 10, results after 7; LDS answers after 100, and what is no vector takes 1."""
    if line.mnemonic.startswith("ds_"):
        return 4, 0, 100, 2
    return (4, 10, 7, 1) if line.mnemonic.startswith("v_") else (1, 0, 0, 0)


@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_instructions_wait_for_results_and_units(target: str) -> None:
    alone = walk("v_mov_b32 v1, 0", target, costs)
    assert alone.clocks.tolist() == [5, 5] and sum(alone.stalls.values()) == 0
    found = walk("v_mov_b32 v1, 0\ns_nop 0\ns_nop 0\nv_mov_b32 v2, v1", target, costs)  # 6; 7: result; 10: unit
    assert found.clocks.tolist() == [15, 15]
    assert found.stalls == dict.fromkeys(STALLS, 0) | {"results": 2, "units": 6}


@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_waits_end_when_their_operations_have_come_back(target: str) -> None:
    """The first of two may be waited for by itself; a wait costs nothing once they are there."""
    body = "v_mov_b32 v1, 0\n" + "ds_read_b32 v2, v1\nds_read_b32 v3, v1\n"  # at 7 and 11; busy for a clock a group
    groups = Target(target).lanes // 32
    first, both = (
        ("s_wait_dscnt 0x1", "s_wait_dscnt 0x0")
        if target == "gfx1201"
        else ("s_waitcnt lgkmcnt(1)", "s_waitcnt lgkmcnt(0)")
    )
    assert walk(body + both, target, costs).clocks[0] == 11 + groups + 100 + 2
    assert walk(f"{body}{first}\n{both}", target, costs).clocks[0] == max(7 + groups + 101, 11 + groups + 100) + 2
    found = walk(f"{body}{first}", target, costs)
    assert found.clocks[0] == 7 + groups + 100 + 2
    assert found.stalls["LDS"] == 2 * (7 + groups + 100 - 15)


@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_waves_meet_at_barriers(target: str) -> None:
    """The second wave does more before one."""
    lanes = Target(target).lanes
    barrier = "s_barrier_signal -1\ns_barrier_wait 0xffff" if target == "gfx1201" else "s_barrier"
    body = f"""
        v_readfirstlane_b32 s20, v0
        s_cmp_lt_u32 s20, {lanes}
        s_cbranch_scc1 .Lmeet{target}
        s_nop 0
        s_nop 0
        s_nop 0
        .Lmeet{target}:
        {barrier}
    """
    found = walk(body, target, costs, threads=2 * lanes)
    late = 4 + 3 + 1 + 1 + 3  # the result of the first one is there at 7
    after = late + (2 if target == "gfx1201" else 1) + 1
    assert found.clocks.tolist() == [after, after]
    assert found.stalls["barriers"] == 2 * 3


def test_nothing_is_counted_unless_asked_for() -> None:
    gpu.schedule()
    assert not run("v_mov_b32 v1, 0\nds_read_b32 v2, v1\ns_waitcnt lgkmcnt(0)", "gfx942", lds=64).by_line
