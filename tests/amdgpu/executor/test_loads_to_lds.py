# SPDX-License-Identifier: Apache-2.0
"""Loads that put what they bring straight into LDS."""

from __future__ import annotations

import re

import numpy as np
import pytest

from amdgpu import single
from amdgpu.kernel import ExecutionError

from . import handlers

LANES = 64
MASK = 0x8000_0000_FFFF_FFF5


def state(source: np.ndarray, lds: int) -> single.State:
    """v[2:3] is the address of a lane's 16 bytes, in reverse order, and v4 its offset; s[8:11] is a buffer of it."""
    found = single.State(LANES, lds)
    found.lds[:] = 0xAA
    offsets = 16 * np.arange(LANES, dtype=np.uint64)[::-1]
    addresses = source.ctypes.data + offsets
    found.v[2], found.v[3], found.v[4] = addresses & 0xFFFFFFFF, addresses >> 32, offsets
    found.s[8:12] = source.ctypes.data & 0xFFFFFFFF, source.ctypes.data >> 32, source.nbytes - 16, 0x27000
    found.exec = MASK
    return found


# By handler: the instruction, bytes of a lane, and whether it is bounded by nothing.
LOADS = {
    "global_load_lds_dword": ("global_load_lds_dword v[2:3], off offset:32", 4, True),
    "global_load_lds_dwordx3": ("global_load_lds_dwordx3 v[2:3], off offset:32", 12, True),
    "global_load_lds_dwordx4": ("global_load_lds_dwordx4 v[2:3], off offset:32", 16, True),
    "buffer_load_dword_lds": ("buffer_load_dword v4, s[8:11], 0 offen lds", 4, False),
    "buffer_load_dwordx3_lds": ("buffer_load_dwordx3 v4, s[8:11], 0 offen lds", 12, False),
    "buffer_load_dwordx4_lds": ("buffer_load_dwordx4 v4, s[8:11], 0 offen lds", 16, False),
}


def test_every_handler_has_an_expectation() -> None:
    assert handlers.names(r"global_load_lds_.*|buffer_load_.*_lds") == set(LOADS)


@pytest.mark.parametrize(("code", "size", "whole"), LOADS.values(), ids=LOADS)
def test_lanes_lie_one_behind_the_other_from_m0_on(code: str, size: int, whole: bool) -> None:
    """The offset counts for both; what lies beyond a buffer is 0, and lanes that are not active leave LDS alone."""
    source = np.arange(16 * (LANES + 2), dtype=np.uint32).astype(np.uint8)[: 16 * (LANES if not whole else LANES + 2)]
    before = state(source, 4096)
    single.run(f"s_movk_i32 m0, 0x100\n{code}\ns_waitcnt vmcnt(0)", "gfx950", before)
    offset = 32 if whole else 0
    expected = np.full(4096, 0xAA, np.uint8)
    for lane in range(LANES):
        if MASK >> lane & 1:
            start = 16 * (LANES - 1 - lane) + offset
            piece = source[start : start + size].copy()
            if not whole and lane == 0:
                piece[:] = 0
            at = 0x100 + offset + size * lane
            expected[at : at + size] = piece
    assert (before.lds == expected).all()


def test_lds_ends_where_it_ends() -> None:
    source = np.zeros(16 * (LANES + 2), np.uint8)
    with pytest.raises(ExecutionError, match=re.escape("lane 63 writes LDS address 1264 of 1279")):
        single.run("s_movk_i32 m0, 0x100\nglobal_load_lds_dwordx4 v[2:3], off", "gfx950", state(source, 1279))
