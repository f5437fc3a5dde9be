# SPDX-License-Identifier: Apache-2.0
"""Operands: from the assembly text to the library's struct of that name."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from enum import IntEnum

PACKED = struct.Struct("<BBBBHH")


class Kind(IntEnum):
    """The enum of that name in native/instruction.h."""

    NONE = 0
    VECTOR = 1
    SCALAR = 2
    CONSTANT = 3


class Part(IntEnum):
    """The enum of that name in native/instruction.h."""

    WHOLE = 0
    LOW = 1
    HIGH = 2
    BYTE0 = 3
    BYTE1 = 4
    BYTE2 = 5
    BYTE3 = 6


NEGATE, ABSOLUTE, NEGATE_HIGH, LOW_FROM_HIGH, HIGH_FROM_HIGH, SIGN_EXTEND, ZERO_REST = (1 << n for n in range(7))
ACCUMULATORS = 256  # the vector register that a0 is
TEMPORARY = 512  # the first vector register that no kernel has
VCC, M0, NULL, EXEC = 106, 124, 125, 126
_NAMED = {
    "vcc": (VCC, 2),
    "vcc_lo": (VCC, 1),
    "vcc_hi": (VCC + 1, 1),
    "exec": (EXEC, 2),
    "exec_lo": (EXEC, 1),
    "exec_hi": (EXEC + 1, 1),
    "m0": (M0, 1),
    "null": (NULL, 1),
}
_FIRST = {"v": 0, "a": ACCUMULATORS, "s": 0, "ttmp": 108}
_REGISTER = re.compile(r"(v|a|s|ttmp)(?:(\d+)(?:\.([lh]))?|\[(\d+):(\d+)\])$")
_SIGNED = re.compile(r"(-?)(?:\|(.+)\||(?:abs\((.+)\))|(.+))$")
_HALF_INV_2PI = 0x3118  # 1/(2 pi), which objdump writes shortened


@dataclass(frozen=True)
class Operand:
    """`constant` is the value for Kind.CONSTANT, as up to 64 bits."""

    kind: Kind = Kind.NONE
    count: int = 0
    part: Part = Part.WHOLE
    flags: int = 0
    reg: int = 0
    constant: int = 0

    def with_flags(self, flags: int) -> Operand:
        """With more flags."""
        return replace(self, flags=self.flags | flags)

    def at(self, part: Part) -> Operand:
        """Another part of the same register."""
        return replace(self, part=part)

    def overlaps(self, other: Operand) -> bool:
        """Whether they share a register."""
        return (
            self.kind is other.kind
            and self.kind in (Kind.VECTOR, Kind.SCALAR)
            and self.reg < other.reg + other.count
            and other.reg < self.reg + self.count
        )


def vector(reg: int, count: int = 1) -> Operand:
    """Vector registers from `reg` on."""
    return Operand(Kind.VECTOR, count, reg=reg)


def scalar(reg: int, count: int = 1) -> Operand:
    """Scalar registers from `reg` on."""
    return Operand(Kind.SCALAR, count, reg=reg)


def constant(value: int) -> Operand:
    """A constant of up to 64 bits; negative ones are extended."""
    return Operand(Kind.CONSTANT, constant=value & (1 << 64) - 1)


def parse(text: str, letter: str) -> Operand:
    """An operand as objdump writes it, of the type that `letter` stands for (native/handler.h).

    Raises:
        ValueError: the text is none that is known here.
    """
    flags = 0
    if text.startswith("lit("):
        text = text[4:-1]  # a literal that has an inline form as well
    if text.startswith("sext("):
        text, flags = text[5:-1], SIGN_EXTEND
    if text.startswith("neg("):
        text, flags = text[4:-1], NEGATE
    register = _register(text)
    if register is None and text[0] in "-|a" and not _is_number(text):
        sign, bars, absolute, plain = _SIGNED.match(text).groups()  # type: ignore[union-attr]
        flags |= (NEGATE if sign else 0) | (ABSOLUTE if bars or absolute else 0)
        text = bars or absolute or plain
        register = _register(text)
    if register is not None:
        return register.with_flags(flags) if flags else register
    return constant(_value(text, letter)).with_flags(flags)


def _register(text: str) -> Operand | None:
    if found := _REGISTER.match(text):
        file, number, half, first, last = found.groups()
        kind = Kind.SCALAR if file in ("s", "ttmp") else Kind.VECTOR
        start = int(number or first)
        count = 1 if number else int(last) - int(first) + 1
        part = {"l": Part.LOW, "h": Part.HIGH, None: Part.WHOLE}[half]
        return Operand(kind, count, part, reg=_FIRST[file] + start)
    if text in _NAMED:
        reg, count = _NAMED[text]
        return Operand(Kind.SCALAR, count, reg=reg)
    return Operand() if text == "off" else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?(0x[0-9a-f]+|\d+(\.\d+(e[-+]?\d+)?)?)", text) is not None


def _value(text: str, letter: str) -> int:
    """The bits of a constant. A literal has 32 bits: for a float of 64 they are its upper half."""
    if not _is_number(text):
        raise ValueError(f"operand {text!r} is not known here")
    if "." in text:
        number = float(text)
        if letter in "hqst":
            return _HALF_INV_2PI if text.startswith("0.159") else int.from_bytes(struct.pack("<e", number), "little")
        if letter == "d":
            return int.from_bytes(struct.pack("<d", number), "little")
        return int.from_bytes(struct.pack("<f", number), "little")
    value = int(text, 0)
    if letter == "d" and text.startswith("0x"):
        return value << 32
    if letter == "I" and text.startswith("0x") and value >> 31 == 1:
        return value - (1 << 32)
    return value


def split(text: str) -> tuple[list[str], dict[str, str]]:
    """Operands and modifiers of an instruction: ``v0, v[1:2], off offset:16 nt`` has three and two."""
    operands: list[str] = []
    modifiers: dict[str, str] = {}
    pieces = _split_at(text, ",")
    for at, piece in enumerate(pieces):
        words = _split_at(piece.strip(), " ")
        if at + 1 < len(pieces) and len(words) > 1:
            raise ValueError(f"operand {piece.strip()!r} is not known here")
        if words and words[0]:
            first = words[0]
            if ":" in first and "[" not in first.split(":")[0]:
                words.insert(0, "")  # only modifiers
            else:
                operands.append(first)
        for word in words[1:]:
            name, _, value = word.partition(":")
            modifiers[name] = value
    return operands, modifiers


def _split_at(text: str, separator: str) -> list[str]:
    """Outside of brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        if letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
        elif letter == separator and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [part for part in parts if part] if separator == " " else parts
