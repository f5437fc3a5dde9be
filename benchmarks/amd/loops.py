# SPDX-License-Identifier: Apache-2.0
"""The hot loops of AMD prefill and decode, counted, beside vLLM's Triton kernel; they must be built for every target.

    python -m benchmarks.amd.triton_peer build/triton
    python -m benchmarks.amd.loops --triton build/triton

writes what docs/amd_static.md has between the markers `loops`. No GPU is needed, but llvm-objdump, 19 or newer, and
llvm-mca for its cycles.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from amdgpu.disassembly import disassemble
from rocmforge_build import code_object

from . import built
from .built import KERNELS_DIR, ROOT, put, table
from .machine_code import Figures, figures, hot_loop, mca_cycles

COMPARED = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1201")  # gfx1151 and gfx1200 have the units of their siblings
OURS = ("attention_prefill_bf16_d128", "attention_decode1_bf16_d128")
# Clocks of the busiest unit that the code is held to, and Triton's when the bounds were set: per score element of
# prefill, and per KV token and KV head of decode (a third of Triton's).
BOUNDS = {"gfx942": (2.0, 106 / 3), "gfx950": (1.2, 112 / 3), "gfx1100": (3.0, 80 / 3), "gfx1201": (1.8, 57 / 3)}

LOOPS_TEXT = """# The hot loops of AMD attention, counted

bfloat16, head size 128, 32 query and 8 KV heads, pages of 16 tokens. Nothing here was measured on AMD hardware: the
instructions of each kernel's innermost loop with the most matrix instructions (or dot products: gfx11's decode of up to
four rows has no matrix instruction) are counted, one iteration of one wave, all of it, rarely taken branches included,
and weighed by the peak rates of the units. Made by

    python -m benchmarks.amd.triton_peer build/triton
    python -m benchmarks.amd.loops --triton build/triton

Peer: `kernel_unified_attention` of vLLM 0.32 as vLLM launches it on ROCm (16 rows; tiles of 32 keys in prefill, 16 in
decode; 4 waves, each of which computes all of QK^T), compiled by Triton 3.9.0. "small KV": a KV cache below 2 GiB, for
which Triton uses buffer loads with 32-bit offsets; "large KV": any. rocmforge's code takes any.

* instructions: of one iteration; "bytes a load": what a lane gets from a global load on average.
* clocks: for which a SIMD's unit is busy, per score element (prefill: one query row and one key) or per KV token of one
  KV head (decode: 4 query heads, one token each; all waves of the workgroup). A wave64 vector instruction takes 4
  clocks on CDNA, a wave32 one takes 1 on RDNA, transcendental ones 4 times that; matrix instructions by multiply-adds
  (128 a clock on gfx90a and gfx11, 256 on gfx942 and gfx12, 512 on gfx950); LDS 128 bytes a clock, shared by a CU's
  SIMDs.
* llvm-mca: its cycles, in clocks, of a wave alone, where its model is of use (on RDNA it issues WMMA at 2.5 cycles).
* bound: what the code is held to; for decode a third of Triton's with a small KV cache."""


def loop_of(path: Path, kernel: str | None, target: str, mca: bool = True) -> tuple[Figures, float | None]:
    """Figures and llvm-mca's clocks, if asked for, of the hot loop of one kernel (None: the only one)."""
    functions = disassemble(path)
    loop = hot_loop(functions[kernel] if kernel else next(iter(functions.values())))
    return figures(loop, target), mca_cycles(loop, target) if mca else None


def per_wave(path: Path, f: Figures, phase: int) -> float:
    """What one iteration of one wave does: score elements of prefill (0), or KV tokens of decode (1).

    QK^T and PV take 128 multiply-adds each for a score, and no wave repeats another's. A KV token has as many scores as
    the workgroup has rows, and all its waves' clocks.
    """
    rows = code_object.launch_config(path, OURS[phase]).rows
    return f.multiply_adds / 256 / (rows if phase == 1 else 1)


def clocks(path: Path, target: str, phase: int) -> float:
    """Clocks of the busiest unit per score element (phase 0, prefill) or KV token (1, decode) of our code object."""
    f, _ = loop_of(path, OURS[phase], target, mca=False)
    return f.busiest[1] / per_wave(path, f, phase)


def loop_row(target: str, who: str, f: Figures, mca: float | None, per: float, what: str) -> tuple[object, ...]:
    """`per`: score elements, or KV tokens, that one iteration of one wave stands for."""
    unit, clocks = f.busiest
    matrix = " + ".join(f"{n} {re.sub('^v_[a-z]+_f32_', '', name)}" for name, n in f.names.items())
    c = f.counts
    by_unit = " : ".join(f"{f.clocks[u] / per:.3g}" for u in ("matrix", "valu", "transcendental", "lds"))
    return (
        target,
        who,
        matrix,
        c["valu"],
        c["transcendental"],
        c["lds"],
        c["global"],
        f"{f.load_bytes:.3g}",
        c["all"],
        by_unit,
        f"**{clocks / per:.3g}** ({unit})",
        f"{mca / per:.3g}" if mca else "",
        what,
    )


def write_loops(folder: Path, triton: Path) -> None:
    """docs/amd_static.md, and on the terminal whether the bounds hold."""
    head = (
        "target",
        "kernel",
        "matrix",
        "VALU",
        "trans.",
        "LDS",
        "global",
        "bytes a load",
        "all",
        "clocks: matrix : VALU : trans. : LDS",
        "busiest",
        "llvm-mca",
        "",
    )
    rows: dict[str, list[tuple[object, ...]]] = {"prefill": [], "decode": []}
    failed = []
    for target in COMPARED:
        for at, phase in enumerate(rows):
            path = built.code_object(folder, target, OURS[at])
            ours, mca = loop_of(path, OURS[at], target)
            per = per_wave(path, ours, at)
            reached = ours.busiest[1] / per
            what = ""
            for size in ("small", "large"):
                theirs, their_mca = loop_of(triton / f"{target}_{phase}_{size}.co", None, target)
                # Its four waves repeat QK^T: a wave's own scores are a quarter of a tile's 16 rows by 16 or 32 keys.
                their_per = (128, 4)[at]
                ratio = theirs.busiest[1] / their_per / reached
                what += f"{', ' if what else ''}{ratio:.2f}x of Triton {size}"
                rows[phase].append(loop_row(target, f"Triton, {size} KV", theirs, their_mca, their_per, ""))
            if target in BOUNDS:
                bound = BOUNDS[target][at]
                what += f"; bound {bound:.3g}"
                if reached > bound:
                    failed.append(f"{target} {phase}: {reached:.3g} clocks, bound {bound:.3g}")
            rows[phase].insert(len(rows[phase]) - 2, loop_row(target, "rocmforge", ours, mca, per, what))
    text = [LOOPS_TEXT]
    for phase, unit in (("prefill", "score element"), ("decode", "KV token and KV head")):
        text += [f"\n## {phase.capitalize()}, per {unit}\n", *table(head, rows[phase])]
    put(ROOT / "docs" / "amd_static.md", "loops", text)
    print("docs/amd_static.md; " + ("; ".join(failed) if failed else "all bounds hold"))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, default=KERNELS_DIR, help="folder of the built targets")
    parser.add_argument("--triton", type=Path, required=True, help="what triton_peer wrote")
    options = parser.parse_args()
    write_loops(options.kernels, options.triton)


if __name__ == "__main__":
    main()
