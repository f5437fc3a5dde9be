# SPDX-License-Identifier: Apache-2.0
"""A kernel's disassembly as rows. Equal instructions are decoded once for all kernels of a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from amdgpu.disassembly import Line

from . import alu, control, memory
from .alu import Unknown
from .rows import CONTINUED, ROW, Constants, Handler, encode
from .target import Target


class DecodeError(Exception):
    """A kernel has an instruction that cannot be executed; the text names the kernel, the line and the mnemonic."""


@dataclass
class Decoded:
    """A kernel's rows (dtype ROW) and the constants that they name."""

    rows: np.ndarray
    constants: np.ndarray


class Decoder:
    """Of one target; `handlers` are the library's, by name."""

    def __init__(self, target: Target, handlers: Mapping[str, Handler]) -> None:
        self.target = target
        self._handlers = dict(handlers)
        self._constants = Constants()
        self._known: dict[str | tuple[str, int], bytes] = {}

    def decode(self, kernel: str, lines: Sequence[Line]) -> Decoded:
        """The rows of `lines`, which are all of a kernel.

        Raises:
            DecodeError: there is no handler for an instruction, or it has a form that is not known.
        """
        start = lines[0].address
        pieces: list[bytes] = []
        for line in lines:
            key = (line.text, line.word) if line.mnemonic == "ds_swizzle_b32" else line.text
            piece = self._known.get(key)
            if piece is None:
                piece = self._known[key] = self._one(kernel, line, line.address - start)
            pieces.append(piece)
        rows = np.frombuffer(bytearray(b"".join(pieces)), ROW)
        counts = np.array([len(piece) for piece in pieces]) // ROW.itemsize
        firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        rows["line"] = np.repeat(np.arange(len(lines)), counts)
        place = {line.address: first for line, first in zip(lines, firsts, strict=True)}
        for line, first in zip(lines, firsts, strict=True):
            if line.target is not None or line.mnemonic.startswith(("s_branch", "s_cbranch_")):
                if line.target not in place:
                    raise DecodeError(f"{kernel}+{line.address - start:#x}: {line.text}: goes out of the kernel")
                rows["offset"][first] = place[line.target]
            elif line.mnemonic == "s_getpc_b64":
                rows["offset"][first] = line.address + line.size - start
        return Decoded(rows, np.array(self._constants.values, np.uint64))

    def _one(self, kernel: str, line: Line, offset: int) -> bytes:
        try:
            mnemonic, text = line.mnemonic, line.operands
            if control.is_control(mnemonic):
                rows = control.decode(self.target, self._handlers, mnemonic, text)
            elif memory.is_memory(mnemonic):
                rows = memory.decode(self.target, self._handlers, mnemonic, text, line.word)
            elif " :: " in text:
                rows = alu.dual(self.target, self._handlers, mnemonic, text)
            else:
                rows = alu.decode(self.target, self._handlers, mnemonic, text)
            for row in rows[1:]:
                row.flags |= CONTINUED
            return b"".join(encode(row, self._constants) for row in rows)
        except (Unknown, ValueError, KeyError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else error
            raise DecodeError(
                f"{kernel}+{offset:#x}: {line.mnemonic} cannot be executed on {self.target.name}: {why}: {line.text}"
            ) from error
