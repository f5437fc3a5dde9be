# SPDX-License-Identifier: Apache-2.0
"""Waits, barriers, branches, and what has no effect here."""

from __future__ import annotations

import re

from . import operands
from .alu import Unknown
from .memory import LOADS, SCALAR, SHARED, STORES
from .rows import Handler, Row
from .target import Target

# Hints, delays that the hardware needs between instructions, and messages: the order of execution here needs none.
_NOTHING = re.compile(
    r"s_(?:nop|clause|delay_alu|wait_alu|sendmsg|setprio|sleep|inst_prefetch|set_inst_prefetch_distance|code_end|"
    r"waitcnt_depctr|wait_idle|wait_xcnt|wait_event|ttracedata\w*|version|icache_inv|dcache_inv|dcache_wb|"
    r"prefetch_\w+|barrier_leave)$|v_nop(?:_e32|_e64)?$"
)
_CACHES = re.compile(r"(?:buffer_(?:inv|wbl2|wbinvl1(?:_vol)?|invl2|gl[01]_inv)|global_(?:inv|wb|wbinv))$")
_ANY = 255
_GFX12 = {"loadcnt": LOADS, "storecnt": STORES, "dscnt": SHARED, "kmcnt": SCALAR}
_OTHER_COUNTERS = ("expcnt", "samplecnt", "bvhcnt")  # of units that compute kernels do not use
_FIELD = {"vmcnt": LOADS, "lgkmcnt": SHARED, "vscnt": STORES}


def is_control(mnemonic: str) -> bool:
    """Whether an instruction is one of these."""
    return (
        mnemonic.startswith(("s_wait", "s_barrier", "s_branch", "s_cbranch_", "s_endpgm", "s_getpc"))
        or _NOTHING.match(mnemonic) is not None
        or _CACHES.match(mnemonic) is not None
    )


def decode(target: Target, handlers: dict[str, Handler], mnemonic: str, text: str) -> list[Row]:
    """The row of one instruction; the offset of a branch and of s_getpc_b64 is the caller's to fill in.

    Raises:
        Unknown: there is no handler.
    """
    if _NOTHING.match(mnemonic):
        return [Row(handlers["s_nop"])]
    if _CACHES.match(mnemonic):
        counter = {"global_inv": LOADS, "global_wb": STORES, "global_wbinv": STORES}.get(mnemonic, 0)
        return [Row(handlers["cache_control"], counter=counter)]
    if mnemonic.startswith("s_wait"):
        return [Row(handlers["s_waitcnt"], offset=_wait(mnemonic, text))]
    if mnemonic.startswith("s_barrier_") and text not in ("-1", "0xffff"):
        raise Unknown("named barriers are not known here")
    if mnemonic not in handlers:
        raise Unknown("there is no handler for this instruction")
    row = Row(handlers[mnemonic])
    if mnemonic == "s_getpc_b64":
        row.operands = [operands.parse(text, "U")]
    return [row]


def _wait(mnemonic: str, text: str) -> int:
    """A byte for each counter: how many operations may be outstanding."""
    left = dict.fromkeys((LOADS, STORES, SHARED, SCALAR), _ANY)
    if mnemonic == "s_waitcnt":
        fields = re.findall(r"(\w+)\((\d+)\)", text)
        if not fields:
            raise Unknown("a wait without names of counters")
        for name, number in fields:
            if name in _FIELD:
                left[_FIELD[name]] = int(number)
            elif name not in _OTHER_COUNTERS:
                raise Unknown(f"counter {name} is not known here")
    elif mnemonic == "s_waitcnt_vscnt":
        left[STORES] = int(text.split(",")[1], 0)
    else:
        names = mnemonic.removeprefix("s_wait_").split("_")
        number = int(text, 0)
        for at, name in enumerate(reversed(names)):  # two counters: the last one in the low bits
            if name in _GFX12:
                left[_GFX12[name]] = number >> 8 * at & 63 if len(names) > 1 else number
            elif name not in _OTHER_COUNTERS:
                raise Unknown(f"counter {name} is not known here")
    packed = sum(min(left[counter], _ANY) << 8 * (counter - 1) for counter in left)
    return packed - (1 << 32) if packed >> 31 else packed
