# SPDX-License-Identifier: Apache-2.0
"""Races of waves in LDS: reported with both waves and the address, and none where there is none."""

from __future__ import annotations

import pytest

from amdgpu import gpu
from amdgpu.decode.target import Target
from amdgpu.kernel import ExecutionError

from . import support

each = pytest.mark.parametrize("target", support.ONE_EACH)
WAIT = {"gfx942": "s_waitcnt lgkmcnt(0)", "gfx1100": "s_waitcnt lgkmcnt(0)", "gfx1201": "s_wait_dscnt 0x0"}
BARRIER = {"gfx942": "s_barrier", "gfx1100": "s_barrier", "gfx1201": "s_barrier_signal -1\ns_barrier_wait 0xffff"}


def run(target: str, *steps: str, waves: int = 2, order: str = "forward") -> None:
    """Each wave does the steps, one without a mark or whose mark, as in ``1: ...``, is its number.

    v1 is 0x40, v2 four times the lane. "wait", "barrier" and "sync", which is both, stand for themselves.
    """
    lanes = Target(target).lanes
    body = f"v_readfirstlane_b32 s20, v0\ns_lshr_b32 s20, s20, {6 if lanes == 64 else 5}\n"
    body += f"v_mov_b32 v1, 0x40\nv_and_b32 v2, {lanes - 1}, v0\nv_lshlrev_b32 v2, 2, v2\nv_mov_b32 v3, 1\n"
    for at, step in enumerate(steps):
        wave, colon, text = step.rpartition(": ")
        text = text.replace("sync", "wait\nbarrier")
        lines = "\n".join(
            {"wait": WAIT[target], "barrier": BARRIER[target]}.get(line, line) for line in text.split("\n")
        )
        if target != "gfx942":
            lines = lines.replace("ds_read_", "ds_load_").replace("ds_write_", "ds_store_")
        skip = f"s_cmp_lg_u32 s20, {wave}\ns_cbranch_scc1 .Lskip{at}\n" if colon else ""
        body += f"{skip}{lines}\n.Lskip{at}:\n"
    gpu.schedule(order)
    try:
        support.kernel(body, target, 4096).launch((1, 1, 1), (lanes * waves, 1, 1), [bytes(16)])
    finally:
        gpu.schedule()


WRITE, READ = "ds_write_b32 v1, v3", "ds_read_b32 v4, v1"
RACES = {
    "read after write": (("0: " + WRITE, "1: " + READ), 1, "reads", 0, "wrote"),
    "write after read": (("0: " + READ, "1: " + WRITE), 1, "writes", 0, "read"),
    "write after write": (("0: " + WRITE, "1: " + WRITE), 1, "writes", 0, "wrote"),
    "no wait before the barrier": (("0: " + WRITE, "barrier", "1: " + READ), 1, "reads", 0, "wrote"),
    "wait after the barrier": (("0: " + WRITE, "barrier", "wait", "1: " + READ), 1, "reads", 0, "wrote"),
    "no wait for the read": (("0: " + READ, "barrier", "1: " + WRITE), 1, "writes", 0, "read"),
    "a barrier too early": (("sync", "0: " + WRITE, "1: wait\n" + READ), 1, "reads", 0, "wrote"),
    "part of a wide access": (("0: " + WRITE, "1: ds_read_b128 v[4:7], v1 offset:-12"), 1, "reads", 0, "wrote"),
    "one byte": (("0: ds_write_b8 v1, v3 offset:2", "1: ds_read_u16 v4, v1 offset:1"), 1, "reads", 0, "wrote"),
    "atomic, then read": (("0: ds_add_u32 v1, v3", "1: " + READ), 1, "reads", 0, "wrote"),
    "write, then atomic": (("0: " + WRITE, "1: ds_add_u32 v1, v3"), 1, "writes", 0, "wrote"),
}


@each
@pytest.mark.parametrize("name", RACES)
def test_races(target: str, name: str) -> None:
    steps, second, now, first, before = RACES[name]
    steps = tuple(
        step.replace("v1 offset:-12", "v5").replace("ds_read_b128", "v_mov_b32 v5, 0x34\nds_read_b128")
        for step in steps
    )
    said = rf"ds_\w+ .*: wave {second}: race: wave {second}, lane 0 {now} LDS address 64, which wave {first} {before}"
    with pytest.raises(ExecutionError, match=said):
        run(target, *steps)


NONE = {
    "wait and barrier": ("0: " + WRITE, "sync", "1: " + READ),
    "both read": (READ, READ),
    "own data": tuple(f"{n}: v_or_b32 v2, {n * 1024}, v2\nds_write_b32 v2, v3\nds_read_b32 v4, v2" for n in (0, 1)),
    "read, then written": (READ, "sync", "0: " + WRITE),
    "in turns": ("0: " + WRITE, "sync", READ, "sync", "1: " + WRITE, "sync", READ, "sync", "0: " + WRITE),
    "other bytes": ("0: ds_write_b8 v1, v3", "1: ds_write_b8 v1, v3 offset:1", "0: ds_read_u8 v4, v1"),
    "other halves": ("0: ds_write_b16 v1, v3", "1: ds_write_b16 v1, v3 offset:2\nds_read_u16 v4, v1 offset:2"),
    "atomics": ("ds_add_u32 v1, v3", "ds_max_u32 v1, v3", "sync", READ),
    "read later, another byte": (
        "0: ds_read_u8 v4, v1",
        "sync",
        "0: ds_read_u8 v4, v1 offset:1",
        "1: ds_write_b8 v1, v3",
    ),
}


@each
@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_no_races(target: str, name: str, order: str) -> None:
    run(target, *NONE[name], order=order)


@each
def test_the_order_of_waves_does_not_matter(target: str) -> None:
    with pytest.raises(ExecutionError, match="wave 0, lane 0 writes LDS address 64, which wave 1 read"):
        run(target, "0: " + WRITE, "1: " + READ, order="reverse")


@each
@pytest.mark.parametrize("writer", [0, 1, 2, 3])
def test_one_of_many_readers(target: str, writer: int) -> None:
    """Two readers are remembered; the writer may be one of them."""
    with pytest.raises(ExecutionError, match=rf"wave {writer}, lane 0 writes LDS address 64, which wave \d read"):
        run(target, READ, "barrier", f"{writer}: {WRITE}", waves=4)


@each
def test_a_reader_behind_a_barrier_is_forgotten_first(target: str) -> None:
    """Wave 0 reads after the barrier, and then come two that read before and after it."""
    steps = ("1: " + READ, "2: " + READ, "sync", "0: " + READ, "1: " + READ)
    with pytest.raises(ExecutionError, match=r"wave 1, lane 0 writes LDS address 64, which wave 0 read"):
        run(target, *steps, "1: " + WRITE, waves=3)


def test_a_scalar_load_makes_the_wait_unsure() -> None:
    """One counter for both, which may come in any order."""
    steps = ("0: " + WRITE + "\ns_load_dword s21, s[0:1], 0x0\ns_waitcnt lgkmcnt(1)", "barrier", "1: " + READ)
    with pytest.raises(ExecutionError, match="race: wave 1, lane 0 reads LDS address 64, which wave 0 wrote"):
        run("gfx942", *steps)


def test_a_signal_before_the_write() -> None:
    """gfx12: what comes between signal and wait is not behind the barrier."""
    steps = ("0: s_barrier_signal -1\n" + WRITE + "\nwait\ns_barrier_wait 0xffff", "1: barrier\n" + READ)
    with pytest.raises(ExecutionError, match="race: wave 1, lane 0 reads LDS address 64, which wave 0 wrote"):
        run("gfx1201", *steps)
