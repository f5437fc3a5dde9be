# SPDX-License-Identifier: Apache-2.0
"""Loads and stores: global, buffer, scalar and LDS."""

from __future__ import annotations

import re

from . import operands
from .alu import Unknown
from .memory_names import ALIASES
from .operands import Kind, Operand, Part
from .rows import Handler, Row
from .target import Target

LOADS, STORES, SHARED, SCALAR = 1, 2, 3, 4  # enum Counter of native/instruction.h
_MEMORY = re.compile(r"(?:global|buffer|flat|scratch|ds|s_load|s_buffer_load|tbuffer|image)_")
# How long caches keep what is accessed: nothing here depends on it.
_CACHING = ("sc0", "sc1", "nt", "glc", "slc", "dlc", "th", "scope")


def is_memory(mnemonic: str) -> bool:
    """Whether an instruction is one of these."""
    return _MEMORY.match(mnemonic) is not None


def counter_of(target: Target, mnemonic: str) -> int:
    """The counter that an instruction raises when it is issued."""
    if mnemonic.startswith("ds_"):
        return SHARED
    if mnemonic.startswith("s_"):
        return SCALAR if target.generation >= 12 else SHARED
    stores = "_store" in mnemonic or ("_atomic" in mnemonic and not _returns(mnemonic))
    return STORES if stores and target.generation > 9 else LOADS


def _returns(mnemonic: str) -> bool:
    return mnemonic.endswith("_rtn")


def decode(target: Target, handlers: dict[str, Handler], mnemonic: str, text: str, word: int) -> list[Row]:
    """The row of one instruction, whose first 32 bits are `word`.

    Raises:
        Unknown: there is no handler, or a modifier or operand that is not known.
    """
    words, modifiers = operands.split(text)
    name = ALIASES.get(mnemonic, mnemonic)
    if "_atomic_" in name and any(modifiers.pop(key, None) is not None for key in _return_flags(target, modifiers)):
        name += "_rtn"
    if modifiers.pop("lds", None) is not None:
        name += "_lds"
    if name not in handlers:
        raise Unknown("there is no handler for this instruction")
    row = Row(handlers[name], counter=counter_of(target, name))
    if name == "ds_swizzle_b32":
        row.offset = word & 0xFFFF
        modifiers.pop("offset", None)
    row.offset = int(modifiers.pop("offset", str(row.offset)), 0)
    if "offset0" in modifiers or "offset1" in modifiers:
        row.offset = int(modifiers.pop("offset0", "0"), 0)
        row.offset1 = int(modifiers.pop("offset1", "0"), 0)
    for key in _CACHING:
        modifiers.pop(key, None)
    for flag, bit in (("offen", 1), ("idxen", 2)):
        if flag in modifiers:
            del modifiers[flag]
            row.mode |= bit
    if modifiers:
        raise Unknown(f"modifiers {', '.join(modifiers)} are not known here")
    row.operands = [operands.parse(w, "u") for w in words]
    if name.startswith(("s_load", "s_buffer_load")) and len(row.operands) == 3:
        last = row.operands[2]
        if last.kind is Kind.CONSTANT:
            row.offset += _signed(last.constant)
            row.operands[2] = Operand()
    _choose_halves(row, mnemonic)
    return [row]


def _return_flags(target: Target, modifiers: dict[str, str]) -> list[str]:
    """The modifier by which an atomic operation gives back the old value."""
    if target.generation == 12:
        return [key for key in ("th",) if "RETURN" in modifiers.get("th", "")]
    return ["sc0"] if target.name in ("gfx942", "gfx950") else ["glc"]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _choose_halves(row: Row, mnemonic: str) -> None:
    """Of the register that 16-bit data is in, or goes to."""
    high = mnemonic.endswith(("_d16_hi", "_hi")) or "_d16_hi_" in mnemonic
    if "_store" in mnemonic or "ds_write" in mnemonic:
        if high:
            row.operands[1] = row.operands[1].at(Part.HIGH)
    elif "_d16" in mnemonic:
        row.operands[0] = row.operands[0].at(Part.HIGH if high else Part.LOW)
