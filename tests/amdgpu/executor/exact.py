# SPDX-License-Identifier: Apache-2.0
"""Exact arithmetic on floats, with fractions: what handlers' results are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor


@dataclass(frozen=True)
class Format:
    """Bits of the exponent and of the fraction of a binary format of IEEE 754."""

    exponent: int
    fraction: int

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.fraction

    @property
    def bias(self) -> int:
        return (1 << self.exponent - 1) - 1

    @property
    def infinity(self) -> int:
        return (1 << self.exponent) - 1 << self.fraction

    @property
    def quiet(self) -> int:
        """The bit that tells quiet NaN from signalling ones."""
        return 1 << self.fraction - 1

    @property
    def sign(self) -> int:
        return 1 << self.bits - 1


HALF, SINGLE, DOUBLE, BFLOAT = Format(5, 10), Format(8, 23), Format(11, 52), Format(8, 7)


@dataclass(frozen=True)
class Float:
    """A number of a format, by its bits."""

    format: Format
    bits: int

    @property
    def size(self) -> int:
        """The bits without the sign."""
        return self.bits & ~self.format.sign

    @property
    def negative(self) -> bool:
        return bool(self.bits & self.format.sign)

    @property
    def nan(self) -> bool:
        return self.size > self.format.infinity

    @property
    def signalling(self) -> bool:
        return self.nan and not self.bits & self.format.quiet

    @property
    def infinite(self) -> bool:
        return self.size == self.format.infinity

    @property
    def zero(self) -> bool:
        return self.size == 0

    @property
    def denormal(self) -> bool:
        return 0 < self.size < 1 << self.format.fraction

    @property
    def field(self) -> int:
        """Of the exponent."""
        return self.size >> self.format.fraction

    @property
    def value(self) -> Fraction:
        """Of a finite number."""
        if self.size >= self.format.infinity:
            raise ValueError("not finite")
        fraction = self.size & (1 << self.format.fraction) - 1
        mantissa = fraction + (1 << self.format.fraction if self.field else 0)
        value = mantissa * Fraction(2) ** (max(self.field, 1) - self.format.bias - self.format.fraction)
        return -value if self.negative else value

    def quieted(self) -> Float:
        return Float(self.format, self.bits | self.format.quiet)

    def __neg__(self) -> Float:
        return Float(self.format, self.bits ^ self.format.sign)

    def __abs__(self) -> Float:
        return Float(self.format, self.size)

    def flushed(self) -> Float:
        """A zero of the same sign in the place of a denormal."""
        return Float(self.format, self.bits & self.format.sign) if self.denormal else self

    def to(self, format_: Format) -> Float:
        """Rounded to another format."""
        if self.nan:
            return nan(format_)
        if self.infinite:
            return infinity(format_, self.negative)
        return rounded(self.value, format_, self.negative)


def nan(format_: Format) -> Float:
    """A quiet one. Which, nobody asks."""
    return Float(format_, format_.infinity | format_.quiet)


def infinity(format_: Format, negative: bool = False) -> Float:
    return Float(format_, format_.infinity | (format_.sign if negative else 0))


def zero(format_: Format, negative: bool = False) -> Float:
    return Float(format_, format_.sign if negative else 0)


def to_even(value: Fraction) -> int:
    """The nearest integer, the even one of two."""
    return round(value)


def power_below(value: Fraction) -> int:
    """The largest e with 2**e <= value."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def rounded(
    value: Fraction | int, format_: Format, negative_zero: bool = False, rounding: Callable[[Fraction], int] = to_even
) -> Float:
    """The number of the format that a value is rounded to; `rounding` gets its size in last places."""
    value = Fraction(value)
    if value == 0:
        return zero(format_, negative_zero)
    size = abs(value)
    lowest = 1 - format_.bias
    place = max(power_below(size), lowest) - format_.fraction
    steps = rounding(size / Fraction(2) ** place)
    bits = steps + ((place + format_.fraction - lowest) << format_.fraction)  # a carry goes to the exponent
    if bits >= format_.infinity:
        bits = format_.infinity - (1 if rounding is floor else 0)
    return Float(format_, bits | (format_.sign if value < 0 else 0))


def number(value: float | int | Fraction, format_: Format = SINGLE) -> Float:
    """A finite number, rounded."""
    return rounded(Fraction(value), format_)


def add(a: Float, b: Float) -> Float:
    if a.nan or b.nan or (a.infinite and b.infinite and a.negative != b.negative):
        return nan(a.format)
    if a.infinite or b.infinite:
        return a if a.infinite else b
    return rounded(a.value + b.value, a.format, a.negative and b.negative)


def subtract(a: Float, b: Float) -> Float:
    return add(a, -b)


def multiply(a: Float, b: Float) -> Float:
    negative = a.negative != b.negative
    if a.nan or b.nan or (a.infinite and b.zero) or (a.zero and b.infinite):
        return nan(a.format)
    if a.infinite or b.infinite:
        return infinity(a.format, negative)
    return rounded(a.value * b.value, a.format, negative)


def fma(a: Float, b: Float, c: Float) -> Float:
    """a times b plus c, rounded once, to the format of c."""
    negative = a.negative != b.negative
    if a.nan or b.nan or c.nan or (a.infinite and b.zero) or (a.zero and b.infinite):
        return nan(c.format)
    if a.infinite or b.infinite:
        return nan(c.format) if c.infinite and c.negative != negative else infinity(c.format, negative)
    if c.infinite:
        return c
    return rounded(a.value * b.value + c.value, c.format, negative and c.negative)


def divide(a: Float, b: Float) -> Float:
    negative = a.negative != b.negative
    if a.nan or b.nan or (a.zero and b.zero) or (a.infinite and b.infinite):
        return nan(a.format)
    if b.zero or a.infinite:
        return infinity(a.format, negative)
    if b.infinite or a.zero:
        return zero(a.format, negative)
    return rounded(a.value / b.value, a.format, negative)


def rank(a: Float) -> int:
    """Orders all that are not NaN, the negative zero before the positive one."""
    return -a.size - 1 if a.negative else a.size


def less(a: Float, b: Float) -> bool:
    """Zeros are equal; NaN is not less than anything."""
    return not a.nan and not b.nan and not (a.zero and b.zero) and rank(a) < rank(b)


def equal(a: Float, b: Float) -> bool:
    return not a.nan and not b.nan and (a.bits == b.bits or (a.zero and b.zero))


def to_integral(a: Float, how: Callable[[Fraction], int]) -> Float:
    """`how` is math.floor and the like. Zeros keep their sign, also those that come from numbers."""
    if a.nan:
        return a.quieted()
    if a.infinite or a.zero:
        return a
    whole = how(a.value)
    return rounded(whole, a.format, a.negative)


def to_integer(a: Float, low: int, high: int, how: Callable[[Fraction], int] = int) -> int:
    """From `low` to `high`; NaN is 0."""
    if a.nan:
        return 0
    if a.infinite:
        return low if a.negative else high
    return min(max(how(a.value), low), high)
