# SPDX-License-Identifier: Apache-2.0
"""What instructions give that only approximate, and the steps of a division."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from . import exact
from .exact import DOUBLE, SINGLE, Float, Format, infinity, nan, rounded, zero
from .instructions import Within

Long = np.longdouble
TURN = Long("6.283185307179586476925286766559005768")


def last_place(format_: Format, bits: int) -> Fraction:
    """Of a number's format where the number is."""
    field = Float(format_, bits).field
    return Fraction(2) ** (max(field, 1) - format_.bias - format_.fraction)


def nearest(value: Fraction, format_: Format) -> Within:
    """Off by half of a last place and what a calculation in doubles adds."""

    def holds(bits: int) -> bool:
        x = Float(format_, bits)
        return not x.nan and not x.infinite and abs(x.value - value) <= last_place(format_, bits) * Fraction(51, 100)

    return Within(holds, f"near {float(value)!r}")


def below(value: Fraction, format_: Format) -> Within:
    """The number below, or the number itself; what is that close to one may be taken for it."""
    return _beside(value, format_, math.floor, math.ceil)


def above(value: Fraction, format_: Format) -> Within:
    """The number above."""
    return _beside(value, format_, math.ceil, math.floor)


def _beside(value: Fraction, format_: Format, positive: Callable[..., int], negative: Callable[..., int]) -> Within:
    wanted = rounded(value, format_, rounding=negative if value < 0 else positive)
    close = rounded(value, format_)
    also = close if not close.infinite and abs(close.value - value) <= abs(value) / (1 << 43) else wanted
    return Within(lambda bits: bits in (wanted.bits, also.bits), f"beside {float(value)!r}: {wanted.bits:#x}")


Judge = Callable[[Fraction, Format], Within]


def _ratio(value: Any) -> Fraction:
    return Fraction(*value.as_integer_ratio())


def _finish(value: Fraction, format_: Format, judge: Judge) -> Float | Within:
    """A result of float that is denormal is a zero."""
    close = rounded(value, format_)
    if close.infinite or close.zero:
        return close
    if format_ is SINGLE and abs(value) < Fraction(2) ** -126:
        return zero(format_, value < 0)
    return judge(value, format_)


def _in(a: Float) -> Float:
    return a.flushed() if a.format is SINGLE else a


def exp2(a: Float, judge: Judge) -> Float | Within:
    a = _in(a)
    if a.nan:
        return nan(a.format)
    if a.infinite or abs(a.value) > 2000:
        return zero(a.format) if a.negative else infinity(a.format)
    return _finish(_ratio(np.exp2(Long(float(a.value)))), a.format, judge)


def log2(a: Float, judge: Judge) -> Float | Within:
    a = _in(a)
    if a.zero:
        return infinity(a.format, True)
    if a.nan or a.negative:
        return nan(a.format)
    return a if a.infinite else _finish(_ratio(np.log2(Long(float(a.value)))), a.format, judge)


def rcp(a: Float, judge: Judge) -> Float | Within:
    a = _in(a)
    if a.nan:
        return nan(a.format)
    if a.zero:
        return infinity(a.format, a.negative)
    return zero(a.format, a.negative) if a.infinite else _finish(1 / a.value, a.format, judge)


def _root(value: Fraction) -> Fraction:
    """Within 2^-100 of its size."""
    up = 1 << 2 * (110 + abs(exact.power_below(value)))
    return Fraction(math.isqrt(value.numerator * up // value.denominator)) / math.isqrt(up)


def sqrt(a: Float, judge: Judge) -> Float | Within:
    a = _in(a)
    if a.nan or (a.negative and not a.zero):
        return nan(a.format)
    return a if a.zero or a.infinite else _finish(_root(a.value), a.format, judge)


def rsq(a: Float, judge: Judge) -> Float | Within:
    a = _in(a)
    if a.nan or (a.negative and not a.zero):
        return nan(a.format)
    if a.zero:
        return infinity(a.format, a.negative)
    return zero(a.format) if a.infinite else _finish(1 / _root(a.value), a.format, judge)


def _sine_of_turns(turns: Fraction) -> Fraction:
    quarter = turns if abs(turns) <= Fraction(1, 4) else Fraction(1 if turns > 0 else -1, 2) - turns
    if abs(quarter) == Fraction(1, 4):
        return Fraction(4) * quarter
    return _ratio(np.sin(Long(float(quarter)) * TURN)) if quarter else Fraction(0)


def sin(a: Float, judge: Judge) -> Float | Within:
    if a.nan or a.infinite:
        return nan(a.format)
    if a.zero:
        return a
    sine = _sine_of_turns(a.value - round(a.value))
    return judge(sine, a.format) if sine else zero(a.format)


def cos(a: Float, judge: Judge) -> Float | Within:
    if a.nan or a.infinite:
        return nan(a.format)
    turns = abs(a.value - round(a.value))
    if turns < Fraction(1, 1 << 40):
        return judge(Fraction(1), a.format)
    cosine = _sine_of_turns(Fraction(1, 4) - turns)
    return judge(cosine, a.format) if cosine else zero(a.format)


FUNCTIONS: dict[str, Callable[[Float, Judge], Float | Within]] = {
    "exp": exp2, "log": log2, "rcp": rcp, "sqrt": sqrt, "rsq": rsq, "sin": sin, "cos": cos,
}  # fmt: skip


def expected(judge: Judge) -> dict[str, Callable[[Any], Any]]:
    """All that approximate, with what a result is allowed to be."""

    def judged(function: Callable[[Float, Judge], Float | Within]) -> Callable[[Any], Any]:
        return lambda a: function(a, judge)

    found = {f"v_{name}_{type_}": judged(function) for name, function in FUNCTIONS.items() for type_ in ("f32", "f16")}
    found["v_rcp_iflag_f32"] = found["v_rcp_f32"]
    return found


def rough(function: Callable[[Float, Judge], Float | Within], places: int) -> Callable[[Float], Any]:
    """Of doubles, off by up to `places` last places."""

    def judge(value: Fraction, format_: Format) -> Within:
        def holds(bits: int) -> bool:
            return abs(Float(format_, bits).value - value) <= places * last_place(format_, bits)

        return Within(holds, f"about {float(value)!r}")

    return lambda a: function(a, judge)


def doubles(places: int) -> dict[str, Callable[[Float], Any]]:
    return {f"v_{name}_f64": rough(FUNCTIONS[name], places) for name in ("rcp", "rsq", "sqrt")}


LIMITS = {SINGLE: (96, 23, 64, -150), DOUBLE: (768, 53, 128, -1075)}


def _scaled(a: Float, n: int) -> Float:
    return a.quieted() if a.nan else a if a.infinite or a.zero else rounded(a.value * Fraction(2) ** n, a.format)


def div_scale(value: Float, denominator: Float, numerator: Float) -> tuple[Float, bool]:
    """As the documents' pseudo-code, with two exceptions.

    A denominator whose reciprocal is denormal is always scaled down, and a quotient that becomes zero counts as a
    denormal one.
    """
    near_max, tiny, scale, _ = LIMITS[value.format]
    if numerator.zero or denominator.zero:
        return nan(value.format), False
    reciprocal = exact.divide(exact.number(1, value.format), denominator).denormal
    ratio = exact.divide(numerator, denominator)
    quotient = ratio.denormal or ratio.zero
    of_denominator, of_numerator = exact.equal(value, denominator), exact.equal(value, numerator)
    if numerator.field - denominator.field >= near_max:
        return (_scaled(value, scale) if of_denominator else value), True
    if denominator.denormal:
        return _scaled(value, scale), False
    if reciprocal and quotient:
        return (_scaled(value, -scale) if of_denominator else value), True
    if reciprocal:
        return _scaled(value, -scale), False
    if quotient:
        return (_scaled(value, scale) if of_numerator else value), True
    return (_scaled(value, scale) if numerator.field <= tiny else value), False


def div_fmas(a: Float, b: Float, c: Float, back: int) -> Float:
    """The final step: what scaled the quotient is undone, with one rounding."""
    plain = exact.fma(a, b, c)
    scale = LIMITS[a.format][2]
    if not back or plain.nan or plain.infinite:
        return plain
    value = (a.value * b.value + c.value) * Fraction(2) ** (scale if c.field > c.format.bias else -scale)
    return rounded(value, a.format, plain.negative)


def div_fixup(quotient: Float, denominator: Float, numerator: Float) -> Float:
    format_, negative = quotient.format, denominator.negative != numerator.negative
    if numerator.nan or denominator.nan:
        return nan(format_)
    if (denominator.zero and numerator.zero) or (denominator.infinite and numerator.infinite):
        return nan(format_)
    if denominator.zero or numerator.infinite:
        return infinity(format_, negative)
    if denominator.infinite or numerator.zero:
        return zero(format_, negative)
    if format_ in LIMITS and numerator.field - denominator.field < LIMITS[format_][3]:
        return zero(format_, negative)
    if quotient.nan:  # left by one that is infinite
        return infinity(format_, negative)
    return -abs(quotient) if negative else abs(quotient)


DIVISION: dict[str, Callable[..., Any]] = {
    **{f"v_div_scale_{type_}": div_scale for type_ in ("f32", "f64")},
    **{f"v_div_fmas_{type_}": div_fmas for type_ in ("f32", "f64")},
    **{f"v_div_fixup_{type_}": div_fixup for type_ in ("f32", "f64", "f16", "legacy_f16")},
}
