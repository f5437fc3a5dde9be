# SPDX-License-Identifier: Apache-2.0
"""Rows: the struct Instruction of native/instruction.h, and what a decoder knows of handlers."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .operands import PACKED, Kind, Operand

OPERANDS = 6
HEAD = struct.Struct("<HBBHBBIii")
ROW = np.dtype(
    [
        ("handler", "<u2"),
        ("operands", "u1"),
        ("results", "u1"),
        ("flags", "<u2"),
        ("counter", "u1"),
        ("mode", "u1"),
        ("line", "<u4"),
        ("offset", "<i4"),
        ("offset1", "<i4"),
        ("operand", np.dtype([("kind", "u1"), ("count", "u1"), ("part", "u1"), ("flags", "u1"), ("reg", "<u2"),
                              ("constant", "<u2")]), (OPERANDS,)),
    ]
)  # fmt: skip
CLAMP, CONTINUED = 1, 8
OUTPUT_SHIFT = {("mul", "2"): 1, ("mul", "4"): 2, ("div", "2"): 3}  # times 2 of the flag


class Handler(NamedTuple):
    """`results` and `sources` have a letter for each operand (native/handler.h)."""

    number: int
    results: str
    sources: str


@dataclass
class Row:
    """One Instruction, without the line that it belongs to."""

    handler: Handler
    operands: list[Operand] = field(default_factory=list)
    flags: int = 0
    counter: int = 0
    mode: int = 0
    offset: int = 0
    offset1: int = 0


class Constants:
    """The constants that rows name, each once."""

    def __init__(self) -> None:
        self.values: list[int] = [0]
        self._places = {0: 0}

    def place(self, value: int) -> int:
        """Where `value` is."""
        place = self._places.setdefault(value, len(self.values))
        if place == len(self.values):
            self.values.append(value)
        return place


def encode(row: Row, constants: Constants) -> bytes:
    """A row as the library reads it."""
    if len(row.operands) > OPERANDS:
        raise ValueError(f"{len(row.operands)} operands")
    head = HEAD.pack(
        row.handler.number,
        len(row.operands),
        len(row.handler.results),
        row.flags,
        row.counter,
        row.mode,
        0,
        row.offset,
        row.offset1,
    )
    operands = b"".join(
        PACKED.pack(
            o.kind, o.count, o.part, o.flags, o.reg, constants.place(o.constant) if o.kind is Kind.CONSTANT else 0
        )
        for o in row.operands
    )
    return head + operands + bytes(PACKED.size * (OPERANDS - len(row.operands)))
