# SPDX-License-Identifier: Apache-2.0
"""AMD machine code as figures: loops, instructions by unit, and the clocks that they take each unit at its peak rate.

Clocks are of one wave: how long it keeps a unit of its SIMD busy, from the instructions' peak rates alone. Latencies,
issue limits and bank conflicts are left out, so they are a floor, the same for every kernel that is compared.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass, field

from amdgpu.disassembly import Line, llvm_tool

# Multiply-adds of 16-bit matrix instructions per clock of a SIMD.
MATRIX_RATE = {"gfx90a": 128, "gfx942": 256, "gfx950": 512, "gfx11": 128, "gfx12": 256}
_TRANSCENDENTAL = re.compile(r"v_(?:s_)?(?:exp|log|rcp|rsq|sqrt|sin|cos)_")
_MATRIX = re.compile(r"v_mfma_|v_wmma_")
_SHAPE = re.compile(r"(\d+)x(\d+)x(\d+)")
_BLOCKS = {(4, 4): 16, (16, 4): 4, (32, 4): 2}  # products of one instruction of 16-bit elements, by m and k
_DOT = re.compile(r"\bv_(?:dual_)?(dot2\w*?)(?:_e\d+|_e64_dpp)?(?=\s|$)")  # two multiply-adds a lane
_GLOBAL = re.compile(r"(?:global|buffer|flat|scratch)_(?:load|store|atomic)")
_BITS = {"ubyte": 8, "sbyte": 8, "ushort": 16, "sshort": 16, "short": 16, "byte": 8, "dword": 32}


def bits_of(mnemonic: str) -> int:
    """That a memory instruction moves for each lane; 0 for all others."""
    found = re.search(r"_(?:[bui](\d+)|dwordx(\d+)|([us]?byte|[us]?short|dword))(?:_|$)", mnemonic)
    if not found or not re.match(r"(?:ds|global|buffer|flat|scratch)_", mnemonic):
        return 0
    size = int(found[1] or 0) or 32 * int(found[2] or 0) or _BITS[found[3]]
    return size * (2 if re.search(r"_(?:read2|write2|2addr)", mnemonic) else 1)


def hot_loop(code: list[Line]) -> list[Line]:
    """The innermost of the loops that have the most products (matrix or dot): what is repeated for every tile."""
    ends: dict[int, int] = {}
    for instruction in code:
        if instruction.target is not None and instruction.target <= instruction.address:
            ends[instruction.target] = max(ends.get(instruction.target, 0), instruction.address)
    loops = [[i for i in code if start <= i.address <= end] for start, end in ends.items()]
    if not loops:
        raise ValueError("no loop in this code")
    return max(loops, key=lambda loop: (sum(bool(_MATRIX.match(i.mnemonic)) + len(dots(i)) for i in loop), -len(loop)))


def matrix_work(target: str, mnemonic: str) -> tuple[int, float]:
    """Multiply-adds of a matrix instruction, and the clocks that it takes its SIMD's unit: two passes at least.

    Raises:
        ValueError: the mnemonic does not name a shape.
    """
    found = _SHAPE.search(mnemonic)
    if found is None:
        raise ValueError(f"{mnemonic} does not name its shape")
    m, n, k = map(int, found.groups())
    work = m * n * k * _BLOCKS.get((m, k), 1)
    return work, max(8.0, work / (MATRIX_RATE.get(target) or MATRIX_RATE[target[:5]]))


def dots(instruction: Line) -> list[str]:
    """Names of the dot products in an instruction, which holds two where it is a pair."""
    return _DOT.findall(f"{instruction.mnemonic} {instruction.operands}")


@dataclass(frozen=True)
class Figures:
    """Of a run of instructions of one wave.

    Attributes:
        counts: instructions by unit: matrix, valu, transcendental, lds, global, salu, all.
        clocks: by unit: matrix, valu, transcendental; lds, as if each SIMD had its share of the port.
        names: matrix and dot instructions by mnemonic.
        multiply_adds: of the matrix and dot instructions.
        load_bytes: bytes a lane gets from a global load, on average.
    """

    counts: Counter[str] = field(default_factory=Counter)
    clocks: dict[str, float] = field(default_factory=dict)
    names: Counter[str] = field(default_factory=Counter)
    multiply_adds: int = 0
    load_bytes: float = 0

    @property
    def busiest(self) -> tuple[str, float]:
        """The unit that is taken longest, and its clocks."""
        return max(self.clocks.items(), key=lambda item: item[1])


def unit_of(mnemonic: str) -> str:
    """The unit that an instruction occupies."""
    if _MATRIX.match(mnemonic):
        return "matrix"
    if _TRANSCENDENTAL.match(mnemonic):
        return "transcendental"
    if mnemonic.startswith("v_"):
        return "valu"
    if mnemonic.startswith("ds_"):
        return "lds"
    return "global" if _GLOBAL.match(mnemonic) else "salu"


def figures(code: list[Line], target: str) -> Figures:
    """Counts and clocks of `code` on `target`."""
    cdna = target.startswith("gfx9")
    # A wave64 instruction takes the 16 lanes of a CDNA SIMD four clocks, a wave32 one RDNA's 32 lanes one; there are a
    # quarter as many lanes of transcendental units. LDS moves 128 bytes a clock for a CU's SIMDs: four, on RDNA two.
    step, lanes, simds = (4, 64, 4) if cdna else (1, 32, 2)
    counts: Counter[str] = Counter()
    clocks = {"matrix": 0.0, "valu": 0.0, "transcendental": 0.0, "lds": 0.0}
    names: Counter[str] = Counter()
    multiply_adds, loads = 0, []
    for instruction in code:
        unit = unit_of(instruction.mnemonic)
        counts[unit] += 1
        if unit == "matrix":
            work, taken = matrix_work(target, instruction.mnemonic)
            multiply_adds += work
            clocks["matrix"] += taken
            names[instruction.mnemonic] += 1
        elif unit in ("valu", "transcendental"):
            for name in dots(instruction):
                multiply_adds += 2 * lanes
                names[name] += 1
            clocks[unit] += step * (4 if unit == "transcendental" else 1)
        elif unit == "lds":
            clocks["lds"] += lanes * bits_of(instruction.mnemonic) / 8 / 128 * simds
        elif unit == "global" and "_load_" in instruction.mnemonic:
            loads.append(bits_of(instruction.mnemonic) / 8)
    counts["all"] = len(code)
    return Figures(counts, clocks, names, multiply_adds, sum(loads) / len(loads) if loads else 0)


def mca_cycles(code: list[Line], target: str, iterations: int = 50) -> float | None:
    """llvm-mca's cycles per iteration, in clocks; None where its model is no use (RDNA: WMMA at 2.5 cycles).

    On CDNA a cycle of the model stands for four clocks. Vector and matrix rates are right there, v_exp counts as a
    plain instruction and memory latencies are short.
    """
    if not target.startswith("gfx9"):
        return None
    text = "\n".join(f"{i.mnemonic} {i.operands}" for i in code)
    command = [
        llvm_tool("llvm-mca"),
        "-mtriple=amdgcn-amd-amdhsa",
        f"-mcpu={target}",
        f"-iterations={iterations}",
        "--all-views=false",
        "--summary-view",
    ]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    found = re.search(r"Total Cycles:\s+(\d+)", done.stdout)
    return 4 * int(found[1]) / iterations if found else None
