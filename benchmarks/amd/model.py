# SPDX-License-Identifier: Apache-2.0
"""A model of how long kernels take on AMD cards: a range, from what the emulated device counted. Nothing is measured.

The lower end is the busiest unit of the card, as if everything else happened beside it and all work were spread evenly:
the matrix units, the vector ALUs (with their transcendentals), instructions of one kind issued by a SIMD, LDS, or
memory, from which each line comes once.

The upper end is what every workgroup takes by itself, instruction after instruction with the waits exposed
(amdgpu/native/timing.h), on as many places as the occupancy gives the card, one after the other; and the busiest unit's
time on top of it, with memory giving every line anew for each instruction that touches it. So it lies above what the
model would say of any overlap.

Left out: what caches hold, latency under load, how loads of several waves mix, address translation, clocks below the
data sheet's, power, instruction fetch, the start of a launch.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable
from dataclasses import dataclass

from amdgpu.disassembly import Line
from amdgpu.traffic import Costs
from rocmforge_build.code_object import Resources

from .cards import Card
from .executed import Executed
from .machine_code import matrix_work, unit_of

# Numbers of units for the walk through a wave; they are free at once where nothing says otherwise.
NO_UNIT, MATRIX, VECTOR, LDS = range(4)
# Clocks, assumed: of LDS, beside those that accesses take; and of scalar loads, which are arguments and page numbers
# that lanes in a row and tiles in a row share, so that they are taken to come from a cache.
LDS_LATENCY, SCALAR_LATENCY = 64, 200
_NOP = re.compile(r"s_nop (?:0x)?([0-9a-f]+)")


def costs(card: Card) -> Costs:
    """Of instructions on a card, for the walk through a wave.

    CDNA issues an instruction of a wave every 4 clocks, and a vector instruction's result is there for the next one;
    RDNA issues one every clock, and a result takes 5. Transcendentals take the vector ALU 4 times as long. A matrix
    instruction's result is there 8 clocks after the unit is done. Scalar results take one issue more. Vector loads are
    answered by memory after {memory}, LDS after {lds} clocks, scalar loads after {scalar} from a cache, all three
    assumed.
    """
    step, vector_latency = (4, 4) if card.cdna else (1, 5)
    memory = card.memory_clocks

    def cost(target: str, line: Line) -> tuple[int, int, int, int]:
        unit = unit_of(line.mnemonic)
        if unit == "matrix":
            busy = round(matrix_work(target, line.mnemonic)[1])
            return step, busy, busy + 8, MATRIX
        if unit == "transcendental":
            return step, 4 * step, vector_latency + 3 * step, VECTOR
        if unit == "valu":
            return step, step, vector_latency, VECTOR
        if unit == "lds":
            return step, 0, LDS_LATENCY, LDS
        if unit == "global":
            return step, 0, memory, NO_UNIT
        if line.mnemonic.startswith(("s_load", "s_buffer_load")):
            return step, 0, SCALAR_LATENCY, NO_UNIT
        if found := _NOP.match(line.text):
            return step * (int(found[1], 16) + 1), 0, 0, NO_UNIT
        return step, 0, 2 * step, NO_UNIT

    return cost


@dataclass(frozen=True)
class Range:
    """A prediction of the model, in microseconds.

    Attributes:
        low: the busiest unit, perfectly overlapped.
        high: waves one by one, as many beside each other as there are places.
        bound: the busiest unit's name.
        waits: of the clocks that waves take by themselves, the share in which they stand still.
    """

    low: float
    high: float
    bound: str
    waits: float = 0


def busy(card: Card, done: Executed, lines: int) -> dict[str, float]:
    """Microseconds that each unit of the card is taken, with so many lines coming from or going to memory."""
    step = 4 if card.cdna else 1
    units = done.by_unit
    matrix = sum(
        count * matrix_work(card.target, name)[1]
        for name, count in done.instructions.items()
        if unit_of(name) == "matrix"
    )
    vector = step * (units["valu"] + 4 * units["transcendental"])
    issued = step * max(units[kind] for kind in ("salu", "lds", "global"))
    ports = card.units * (1 if card.cdna else 2)  # LDS moves 128 bytes a clock for each CU
    line_bytes = done.traffic.line_bytes
    return {
        "matrix": matrix / card.simds / card.mhz,
        "VALU": vector / card.simds / card.mhz,
        "issue": issued / card.simds / card.mhz,
        "LDS": done.traffic.total.lds_clocks / ports / card.mhz,
        "memory": lines * line_bytes / card.gigabytes / 1000,
    }


def makespan(times: Iterable[float], places: int) -> float:
    """When the last of them ends, each taking the place that is free first, in their order."""
    free = [0.0] * places
    for time in times:
        heapq.heapreplace(free, free[0] + time)
    return max(free)


def predict(card: Card, resources: Resources, done: Executed) -> Range:
    """The range for one kernel, executed with `costs(card)` on as many units as the card has."""
    low = busy(card, done, sum(done.traffic.footprint))
    bound = max(low, key=low.__getitem__)
    waves = resources.threads // resources.wave
    places = max(1, int(resources.occupancy * card.simds) // waves)
    clocks = done.traffic.clocks
    alone = makespan(map(float, clocks), places) / card.mhz
    high = alone + max(busy(card, done, done.traffic.total.lines).values())
    stood = sum(done.traffic.stalls.values()) / max(1.0, float(clocks.sum()) * waves)
    return Range(low[bound], high, bound, stood)
