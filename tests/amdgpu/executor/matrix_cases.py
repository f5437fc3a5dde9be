# SPDX-License-Identifier: Apache-2.0
"""Matrix instructions: shapes, the places of elements, and numbers as the elements' bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

_SMALL = {
    "fp8": torch.float8_e4m3fn,
    "bf8": torch.float8_e5m2,
    "fp8_fnuz": torch.float8_e4m3fnuz,
    "bf8_fnuz": torch.float8_e5m2fnuz,
}


def encode(kind: str, values: np.ndarray) -> np.ndarray:
    """Numbers as the bits of such an element."""
    if kind in ("i8", "u8"):
        return values.astype(np.int64) & 0xFF
    if kind in _SMALL:
        return torch.from_numpy(values.astype(np.float32)).to(_SMALL[kind]).view(torch.uint8).numpy().astype(np.int64)
    if kind == "f16":
        return values.astype(np.float16).view(np.uint16).astype(np.int64)
    bits = values.astype(np.float32).view(np.uint32).astype(np.int64)
    return bits if kind == "f32" else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def decode(kind: str, bits: np.ndarray) -> np.ndarray:
    """The numbers that such bits are."""
    if kind in _SMALL:
        return torch.from_numpy(bits.astype(np.uint8)).view(_SMALL[kind]).to(torch.float32).numpy()
    if kind == "f16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << (16 if kind == "bf16" else 0)).view(np.float32)


def width(kind: str) -> int:
    """Bits of an element."""
    return {"f32": 32, "i32": 32, "f16": 16, "bf16": 16}.get(kind, 8)


@dataclass(frozen=True)
class Case:
    """`blocks` products of m x k by k x m; `kinds` of A, B and D; `generation` is whose layout it has."""

    handler: str
    target: str
    mnemonic: str
    m: int
    k: int
    kinds: tuple[str, str, str]
    blocks: int = 1
    generation: int = 9

    @property
    def lanes(self) -> int:
        """Of a wave."""
        return 64 if self.generation == 9 else 32

    @property
    def groups(self) -> int:
        """Groups of m lanes with elements of A and B of their own."""
        return 1 if self.generation == 11 else self.lanes // self.m

    @property
    def elements(self) -> int:
        """Of A or B in a lane."""
        return self.k * self.blocks // self.groups

    @property
    def results(self) -> int:
        """Elements of D in a lane."""
        return self.m * self.m * self.blocks // self.lanes

    def place(self, lane: int, element: int) -> tuple[int, int, int]:
        """Block, row of A (or column of B) and k of a lane's element."""
        at = self.elements * (lane // self.m % self.groups) + element
        return at // self.k, lane % self.m, at % self.k

    def place_of_result(self, lane: int, r: int) -> tuple[int, int, int]:
        """Block, row and column of a lane's element of D."""
        group, column = lane // self.m, lane % self.m
        if self.generation > 9:
            return 0, 2 * r + group if self.generation == 11 else 8 * group + r, column
        if self.m == 4:
            return group, r, column
        each = self.m * self.m // 64
        return r // each, r % each // 4 * 8 * (self.m == 32) + 4 * group + r % 4, column

    def operand(self, which: int, values: np.ndarray) -> np.ndarray:
        """Registers [n, lanes] of A [blocks, m, k] (0) or B [blocks, k, m] (1)."""
        kind = self.kinds[which]
        bits = encode(kind, values)
        if which == 1:
            bits = bits.transpose(0, 2, 1)
        each = 32 // width(kind)
        registers = np.zeros((self.elements // each, self.lanes), np.int64)
        for lane in range(self.lanes):
            for e in range(self.elements):
                registers[e // each, lane] |= int(bits[self.place(lane, e)]) << width(kind) * (e % each)
        return registers.astype(np.uint32)

    def accumulator(self, values: np.ndarray, before: np.ndarray, high: bool = False) -> np.ndarray:
        """Registers of C or D [blocks, m, m]; gfx11 keeps the half of `before` that 16-bit elements leave."""
        kind = self.kinds[2]
        bits = values.astype(np.int64) & 0xFFFFFFFF if kind == "i32" else encode(kind, values)
        packed = 2 if width(kind) == 16 and self.generation == 12 else 1
        registers = before[: self.results // packed].astype(np.int64)
        for lane in range(self.lanes):
            for r in range(self.results):
                shift = 16 * (r % 2 if packed == 2 else high)
                mask = (1 << width(kind)) - 1
                old = int(registers[r // packed, lane]) & ~(mask << shift)
                registers[r // packed, lane] = old | int(bits[self.place_of_result(lane, r)]) << shift
        return registers.astype(np.uint32)

    def numbers(self, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A, B and C of small integers, so that every sum is exact whatever the order; bytes and 32 bits in full."""
        limits = {
            "i8": (-128, 128),
            "u8": (0, 256),
            "f16": (-8, 9),
            "bf16": (-8, 9),
            "f32": (-8, 9),
            "i32": (-(2**31), 2**31),
        }

        def some(kind: str, *shape: int) -> np.ndarray:
            return random.integers(*limits.get(kind, (-4, 5)), shape)

        a, b = some(self.kinds[0], self.blocks, self.m, self.k), some(self.kinds[1], self.blocks, self.k, self.m)
        c = some(self.kinds[2], self.blocks, self.m, self.m)
        if self.kinds[2] == "bf16":  # whose integers are exact up to 256
            a, b = np.sign(a), np.sign(b)
        return a, b, c


_SHAPES = {  # m, blocks and the k of 16-bit floats, of gfx90a on and of gfx950
    (16, 1): (16, 32),
    (32, 1): (8, 16),
    (16, 4): (4,),
    (32, 2): (4,),
    (4, 16): (4,),
}


def _blocks(blocks: int) -> str:
    return f"_{blocks}b" if blocks > 1 else ""


def _mfma() -> Iterator[Case]:
    for (m, blocks), depths in _SHAPES.items():
        shape, mark = f"{m}x{m}x", _blocks(blocks)
        for kind in ("f16", "bf16"):
            for at, k in enumerate(depths):
                name = f"v_mfma_f32_{shape}{k}{mark}_{kind}"
                yield Case(name, "gfx950" if at else "gfx942", name, m, k, (kind, kind, "f32"), blocks)
            name = f"v_mfma_f32_{shape}{depths[0]}{kind}{'_1k' * (kind == 'bf16')}"
            yield Case(name, "gfx90a", name, m, depths[0], (kind, kind, "f32"), blocks)
        k = depths[0] // 4
        name = f"v_mfma_f32_{shape}{k}{mark}_f32"
        yield Case(name, "gfx942", name, m, k, ("f32", "f32", "f32"), blocks)
        yield Case(name, "gfx90a", f"v_mfma_f32_{shape}{k}f32", m, k, ("f32", "f32", "f32"), blocks)
        bytes3 = ("i8", "i8", "i32")
        name = f"v_mfma_i32_{shape}{depths[0]}{mark}_i8"
        yield Case(name, "gfx90a", f"v_mfma_i32_{shape}{depths[0]}i8", m, depths[0], bytes3, blocks)
        if blocks > 1:
            yield Case(name, "gfx942", name, m, depths[0], bytes3, blocks)
            continue
        name = f"v_mfma_i32_{shape}{2 * depths[0]}_i8"
        yield Case(name, "gfx942", name, m, 2 * depths[0], bytes3)
        name = f"v_mfma_i32_{shape}{4 * depths[0]}_i8"
        yield Case(name, "gfx950", name, m, 4 * depths[0], bytes3)
        name = f"v_mfma_f32_{shape}{depths[0] // 2}bf16"
        yield Case(name, "gfx90a", name, m, depths[0] // 2, ("bf16", "bf16", "f32"))
        for a in ("fp8", "bf8"):
            for b in ("fp8", "bf8"):
                name, k = f"v_mfma_f32_{shape}{2 * depths[0]}_{a}_{b}", 2 * depths[0]
                yield Case(name, "gfx950", name, m, k, (a, b, "f32"))
                yield Case(name + "_fnuz", "gfx942", name, m, k, (a + "_fnuz", b + "_fnuz", "f32"))


def _wmma() -> Iterator[Case]:
    for generation, target, mark in ((11, "gfx1100", ""), (12, "gfx1201", "_gfx12")):
        for kind in ("f16", "bf16"):
            for result in ("f32", kind):
                name = f"v_wmma_{result}_16x16x16_{kind}"
                yield Case(name + mark, target, name, 16, 16, (kind, kind, result), generation=generation)
        name = "v_wmma_i32_16x16x16_iu8"
        for kinds in (("i8", "i8"), ("i8", "u8"), ("u8", "i8"), ("u8", "u8")):
            yield Case(name + mark, target, name, 16, 16, (*kinds, "i32"), generation=generation)
    for a in ("fp8", "bf8"):
        for b in ("fp8", "bf8"):
            name = f"v_wmma_f32_16x16x16_{a}_{b}"
            yield Case(name + "_gfx12", "gfx1201", name, 16, 16, (a, b, "f32"), generation=12)


CASES = [*_mfma(), *_wmma()]


def case(handler: str) -> Case:
    """The first case of a handler."""
    return next(found for found in CASES if found.handler == handler)


# Sums in the orders of amdgpu.gpu.arithmetic, of products [k, ...] and c, each rounded to a float.
def _in_order(products: np.ndarray, c: np.ndarray) -> np.ndarray:
    for product in products:
        c = (c.astype(np.float64) + product).astype(np.float32)
    return c


def _pairwise(products: np.ndarray, c: np.ndarray) -> np.ndarray:
    sums = products.astype(np.float32)
    while len(sums) > 1:
        sums = sums[0::2] + sums[1::2]
    return sums[0] + c


ORDERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ascending": _in_order,
    "descending": lambda products, c: _in_order(products[::-1], c),
    "pairwise": _pairwise,
}
