# SPDX-License-Identifier: Apache-2.0
"""A register that a load writes is not touched before the load was waited for, by the right counter."""

from __future__ import annotations

import numpy as np
import pytest

from amdgpu.kernel import ExecutionError

from . import support

DATA = np.arange(64, dtype=np.uint32)


def run(target: str, body: str, lds: int = 1024) -> None:
    """Runs one wave; s[8:9] points to DATA, v1 is four times the lane."""
    before = support.load_argument(target) + "v_lshlrev_b32 v1, 2, v0\n"
    code = support.kernel(before + body, target, lds)
    code.launch((1, 1, 1), (code.entry.lanes, 1, 1), [support.pointer(DATA)])


# Loads, and waits for all but one and for all of them, by generation.
LOAD = {"gfx942": "global_load_dword {}, v1, s[8:9]", "gfx1100": "global_load_b32 {}, v1, s[8:9]"}
LOAD["gfx1201"] = LOAD["gfx1100"]
STORE = {"gfx942": "global_store_dword v1, {}, s[8:9]", "gfx1100": "global_store_b32 v1, {}, s[8:9]"}
STORE["gfx1201"] = STORE["gfx1100"]
WAIT = {"gfx942": "s_waitcnt vmcnt({})", "gfx1100": "s_waitcnt vmcnt({})", "gfx1201": "s_wait_loadcnt {}"}
LDS = {"gfx942": "ds_read_b32 {}, v1", "gfx1100": "ds_load_b32 {}, v1", "gfx1201": "ds_load_b32 {}, v1"}
LDS_WAIT = {"gfx942": "s_waitcnt lgkmcnt({})", "gfx1100": "s_waitcnt lgkmcnt({})", "gfx1201": "s_wait_dscnt {}"}
SCALAR = {"gfx942": "s_load_dword {}, s[8:9], 0", "gfx1100": "s_load_b32 {}, s[8:9], 0x0"}
SCALAR["gfx1201"] = SCALAR["gfx1100"]
SCALAR_WAIT = {"gfx942": "s_waitcnt lgkmcnt({})", "gfx1100": "s_waitcnt lgkmcnt({})", "gfx1201": "s_wait_kmcnt {}"}
each = pytest.mark.parametrize("target", support.ONE_EACH)


def code(target: str, *steps: tuple[dict[str, str], object] | str) -> str:
    return "\n".join(step if isinstance(step, str) else step[0][target].format(step[1]) for step in steps)


@each
@pytest.mark.parametrize(
    ("load", "wait", "to", "use", "said"),
    [
        (LOAD, WAIT, "v2", "v_mov_b32 v3, v2", r"v2 is used before .* \(counter of vector loads\)"),
        (LDS, LDS_WAIT, "v2", "v_mov_b32 v3, v2", r"v2 is used before .* \(counter of LDS\)"),
        (SCALAR, SCALAR_WAIT, "s12", "s_mov_b32 s13, s12", r"s12 is used before .* \(counter of (LDS|scalar loads)\)"),
    ],
    ids=["global", "lds", "scalar"],
)
def test_each_counter(target: str, load: dict, wait: dict, to: str, use: str, said: str) -> None:
    fill = (
        [(STORE, "v1")]
        if load is not LDS
        else [("ds_write_b32 v1, v1" if target == "gfx942" else "ds_store_b32 v1, v1")]
    )
    run(target, code(target, *fill, (load, to), (wait, 0), use))
    with pytest.raises(ExecutionError, match=rf"code\+0x\w+: \w+_mov_b32\w* .*: wave 0: {said}"):
        run(target, code(target, *fill, (load, to), use))


@each
def test_a_write_to_a_register_on_its_way_is_reported_too(target: str) -> None:
    run(target, code(target, (LOAD, "v2"), (WAIT, 0), "v_mov_b32 v2, 0"))
    with pytest.raises(ExecutionError, match="v2 is used before"):
        run(target, code(target, (LOAD, "v2"), "v_mov_b32 v2, 0"))


@each
def test_loads_come_back_in_order(target: str) -> None:
    two = (LOAD, "v2"), (LOAD, "v3"), (WAIT, 1)
    run(target, code(target, *two, "v_mov_b32 v4, v2"))
    with pytest.raises(ExecutionError, match="v3 is used before"):
        run(target, code(target, *two, "v_mov_b32 v4, v3"))


@each
def test_a_younger_load_may_replace_an_older_one(target: str) -> None:
    run(target, code(target, (LOAD, "v2"), (LOAD, "v2"), (WAIT, 0), "v_mov_b32 v4, v2"))
    with pytest.raises(ExecutionError, match="v2 is used before"):
        run(target, code(target, (LOAD, "v2"), (LOAD, "v2"), (WAIT, 1), "v_mov_b32 v4, v2"))


@each
def test_scalar_loads_overtake_each_other(target: str) -> None:
    two = (SCALAR, "s12"), (SCALAR, "s13")
    run(target, code(target, *two, (SCALAR_WAIT, 0), "s_mov_b32 s14, s12"))
    with pytest.raises(ExecutionError, match="s12 is used before"):
        run(target, code(target, *two, (SCALAR_WAIT, 1), "s_mov_b32 s14, s12"))


def test_a_scalar_load_makes_waits_for_lds_unsure_where_they_share_a_counter() -> None:
    both = "ds_{} v1, v1\nds_{} v2, v1\n"
    body = both.format("write_b32", "read_b32") + "s_load_dword s12, s[8:9], 0\ns_waitcnt lgkmcnt(1)\nv_mov_b32 v3, v2"
    with pytest.raises(ExecutionError, match="v2 is used before"):
        run("gfx942", body)
    own = both.format("store_b32", "load_b32") + "s_load_b32 s12, s[8:9], 0x0\ns_wait_dscnt 0x0\nv_mov_b32 v3, v2"
    run("gfx1201", own)


def test_stores_have_a_counter_of_their_own_from_gfx11_on() -> None:
    body = (LOAD, "v2"), (STORE, "v1")
    run("gfx942", code("gfx942", *body, (WAIT, 1), "v_mov_b32 v4, v2"))  # the store counts as the younger one
    for target in ("gfx1100", "gfx1201"):
        with pytest.raises(ExecutionError, match="v2 is used before"):
            run(target, code(target, *body, (WAIT, 1), "v_mov_b32 v4, v2"))


def test_two_counters_in_one_wait() -> None:
    body = "ds_store_b32 v1, v1\nds_load_b32 v2, v1\nglobal_load_b32 v3, v1, s[8:9]\ns_wait_loadcnt_dscnt {}\n"
    run("gfx1201", body.format("0x0") + "v_add_nc_u32 v4, v2, v3")
    run("gfx1201", body.format("0x100") + "v_mov_b32 v4, v2")
    with pytest.raises(ExecutionError, match="v3 is used before"):
        run("gfx1201", body.format("0x100") + "v_add_nc_u32 v4, v2, v3")
    with pytest.raises(ExecutionError, match="v2 is used before"):
        run("gfx1201", body.format("0x1") + "v_mov_b32 v4, v2")
