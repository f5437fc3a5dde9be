# SPDX-License-Identifier: Apache-2.0
"""What counted launches did to memory, and how long a stated model says that they took; native/traffic.h says how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np

from .disassembly import Line

MEMORY = np.dtype([(name, "<u8") for name in ("lds_clocks", "least_lds_clocks", "lines", "fewest_lines", "bytes")])
COST = np.dtype([(name, "<u2") for name in ("issue", "busy", "latency", "unit")])
# The cost of an instruction of a target, as the struct of native/timing.h: clocks until the next may be issued, clocks
# that its unit is busy, clocks until its result or its answer is there, and the number of the unit, below 8.
Costs = Callable[[str, Line], tuple[int, int, int, int]]
# What waves stood still for: a result, answers by counter, a unit that was busy, each other.
STALLS = ("results", "loads", "stores", "LDS", "scalar loads", "units", "barriers")


@dataclass(frozen=True)
class Memory:
    """Of one instruction, or the sum of several.

    Attributes:
        lds_clocks: that LDS was taken for.
        least_lds_clocks: that it would have been without bank conflicts.
        lines: of the cache, touched by each execution.
        fewest_lines: that could hold the distinct bytes of each execution.
        bytes: of all active lanes.
    """

    lds_clocks: int = 0
    least_lds_clocks: int = 0
    lines: int = 0
    fewest_lines: int = 0
    bytes: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Traffic:
    """Of one kernel's launches.

    Attributes:
        by_line: of each instruction that accessed memory, by its place in the kernel.
        line_bytes: of a line.
        footprint: lines read and lines written, each counted once.
        clocks: that each workgroup of the latest timed launch took by itself.
        stalls: clocks that waves stood still, as STALLS names them.
        mnemonics: of all instructions of the kernel.
    """

    by_line: dict[int, Memory]
    line_bytes: int
    footprint: tuple[int, int]
    clocks: np.ndarray
    stalls: dict[str, int]
    mnemonics: list[str] = field(repr=False)

    @property
    def total(self) -> Memory:
        """Of all instructions."""
        return sum(self.by_line.values(), Memory())

    def of(self, *parts: str) -> Memory:
        """Of the instructions whose mnemonic has one of these in it."""
        found = (m for line, m in self.by_line.items() if any(part in self.mnemonics[line] for part in parts))
        return sum(found, Memory())

    def by_mnemonic(self) -> dict[str, Memory]:
        """Sums of equal mnemonics."""
        found: dict[str, Memory] = {}
        for line, memory in self.by_line.items():
            name = self.mnemonics[line]
            found[name] = found.get(name, Memory()) + memory
        return found
