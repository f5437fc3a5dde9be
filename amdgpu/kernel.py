# SPDX-License-Identifier: Apache-2.0
"""Kernels of code objects, decoded and ready to be executed."""

from __future__ import annotations

import ctypes
import re
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from rocmforge_build import code_object

from .decode.decoder import Decoded, Decoder
from .decode.rows import CONTINUED, ROW
from .decode.target import Target
from .disassembly import Line, disassemble
from .library import Entry, library
from .traffic import COST, MEMORY, STALLS, Costs, Memory, Traffic

_HIDDEN = (*(f"hidden_block_count_{dim}" for dim in "xyz"), *(f"hidden_group_size_{dim}" for dim in "xyz"))
# What the first scalar registers hold, in this order, by bits of the kernel's code properties: (bit, registers).
_USER_REGISTERS = ((0, 4), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (6, 1))
_KERNARG = 3  # the bit of the kernarg segment's address


class ExecutionError(Exception):
    """What went wrong in a launch: the kernel, the instruction, the wave and, where there is one, the lane."""


@cache
def decoder(target: str) -> Decoder:
    """The decoder of a target; ValueError for one that is not known."""
    return Decoder(Target(target), library().handlers)


class Kernel:
    """A kernel in the library.

    Attributes:
        name: as the code object has it.
        target: architecture.
        lines: its instructions.
        handle: the library's pointer.
    """

    def __init__(
        self, name: str, target: str, lines: Sequence[Line], entry: Entry, arguments: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.name, self.target, self.lines = name, target, list(lines)
        decoded: Decoded = decoder(target).decode(name, self.lines)
        self.rows = decoded.rows
        entry.shared_banks, entry.line_bytes = decoder(target).target.shared_banks, decoder(target).target.line_bytes
        start = self.lines[0].address
        offsets = np.array([line.address - start for line in self.lines], np.uint32)
        places = np.array([place for place, _ in arguments], np.int32)
        sizes = np.array([size for _, size in arguments], np.int32)
        self.handle = ctypes.c_void_p(
            library().c.amdgpu_kernel(
                name.encode(),
                ctypes.byref(entry),
                _pointer(decoded.rows),
                ctypes.c_uint64(len(decoded.rows)),
                _pointer(decoded.constants),
                ctypes.c_uint64(len(decoded.constants)),
                _pointer(offsets),
                "".join(line.text + "\n" for line in self.lines).encode(),
                ctypes.c_uint64(len(self.lines)),
                _pointer(places),
                _pointer(sizes),
                ctypes.c_uint64(len(places)),
            )
        )
        self.entry = entry

    def executed_lines(self) -> np.ndarray:
        """How often each line was executed since the last call; one of a wave counts once."""
        counts = np.zeros(len(self.rows), np.uint64)
        library().c.amdgpu_counts(self.handle, _pointer(counts))
        lines = np.zeros(len(self.lines), np.uint64)
        first = self.rows["flags"] & CONTINUED == 0
        lines[self.rows["line"][first]] = counts[first]
        return lines

    def executed(self) -> Counter[str]:
        """Instructions since the last call, by mnemonic; one of a wave counts once."""
        counts = self.executed_lines()
        result: Counter[str] = Counter()
        for line in np.flatnonzero(counts):
            result[self.lines[line].mnemonic] += int(counts[line])
        return result

    def traffic(self) -> Traffic:
        """What memory instructions of counted launches did since the last call, and how long timed ones took."""
        rows, lines, stalls = np.zeros(len(self.rows), MEMORY), np.zeros(2, np.uint64), np.zeros(len(STALLS), np.uint64)
        groups = library().c.amdgpu_traffic(self.handle, _pointer(rows), _pointer(lines), _pointer(stalls))
        clocks = np.zeros(groups, np.uint64)
        library().c.amdgpu_clocks(self.handle, _pointer(clocks))
        found: dict[int, Memory] = {}
        for row in np.flatnonzero(rows["bytes"] | rows["lds_clocks"]):
            line = int(self.rows["line"][row])
            found[line] = found.get(line, Memory()) + Memory(*(int(n) for n in rows[row]))
        stalled = {name: int(n) for name, n in zip(STALLS, stalls, strict=True)}
        mnemonics = [line.mnemonic for line in self.lines]
        return Traffic(found, self.entry.line_bytes, (int(lines[0]), int(lines[1])), clocks, stalled, mnemonics)

    def time(self, costs: Costs | None) -> None:
        """What each instruction costs where counted launches are timed; None: they are not."""
        table = None
        if costs is not None:
            each = np.array([costs(self.target, line) for line in self.lines], COST)
            table = each[self.rows["line"]]
            table[self.rows["flags"] & CONTINUED != 0] = 0
        library().c.amdgpu_costs(self.handle, None if table is None else _pointer(table))

    @contextmanager
    def without(self, *lines: int) -> Iterator[None]:
        """These lines do nothing within this context: to see whether their absence is noticed."""
        rows = [int(row) for line in lines for row in np.flatnonzero(self.rows["line"] == line)]
        nothing = np.zeros(1, ROW)
        nothing["handler"] = library().handlers["s_nop"].number
        try:
            for row in rows:
                nothing["line"] = self.rows["line"][row]
                library().c.amdgpu_replace(self.handle, ctypes.c_uint64(row), _pointer(nothing))
            yield
        finally:
            for row in rows:
                library().c.amdgpu_replace(self.handle, ctypes.c_uint64(row), _pointer(self.rows[row : row + 1]))

    def launch(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[bytes], shared: int = 0) -> None:
        """Runs a grid of workgroups to its end.

        Args:
            grid: workgroups in x, y and z.
            block: threads of a workgroup in x, y and z.
            arguments: the bytes of each explicit argument.
            shared: bytes of LDS beside those that the kernel declares.

        Raises:
            ExecutionError: an access was wrong, or a check failed.
        """
        buffers = [ctypes.create_string_buffer(a, len(a)) for a in arguments]
        pointers = (ctypes.c_void_p * len(buffers))(*(ctypes.addressof(b) for b in buffers))
        three = ctypes.c_uint32 * 3
        problem = library().c.amdgpu_launch(self.handle, three(*grid), three(*block), ctypes.c_uint32(shared), pointers)
        if problem:
            raise ExecutionError(problem.decode())


def load(path: Path, name: str, base: int | None = None) -> Kernel:
    """A kernel of a code object; `base` is where its virtual address 0 lies in memory, if constants are read there.

    Raises:
        DecodeError: it has an instruction that cannot be executed.
        ValueError: there is no such kernel, or it asks for what is not known here, such as scratch memory.
    """
    report = code_object.report(path)
    found = [kernel for kernel in report["amdhsa.kernels"] if kernel[".name"] == name]
    if not found:
        raise ValueError(f"{path} has no kernel {name}")
    target = re.findall(r"gfx[0-9a-f]+", report["amdhsa.target"])[-1]
    lines = _functions(path.read_bytes())[name]
    size = code_object.symbol(path, name)[1]
    lines = [line for line in lines if line.address < lines[0].address + size]  # behind it there is padding
    entry, arguments = _entry(path, found[0], Target(target))
    kernel = Kernel(name, target, lines, entry, arguments)
    if base is not None:
        library().c.amdgpu_kernel_base(kernel.handle, ctypes.c_uint64(base + lines[0].address))
    return kernel


@lru_cache(maxsize=8)
def _functions(code: bytes) -> dict[str, list[Line]]:
    """All functions of a code object: its kernels are asked for one after the other."""
    with tempfile.NamedTemporaryFile(suffix=".co") as file:
        file.write(code)
        file.flush()
        return disassemble(Path(file.name))


def _entry(path: Path, report: dict[str, Any], target: Target) -> tuple[Entry, list[tuple[int, int]]]:
    """What the descriptor (LLVM, "User Guide for AMDGPU Backend", kernel descriptor) and the report say."""
    name = report[".name"]
    descriptor = code_object.constant(path, report[".symbol"], 64)
    # Arguments may be in registers when a kernel starts. Such code begins with what loads them, for firmware that does
    # not know of it, and is executed from there.
    lds, scratch, _, rsrc3, _, rsrc2, properties = struct.unpack("<III32xIIIH6x", descriptor)
    if scratch or rsrc2 & 1:
        raise ValueError(f"{name} uses scratch memory, which is not known here")
    if report[".wavefront_size"] != target.lanes:
        raise ValueError(
            f"{name} has waves of {report['.wavefront_size']}; {target.name} is executed with {target.lanes}"
        )
    entry = Entry(lanes=target.lanes, shared_bytes=lds, kernarg_bytes=report[".kernarg_segment_size"], kernarg_at=-1)
    entry.vector_registers = max(report[".vgpr_count"], 1)
    entry.accumulators_at = 4 * ((rsrc3 & 63) + 1) if target.generation == 9 else entry.vector_registers
    entry.accumulators_at = min(entry.accumulators_at, entry.vector_registers)
    at = 0
    for bit, registers in _USER_REGISTERS:
        if properties >> bit & 1:
            if bit == _KERNARG:
                entry.kernarg_at = at
            at += registers
    at = rsrc2 >> 1 & 31
    entry.group_in_ttmp = int(target.generation >= 12)
    for dim in range(3):
        wanted = rsrc2 >> (7 + dim) & 1 and not entry.group_in_ttmp
        entry.group_at[dim] = at if wanted else -1
        at += bool(wanted)
    kinds = {argument[".value_kind"]: argument for argument in report.get(".args", [])}
    for place, kind in enumerate(_HIDDEN):
        entry.hidden_at[place] = kinds[kind][".offset"] if kind in kinds else -1
    explicit = [a for a in report.get(".args", []) if not a[".value_kind"].startswith("hidden_")]
    return entry, [(a[".offset"], a[".size"]) for a in explicit]


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
