# SPDX-License-Identifier: Apache-2.0
"""DPP: the first source of an instruction comes from other lanes. A row of its own puts it into a register."""

from __future__ import annotations

import re

from . import operands
from .rows import CONTINUED, Handler, Row
from .target import Target

# dpp_ctrl by name, as the ISA encodes it; the number after the name is added.
_CONTROL = {
    "row_shl": 0x100,
    "row_shr": 0x110,
    "row_ror": 0x120,
    "wave_shl": 0x130,
    "wave_rol": 0x134,
    "wave_shr": 0x138,
    "wave_ror": 0x13C,
    "row_mirror": 0x140,
    "row_half_mirror": 0x141,
    "row_newbcast": 0x150,
    "row_share": 0x150,
    "row_xmask": 0x160,
}
_BROADCAST = {"15": 0x142, "31": 0x143}
_FIXED = ("wave_shl", "wave_rol", "wave_shr", "wave_ror", "row_mirror", "row_half_mirror")
DPP8 = 1 << 12  # in `offset`, before eight selectors of three bits in `offset1`
BOUND_ZERO, FETCH_INACTIVE = 1 << 8, 1 << 9  # in `offset1`, above row_mask << 4 | bank_mask
GFX9 = 1  # in `mode`


def has_dpp(modifiers: dict[str, str]) -> bool:
    """Whether one of them says where the first source comes from."""
    return any(name in _CONTROL or name in ("quad_perm", "dpp8", "row_bcast") for name in modifiers)


def with_dpp(target: Target, handlers: dict[str, Handler], row: Row, modifiers: dict[str, str]) -> list[Row]:
    """The rows that do `row` on a first source from other lanes; takes what it uses out of `modifiers`."""
    first = len(row.handler.results)
    source = row.operands[first]
    fetched = operands.vector(operands.TEMPORARY, source.count)
    permute = Row(handlers["dpp"], [fetched, operands.vector(source.reg, source.count)])
    permute.mode = GFX9 if target.generation == 9 else 0
    row.operands[first] = fetched.at(source.part).with_flags(source.flags)
    inactive = FETCH_INACTIVE * (modifiers.pop("fi", "0") == "1")
    if "dpp8" in modifiers:
        chosen = [int(n) for n in re.findall(r"\d+", modifiers.pop("dpp8"))]
        permute.offset = DPP8 | inactive
        permute.offset1 = sum(n << 3 * at for at, n in enumerate(chosen))
    else:
        permute.offset = _control(modifiers)
        masks = int(modifiers.pop("row_mask", "0xf"), 0) << 4 | int(modifiers.pop("bank_mask", "0xf"), 0)
        bound = BOUND_ZERO * (modifiers.pop("bound_ctrl", None) is not None)
        permute.offset1 = masks | bound | inactive
    return [permute, row, Row(handlers["dpp_end"], [], CONTINUED)]


def _control(modifiers: dict[str, str]) -> int:
    if "quad_perm" in modifiers:
        chosen = [int(n) for n in re.findall(r"\d+", modifiers.pop("quad_perm"))]
        return sum(n << 2 * at for at, n in enumerate(chosen))
    if "row_bcast" in modifiers:
        return _BROADCAST[modifiers.pop("row_bcast")]
    name = next(name for name in modifiers if name in _CONTROL)
    value = modifiers.pop(name)
    return _CONTROL[name] + (0 if name in _FIXED else int(value))
