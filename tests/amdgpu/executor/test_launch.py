# SPDX-License-Identifier: Apache-2.0
"""Launches: what a wave finds, workgroups, barriers, arguments, and how a wrong one ends."""

from __future__ import annotations

import mmap
import re

import numpy as np
import pytest

from amdgpu import gpu
from amdgpu.decode.target import Target
from amdgpu.kernel import ExecutionError

from . import support

each = pytest.mark.parametrize("target", support.ONE_EACH)
STORE = {True: "global_store_dword v{}, v{}, s[8:9]\n", False: "global_store_b32 v{}, v{}, s[8:9]\n"}


def store(target: str, offset: int, value: int) -> str:
    return STORE[target == "gfx942"].format(offset, value)


def index(target: str) -> str:
    """Puts the workgroup's index into s10 to s12."""
    if target == "gfx1201":
        return "s_mov_b32 s10, ttmp9\ns_and_b32 s11, ttmp7, 0xffff\ns_lshr_b32 s12, ttmp7, 16\n"
    return "s_mov_b32 s10, s2\ns_mov_b32 s11, s3\ns_mov_b32 s12, s4\n"


@each
@pytest.mark.parametrize("threads", [1, 3])
def test_indices_of_threads_and_workgroups(target: str, threads: int) -> None:
    """Every thread of a grid in three dimensions writes what it is; the last wave is not full."""
    grid, block = (2, 3, 2), (10, 4, 3)
    out = np.zeros((*grid[::-1], 120, 2), np.uint32)
    body = (
        support.load_argument(target)
        + index(target)
        + """
        v_bfe_u32 v1, v0, 10, 10
        v_bfe_u32 v2, v0, 20, 10
        v_and_b32 v3, 0x3ff, v0
        s_movk_i32 s13, 10
        v_mad_u32_u24 v4, v1, s13, v3
        s_movk_i32 s13, 40
        v_mad_u32_u24 v4, v2, s13, v4
        s_mul_i32 s14, s12, 3
        s_add_i32 s14, s14, s11
        s_mul_i32 s14, s14, 2
        s_add_i32 s14, s14, s10
        s_mul_i32 s14, s14, 960
        v_lshlrev_b32 v5, 3, v4
        v_add_u32 v5, s14, v5
        s_lshl_b32 s15, s11, 8
        s_or_b32 s15, s15, s10
        s_lshl_b32 s16, s12, 16
        s_or_b32 s15, s15, s16
        v_mov_b32 v6, s15
        v_add_u32 v7, 4, v5
    """
    )
    if target != "gfx942":
        body = body.replace("v_add_u32", "v_add_nc_u32")
    if target == "gfx1201":
        body = body.replace("s_add_i32", "s_add_co_i32")
    gpu.schedule(threads=threads)
    code = support.kernel(body + store(target, 5, 6) + store(target, 7, 0), target)
    code.launch(grid, block, [support.pointer(out)])
    z, y, x = np.meshgrid(*(np.arange(n) for n in grid[::-1]), indexing="ij")
    assert (out[..., 0] == (x | y << 8 | z << 16)[..., None]).all()
    thread = np.arange(120)
    assert (out[..., 1] == (thread % 10 | thread // 10 % 4 << 10 | thread // 40 << 20)).all()
    waves = 12 * -(-120 // code.entry.lanes)
    assert code.executed()["s_endpgm"] == waves and not code.executed()


@each
def test_hidden_arguments(target: str) -> None:
    out = np.zeros(5, np.uint32)
    load = "s_load_dword" if target == "gfx942" else "s_load_b32"
    wait = "s_wait_kmcnt 0x0\n" if target == "gfx1201" else "s_waitcnt lgkmcnt(0)\n"
    body = support.load_argument(target) + "".join(f"{load} s{20 + i}, s[0:1], {16 + 4 * i}\n" for i in range(5)) + wait
    for i in range(5):
        body += f"v_mov_b32 v1, {4 * i}\nv_mov_b32 v2, s{20 + i}\n" + store(target, 1, 2)
    support.kernel(body, target).launch((7, 5, 3), (32, 2, 4), [support.pointer(out)])
    assert out.tolist() == [7, 5, 3, 32 | 2 << 16, 4]


@each
@pytest.mark.parametrize("order", ["forward", "reverse", 7])
def test_waves_wait_at_barriers(target: str, order: str | int) -> None:
    """Each thread writes LDS, and reads what one of another wave wrote."""
    out = np.zeros(256, np.uint32)
    write, read, wait, store_one = (
        ("ds_write_b32", "ds_read_b32", "s_waitcnt lgkmcnt(0)", "global_store_dword")
        if target == "gfx942"
        else ("ds_store_b32", "ds_load_b32", "s_waitcnt lgkmcnt(0)", "global_store_b32")
    )
    barrier = "s_barrier"
    if target == "gfx1201":
        wait, barrier = "s_wait_dscnt 0x0", "s_barrier_signal -1\ns_barrier_wait 0xffff"
    body = (
        support.load_argument(target)
        + f"""
        v_and_b32 v0, 0x3ff, v0
        v_lshlrev_b32 v1, 2, v0
        v_xor_b32 v2, 0x3fc, v1
        {write} v1, v0
        {wait}
        {barrier}
        {read} v3, v2
        {wait}
        {store_one} v1, v3, s[8:9]
    """
    )
    for quantum in (0, 1, 5):
        gpu.schedule(order, quantum)
        out[:] = 0
        support.kernel(body, target, 1024).launch((1, 1, 1), (256, 1, 1), [support.pointer(out)])
        assert (out == np.arange(256)[::-1]).all()
    gpu.schedule()
    with pytest.raises(ExecutionError, match=r"LDS"):  # the barrier alone does not wait for the store
        support.kernel(body.replace(f"{wait}\n        {barrier}", barrier), target, 1024).launch(
            (1, 1, 1), (256, 1, 1), [support.pointer(out)]
        )


@each
def test_a_bad_address_names_instruction_lane_and_address(target: str) -> None:
    page = mmap.PAGESIZE
    out = np.frombuffer(mmap.mmap(-1, page), np.uint8)
    before = support.load_argument(target)
    body = before + "v_and_b32 v0, 0x3ff, v0\nv_lshlrev_b32 v1, 30, v0\n" + store(target, 1, 0)
    code = support.kernel(body, target)
    argument = int(out.ctypes.data).to_bytes(8, "little") + bytes(8)
    with pytest.raises(ExecutionError) as error:
        code.launch((3, 1, 1), (2, 1, 1), [argument])
    found = re.fullmatch(
        r"code\+0x\w+: global_store_\w+ v1, v0, s\[8:9\]: wave 0: lane 1: bad address (0x\w+) \(workgroup \d\)",
        str(error.value),
    )
    assert found and int(found[1], 16) == out.ctypes.data + (1 << 30)
    code.launch((1, 1, 1), (1, 1, 1), [argument])  # the next one is not harmed
    assert out[:4].tolist() == [0, 0, 0, 0]


def test_a_wave_without_an_end() -> None:
    gpu.schedule(limit=1000)
    try:
        with pytest.raises(ExecutionError, match=r"code\+0x\w+: s_branch .*: wave 0: the wave does not come to an end"):
            support.kernel(".Lagain:\ns_branch .Lagain", "gfx942").launch((1, 1, 1), (64, 1, 1), [bytes(16)])
    finally:
        gpu.schedule()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("s_barrier_wait 0xffff", "waits at a barrier that it has not signalled"),
        ("s_barrier_signal -1\ns_barrier_signal -1", "signals a barrier again without having waited at it"),
    ],
)
def test_half_barriers(body: str, said: str) -> None:
    with pytest.raises(ExecutionError, match=said):
        support.kernel(body, "gfx1201").launch((1, 1, 1), (32, 1, 1), [bytes(16)])


@each
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{store}", r"lane 0: v2 depends on what nobody has written"),
        ("v_mov_b32 v2, 0\nv_add_u32 v1, v1, v3\n{store}", "lane 0: v1 depends"),
        ("v_cmp_gt_f32 vcc, 0, v2\ns_cbranch_vccz .Lnext\n.Lnext:", "VCC depends"),
        ("s_bitcmp1_b32 s20, 0\ns_cbranch_scc1 .Lnext\n.Lnext:", "SCC depends"),
        ("v_mov_b32 v2, v3\nv_mov_b32 v2, 5\n{store}", None),  # what is not used does no harm
        ("v_lshrrev_b32 v2, 31, v3\nv_lshrrev_b32 v2, 1, v2\n{store}", None),
    ],
    ids=["data", "address", "vcc", "scc", "unused", "shifted out"],
)
def test_what_nobody_has_written(target: str, body: str, said: str | None) -> None:
    out = np.zeros(64, np.uint32)
    body = body.format(store=store(target, 1, 2))
    if Target(target).lanes == 32:
        body = body.replace("v_add_u32", "v_add_nc_u32").replace("vcc,", "vcc_lo,")
    body = support.load_argument(target) + "v_and_b32 v0, 0x3ff, v0\nv_lshlrev_b32 v1, 2, v0\n" + body
    code = support.kernel(body, target)
    gpu.schedule(uninitialised=True)
    try:
        if said is None:
            code.launch((1, 1, 1), (64, 1, 1), [support.pointer(out)])
        else:
            with pytest.raises(ExecutionError, match=said):
                code.launch((1, 1, 1), (64, 1, 1), [support.pointer(out)])
    finally:
        gpu.schedule()


@pytest.mark.parametrize(("block", "threads"), [((1025, 1, 1), 1025), ((32, 33, 1), 1056), ((0, 1, 1), 0)])
def test_a_workgroup_has_1_to_1024_threads(block: tuple[int, int, int], threads: int) -> None:
    with pytest.raises(ExecutionError, match=f"code: a workgroup of {threads} threads; it may have 1 to 1024"):
        support.kernel("v_nop", "gfx1201").launch((1, 1, 1), block, [bytes(16)])
    support.kernel("v_nop", "gfx1201").launch((1, 1, 1), (1024, 1, 1), [bytes(16)])
