# SPDX-License-Identifier: Apache-2.0
"""Code objects as text, by llvm-objdump."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_LINE = re.compile(r"\s+(\S+)\s*(.*?)\s*// ([0-9A-F]{8,}): ((?:[0-9A-F]{8} ?)+)(?:<(\S+?)(?:\+0x([0-9a-f]+))?>)?")
_NAME = re.compile(r"([0-9a-f]{8,}) <(.+)>:$")


@cache
def llvm_tool(name: str) -> str:
    """Path of an LLVM program from ROCm or the system, 19 or newer; raises FileNotFoundError."""
    homes = [os.environ.get("ROCM_PATH", ""), "/opt/rocm"]
    candidates = [f"{home}/llvm/bin/{name}" for home in homes] + [f"{name}-{n}" for n in range(26, 18, -1)] + [name]
    for candidate in candidates:
        if path := shutil.which(candidate):
            return path
    raise FileNotFoundError(f"{name} was not found: install LLVM 19 or newer, or set ROCM_PATH")


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction. `address` and `target`, to which a branch goes, are virtual addresses; `size` is bytes.

    `word` is the first 32 bits of its encoding.
    """

    address: int
    size: int
    word: int
    mnemonic: str
    operands: str
    target: int | None

    @property
    def text(self) -> str:
        """As the disassembler writes it."""
        return f"{self.mnemonic} {self.operands}".rstrip()


def disassemble(path: Path) -> dict[str, list[Line]]:
    """The functions of a code object, by name."""
    # Without the feature gfx11's and gfx12's half registers are shown as whole ones, or as data; gfx9 has none.
    command = [llvm_tool("llvm-objdump"), "-d", "--mattr=+real-true16"]
    text = subprocess.run([*command, str(path)], check=True, capture_output=True, text=True).stdout
    return parse(text)


def parse(text: str) -> dict[str, list[Line]]:
    """The functions in llvm-objdump's output."""
    functions: dict[str, list[Line]] = {}
    starts: dict[str, int] = {}
    here: list[Line] = []
    for line in text.splitlines():
        if found := _LINE.match(line):
            mnemonic, operands, address, words, symbol, offset = found.groups()
            target = starts[symbol] + int(offset or "0", 16) if symbol in starts else None
            encoding = words.split()
            here.append(Line(int(address, 16), 4 * len(encoding), int(encoding[0], 16), mnemonic, operands, target))
        elif found := _NAME.match(line):
            here = functions.setdefault(found[2], [])
            starts[found[2]] = int(found[1], 16)
    return functions
