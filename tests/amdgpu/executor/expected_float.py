# SPDX-License-Identifier: Apache-2.0
"""What instructions on floats give, exactly: a function of the sources' values for each handler."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from . import exact
from .exact import BFLOAT, DOUBLE, HALF, SINGLE, Float, add, fma, less, multiply, nan, rank, rounded, subtract, zero

Expected = dict[str, Callable[..., Any]]


def _picked(a: Float, b: Float, larger: bool) -> Float:
    return a if (rank(a) >= rank(b)) == larger else b


def ieee(larger: bool) -> Callable[[Float, Float], Float]:
    """v_max and v_min where MODE has an IEEE bit."""

    def pick(a: Float, b: Float) -> Float:
        for x in (a, b):
            if x.signalling:
                return x.quieted()
        return b if a.nan else a if b.nan else _picked(a, b, larger)

    return pick


def number(larger: bool) -> Callable[[Float, Float], Float]:
    """v_max_num and v_min_num."""

    def pick(a: Float, b: Float) -> Float:
        if a.nan and b.nan:
            return a.quieted()
        return b if a.nan else a if b.nan else _picked(a, b, larger)

    return pick


def with_nan(larger: bool) -> Callable[[Float, Float], Float]:
    """v_maximum and v_minimum."""
    return lambda a, b: nan(a.format) if a.nan or b.nan else _picked(a, b, larger)


def median(low: Callable[..., Float]) -> Callable[[Float, Float, Float], Float]:
    """The middle one; `low` of all where one is NaN."""

    def pick(*all_: Float) -> Float:
        a, b, c = all_
        if any(x.nan for x in all_):
            return low(low(a, b), c)
        top = max(all_, key=rank)  # documents compare it with ==, so that zeros count as the same
        others = (b, c) if exact.equal(top, a) else (a, c) if exact.equal(top, b) else (a, b)
        return max(others, key=rank)

    return pick


def legacy(function: Callable[..., Float]) -> Callable[..., Float]:
    """Zero times anything is zero."""

    def of(a: Float, b: Float, *c: Float) -> Float:
        if a.zero or b.zero:
            return add(zero(a.format), c[0]) if c else zero(a.format)
        return function(a, b, *c)

    return of


def multiply_add_flushing(a: Float, b: Float, c: Float) -> Float:
    """MAD and MAC before gfx940."""
    return add(multiply(a.flushed(), b.flushed()).flushed(), c.flushed()).flushed()


def fraction(a: Float) -> Float:
    if a.nan or a.infinite:
        return nan(a.format)
    one = exact.number(1, a.format)
    result = rounded(a.value - math.floor(a.value), a.format)
    return result if rank(result) < rank(one) else Float(a.format, one.bits - 1)


def ldexp(a: Float, n: int) -> Float:
    if a.nan or a.infinite or a.zero:
        return a.quieted() if a.nan else a
    return rounded(a.value * Fraction(2) ** min(max(n, -5000), 5000), a.format)


def mantissa(a: Float) -> Float:
    if a.nan or a.infinite or a.zero:
        return a.quieted() if a.nan else a
    return rounded(a.value / Fraction(2) ** exponent(a), a.format)


def exponent(a: Float) -> int:
    return 0 if a.nan or a.infinite or a.zero else exact.power_below(abs(a.value)) + 1


def is_class(a: Float, classes: int) -> bool:
    """Ten bits: signalling and quiet NaN, then from negative infinity up to the positive one."""
    if a.nan:
        return bool(classes >> (0 if a.signalling else 1) & 1)
    kind = 0 if a.infinite else 3 if a.zero else 2 if a.denormal else 1
    return bool(classes >> (2 + kind if a.negative else 9 - kind) & 1)


def _arithmetic(type_: str) -> Expected:
    found: Expected = {
        f"v_add_{type_}": add,
        f"v_mul_{type_}": multiply,
        f"v_fma_{type_}": fma,
        f"v_fmac_{type_}": fma,
        f"v_floor_{type_}": lambda a: exact.to_integral(a, math.floor),
        f"v_ceil_{type_}": lambda a: exact.to_integral(a, math.ceil),
        f"v_trunc_{type_}": lambda a: exact.to_integral(a, math.trunc),
        f"v_rndne_{type_}": lambda a: exact.to_integral(a, round),
        f"v_fract_{type_}": fraction,
        f"v_ldexp_{type_}": ldexp,
        f"v_frexp_mant_{type_}": mantissa,
    }
    for name, larger in (("max", True), ("min", False)):
        found[f"v_{name}_{type_}"] = ieee(larger)
        found[f"v_{name}_num_{type_}"] = number(larger)
        found[f"v_{name}imum_{type_}"] = with_nan(larger)
    return found


def _short_arithmetic(type_: str) -> Expected:
    """What doubles have not."""
    found: Expected = {
        f"v_sub_{type_}": subtract,
        f"v_subrev_{type_}": lambda a, b: subtract(b, a),
        f"v_fmaak_{type_}": fma,
        f"v_fmamk_{type_}": fma,
        f"v_mad_{type_}": multiply_add_flushing,
        f"v_mac_{type_}": multiply_add_flushing,
        f"v_madak_{type_}": multiply_add_flushing,
        f"v_madmk_{type_}": multiply_add_flushing,
    }
    for kind, of in (("", ieee), ("_num", number)):
        found[f"v_max3{kind}_{type_}"] = lambda a, b, c, of=of: of(True)(of(True)(a, b), c)
        found[f"v_min3{kind}_{type_}"] = lambda a, b, c, of=of: of(False)(of(False)(a, b), c)
        found[f"v_med3{kind}_{type_}"] = median(of(False))
        found[f"v_maxmin{kind}_{type_}"] = lambda a, b, c, of=of: of(False)(of(True)(a, b), c)
        found[f"v_minmax{kind}_{type_}"] = lambda a, b, c, of=of: of(True)(of(False)(a, b), c)
    high, low = with_nan(True), with_nan(False)
    found[f"v_maximum3_{type_}"] = lambda a, b, c: high(high(a, b), c)
    found[f"v_minimum3_{type_}"] = lambda a, b, c: low(low(a, b), c)
    found[f"v_maximumminimum_{type_}"] = lambda a, b, c: low(high(a, b), c)
    found[f"v_minimummaximum_{type_}"] = lambda a, b, c: high(low(a, b), c)
    return found


FLOATS: Expected = {
    **_arithmetic("f32"), **_arithmetic("f16"), **_arithmetic("f64"),
    **_short_arithmetic("f32"), **_short_arithmetic("f16"),
    "v_mul_legacy_f32": legacy(multiply),
    "v_fma_legacy_f32": legacy(fma),
    "v_fmac_legacy_f32": legacy(fma),
    "v_mad_legacy_f32": lambda a, b, c: legacy(multiply_add_flushing)(a.flushed(), b.flushed(), c.flushed()).flushed(),
    "v_fma_legacy_f16": fma,
    "v_mad_legacy_f16": multiply_add_flushing,
    "v_frexp_exp_i32_f32": exponent,
    "v_frexp_exp_i16_f16": exponent,
    "v_frexp_exp_i32_f64": exponent,
    "v_fma_mix_f32": fma,
    "v_fma_mixlo_f16": lambda a, b, c: fma(a, b, c).to(HALF),
    "v_fma_mixhi_f16": lambda a, b, c: fma(a, b, c).to(HALF),
}  # fmt: skip

# A comparison's name and in which relations it holds: less, equal, greater, unordered.
RELATIONS = {"f": "", "lt": "l", "eq": "e", "le": "le", "gt": "g", "lg": "lg", "ge": "ge", "o": "leg", "u": "u",
             "nge": "lu", "nlg": "eu", "ngt": "leu", "nle": "gu", "neq": "lgu", "nlt": "egu",
             "tru": "legu"}  # fmt: skip
INTEGER_RELATIONS = {"f": "", "lt": "l", "eq": "e", "le": "le", "gt": "g", "ne": "lg", "ge": "ge", "t": "leg"}


def relation(a: Any, b: Any) -> str:
    if isinstance(a, Float):
        return "u" if a.nan or b.nan else "l" if less(a, b) else "e" if exact.equal(a, b) else "g"
    return "l" if a < b else "e" if a == b else "g"


COMPARES: Expected = {
    **{f"v_cmp_{name}_{type_}": lambda a, b, holds=holds: relation(a, b) in holds
       for type_ in ("f16", "f32", "f64") for name, holds in RELATIONS.items()},
    **{f"v_cmp_{name}_{type_}": lambda a, b, holds=holds: relation(a, b) in holds
       for type_ in ("i16", "u16", "i32", "u32", "i64", "u64") for name, holds in INTEGER_RELATIONS.items()},
    **{f"v_cmp_class_{type_}": is_class for type_ in ("f16", "f32", "f64")},
}  # fmt: skip


def _small(fraction_bits: int, bias: int, fnuz: bool) -> list[Float]:
    """The values of all codes of an 8-bit format."""
    found = []
    ieee_like = not fnuz and fraction_bits == 2
    for code in range(256):
        size, step = code & 127, 1 << fraction_bits
        field, rest = size >> fraction_bits, size & step - 1
        value = Fraction(rest + (step if field else 0)) * Fraction(2) ** (max(field, 1) - bias - fraction_bits)
        negative = code >= 128
        result = rounded(-value if negative else value, SINGLE, negative)
        top = field == (1 << 7 - fraction_bits) - 1
        if (fnuz and code == 128) or (ieee_like and top and rest) or (not fnuz and fraction_bits == 3 and size == 127):
            result = nan(SINGLE)
        elif ieee_like and top:
            result = exact.infinity(SINGLE, negative)
        found.append(result)
    return found


SMALL = {"fp8": _small(3, 7, False), "bf8": _small(2, 15, False), "fp8_fnuz": _small(3, 8, True),
         "bf8_fnuz": _small(2, 16, True)}  # fmt: skip


def to_small(a: Float, type_: str) -> int:
    """The code of the nearest value, of two the even one; behind the largest comes what is too large."""
    values = SMALL[type_]
    fnuz, sign = type_.endswith("fnuz"), 128 if a.negative else 0
    nan_code = 128 if fnuz else 127 | sign
    if a.nan:
        return nan_code
    positive = [x.value for x in values[:128] if not x.nan and not x.infinite]
    too_large = 128 if fnuz else sign | len(positive)
    if a.infinite:
        return too_large
    size = abs(a.value)
    positive.append(positive[-1] + (positive[-1] - positive[-2]))  # where the next one would be
    above = next((code for code, value in enumerate(positive) if value >= size), len(positive))
    if above == len(positive):
        return too_large
    below = max(above - 1, 0)
    up, down = positive[above] - size, size - positive[below]
    code = above if up < down or (up == down and above % 2 == 0) else below
    if code == len(positive) - 1:
        return too_large
    return 0 if fnuz and code == 0 else code | sign


def towards_zero(a: Float) -> Float:
    """The half next to it, not further from zero."""
    return a.to(HALF) if a.nan or a.infinite else rounded(a.value, HALF, a.negative, math.floor)


def _conversions() -> Expected:
    found: Expected = {
        "v_cvt_f32_f16": lambda a: a.to(SINGLE),
        "v_cvt_f16_f32": lambda a: a.to(HALF),
        "v_cvt_pk_f16_f32": lambda a, b: [a.to(HALF), b.to(HALF)],
        "v_cvt_pkrtz_f16_f32": lambda a, b: [towards_zero(a), towards_zero(b)],
        "v_cvt_f32_bf16": lambda a: Float(SINGLE, a << 16),
        "v_cvt_pk_bf16_f32": lambda a, b: [bfloat_bits(a), bfloat_bits(b)],
        "v_cvt_f32_f64": lambda a: a.to(SINGLE),
        "v_cvt_f64_f32": lambda a: a.to(DOUBLE),
        "v_cvt_flr_i32_f32": lambda a: exact.to_integer(a, -(1 << 31), (1 << 31) - 1, math.floor),
        "v_cvt_rpi_i32_f32": lambda a: exact.to_integer(
            add(a, exact.number(0.5)), -(1 << 31), (1 << 31) - 1, math.floor
        ),
        "v_cvt_off_f32_i4": lambda a: exact.number(Fraction(((a & 15) ^ 8) - 8, 16)),
        "v_cvt_pk_u8_f32": lambda a, at, rest: (
            rest & ~(255 << 8 * (at & 3)) | exact.to_integer(a, 0, 255, round) << 8 * (at & 3)
        ),
        "v_cvt_pk_i16_f32": lambda a, b: [exact.to_integer(x, -32768, 32767) for x in (a, b)],
        "v_cvt_pk_u16_f32": lambda a, b: [exact.to_integer(x, 0, 65535) for x in (a, b)],
    }
    for byte in range(4):
        found[f"v_cvt_f32_ubyte{byte}"] = lambda a, byte=byte: exact.number(a >> 8 * byte & 255)
    for type_, format_ in (("f32", SINGLE), ("f64", DOUBLE)):
        found[f"v_cvt_{type_}_i32"] = found[f"v_cvt_{type_}_u32"] = lambda a, format_=format_: exact.number(a, format_)
        found[f"v_cvt_i32_{type_}"] = lambda a: exact.to_integer(a, -(1 << 31), (1 << 31) - 1)
        found[f"v_cvt_u32_{type_}"] = lambda a: exact.to_integer(a, 0, (1 << 32) - 1)
    found["v_cvt_f16_i16"] = found["v_cvt_f16_u16"] = lambda a: exact.number(a, HALF)
    found["v_cvt_i16_f16"] = lambda a: exact.to_integer(a, -32768, 32767)
    found["v_cvt_u16_f16"] = lambda a: exact.to_integer(a, 0, 65535)
    for type_ in ("f16", "f32"):
        found[f"v_cvt_pknorm_i16_{type_}"] = lambda a, b: [normal(a, 32767, -1), normal(b, 32767, -1)]
        found[f"v_cvt_pknorm_u16_{type_}"] = lambda a, b: [normal(a, 65535, 0), normal(b, 65535, 0)]
    found["v_cvt_norm_i16_f16"] = lambda a: normal(a, 32767, -1)
    found["v_cvt_norm_u16_f16"] = lambda a: normal(a, 65535, 0)
    for type_ in SMALL:
        kind, _, fnuz = type_.partition("_")
        tail = f"_{fnuz}" if fnuz else ""
        found[f"v_cvt_f32_{kind}{tail}"] = lambda a, type_=type_: SMALL[type_][a & 255]
        found[f"v_cvt_pk_f32_{kind}{tail}"] = lambda a, type_=type_: [SMALL[type_][a & 255], SMALL[type_][a >> 8]]
        found[f"v_cvt_pk_{kind}_f32{tail}"] = lambda a, b, type_=type_: to_small(a, type_) | to_small(b, type_) << 8
    return found


def normal(a: Float, most: int, low: int) -> int:
    """From `low` to 1 onto integers up to `most`."""
    if a.nan:
        return 0
    limited = Fraction(low if a.negative else 1) if a.infinite else min(max(a.value, Fraction(low)), Fraction(1))
    return round(limited * most)


def bfloat_bits(a: Float) -> int:
    return a.quieted().bits >> 16 if a.nan else a.to(BFLOAT).bits


CONVERSIONS = _conversions()
