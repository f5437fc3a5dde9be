# SPDX-License-Identifier: Apache-2.0
"""Single instructions on chosen registers, for tests of handlers."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from .decode.target import Target
from .disassembly import Line, disassemble, llvm_tool
from .kernel import ExecutionError, Kernel
from .library import Entry, library

REGISTERS, SCALARS = 520, 128


class State:
    """The registers of a wave of `lanes` lanes.

    Attributes:
        v: vector registers [520, lanes], uint32; a0 is 256; those from 512 on are the decoder's.
        s: scalar registers [128], uint32, by the hardware's numbers: VCC 106, M0 124, EXEC 126.
        scc: the condition code.
        lds: bytes of LDS.
    """

    def __init__(self, lanes: int, lds: int = 0) -> None:
        self.v = np.zeros((REGISTERS, lanes), np.uint32)
        self.s = np.zeros(SCALARS, np.uint32)
        self.exec = (1 << lanes) - 1
        self.scc = False
        self.lds = np.zeros(lds, np.uint8)

    @property
    def exec(self) -> int:
        """The active lanes, a bit each."""
        return int(self.s[126]) | int(self.s[127]) << 32

    @exec.setter
    def exec(self, mask: int) -> None:
        self.s[126], self.s[127] = mask & 0xFFFFFFFF, mask >> 32

    @property
    def vcc(self) -> int:
        """The mask in VCC."""
        return int(self.s[106]) | int(self.s[107]) << 32

    @vcc.setter
    def vcc(self, mask: int) -> None:
        self.s[106], self.s[107] = mask & 0xFFFFFFFF, mask >> 32


@cache
def assemble(text: str, target: str) -> tuple[Line, ...]:
    """Assembly as the disassembler reads it back, s_endpgm at its end; raises ValueError with what llvm-mc says."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "code.o")
        features = ["-mattr=+real-true16"] if target.startswith(("gfx11", "gfx12")) else []
        command = [llvm_tool("llvm-mc"), "-triple=amdgcn-amd-amdhsa", f"-mcpu={target}", *features, "-filetype=obj"]
        source = f".globl code\n.type code,@function\ncode:\n{text}\ns_endpgm\n"
        done = subprocess.run([*command, "-o", str(file)], input=source, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(done.stderr)
        return tuple(disassemble(file)["code"])


@cache
def _kernel(text: str, target: str) -> Kernel:
    lanes = Target(target).lanes
    return Kernel("code", target, assemble(text, target), Entry(lanes=lanes))


def run(text: str, target: str, state: State) -> None:
    """Executes instructions, a line each, on `state`.

    Raises:
        DecodeError: one of them is not known.
        ExecutionError: an access was wrong, or a check failed.
    """
    kernel = _kernel(text, target)
    if state.v.shape[1] != kernel.entry.lanes:
        raise ValueError(f"{target} has waves of {kernel.entry.lanes} lanes, the state has {state.v.shape[1]}")
    scc = ctypes.c_int32(state.scc)
    problem = library().c.amdgpu_run_alone(
        kernel.handle,
        ctypes.c_void_p(state.v.ctypes.data),
        ctypes.c_void_p(state.s.ctypes.data),
        ctypes.byref(scc),
        ctypes.c_void_p(state.lds.ctypes.data),
        ctypes.c_uint32(len(state.lds)),
    )
    state.scc = bool(scc.value)
    if problem:
        raise ExecutionError(problem.decode())
