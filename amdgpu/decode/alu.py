# SPDX-License-Identifier: Apache-2.0
"""Vector and scalar ALU instructions, matrix and cross-lane ones included: all whose operands have types."""

from __future__ import annotations

import re

from . import lanes, matrix_names, operands
from .names import ALIASES
from .operands import EXEC, Operand, Part
from .rows import CLAMP, OUTPUT_SHIFT, Handler, Row
from .target import Target

_ENCODING = re.compile(r"_(e32|e64|sdwa|dpp|dpp8|e64_dpp|e64_dpp8)$")
_ACCUMULATES = re.compile(r"[vs]_(?:pk_)?(?:fmac|mac|dot\d+c|dot2acc)_")
_READS_OLD = re.compile(r"s_(?:addk|mulk|cmovk?|bitset[01])_|v_(?:writelane|mov_b32_sdwa_keep)_")
# 16-bit results of gfx9 that leave the upper half alone; all others make it zero.
_KEEPS_UPPER = re.compile(
    r"v_(?:(?:fma|mad|div_fixup|interp_\w+)_(?:f16|u16|i16)|cvt_pk_(?:fp8|bf8)_f32(?:_fnuz)?|ashr_pk_[iu]8_i32|"
    r"bitop3_b16)(?:_clamp)?$"
)
_PACKED = re.compile(r"v_(?:pk_|dot|fma_mix|mad_mix|mfma|smfmac|wmma|swmmac)")
_SDWA = {
    "BYTE_0": Part.BYTE0,
    "BYTE_1": Part.BYTE1,
    "BYTE_2": Part.BYTE2,
    "BYTE_3": Part.BYTE3,
    "WORD_0": Part.LOW,
    "WORD_1": Part.HIGH,
    "DWORD": Part.WHOLE,
}
_FP8 = re.compile(r"fp8|bf8")


class Unknown(Exception):
    """An instruction that cannot be executed; the text says why."""


def bits_of(modifiers: dict[str, str], name: str, default: int, count: int) -> list[int]:
    """A list such as ``op_sel:[0,1]``, filled up."""
    text = modifiers.pop(name, None)
    found = [] if text is None else [int(x) for x in text.strip("[]").split(",")]
    return found + [default] * (count - len(found))


def decode(target: Target, handlers: dict[str, Handler], mnemonic: str, text: str) -> list[Row]:
    """The rows of one instruction.

    Raises:
        Unknown: there is no handler, or a modifier or operand that is not known.
    """
    base = _ENCODING.sub("", mnemonic)
    sdwa = mnemonic.endswith("_sdwa")
    words, modifiers = operands.split(text)
    after: list[Row] = []
    if base.startswith("v_cmpx_"):
        # Results go to EXEC; gfx9 writes them to the named mask as well, from where EXEC gets them.
        base = base.replace("v_cmpx_", "v_cmp_")
        whole = "exec" if target.lanes == 64 else "exec_lo"
        if target.generation == 9:
            move = f"s_mov_b{target.lanes}"
            after = [Row(handlers[move], [operands.scalar(EXEC, 2), operands.parse(words[0], "m")])]
        else:
            words.insert(0, whole)
    name = matrix_names.handler_name(target, ALIASES.get(base, base))
    if target.fnuz and _FP8.search(name) and name + "_fnuz" in handlers:
        name += "_fnuz"
    if "clamp" in modifiers and name + "_clamp" in handlers:  # of integers: a handler of its own
        name += "_clamp"
        del modifiers["clamp"]
    if name not in handlers:
        raise Unknown("there is no handler for this instruction")
    handler = handlers[name]
    letters = handler.results + handler.sources
    if "_mix" in name:
        letters = handler.results + _mixed_letters(handler, modifiers)
    elif name.startswith("v_swap_"):
        words += words
    elif name.startswith("v_bitop3_"):
        words.append(modifiers.pop("bitop3", "0"))
    if _ACCUMULATES.match(name) and len(words) < len(letters):
        words.append(words[0])
    elif _READS_OLD.match(name) and len(words) < len(letters):
        words.insert(len(handler.results), words[0])
    if len(words) == len(letters) - 1 and letters[-1] == "m":
        words.append("vcc" if target.lanes == 64 else "vcc_lo")  # v_div_fmas, v_dual_cndmask
    if len(words) != len(letters):
        raise Unknown(f"{len(letters)} operands are expected")
    found = [operands.parse(word, letter) for word, letter in zip(words, letters, strict=True)]
    row = Row(handler, found)
    if sdwa:
        _apply_sdwa(row, modifiers)
    elif "_mix" in name:
        _apply_mixed(row, modifiers)
    elif _PACKED.match(name):
        _apply_packed(row, modifiers)
    else:
        _apply_op_sel(row, name, modifiers)
        if "byte_sel" in modifiers:
            row.operands[1] = row.operands[1].at(Part(Part.BYTE0 + int(modifiers.pop("byte_sel"))))
    _place_half_result(target, row, name, sdwa)
    if "clamp" in modifiers:
        del modifiers["clamp"]
        row.flags |= CLAMP
        if handler.results[0] not in "fdhqFy":
            raise Unknown("clamp is not known of this instruction")
    for (key, value), shift in OUTPUT_SHIFT.items():
        if modifiers.get(key) == value:
            row.flags |= 2 * shift
            del modifiers[key]
    rows = lanes.with_dpp(target, handlers, row, modifiers) if lanes.has_dpp(modifiers) else [row]
    if modifiers:
        raise Unknown(f"modifiers {', '.join(modifiers)} are not known here")
    return rows + after


def _apply_sdwa(row: Row, modifiers: dict[str, str]) -> None:
    results = len(row.handler.results)
    for at in range(results, len(row.operands)):
        selected = _SDWA[modifiers.pop(f"src{at - results}_sel", "DWORD")]
        row.operands[at] = row.operands[at].at(selected)
    part = _SDWA[modifiers.pop("dst_sel", "DWORD")]
    unused = modifiers.pop("dst_unused", "UNUSED_PAD")
    if unused == "UNUSED_SEXT" and part is not Part.WHOLE:
        raise Unknown("dst_unused:UNUSED_SEXT is not known here")
    if row.handler.results != "m":
        flags = 0 if unused == "UNUSED_PRESERVE" else operands.ZERO_REST
        row.operands[0] = row.operands[0].at(part).with_flags(flags)


def _mixed_letters(handler: Handler, modifiers: dict[str, str]) -> str:
    """Types of the sources of mixed precision: op_sel_hi says which of them are halves."""
    chosen = bits_of({"op_sel_hi": modifiers.get("op_sel_hi", "0")}, "op_sel_hi", 0, len(handler.sources))
    return "".join("h" if half else letter for letter, half in zip(handler.sources, chosen, strict=True))


def _apply_mixed(row: Row, modifiers: dict[str, str]) -> None:
    count = len(row.handler.sources)
    high, half = bits_of(modifiers, "op_sel", 0, count + 1), bits_of(modifiers, "op_sel_hi", 0, count)
    for at in range(count):
        if half[at]:
            row.operands[1 + at] = row.operands[1 + at].at(Part.HIGH if high[at] else Part.LOW)


def _apply_packed(row: Row, modifiers: dict[str, str]) -> None:
    first, count = len(row.handler.results), len(row.handler.sources)
    low = bits_of(modifiers, "op_sel", 0, count)
    # Where nothing is said the high element goes to the high result.
    high = bits_of(modifiers, "op_sel_hi", 1, count)
    negate_low, negate_high = bits_of(modifiers, "neg_lo", 0, count), bits_of(modifiers, "neg_hi", 0, count)
    for at in range(count):
        flags = operands.LOW_FROM_HIGH * low[at] | operands.HIGH_FROM_HIGH * high[at]
        flags |= operands.NEGATE * negate_low[at] | operands.NEGATE_HIGH * negate_high[at]
        row.operands[first + at] = row.operands[first + at].with_flags(flags)


def _apply_op_sel(row: Row, name: str, modifiers: dict[str, str]) -> None:
    """The halves that 16-bit operands of the long encodings of gfx9 are."""
    if "op_sel" not in modifiers:
        return
    first, count = len(row.handler.results), len(row.handler.sources)
    selected = bits_of(modifiers, "op_sel", 0, count + 1)
    if name.startswith("v_permlane"):
        row.mode = selected[0] | selected[1] << 1
        return
    for at in range(count):
        if selected[at]:
            row.operands[first + at] = row.operands[first + at].at(Part.HIGH)
    if selected[count]:
        row.operands[0] = row.operands[0].at(Part.HIGH)


def _place_half_result(target: Target, row: Row, name: str, sdwa: bool) -> None:
    if sdwa or row.handler.results[:1] not in ("h", "t", "s") or not row.operands:
        return
    to = row.operands[0]
    if "_mixhi" in name:
        to = to.at(Part.HIGH)
    elif to.part is Part.WHOLE and (target.generation > 9 or "_mixlo" in name or _KEEPS_UPPER.match(name)):
        to = to.at(Part.LOW)
    row.operands[0] = to


def dual(target: Target, handlers: dict[str, Handler], mnemonic: str, text: str) -> list[Row]:
    """Two instructions that are issued as one: both read before either writes."""
    first, _, second = f"{mnemonic} {text}".partition(" :: ")
    rows = []
    for part in (first, second):
        name, _, rest = part.strip().partition(" ")
        rows += decode(target, handlers, name.replace("v_dual_", "v_"), rest)
    x, y = rows
    if not any(x.operands[0].overlaps(source) for source in y.operands[1:]):
        return [x, y]
    if not any(y.operands[0].overlaps(source) for source in x.operands[1:]):
        return [y, x]
    kept = operands.vector(operands.TEMPORARY + 1)
    result: Operand = x.operands[0]
    x.operands[0] = kept
    return [x, y, Row(handlers["v_mov_b32"], [result, kept])]
