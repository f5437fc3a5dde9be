# SPDX-License-Identifier: Apache-2.0
"""What vector instructions on integers give: a function of the sources' values for each. Excess bits are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import exact
from .exact import BFLOAT, SINGLE, Float, add, fma
from .expected_float import SMALL, ieee, number, with_nan
from .instructions import ByLane, Within

Expected = dict[str, Callable[..., Any] | ByLane]
WORD = (1 << 32) - 1


def signed(x: int, bits: int) -> int:
    """The low bits as a number with a sign."""
    return ((x & (1 << bits) - 1) ^ 1 << bits - 1) - (1 << bits - 1)


def clamp(x: int, bits: int, has_sign: bool) -> int:
    """The nearest number there is."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if has_sign else (0, (1 << bits) - 1)
    return min(max(x, low), high)


def leading(x: int, bits: int = 32) -> int:
    """Zeros above the highest one, -1 if there is no one."""
    return bits - x.bit_length() if x else -1


def trailing(x: int) -> int:
    return (x & -x).bit_length() - 1


def permuted(a: int, b: int, selectors: int) -> int:
    data, result = a << 32 | b, 0
    for byte in range(4):
        s = selectors >> 8 * byte & 255
        if s < 8:
            value = data >> 8 * s & 255
        elif s < 12:
            value = 255 * (data >> 16 * (s - 8) + 15 & 1)
        else:
            value = 0 if s == 12 else 255
        result |= value << 8 * byte
    return result


def elements(x: int, bits: int, has_sign: bool = False) -> list[int]:
    """Of a word."""
    found = [x >> at & (1 << bits) - 1 for at in range(0, 32, bits)]
    return [signed(e, bits) for e in found] if has_sign else found


def distances(a: int, b: int, bits: int, masked: bool = False) -> int:
    return sum(abs(x - y) for x, y in zip(elements(a, bits), elements(b, bits), strict=True) if y or not masked)


def dot(bits: int, has_sign: bool, clamped: bool = False) -> Callable[[int, int, int], int]:
    """Sums of products of elements."""

    def of(a: int, b: int, c: int) -> int:
        pairs = zip(elements(a, bits, has_sign), elements(b, bits, has_sign), strict=True)
        total = c + sum(x * y for x, y in pairs)
        return clamp(total, 32, has_sign) if clamped else total

    return of


def field(a: int, at: int, size: int) -> int:
    return a >> (at & 31) & (1 << (size & 31)) - 1


def signed_field(a: int, at: int, size: int) -> int:
    return signed(a >> (at & 31), size & 31) if size & 31 else 0


def half_median(a: int, b: int, c: int) -> int:
    return sorted((a, b, c))[1]


def _minima(type_: str) -> Expected:
    return {
        f"v_max_{type_}": max, f"v_min_{type_}": min, f"v_max3_{type_}": max, f"v_min3_{type_}": min,
        f"v_med3_{type_}": half_median,
        f"v_maxmin_{type_}": lambda a, b, c: min(max(a, b), c),
        f"v_minmax_{type_}": lambda a, b, c: max(min(a, b), c),
    }  # fmt: skip


def _sums(bits: int, has_sign: bool) -> Expected:
    type_ = f"{'i' if has_sign else 'u'}{bits}"
    functions: Expected = {
        "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "subrev": lambda a, b: b - a,
    }  # fmt: skip
    found: Expected = {f"v_{name}_{type_}": function for name, function in functions.items()}
    for name, function in functions.items():
        found[f"v_{name}_{type_}_clamp"] = lambda a, b, function=function: clamp(function(a, b), bits, has_sign)
    return found


def _multiply_adds() -> Expected:
    found: Expected = {}
    for factor, has_sign, total in ((24, False, 32), (24, True, 32), (16, False, 32), (16, True, 32), (16, False, 16),
                                    (16, True, 16)):  # fmt: skip
        letter = "i" if has_sign else "u"
        name = f"v_mad_{letter}16" if total == 16 else f"v_mad_{letter}32_{letter}{factor}"

        def of(a: int, b: int, c: int, factor: int = factor, has_sign: bool = has_sign) -> int:
            mask = (1 << factor) - 1
            x, y = (signed(a, factor), signed(b, factor)) if has_sign else (a & mask, b & mask)
            return x * y + c

        found[name] = of
        wide = lambda c, total=total, has_sign=has_sign: signed(c, total) if has_sign else c & (1 << total) - 1  # noqa: E731
        found[f"{name}_clamp"] = lambda a, b, c, of=of, wide=wide, total=total, has_sign=has_sign: clamp(
            of(a, b, wide(c)), total, has_sign
        )
    found["v_mad_legacy_u16"] = found["v_mad_legacy_i16"] = lambda a, b, c: a * b + c
    return found


INTEGERS: Expected = {
    **_minima("u32"), **_minima("i32"), **_minima("u16"), **_minima("i16"),
    **_sums(32, False), **_sums(32, True), **_sums(16, False), **_sums(16, True), **_multiply_adds(),
    "v_mov_b32": lambda a: a,
    "v_mov_b16": lambda a: a,
    "v_mov_b64": lambda a: a,
    "v_add_co_u32": lambda a, b: (a + b, a + b > WORD),
    "v_sub_co_u32": lambda a, b: (a - b, a < b),
    "v_subrev_co_u32": lambda a, b: (b - a, b < a),
    "v_addc_co_u32": lambda a, b, c: (a + b + c, a + b + c > WORD),
    "v_subb_co_u32": lambda a, b, c: (a - b - c, a < b + c),
    "v_subbrev_co_u32": lambda a, b, c: (b - a - c, b < a + c),
    "v_add3_u32": lambda a, b, c: a + b + c,
    "v_lshl_add_u32": lambda a, n, b: (a << (n & 31)) + b,
    "v_add_lshl_u32": lambda a, b, n: a + b << (n & 31),
    "v_xad_u32": lambda a, b, c: (a ^ b) + c,
    "v_mul_lo_u32": lambda a, b: a * b,
    "v_mul_lo_u16": lambda a, b: a * b,
    "v_mul_hi_u32": lambda a, b: a * b >> 32,
    "v_mul_hi_i32": lambda a, b: a * b >> 32,
    "v_mul_u32_u24": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF),
    "v_mul_i32_i24": lambda a, b: signed(a, 24) * signed(b, 24),
    "v_mul_hi_u32_u24": lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 32,
    "v_mul_hi_i32_i24": lambda a, b: signed(a, 24) * signed(b, 24) >> 32,
    "v_xnor_b32": lambda a, b: ~(a ^ b),
    "v_and_or_b32": lambda a, b, c: a & b | c,
    "v_or3_b32": lambda a, b, c: a | b | c,
    "v_xor3_b32": lambda a, b, c: a ^ b ^ c,
    "v_lshl_or_b32": lambda a, n, b: a << (n & 31) | b,
    "v_bfe_u32": field,
    "v_bfe_i32": signed_field,
    "v_bfi_b32": lambda mask, a, b: mask & a | ~mask & b,
    "v_bfm_b32": lambda size, at: (1 << (size & 31)) - 1 << (at & 31),
    "v_bfrev_b32": lambda a: int(f"{a:032b}"[::-1], 2),
    "v_bcnt_u32_b32": lambda a, b: a.bit_count() + b,
    "v_ffbh_u32": leading,
    "v_ffbh_i32": lambda a: leading(a if a >= 0 else ~a),
    "v_ffbl_b32": trailing,
    "v_mbcnt_lo_u32_b32": ByLane(lambda lane, a, b: (a & (1 << lane) - 1 & WORD).bit_count() + b),
    "v_mbcnt_hi_u32_b32": ByLane(lambda lane, a, b: (a & ((1 << lane) - 1 >> 32)).bit_count() + b),
    "v_alignbit_b32": lambda a, b, n: (a << 32 | b) >> (n & 31),
    "v_alignbyte_b32": lambda a, b, n: (a << 32 | b) >> 8 * (n & 3),
    "v_perm_b32": permuted,
    "v_prng_b32": lambda a: a << 1 ^ (197 if a >> 31 else 0),
    "v_sad_u8": lambda a, b, c: distances(a, b, 8) + c,
    "v_sad_hi_u8": lambda a, b, c: (distances(a, b, 8) << 16) + c,
    "v_sad_u16": lambda a, b, c: distances(a, b, 16) + c,
    "v_sad_u32": lambda a, b, c: abs(a - b) + c,
    "v_msad_u8": lambda a, b, c: distances(a, b, 8, True) + c,
    "v_lerp_u8": lambda a, b, c: sum(
        (x + y + (r & 1) >> 1) << 8 * at
        for at, (x, y, r) in enumerate(zip(elements(a, 8), elements(b, 8), elements(c, 8), strict=True))
    ),
    "v_cvt_i32_i16": lambda a: a,
    "v_cvt_u32_u16": lambda a: a,
    "v_cvt_pk_i16_i32": lambda a, b: [clamp(a, 16, True), clamp(b, 16, True)],
    "v_cvt_pk_u16_u32": lambda a, b: [clamp(a, 16, False), clamp(b, 16, False)],
    "v_ashr_pk_i8_i32": lambda a, b, n: (
        clamp(a >> (n & 31), 8, True) & 255 | (clamp(b >> (n & 31), 8, True) & 255) << 8
    ),
    "v_ashr_pk_u8_i32": lambda a, b, n: clamp(a >> (n & 31), 8, False) | clamp(b >> (n & 31), 8, False) << 8,
    "v_sat_pk_u8_i16": lambda a: clamp(signed(a, 16), 8, False) | clamp(signed(a >> 16, 16), 8, False) << 8,
    "v_pack_b32_f16": lambda a, b: [a, b],
    "v_cndmask_b32": lambda a, b, c: b if c else a,
    "v_cndmask_b16": lambda a, b, c: b if c else a,
    "v_lshl_add_u64": lambda a, n, b: (a << (n & 7 if n & 7 <= 4 else 0)) + b,
    "v_mad_u64_u32": lambda a, b, c: (a * b + c, a * b + c >> 64),
    "v_mad_i64_i32": lambda a, b, c: (a * b + c, a * b + c < 0),
}  # fmt: skip
for _bits in (16, 32, 64):
    INTEGERS |= {
        f"v_lshlrev_b{_bits}": lambda n, a, bits=_bits: a << (n & bits - 1),
        f"v_lshrrev_b{_bits}": lambda n, a, bits=_bits: a >> (n & bits - 1),
        f"v_ashrrev_i{_bits}": lambda n, a, bits=_bits: a >> (n & bits - 1),
        f"v_and_b{_bits}": lambda a, b: a & b,
        f"v_or_b{_bits}": lambda a, b: a | b,
        f"v_xor_b{_bits}": lambda a, b: a ^ b,
        f"v_not_b{_bits}": lambda a: ~a,
    }
for _name in ("and_b64", "or_b64", "xor_b64", "not_b64"):
    del INTEGERS[f"v_{_name}"]
for _name in ("subrev_i32", "subrev_i16", "maxmin_u16", "maxmin_i16", "minmax_u16", "minmax_i16"):
    for _key in (f"v_{_name}", f"v_{_name}_clamp"):
        INTEGERS.pop(_key, None)


def each(function: Callable[..., Any], has_sign: bool = False) -> Callable[..., list[Any]]:
    """Of both halves of pairs."""

    def of(*pairs: Any) -> list[Any]:
        halves = [[signed(x, 16) if has_sign else x for x in half] for half in zip(*pairs, strict=True)]
        return [function(*half) for half in halves]

    return of


PACKED: Expected = {
    "v_pk_add_f32": each(add),
    "v_pk_mul_f32": each(exact.multiply),
    "v_pk_fma_f32": each(fma),
    "v_pk_mov_b32": lambda a, b: [a[0], b[0]],
    "v_pk_add_f16": each(add),
    "v_pk_mul_f16": each(exact.multiply),
    "v_pk_fma_f16": each(fma),
    "v_pk_fmac_f16": each(fma),
    "v_pk_maximum3_f16": each(lambda a, b, c: with_nan(True)(with_nan(True)(a, b), c)),
    "v_pk_minimum3_f16": each(lambda a, b, c: with_nan(False)(with_nan(False)(a, b), c)),
    "v_pk_mul_lo_u16": each(lambda a, b: a * b),
    "v_pk_lshlrev_b16": each(lambda n, a: a << (n & 15)),
    "v_pk_lshrrev_b16": each(lambda n, a: a >> (n & 15)),
    "v_pk_ashrrev_i16": each(lambda n, a: a >> (n & 15), True),
}
for _name, _larger in (("max", True), ("min", False)):
    PACKED |= {
        f"v_pk_{_name}_f16": each(ieee(_larger)),
        f"v_pk_{_name}_num_f16": each(number(_larger)),
        f"v_pk_{_name}imum_f16": each(with_nan(_larger)),
        f"v_pk_{_name}_u16": each(max if _larger else min),
        f"v_pk_{_name}_i16": each(max if _larger else min, True),
    }
for _letter, _sign in (("u", False), ("i", True)):
    _functions: dict[str, Callable[..., Any]] = {
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mad": lambda a, b, c: a * b + c,
    }
    for _name, _function in _functions.items():
        PACKED[f"v_pk_{_name}_{_letter}16"] = each(_function, _sign)
        PACKED[f"v_pk_{_name}_{_letter}16_clamp"] = each(
            lambda *x, function=_function, sign=_sign: clamp(function(*x), 16, sign), _sign
        )

DOTS: Expected = {}
for _bits, _type in ((16, "16"), (8, "8"), (4, "4")):
    for _letter, _sign in (("i", True), ("u", False)):
        _name = f"v_dot{32 // _bits}_{_letter}32_{_letter}{_type}"
        DOTS[_name], DOTS[f"{_name}_clamp"] = dot(_bits, _sign), dot(_bits, _sign, True)
    DOTS[f"v_dot{32 // _bits}c_i32_i{_type}"] = dot(_bits, True)
for _bits in (8, 4):  # neither has a sign where neg_lo does not say so; the sum has one
    DOTS[f"v_dot{32 // _bits}_i32_iu{_bits}"] = lambda a, b, c, bits=_bits: dot(bits, False)(a, b, c)
    DOTS[f"v_dot{32 // _bits}_i32_iu{_bits}_clamp"] = lambda a, b, c, bits=_bits: clamp(
        dot(bits, False)(a, b, c), 32, True
    )


def float_dot(
    count: int, values: Callable[[Any], list[Float]], second: Callable[[Any], list[Float]]
) -> Callable[..., Float]:
    """Ascending, each product exact; the setting that tests have when nothing else is said."""

    def of(a: Any, b: Any, c: Float) -> Float:
        x, y = values(a), second(b)
        for k in range(count):
            c = fma(x[k], y[k], c)
        return c

    return of


def bfloats(pair: list[int]) -> list[Float]:
    return [Float(SINGLE, x << 16) for x in pair]


def small(type_: str) -> Callable[[int], list[Float]]:
    return lambda word: [SMALL[type_][word >> 8 * k & 255] for k in range(4)]


def bf16_dot(a: list[int], b: list[int], c: int) -> int | Within:
    total = Float(BFLOAT, c)
    for x, y in zip(a, b, strict=True):
        product = exact.multiply(Float(SINGLE, x << 16), Float(SINGLE, y << 16))
        total = add(total.to(SINGLE), product).to(BFLOAT)
    return Within(lambda bits: Float(BFLOAT, bits).nan, "NaN") if total.nan else total.bits


DOTS |= {
    "v_dot2_f32_f16": float_dot(2, list, list),
    "v_dot2c_f32_f16": float_dot(2, list, list),
    "v_dot2_f32_bf16": float_dot(2, bfloats, bfloats),
    "v_dot2c_f32_bf16": float_dot(2, bfloats, bfloats),
    "v_dot2_f16_f16": float_dot(2, list, list),
    "v_dot2_bf16_bf16": bf16_dot,
    **{f"v_dot4_f32_{a}_{b}": float_dot(4, small(a), small(b)) for a in ("fp8", "bf8") for b in ("fp8", "bf8")},
}
