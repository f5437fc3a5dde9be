# SPDX-License-Identifier: Apache-2.0
"""What a score function, a mask and narrow heads cost the hot loops of AMD attention, beside the plain kernels.

    python -m benchmarks.amd.scores

writes what docs/amd_static.md has between the markers `scores`, and says which kernels miss their bound; they must be
built for every target. No GPU is needed, but llvm-objdump, 19 or newer.
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from amdgpu.disassembly import disassemble

from . import built
from .built import KERNELS_DIR, ROOT, TARGETS, put, table
from .machine_code import figures, hot_loop

DOCUMENT = ROOT / "docs" / "amd_static.md"
BOUND, CAPPED_BOUND = 1.15, 1.5  # of the plain kernel's clocks
# Kernels that do not keep it yet, by target: the ratio that they must not exceed. On gfx950 a score's products take so
# few clocks that what else is done for it is the busiest; there 64 dims are the worst.
ABOVE = {
    "gfx942": {"decode1_bf16_d64_narrow_biased": 1.39, "decode2_bf16_d64_narrow_biased": 1.21},
    "gfx950": {
        "decode1_bf16_d256_narrow": 1.24,
        "decode1_bf16_d256_narrow_listed": 1.24,
        "prefill_bf16_d64_narrow_biased": 1.27,
        "decode1_bf16_d64_narrow_biased": 1.5,
        "decode2_bf16_d64_narrow_biased": 1.65,
        "decode4_bf16_d64_narrow_biased": 1.55,
        "decode1_bf16_d128_narrow_biased": 1.46,
        "decode2_bf16_d128_narrow_biased": 1.23,
        "decode1_bf16_d128_narrow_rooted": 1.67,
        "decode2_bf16_d128_narrow_rooted": 1.51,
        "decode4_bf16_d128_narrow_rooted": 1.22,
        "prefill_bf16_d64_narrow_split": 1.25,
        "prefill_bf16_d80_narrow_split": 1.19,
        "prefill_bf16_d96_narrow_split": 1.17,
    },
}
_KERNEL = re.compile(r"attention_(prefill|decode\d)_bf16_d(\d+)(?:v(\d+))?((?:_[a-z]+)*)")

TEXT = """# Scores, masks and narrow heads, counted

bfloat16. Clocks of the hot loop's busiest unit as above, per score, that is a row and a key (decode 1, 2 and 4: kernels
for more and more rows), of kernels with a soft cap (capped), a bias (biased: ALiBi; rooted: its square root), masks
that the plan lists (listed) and heads of fewer dims than the kernel's (narrow), over those of the plain kernel of the
same dims; "split": of keys and values in two tensors. What has a score function takes narrow heads too. "vector": the
same with the vector ALUs and their transcendentals as one unit, for on CDNA they take turns, where that is above the
bound. Nothing here was measured on AMD hardware. Made by

    python -m benchmarks.amd.scores

Bound: with a soft cap, which takes an exponential and a reciprocal for each score, 1.5 times the plain kernel's clocks,
with all else 1.15 times; kernels above it are in ABOVE of the program, and must not grow. Cells: clocks, the unit, and
their ratio to the plain kernel's."""


class Kind(NamedTuple):
    """A kernel that does more than the plain one that it is held against."""

    phase: str  # "prefill", "decode1"
    dims: int  # of a score: those of a key and of a value
    what: str  # such as "narrow capped", as kernels' names have it
    kernel: str
    plain: str

    @property
    def bound(self) -> float:
        """Of the clocks' ratio."""
        return CAPPED_BOUND if "capped" in self.what else BOUND

    def held_to(self, target: str) -> float:
        """The bound, or what the kernel reached without keeping it."""
        return ABOVE.get(target, {}).get(self.kernel.removeprefix("attention_"), self.bound)


def kinds() -> Iterator[Kind]:
    """All that are compiled for AMD targets, in the instantiation table's order."""
    known = built.units()
    for kernel in known:
        found = _KERNEL.fullmatch(kernel)
        if found is None:
            continue
        phase, keys, values, what = found.groups()
        if what in ("", "_split", "_latent"):
            continue
        base = f"attention_{phase}_bf16_d{keys}"
        plain = f"{base}_split" if "split" in what and f"{base}_split" in known else base
        yield Kind(phase, int(keys) + int(values or keys), what[1:].replace("_", " "), kernel, plain)


class Clocks(NamedTuple):
    """Of a hot loop, for each score."""

    busiest: float
    unit: str
    vector: float  # of the ALUs and their transcendentals

    @property
    def with_turns(self) -> float:
        """Of the busiest unit, if transcendentals are the vector ALUs'."""
        return max(self.busiest, self.vector)


_functions = functools.cache(disassemble)


def clocks(folder: Path, target: str, kernel: str, dims: int) -> Clocks:
    """What the hot loop of a kernel takes for each score, which is `dims` multiply-adds; no wave repeats another's."""
    path = built.code_object(folder, target, kernel)
    f = figures(hot_loop(_functions(path)[kernel]), target)
    per = f.multiply_adds / dims
    unit, most = f.busiest
    return Clocks(most / per, unit, (f.clocks["valu"] + f.clocks["transcendental"]) / per)


def beside_plain(folder: Path, target: str, kind: Kind) -> tuple[Clocks, float, float]:
    """A kernel's clocks, their ratio to the plain kernel's, and the same if transcendentals are the vector ALUs'."""
    own, plain = (clocks(folder, target, kernel, kind.dims) for kernel in (kind.kernel, kind.plain))
    return own, own.busiest / plain.busiest, own.with_turns / plain.with_turns


def missed(folder: Path, target: str) -> list[str]:
    """The kernels of a target that exceed what they are held to, in words."""
    found = []
    for kind in kinds():
        own, ratio, _ = beside_plain(folder, target, kind)
        most = kind.held_to(target)
        if ratio > most + 1e-9:
            found.append(
                f"{target} {kind.kernel}: {own.busiest:.3g} clocks, {ratio:.3f} of the plain's; at most {most}"
            )
    return found


def cell(folder: Path, target: str, kind: Kind) -> str:
    """What the table says of a kernel."""
    own, ratio, with_turns = beside_plain(folder, target, kind)
    turns = f", vector {own.vector:.3g}: {with_turns:.2f}" if with_turns > max(ratio, kind.bound) + 1e-9 else ""
    return f"{own.busiest:.3g} {own.unit}: {ratio:.2f}{turns}"


def write(folder: Path) -> list[str]:
    """The section of docs/amd_static.md; what misses its bound."""
    rows = [
        (kind.phase, kind.dims // 2, kind.what, *(cell(folder, target, kind) for target in TARGETS))
        for kind in sorted(kinds(), key=lambda kind: kind.phase != "prefill")
    ]
    put(DOCUMENT, "scores", [TEXT, "", *table(("kernel", "dims", "", *TARGETS), rows)])
    return [line for target in TARGETS for line in missed(folder, target)]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, default=KERNELS_DIR, help="folder of the built targets")
    found = write(parser.parse_args().kernels)
    print("\n".join((str(DOCUMENT.relative_to(ROOT)), *(found or ["all bounds hold"]))))


if __name__ == "__main__":
    main()
