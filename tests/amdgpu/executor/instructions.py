# SPDX-License-Identifier: Apache-2.0
"""Runs the instructions of all handlers on chosen values, many in one program, on each target that has them."""

from __future__ import annotations

import re
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from amdgpu import single
from amdgpu.decode.names import ALIASES
from amdgpu.decode.target import Target
from amdgpu.disassembly import llvm_tool
from amdgpu.library import library

from . import exact, values
from .exact import Float

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1201")
FORMATS = {"f": exact.SINGLE, "h": exact.HALF, "d": exact.DOUBLE, "M": exact.SINGLE}
WIDTH = {"u": 32, "i": 32, "f": 32, "U": 64, "I": 64, "d": 64, "t": 16, "s": 16, "h": 16, "p": 32, "q": 32, "F": 64,
         "m": 1, "M": 32, "N": 32}  # fmt: skip
ACCUMULATES = re.compile(r"[vs]_(?:pk_)?(?:fmac|mac|dot\d+c)_")
READS_OLD = re.compile(r"s_(?:addk|mulk|cmovk?|bitset[01])_")
LITERALS = {"f32": 0x3F9D70A4, "f16": 0x3CEC}  # of fmaak and the like, 1.23
SPECIAL = {"v_swap_b32", "v_swap_b16", "v_bitop3_b32", "v_bitop3_b16"}  # have tests of their own
_ENCODING = re.compile(r"_(e32|e64|sdwa|dpp|dpp8|e64_dpp)$")
ROUNDS = {32: 24, 64: 12}  # as many lanes in all
FIRST_RESULT, LAST_RESULT = 64, 255  # vector registers
MASK_RESULTS = range(24, 100, 2)  # scalar ones


@dataclass(frozen=True)
class Form:
    """An instruction as text, with {d}, {e}: results, {a}, {b}, {c}, {k}: sources."""

    name: str
    text: str
    results: str
    sources: str


def value_of(bits: int, letter: str) -> Any:
    """A lane's value as an expectation gets it: a number, or a Float, or a list of two of pairs."""
    if letter in FORMATS:
        return Float(FORMATS[letter], bits)
    if letter in "isI" and bits >> WIDTH[letter] - 1:
        return bits - (1 << WIDTH[letter])
    if letter == "p":
        return [bits & 0xFFFF, bits >> 16]
    if letter == "q":
        return [Float(exact.HALF, bits & 0xFFFF), Float(exact.HALF, bits >> 16)]
    if letter == "F":
        return [Float(exact.SINGLE, bits & 0xFFFFFFFF), Float(exact.SINGLE, bits >> 32)]
    return bits


def bits_of(value: Any, letter: str) -> int:
    """Back again."""
    if isinstance(value, (list, tuple)):
        half = WIDTH[letter] // 2
        return bits_of(value[0], letter) & (1 << half) - 1 | (bits_of(value[1], letter) & (1 << half) - 1) << half
    return value.bits if isinstance(value, Float) else int(value) & (1 << WIDTH[letter]) - 1


def same(got: int, wanted: int, letter: str) -> bool:
    """Whether results are equal; of NaN, both need only be quiet ones."""
    if letter in "qF":
        half, element = WIDTH[letter] // 2, "h" if letter == "q" else "f"
        mask = (1 << half) - 1
        return same(got & mask, wanted & mask, element) and same(got >> half, wanted >> half, element)
    if letter in FORMATS:
        a, b = Float(FORMATS[letter], got), Float(FORMATS[letter], wanted)
        if a.nan and b.nan:
            return a.signalling == b.signalling
    return got == wanted


def spellings(name: str) -> list[str]:
    """The mnemonics that a handler stands for."""
    plain = name.removesuffix("_clamp").removesuffix("_fnuz")
    return [plain, *(alias for alias, handler in ALIASES.items() if handler == plain)]


def _operand(letter: str, at: int, mask: str) -> str:
    if letter == "m":
        return mask
    register = values.FIRST[letter] + 2 * at
    return f"v[{register}:{register + 1}]" if WIDTH[letter] == 64 else f"v{register}"


def form_of(name: str, mnemonic: str, target: str, halves: tuple[str, str] = ("", "")) -> Form:
    """The text that executes a handler, with registers for its types; `halves`: how 16-bit ones end, results first."""
    handler = library().handlers[name]
    lanes = Target(target).lanes
    operands = ["{d}" + (halves[0] if handler.results in "tsh" else "")] if handler.results != "m" else []
    if handler.results.endswith("m"):
        operands.append("{m}")
    texts = [
        _operand(letter, at, "vcc" if lanes == 64 else "vcc_lo") + (halves[1] if letter in "tsh" else "")
        for at, letter in enumerate(handler.sources)
    ]
    if ACCUMULATES.match(name) or name.startswith("v_div_fmas"):
        texts.pop()
    if at := literal_at(name):
        texts[at] = hex(LITERALS[name[-3:]])
    modifiers = " clamp" if name.endswith("_clamp") else ""
    return Form(name, f"{mnemonic} {', '.join(operands + texts)}{modifiers}", handler.results, handler.sources)


def literal_at(name: str) -> int:
    """Which source is a literal, or 0."""
    return 2 if re.match(r"v_(fmaak|madak)_", name) else 1 if re.match(r"v_(fmamk|madmk)_", name) else 0


@cache
def forms(target: str) -> dict[str, Form]:
    """Of all vector ALU handlers that the target has an instruction for, by name."""
    candidates = []
    for name in library().handlers:
        if not is_alu(name) or not name.startswith("v_") or name in SPECIAL:
            continue
        fnuz = Target(target).fnuz and name.removesuffix("_fnuz") + "_fnuz" in library().handlers
        if name.endswith("_fnuz") != fnuz:
            continue
        for mnemonic in spellings(name):
            variants = (
                (("", ""),) if Target(target).generation == 9 else (("", ""), (".l", ""), ("", ".l"), (".l", ".l"))
            )
            candidates += [form_of(name, mnemonic, target, halves) for halves in variants]
    mask = "s[24:25]" if Target(target).lanes == 64 else "s24"
    canonical = assembled([f.text.format(d=_result(f, 64), m=mask) for f in candidates], target)
    return {form.name: form for form, found in zip(candidates, canonical, strict=True) if found in spellings(form.name)}


def _result(form: Form, register: int) -> str:
    return f"v[{register}:{register + 1}]" if WIDTH[form.results[0]] == 64 else f"v{register}"


def assembled(lines: list[str], target: str) -> list[str | None]:
    """The mnemonic that the assembler makes of each line, without the encoding; None: there is no such instruction."""
    features = ["-mattr=+real-true16"] if Target(target).generation > 9 else []
    command = [llvm_tool("llvm-mc"), "-triple=amdgcn-amd-amdhsa", f"-mcpu={target}", *features, "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    bad = {int(number) for number in re.findall(r"^<stdin>:(\d+):\d+: error", done.stderr, re.MULTILINE)}
    printed = iter(re.findall(r"^\t([vs]_\w+)", done.stdout, re.MULTILINE))
    return [None if number in bad else _ENCODING.sub("", next(printed)) for number in range(1, len(lines) + 1)]


_OTHERS = re.compile(
    r"s_(nop|endpgm|branch|cbranch_|waitcnt|barrier|getpc|load_|buffer_|setprio|sleep)|cache_control|ds_|global_|buffer_|"
    r"flat_|dpp|v_(mfma|smfmac|wmma|swmmac|readlane|readfirstlane|writelane|permlane)"
)


def is_alu(name: str) -> bool:
    """Whether a handler is one of the ALU's tables."""
    return _OTHERS.match(name) is None


@cache
def _batches(target: str) -> tuple[tuple[Form, ...], ...]:
    """Programs of as many instructions as there are registers for results."""
    batches: list[list[Form]] = [[]]
    # fmaak of halves has only the short encoding, whose halves are those of v0 to v127.
    for form in sorted(forms(target).values(), key=lambda f: not literal_at(f.name)):
        masks = sum("m" in f.results for f in batches[-1])
        full = len(batches[-1]) >= (LAST_RESULT + 1 - FIRST_RESULT) // 2
        if full or ("m" in form.results and masks >= len(MASK_RESULTS)):
            batches.append([])
        batches[-1].append(form)
    return tuple(map(tuple, batches))


@dataclass
class Outcome:
    """Of one instruction on one target, in all rounds: bits of sources by position, and of results."""

    form: Form
    sources: list[np.ndarray]  # [rounds, lanes]
    before: np.ndarray  # of the first result, if it is a vector register
    after: np.ndarray
    masks: np.ndarray  # [rounds]
    active: np.ndarray  # [rounds, lanes]


@cache
def outcomes(target: str) -> dict[str, Outcome]:
    """Executes everything that the target has."""
    lanes = Target(target).lanes
    found: dict[str, Outcome] = {}
    for number, batch in enumerate(_batches(target)):
        rng = np.random.default_rng(zlib.crc32(f"{target}{number}".encode()))
        text: list[str] = []
        places: dict[str, int] = {}
        mask_places: dict[str, int] = {}
        for at, form in enumerate(batch):
            places[form.name] = FIRST_RESULT + 2 * at
            mask_places[form.name] = MASK_RESULTS[len(mask_places)] if "m" in form.results else -1
            mask = mask_places[form.name]
            mask_text = f"s[{mask}:{mask + 1}]" if lanes == 64 else f"s{mask}"
            text.append(form.text.format(d=_result(form, places[form.name]), m=mask_text))
            if mask < 0:
                del mask_places[form.name]
        rounds = []
        for turn in range(ROUNDS[lanes]):
            state = single.State(lanes)
            values.fill(state, turn, rng)
            state.v[FIRST_RESULT:LAST_RESULT] = rng.integers(0, 1 << 32, (LAST_RESULT - FIRST_RESULT, lanes))
            state.exec = int.from_bytes(rng.bytes(lanes // 8), "little") | 1 << lanes // 2
            for form in batch:
                if ACCUMULATES.match(form.name):
                    _copy_last_source(state, form, places[form.name])
            before = state.v.copy(), state.s.copy(), state.exec, state.vcc
            single.run("\n".join(text), target, state)
            rounds.append((before, state))
        for form in batch:
            found[form.name] = _outcome(form, rounds, places[form.name], mask_places.get(form.name), lanes)
    return found


def _copy_last_source(state: single.State, form: Form, place: int) -> None:
    letter, at = form.sources[-1], len(form.sources) - 1
    first = values.FIRST[letter] + 2 * at
    for word in range(2 if WIDTH[letter] == 64 else 1):
        state.v[place + word] = state.v[first + word]


def _words(v: np.ndarray, register: int, letter: str) -> np.ndarray:
    low = v[register].astype(np.uint64)
    return low | v[register + 1].astype(np.uint64) << np.uint64(32) if WIDTH[letter] == 64 else low


def _outcome(form: Form, rounds: list[Any], place: int, mask_place: int | None, lanes: int) -> Outcome:
    sources = []
    for at, letter in enumerate(form.sources):
        if letter == "m":
            bits = [[before[3] >> lane & 1 for lane in range(lanes)] for before, _ in rounds]
            sources.append(np.array(bits, np.uint64))
            continue
        words = np.array([_words(before[0], values.FIRST[letter] + 2 * at, letter) for before, _ in rounds])
        sources.append(words & np.uint64((1 << WIDTH[letter]) - 1))
    if at := literal_at(form.name):
        sources[at] = np.full_like(sources[at], LITERALS[form.name[-3:]])
    letter = form.results[0]
    before = np.array([_words(before[0], place, letter) for before, _ in rounds])
    after = np.array([_words(state.v, place, letter) for _, state in rounds])
    masks = [0 if mask_place is None else int(state.s[mask_place]) | int(state.s[mask_place + 1]) << 32
             for _, state in rounds]  # fmt: skip
    if mask_place is not None and lanes == 32:
        masks = [mask & 0xFFFFFFFF for mask in masks]
    active = np.array([[before[2] >> lane & 1 for lane in range(lanes)] for before, _ in rounds], bool)
    return Outcome(form, sources, before, after, np.array(masks, object), active)


def check(name: str, target: str, expected: Callable[..., Any] | ByLane) -> None:
    """Compares all lanes of all rounds with what `expected` makes of the sources' values."""
    outcome = outcomes(target)[name]
    form = outcome.form
    value = form.results[0] != "m"
    upper = kept_upper(name, target) if value and WIDTH[form.results[0]] == 16 else 0
    for turn in range(outcome.active.shape[0]):
        mask = 0
        for lane in range(outcome.active.shape[1]):
            before, after = int(outcome.before[turn, lane]), int(outcome.after[turn, lane])
            if not outcome.active[turn, lane]:
                assert not value or after == before, f"{name} on {target}: inactive lane {lane} was written"
                continue
            bits = [int(words[turn, lane]) for words in outcome.sources]
            sources = [value_of(x, letter) for x, letter in zip(bits, form.sources, strict=True)]
            wanted = expected.of_lane(lane, *sources) if isinstance(expected, ByLane) else expected(*sources)
            if form.results.endswith("m"):
                one = wanted if not value else wanted[1]
                mask |= bool(one) << lane
            if not value:
                continue
            first = wanted[0] if len(form.results) == 2 else wanted
            letter = form.results[0]
            if name.startswith("v_fma_mixhi"):
                assert after & 0xFFFF == before & 0xFFFF, f"{name} on {target}: the lower half"
                after >>= 16
            elif WIDTH[letter] == 16:
                assert after >> 16 == (before >> 16 if upper else 0), f"{name} on {target}: the upper half"
            got = after & (1 << WIDTH[letter]) - 1
            right = first.holds(got) if isinstance(first, Within) else same(got, bits_of(first, letter), letter)
            shown = ", ".join(f"{x:#x}" for x in bits)
            assert right, f"{name} on {target}: of {shown}: {got:#x}, expected {_shown(first, letter)}"
        if form.results.endswith("m"):
            got = outcome.masks[turn]
            assert got == mask, f"{name} on {target}: mask {got:#x}, expected {mask:#x}, differs in {got ^ mask:#x}"


def _shown(value: Any, letter: str) -> str:
    return str(value) if isinstance(value, Within) else f"{bits_of(value, letter):#x}"


@dataclass(frozen=True)
class ByLane:
    """An expectation that depends on the lane."""

    of_lane: Callable[..., Any]


@dataclass(frozen=True)
class Within:
    """Bits that are right, as a function; `text` says which they are."""

    holds: Callable[[int], bool]
    text: str

    def __str__(self) -> str:
        return self.text


def kept_upper(name: str, target: str) -> bool:
    """Whether a 16-bit result leaves the other half of its register alone."""
    if Target(target).generation > 9:
        return True
    plain = name.removesuffix("_clamp").removesuffix("_fnuz")
    return bool(re.match(r"v_(fma|mad|div_fixup)_(f16|[ui]16)$|v_fma_mixlo|v_cvt_pk_[fb][fp]8|v_ashr_pk", plain))
