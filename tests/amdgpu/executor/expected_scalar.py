# SPDX-License-Identifier: Apache-2.0
"""What scalar instructions give: a function of SCC and of the sources' values, to the result and the new SCC.

None in the place of a result: there is none; of SCC: it stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import exact, expected_float, expected_transcendental
from .exact import HALF, SINGLE, Float
from .expected_integer import leading, signed, trailing

Scalar = Callable[..., tuple[Any, bool | None]]
WORD = (1 << 32) - 1


def plain(function: Callable[..., Any]) -> Scalar:
    """SCC stays."""
    return lambda scc, *x: (function(*x), None)


def nonzero(function: Callable[..., int], bits: int = 32) -> Scalar:
    """SCC: the result is not zero."""

    def of(scc: bool, *x: Any) -> tuple[int, bool]:
        result = function(*x) & (1 << bits) - 1
        return result, result != 0

    return of


def overflowing(function: Callable[..., int]) -> Scalar:
    """SCC: the result does not fit in 32 bits with a sign."""
    return lambda scc, *x: (function(*x), not -(1 << 31) <= function(*x) < 1 << 31)


def carrying(function: Callable[..., int]) -> Scalar:
    """SCC: the result, without a sign, does not fit in 32 bits; SCC is the last argument as well."""
    return lambda scc, *x: (function(*x, scc), not 0 <= function(*x, scc) <= WORD)


def comparing(function: Callable[..., bool]) -> Scalar:
    return lambda scc, *x: (None, function(*x))


def field(bits: int, has_sign: bool) -> Callable[[int, int], int]:
    def of(a: int, where: int) -> int:
        size = where >> 16 & 127
        found = a >> (where & bits - 1)
        if has_sign:
            return signed(found, size) if 0 < size < bits else found if size else 0
        return found & (1 << size) - 1

    return of


def quads(a: int, bits: int, whole: bool) -> int:
    """Of each four bits whether one is set, as one bit or as four."""
    found = [a >> at & 15 != 0 for at in range(0, bits, 4)]
    return sum((15 * any_ << 4 * at) if whole else any_ << at for at, any_ in enumerate(found))


def _bitwise(bits: int) -> dict[str, Scalar]:
    b, ones = f"b{bits}", (1 << bits) - 1
    both: dict[str, Callable[..., int]] = {
        "and": lambda a, c: a & c, "or": lambda a, c: a | c, "xor": lambda a, c: a ^ c, "andn2": lambda a, c: a & ~c,
        "orn2": lambda a, c: a | ~c, "nand": lambda a, c: ~(a & c), "nor": lambda a, c: ~(a | c),
        "xnor": lambda a, c: ~(a ^ c), "not": lambda a: ~a,
        "lshl": lambda a, n: a << (n & bits - 1), "lshr": lambda a, n: a >> (n & bits - 1),
        "quadmask": lambda a: quads(a, bits, False), "wqm": lambda a: quads(a, bits, True),
    }  # fmt: skip
    return {
        **{f"s_{name}_{b}": nonzero(function, bits) for name, function in both.items()},
        f"s_ashr_i{bits}": nonzero(lambda a, n: a >> (n & bits - 1), bits),
        f"s_bfe_u{bits}": nonzero(field(bits, False), bits),
        f"s_bfe_i{bits}": nonzero(field(bits, True), bits),
        f"s_mov_{b}": plain(lambda a: a),
        f"s_cmov_{b}": lambda scc, old, a: (a if scc else old, None),
        f"s_cselect_{b}": lambda scc, a, c: (a if scc else c, None),
        f"s_bfm_{b}": plain(lambda size, at: (1 << (size & bits - 1)) - 1 << (at & bits - 1)),
        f"s_bitcmp0_{b}": comparing(lambda a, n: not a >> (n & bits - 1) & 1),
        f"s_bitcmp1_{b}": comparing(lambda a, n: bool(a >> (n & bits - 1) & 1)),
        f"s_bitset0_{b}": plain(lambda old, n: old & ~(1 << (n & bits - 1))),
        f"s_bitset1_{b}": plain(lambda old, n: old | 1 << (n & bits - 1)),
        f"s_brev_{b}": plain(lambda a: int(f"{a:0{bits}b}"[::-1], 2)),
        f"s_bcnt0_i32_{b}": nonzero(lambda a: bits - a.bit_count()),
        f"s_bcnt1_i32_{b}": nonzero(lambda a: a.bit_count()),
        f"s_ff0_i32_{b}": plain(lambda a: trailing(a ^ ones)),
        f"s_ff1_i32_{b}": plain(trailing),
        f"s_flbit_i32_{b}": plain(lambda a: leading(a, bits)),
    }


# Of the source and EXEC: the new EXEC. The destination gets the old one (saveexec) or the new one (wrexec).
EXEC_MASKS: dict[str, Callable[[int, int], int]] = {
    "and_saveexec": lambda a, x: a & x, "or_saveexec": lambda a, x: a | x, "xor_saveexec": lambda a, x: a ^ x,
    "nand_saveexec": lambda a, x: ~(a & x), "nor_saveexec": lambda a, x: ~(a | x),
    "xnor_saveexec": lambda a, x: ~(a ^ x),
    "andn1_saveexec": lambda a, x: ~a & x, "andn2_saveexec": lambda a, x: a & ~x, "orn1_saveexec": lambda a, x: ~a | x,
    "orn2_saveexec": lambda a, x: a | ~x, "andn1_wrexec": lambda a, x: ~a & x, "andn2_wrexec": lambda a, x: a & ~x,
}  # fmt: skip

_ORDER = {"lt": "l", "eq": "e", "le": "le", "gt": "g", "lg": "lg", "ge": "ge"}


def _floats(type_: str) -> dict[str, Scalar]:
    functions: dict[str, Callable[..., Any]] = {
        "add": exact.add, "sub": exact.subtract, "mul": exact.multiply, "fmac": exact.fma,
        "max": expected_float.ieee(True), "min": expected_float.ieee(False), "max_num": expected_float.number(True),
        "min_num": expected_float.number(False), "maximum": expected_float.with_nan(True),
        "minimum": expected_float.with_nan(False),
        "floor": lambda a: exact.to_integral(a, math.floor), "ceil": lambda a: exact.to_integral(a, math.ceil),
        "trunc": lambda a: exact.to_integral(a, math.trunc), "rndne": lambda a: exact.to_integral(a, round),
    }  # fmt: skip
    relations = {name: holds for name, holds in expected_float.RELATIONS.items() if name not in ("f", "tru")}
    return {
        **{f"s_{name}_{type_}": plain(function) for name, function in functions.items()},
        **{
            f"s_cmp_{name}_{type_}": comparing(lambda a, b, holds=holds: expected_float.relation(a, b) in holds)
            for name, holds in relations.items()
        },
    }


SCALARS: dict[str, Scalar] = {
    **_bitwise(32), **_bitwise(64), **_floats("f32"), **_floats("f16"),
    **{f"s_{prefix}_{name}_{type_}": comparing(lambda a, b, holds=holds: expected_float.relation(a, b) in holds)
       for prefix in ("cmp", "cmpk") for type_ in ("i32", "u32") for name, holds in _ORDER.items()},
    "s_cmp_eq_u64": comparing(lambda a, b: a == b),
    "s_cmp_lg_u64": comparing(lambda a, b: a != b),
    "s_add_u32": carrying(lambda a, b, scc: a + b),
    "s_addc_u32": carrying(lambda a, b, scc: a + b + scc),
    "s_sub_u32": carrying(lambda a, b, scc: a - b),
    "s_subb_u32": carrying(lambda a, b, scc: a - b - scc),
    "s_add_i32": overflowing(lambda a, b: a + b),
    "s_sub_i32": overflowing(lambda a, b: a - b),
    "s_addk_i32": overflowing(lambda old, k: old + k),
    **{f"s_lshl{n}_add_u32": carrying(lambda a, b, scc, n=n: (a << n) + b) for n in (1, 2, 3, 4)},
    "s_add_nc_u64": plain(lambda a, b: a + b),
    "s_sub_nc_u64": plain(lambda a, b: a - b),
    "s_mul_u64": plain(lambda a, b: a * b),
    "s_mul_i32": plain(lambda a, b: a * b),
    "s_mulk_i32": plain(lambda old, k: old * k),
    "s_mul_hi_u32": plain(lambda a, b: a * b >> 32),
    "s_mul_hi_i32": plain(lambda a, b: a * b >> 32),
    "s_abs_i32": nonzero(abs),
    "s_absdiff_i32": nonzero(lambda a, b: abs(a - b)),
    "s_min_i32": lambda scc, a, b: (min(a, b), a < b),
    "s_min_u32": lambda scc, a, b: (min(a, b), a < b),
    "s_max_i32": lambda scc, a, b: (max(a, b), a >= b),
    "s_max_u32": lambda scc, a, b: (max(a, b), a >= b),
    "s_movk_i32": plain(lambda k: k),
    "s_cmovk_i32": lambda scc, old, k: (k if scc else old, None),
    "s_sext_i32_i8": plain(lambda a: signed(a, 8)),
    "s_sext_i32_i16": plain(lambda a: signed(a, 16)),
    "s_flbit_i32": plain(lambda a: leading(a if a >= 0 else ~a)),
    "s_flbit_i32_i64": plain(lambda a: leading(a if a >= 0 else ~a, 64)),
    "s_bitreplicate_b64_b32": plain(lambda a: sum(3 * (a >> at & 1) << 2 * at for at in range(32))),
    "s_pack_ll_b32_b16": plain(lambda a, b: a & 0xFFFF | (b & 0xFFFF) << 16),
    "s_pack_lh_b32_b16": plain(lambda a, b: a & 0xFFFF | b >> 16 << 16),
    "s_pack_hh_b32_b16": plain(lambda a, b: a >> 16 | b >> 16 << 16),
    "s_pack_hl_b32_b16": plain(lambda a, b: a >> 16 | (b & 0xFFFF) << 16),
    "s_fmaak_f32": plain(exact.fma),
    "s_fmamk_f32": plain(exact.fma),
    "s_cvt_f32_i32": plain(exact.number),
    "s_cvt_f32_u32": plain(exact.number),
    "s_cvt_i32_f32": plain(lambda a: exact.to_integer(a, -(1 << 31), (1 << 31) - 1)),
    "s_cvt_u32_f32": plain(lambda a: exact.to_integer(a, 0, WORD)),
    "s_cvt_f16_f32": plain(lambda a: a.to(HALF)),
    "s_cvt_f32_f16": plain(lambda a: a.to(SINGLE)),
    "s_cvt_hi_f32_f16": plain(lambda a: Float(HALF, a >> 16).to(SINGLE)),
    "s_cvt_pk_rtz_f16_f32": plain(lambda a, b: [expected_float.towards_zero(a), expected_float.towards_zero(b)]),
    **{f"v_s_{name}_{type_}": plain(lambda a, function=function: function(a, expected_transcendental.nearest))
       for type_ in ("f32", "f16") for name, function in expected_transcendental.FUNCTIONS.items()
       if name not in ("sin", "cos")},
}  # fmt: skip

# Those that change EXEC are run in another way.
SAVED_MASKS = {f"s_{name}_b{bits}": function for name, function in EXEC_MASKS.items() for bits in (32, 64)}
SCALARS |= {name: plain(function) for name, function in SAVED_MASKS.items()}
