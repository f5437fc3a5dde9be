# SPDX-License-Identifier: Apache-2.0
"""How operands are read and results written, whatever the instruction: signs, halves and bytes of registers, clamping,
lanes that are not active, and registers that are both source and destination.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from amdgpu import single
from amdgpu.decode.target import Target

from . import exact, values
from .exact import HALF, SINGLE, Float
from .expected_float import SMALL, ieee
from .expected_integer import clamp, dot, permuted, signed
from .instructions import same

Lane = Callable[[list[int]], int]


def state_for(target: str, seed: int = 1) -> single.State:
    """v0 to v7: floats; v8 to v15: integers; v24 to v31: halves; v48 to v55: two of them; the rest is random."""
    lanes = Target(target).lanes
    state, rng = single.State(lanes), np.random.default_rng(seed)
    state.v[:] = rng.integers(0, 1 << 32, state.v.shape)
    values.fill(state, seed, rng)
    return state


def check(target: str, text: str, result: int, expected: Lane, letter: str = "u") -> None:
    """`expected`: of one lane's registers from v0 on, the result's register."""
    for seed in range(6):
        state = state_for(target, seed)
        before = state.v.copy()
        single.run(text, target, state)
        for lane in range(Target(target).lanes):
            registers = [int(x) for x in before[:256, lane]]
            got, wanted = int(state.v[result, lane]), expected(registers) & 0xFFFFFFFF
            assert same(got, wanted, letter), f"{text}: lane {lane}: {got:#x}, expected {wanted:#x}"


def f32(bits: int) -> Float:
    return Float(SINGLE, bits)


def low(bits: int) -> Float:
    return Float(HALF, bits & 0xFFFF)


def high(bits: int) -> Float:
    return Float(HALF, bits >> 16)


def clamped(a: Float) -> Float:
    """To [0, 1]; NaN becomes 0."""
    if a.nan or a.negative or a.zero:
        return exact.zero(a.format)
    one = exact.number(1, a.format)
    return one if exact.less(one, a) else a


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v_add_f32_e64 v64, -v0, v2", lambda r: exact.add(-f32(r[0]), f32(r[2])).bits),
        ("v_add_f32_e64 v64, |v0|, v2", lambda r: exact.add(abs(f32(r[0])), f32(r[2])).bits),
        ("v_add_f32_e64 v64, -|v0|, -v2", lambda r: exact.add(-abs(f32(r[0])), -f32(r[2])).bits),
        ("v_add_f32_e64 v64, 0.5, -v2", lambda r: exact.add(exact.number(0.5), -f32(r[2])).bits),
        ("v_mul_f32_e64 v64, v0, v2 clamp", lambda r: clamped(exact.multiply(f32(r[0]), f32(r[2]))).bits),
        (
            "v_fma_f32 v64, v0, -v2, |v4| clamp",
            lambda r: clamped(exact.fma(f32(r[0]), -f32(r[2]), abs(f32(r[4])))).bits,
        ),
        ("v_cndmask_b32_e64 v64, -v0, |v2|, {zero}", lambda r: (-f32(r[0])).bits),
        ("v_mov_b32 v64, -1", lambda r: 0xFFFFFFFF),
        ("v_mov_b32 v64, 0.5", lambda r: 0x3F000000),
        ("v_mov_b32 v64, 0xdeadbeef", lambda r: 0xDEADBEEF),
    ],
)
@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx1100", "gfx1201"])
def test_signs_and_constants(target: str, text: str, expected: Lane) -> None:
    check(target, text.format(zero="s[40:41]" if Target(target).lanes == 64 else "s40"), 64, expected, "f")


def doubled(a: Float, times: float) -> Float:
    return exact.multiply(a, exact.number(times, a.format))


@pytest.mark.parametrize(("modifier", "times"), [("mul:2", 2), ("mul:4", 4), ("div:2", 0.5)])
def test_output_modifiers(modifier: str, times: float) -> None:
    """Hardware ignores them where denormals are kept, so compilers that keep them write none."""
    check("gfx942", f"v_add_f32_e64 v64, v0, v2 {modifier}", 64,
          lambda r: doubled(exact.add(f32(r[0]), f32(r[2])), times).bits, "f")  # fmt: skip
    check("gfx942", f"v_add_f32_e64 v64, v0, v2 clamp {modifier}", 64,
          lambda r: clamped(doubled(exact.add(f32(r[0]), f32(r[2])), times)).bits, "f")  # fmt: skip


@pytest.mark.parametrize(
    ("target", "text", "expected"),
    [
        ("gfx942", "v_fma_f16 v64, -v24, v26, |v28|",
         lambda r: exact.fma(-low(r[24]), low(r[26]), abs(low(r[28]))).bits | r[64] & 0xFFFF0000),
        ("gfx942", "v_fma_f16 v64, v24, v26, v28 op_sel:[1,0,1,1]",
         lambda r: exact.fma(high(r[24]), low(r[26]), high(r[28])).bits << 16 | r[64] & 0xFFFF),
        ("gfx942", "v_add_f16_e64 v64, v24, v26 clamp", lambda r: clamped(exact.add(low(r[24]), low(r[26]))).bits),
        ("gfx1100", "v_add_f16 v64.h, v24.l, v26.h",
         lambda r: exact.add(low(r[24]), high(r[26])).bits << 16 | r[64] & 0xFFFF),
        ("gfx1201", "v_fma_f16 v64.l, v24.h, -v26.h, v28.l",
         lambda r: exact.fma(high(r[24]), -high(r[26]), low(r[28])).bits | r[64] & 0xFFFF0000),
        ("gfx1201", "v_cndmask_b16 v64.h, v24.l, v26.h, s40", lambda r: (r[24] & 0xFFFF) << 16 | r[64] & 0xFFFF),
        ("gfx942", "v_pack_b32_f16 v64, v24, v26 op_sel:[1,0,0]", lambda r: r[24] >> 16 | r[26] << 16),
        ("gfx942", "v_mad_u32_u16 v64, v8, v10, v12 op_sel:[1,0,0,0]",
         lambda r: (r[8] >> 16) * (r[10] & 0xFFFF) + r[12]),
    ],
)  # fmt: skip
def test_halves(target: str, text: str, expected: Lane) -> None:
    """NaN aside: results are compared as words, so inputs are made numbers first."""
    finite = [f"v_and_b32 v{n}, 0x7bff7bff, v{n}" for n in (24, 26, 28)]
    check(target, "\n".join([*finite, text]), 64, lambda r: expected([x & 0x7BFF7BFF if n in (24, 26, 28) else x
                                                                      for n, x in enumerate(r)]))  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v_add_f32_sdwa v64, v0, v2 dst_sel:DWORD src0_sel:DWORD src1_sel:DWORD",
         lambda r: exact.add(f32(r[0]), f32(r[2])).bits),
        ("v_cvt_f32_f16_sdwa v64, v24 dst_sel:DWORD src0_sel:WORD_1", lambda r: high(r[24]).to(SINGLE).bits),
        ("v_cvt_f32_f16_sdwa v64, -v24 dst_sel:DWORD src0_sel:WORD_1", lambda r: (-high(r[24])).to(SINGLE).bits),
        ("v_cvt_f32_u32_sdwa v64, v8 dst_sel:DWORD src0_sel:BYTE_2", lambda r: exact.number(r[8] >> 16 & 255).bits),
        ("v_cvt_f32_i32_sdwa v64, sext(v8) dst_sel:DWORD src0_sel:BYTE_3",
         lambda r: exact.number(signed(r[8] >> 24, 8)).bits),
    ],
)  # fmt: skip
def test_parts_of_words_as_floats(text: str, expected: Lane) -> None:
    check("gfx942", text, 64, expected, "f")


def small(type_: str, byte: int) -> Lane:
    """The 8-bit float in a byte of v8."""
    return lambda r: SMALL[type_][r[8] >> 8 * byte & 255].bits


@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
def test_bytes_as_small_floats(target: str) -> None:
    """gfx942's formats are its own."""
    fnuz = "_fnuz" if target == "gfx942" else ""
    for byte in range(4):
        check(target, f"v_cvt_f32_bf8_sdwa v64, v8 src0_sel:BYTE_{byte}", 64, small(f"bf8{fnuz}", byte), "f")
    check(target, "v_cvt_pk_f32_fp8_sdwa v[64:65], v8 src0_sel:WORD_1", 65, small(f"fp8{fnuz}", 3), "f")


def test_bytes_as_small_floats_by_modifier() -> None:
    """gfx12 has no SDWA."""
    for byte in range(4):
        check("gfx1201", f"v_cvt_f32_fp8_e64 v64, v8 byte_sel:{byte}", 64, small("fp8", byte), "f")


@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_packed_small_floats_go_to_a_half(target: str) -> None:
    one_two = {"gfx942": 0x4840, "gfx1201": 0x4038}[target]
    half = "v64.h, 1.0, 2.0" if target == "gfx1201" else "v64, 1.0, 2.0 op_sel:[0,0,1]"
    check(target, f"v_cvt_pk_fp8_f32 {half}", 64, lambda r: one_two << 16 | r[64] & 0xFFFF)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v_pk_add_f16 v64, v48, v50",
         lambda r: (exact.add(low(r[48]), low(r[50])), exact.add(high(r[48]), high(r[50])))),
        ("v_pk_add_f16 v64, v48, v50 op_sel:[1,0] op_sel_hi:[0,1]",
         lambda r: (exact.add(high(r[48]), low(r[50])), exact.add(low(r[48]), high(r[50])))),
        ("v_pk_mul_f16 v64, v48, v50 neg_lo:[1,0] neg_hi:[0,1]",
         lambda r: (exact.multiply(-low(r[48]), low(r[50])), exact.multiply(high(r[48]), -high(r[50])))),
        ("v_pk_fma_f16 v64, v48, v50, v52 op_sel:[0,1,1] op_sel_hi:[1,0,1] clamp",
         lambda r: (clamped(exact.fma(low(r[48]), high(r[50]), high(r[52]))),
                    clamped(exact.fma(high(r[48]), low(r[50]), high(r[52]))))),
        ("v_pk_max_f16 v64, v48, v50 op_sel_hi:[1,0]",
         lambda r: (ieee(True)(low(r[48]), low(r[50])), ieee(True)(high(r[48]), low(r[50])))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_packed_halves(target: str, text: str, expected: Callable[[list[int]], tuple[Float, Float]]) -> None:
    check(target, text, 64, lambda r: expected(r)[0].bits | expected(r)[1].bits << 16, "q")


def float_sum(a: int, b: int, sign: int) -> Lane:
    """Of two registers, or the difference."""
    return lambda r: exact.add(f32(r[a]), f32(r[b]) if sign > 0 else -f32(r[b])).bits


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("v_pk_add_f32 v[64:65], v[0:1], v[2:3]", (0, 2, 1), (1, 3, 1)),
        ("v_pk_add_f32 v[64:65], v[0:1], v[2:3] op_sel:[1,0] op_sel_hi:[0,1]", (1, 2, 1), (0, 3, 1)),
        ("v_pk_add_f32 v[64:65], v[0:1], v[2:3] neg_lo:[0,1] neg_hi:[0,0]", (0, 2, -1), (1, 3, 1)),
        ("v_pk_add_f32 v[64:65], v[0:1], v[2:3] op_sel_hi:[1,0] neg_hi:[0,1]", (0, 2, 1), (1, 2, -1)),
    ],
)
def test_packed_floats(text: str, first: tuple[int, int, int], second: tuple[int, int, int]) -> None:
    for result, (a, b, sign) in ((64, first), (65, second)):
        check("gfx942", text, result, float_sum(a, b, sign), "f")


def test_packed_floats_from_scalars_and_constants() -> None:
    state = state_for("gfx942")
    state.s[20:22] = np.array([1.5, -2.5], np.float32).view(np.uint32)
    state.v[0:2] = np.array([[3.0], [4.0]], np.float32).view(np.uint32)
    single.run("v_pk_mul_f32 v[64:65], v[0:1], s[20:21]\nv_pk_add_f32 v[66:67], v[0:1], 1.0 op_sel_hi:[1,0]\n"
               "v_pk_mov_b32 v[68:69], v[0:1], s[20:21] op_sel:[1,0]", "gfx942", state)  # fmt: skip
    assert state.v[64:70, 5].view(np.float32).tolist() == [4.5, -10.0, 4.0, 5.0, 4.0, 1.5]


def test_packed_floats_over_their_sources() -> None:
    check("gfx942", "v_pk_add_f32 v[0:1], v[0:1], v[2:3] op_sel:[1,0] op_sel_hi:[0,1]", 1,
          lambda r: exact.add(f32(r[0]), f32(r[3])).bits, "f")  # fmt: skip
    check("gfx942", "v_pk_mov_b32 v[0:1], v[0:1], v[0:1] op_sel:[1,0]", 0, lambda r: r[1])
    check("gfx942", "v_pk_mov_b32 v[0:1], v[0:1], v[0:1] op_sel:[1,0]", 1, lambda r: r[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v_fma_mix_f32 v64, v0, v24, v2 op_sel_hi:[0,1,0]", lambda r: exact.fma(f32(r[0]), low(r[24]), f32(r[2]))),
        ("v_fma_mix_f32 v64, v0, v24, v2 op_sel:[0,1,0] op_sel_hi:[0,1,0]",
         lambda r: exact.fma(f32(r[0]), high(r[24]), f32(r[2]))),
        ("v_fma_mix_f32 v64, -v0, |v24|, 1.0 op_sel_hi:[0,1,0]",
         lambda r: exact.fma(-f32(r[0]), abs(low(r[24])), exact.number(1))),
        ("v_fma_mix_f32 v64, v24, v26, v2 op_sel:[1,1,0] op_sel_hi:[1,1,0]",
         lambda r: exact.fma(high(r[24]), high(r[26]), f32(r[2]))),
        ("v_fma_mix_f32 v64, v0, v24, 1.0 op_sel_hi:[0,1,1]", lambda r: exact.fma(f32(r[0]), low(r[24]),
                                                                              exact.number(1))),
    ],
)  # fmt: skip
@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_mixed_precision(target: str, text: str, expected: Callable[[list[int]], Float]) -> None:
    check(target, text, 64, lambda r: expected(r).bits, "f")


def test_mixed_precision_to_halves() -> None:
    lower = "v_fma_mixlo_f16 v64, v0, v24, v2 op_sel_hi:[0,1,0]"
    numbers = "v_and_b32 v0, 0x3fffffff, v0\nv_and_b32 v2, 0x3fffffff, v2\nv_and_b32 v24, 0x3bff3bff, v24\n"

    def product(r: list[int]) -> int:
        a, b, c = f32(r[0] & 0x3FFFFFFF), low(r[24] & 0x3BFF), f32(r[2] & 0x3FFFFFFF)
        return exact.fma(a, b, c).to(HALF).bits

    check("gfx942", numbers + lower, 64, lambda r: product(r) | r[64] & 0xFFFF0000)
    check("gfx942", numbers + lower.replace("mixlo", "mixhi"), 64, lambda r: product(r) << 16 | r[64] & 0xFFFF)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("signs", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_dot_products_of_either_sign(bits: int, signs: tuple[int, int]) -> None:
    """neg_lo says which source has signs."""

    def total(r: list[int]) -> int:
        def of(x: int, has_sign: int) -> list[int]:
            found = [x >> at & (1 << bits) - 1 for at in range(0, 32, bits)]
            return [signed(e, bits) if has_sign else e for e in found]

        return signed(r[12], 32) + sum(a * b for a, b in zip(of(r[8], signs[0]), of(r[10], signs[1]), strict=True))

    text = f"v_dot{32 // bits}_i32_iu{bits} v64, v8, v10, v12 neg_lo:[{signs[0]},{signs[1]},0]"
    check("gfx1100", text, 64, total)
    check("gfx1201", f"{text} clamp", 64, lambda r: clamp(total(r), 32, True))


def test_dots_of_signed_integers_saturate() -> None:
    check("gfx942", "v_dot2_i32_i16 v64, v8, v10, v12 clamp", 64,
          lambda r: dot(16, True, True)(r[8], r[10], signed(r[12], 32)))  # fmt: skip


@pytest.mark.parametrize("selectors", [0x07060302, 0x05040100, 0x0C0D0607, 0x0C0C0C0C, 0x010B0A09, 0xFF08000C])
def test_permutations_that_are_the_same_for_all_lanes(selectors: int) -> None:
    text = f"s_mov_b32 s20, {selectors:#x}\nv_perm_b32 v64, v8, v10, s20"
    for target in ("gfx942", "gfx1201"):
        check(target, text, 64, lambda r: permuted(r[8], r[10], selectors))


@pytest.mark.parametrize("table", [0x00, 0x01, 0x6C, 0x96, 0xCA, 0xEA, 0xFF])
def test_truth_tables(table: int) -> None:
    def by_table(a: int, b: int, c: int, bits: int) -> int:
        return sum((table >> ((a >> n & 1) << 2 | (b >> n & 1) << 1 | c >> n & 1) & 1) << n for n in range(bits))

    check("gfx950", f"v_bitop3_b32 v64, v8, v10, v12 bitop3:{table:#x}", 64, lambda r: by_table(r[8], r[10], r[12], 32))
    check("gfx950", f"v_bitop3_b16 v64, v8, v10, v12 bitop3:{table:#x}", 64,
          lambda r: by_table(r[8], r[10], r[12], 16) | r[64] & 0xFFFF0000)  # fmt: skip


@pytest.mark.parametrize(
    ("target", "text", "results"),
    [
        ("gfx942", "v_swap_b32 v8, v10", {8: lambda r: r[10], 10: lambda r: r[8]}),
        ("gfx1201", "v_swap_b32 v8, v10", {8: lambda r: r[10], 10: lambda r: r[8]}),
        ("gfx1100", "v_swap_b16 v8.l, v10.h", {8: lambda r: r[8] & 0xFFFF0000 | r[10] >> 16,
                                               10: lambda r: r[10] & 0xFFFF | r[8] << 16}),
        ("gfx1201", "v_swap_b16 v8.l, v8.h", {8: lambda r: r[8] >> 16 | r[8] << 16}),
        ("gfx942", "v_lshlrev_b64 v[8:9], v10, v[8:9]", {9: lambda r: (r[8] | r[9] << 32) << (r[10] & 63) >> 32}),
        ("gfx90a", "v_lshrrev_b64 v[8:9], v8, v[8:9]", {8: lambda r: (r[8] | r[9] << 32) >> (r[8] & 63)}),
        ("gfx1100", "v_lshlrev_b64 v[9:10], v9, v[8:9]", {10: lambda r: (r[8] | r[9] << 32) << (r[9] & 63) >> 32}),
        ("gfx1100", "v_mad_u64_u32 v[8:9], s10, v8, v9, v[10:11]",
         {9: lambda r: r[8] * r[9] + (r[10] | r[11] << 32) >> 32}),
        ("gfx1201", "v_add_co_u32 v8, vcc_lo, v8, v10\nv_add_co_ci_u32 v9, vcc_lo, v9, v11, vcc_lo",
         {9: lambda r: (r[8] | r[9] << 32) + (r[10] | r[11] << 32) >> 32}),
    ],
)  # fmt: skip
def test_results_over_sources(target: str, text: str, results: dict[int, Lane]) -> None:
    for register, expected in results.items():
        check(target, text, register, expected)


@pytest.mark.parametrize("target", ["gfx942", "gfx1201"])
def test_inactive_lanes_keep_their_values(target: str) -> None:
    """Of every width of results; bits of masks are zero there."""
    state = state_for(target)
    before, lanes = state.v.copy(), Target(target).lanes
    state.exec = active = 0x5A5A5A5A_F00F1234 & (1 << lanes) - 1
    vcc = "vcc" if lanes == 64 else "vcc_lo"
    single.run(f"v_add_u32 v64, v8, v10\nv_lshlrev_b64 v[66:67], v8, v[10:11]\nv_cmp_eq_u32 {vcc}, v8, v8\n"
               f"v_add_f16 v70, v24, v26\nv_pk_add_u16 v72, v8, v10".replace(
                   *("v_add_f16 v70, v24, v26", "v_add_f16 v70.l, v24.l, v26.l") if lanes == 32 else ("", "")).replace(
                   *("v_add_u32", "v_add_nc_u32") if lanes == 32 else ("", "")), target, state)  # fmt: skip
    assert state.vcc & (1 << lanes) - 1 == active
    for lane in range(lanes):
        changed = (state.v[64:73, lane] != before[64:73, lane]).any()
        assert changed == bool(active >> lane & 1), f"lane {lane}"


def test_masks_of_compares_that_write_exec() -> None:
    """gfx9 writes the mask that is named as well."""
    for target, text in (("gfx942", "v_cmpx_lt_u32 s[20:21], v8, v10"), ("gfx1100", "v_cmpx_lt_u32 v8, v10")):
        state = state_for(target)
        state.exec = 0x0FFF_FFF0
        expected = sum(1 << lane for lane in range(4, 28) if state.v[8, lane] < state.v[10, lane])
        single.run(text, target, state)
        assert state.exec == expected
        if target == "gfx942":
            assert int(state.s[20]) | int(state.s[21]) << 32 == expected
