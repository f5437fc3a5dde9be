#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What can be said of the AMD code objects without an AMD GPU; they must be built for every target.

    python benchmarks/static_amd.py resources            registers, LDS, occupancy, spills of every kernel, into
                                                         tests/amdgpu/resources.csv (the gate's table), README.md and
                                                         docs/amd_resources.md
    python benchmarks/static_amd.py loops --triton DIR   the hot loops of prefill and decode beside vLLM's Triton
                                                         kernel (static_amd_triton.py), into docs/amd_static.md

`loops` and the matrix instructions per tile need llvm-objdump (19 or newer), and llvm-mca for its cycles.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.static_amd_code import Figures, disassemble, figures, hot_loop, mca_cycles  # noqa: E402
from rocmforge_build import code_object, driver, toolchain, units  # noqa: E402
from rocmforge_build.code_object import Resources  # noqa: E402

KERNELS_DIR = ROOT / "rocmforge_plugin" / "_kernels"
TARGETS = toolchain.AMD_TARGETS
CSV = ROOT / "tests" / "amdgpu" / "resources.csv"
HEADS = (64, 80, 96, 128, 192, 256)
ATTENTION = ("prefill", "decode1", "decode2", "decode4", "combine")
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

    python benchmarks/static_amd_triton.py build/triton
    python benchmarks/static_amd.py loops --triton build/triton

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


def all_resources(folder: Path) -> dict[tuple[str, str], Resources]:
    """Every kernel of every target, by (target, kernel), in the instantiation table's order."""
    out = {}
    order = [kernel for unit in units.load_units(ROOT) if "amd" in unit.targets for kernel in unit.kernels]
    for target in TARGETS:
        found = {r.kernel: r for path in (folder / target).glob("*.co") for r in code_object.read(path)}
        if missing := [kernel for kernel in order if kernel not in found]:
            sys.exit(f"{folder / target} lacks {missing[0]}: python -m rocmforge_build --targets {','.join(TARGETS)}")
        out |= {(target, kernel): found[kernel] for kernel in order}
    return out


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table's lines."""
    return ["| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *rows)]


def write_csv(resources: dict[tuple[str, str], Resources], clang: str) -> None:
    with CSV.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["target", "kernel", "vgprs", "agprs", "sgprs", "lds", "occupancy", "clang"])
        for (target, kernel), r in resources.items():
            out.writerow([target, kernel, r.vgprs, r.agprs, r.sgprs, r.lds, f"{r.occupancy:g}", clang])


def spill_line(resources: dict[tuple[str, str], Resources]) -> str:
    """How many of the kernels spill or use scratch, in words."""
    spilling = sum(bool(r.vgpr_spills or r.sgpr_spills or r.scratch) for r in resources.values())
    s = "s" if spilling < 2 else ""
    return (f"Of the {len(resources)} kernels of {len(TARGETS)} targets, {spilling or 'none'} spill{s} registers or "
            f"use{s} scratch memory")


def readme_table(resources: dict[tuple[str, str], Resources], folder: Path) -> list[str]:
    """The attention kernels of bfloat16 and head size 128, a row for each kernel and kind of target."""
    rows = []
    for kernel in ATTENTION:
        cells: dict[tuple[object, ...], list[str]] = {}
        for target in TARGETS:
            r = resources[target, f"attention_{kernel}_bf16_d128"]
            code = disassemble(folder / target / "attention_bf16_d128.co")[r.kernel]
            tile = figures(hot_loop(code), target).counts["matrix"] if kernel != "combine" else 0
            spills = r.vgpr_spills + r.sgpr_spills
            cell = (r.vgprs, f"{r.lds / 1024:.1f}", f"{r.occupancy:g}", spills, tile or "")
            cells.setdefault(cell, []).append(target)
        rows += [(kernel, ", ".join(targets), *cell) for cell, targets in cells.items()]
    return table(("kernel", "targets", "VGPRs", "LDS, KiB", "waves per SIMD", "spills", "matrix instructions per tile"),
                 rows)


def replace_section(path: Path, name: str, lines: Sequence[str]) -> None:
    """Puts `lines` between the file's markers <!-- NAME --> and <!-- /NAME -->."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    text = path.read_text()
    if begin not in text or end not in text:
        sys.exit(f"{path} has no markers {begin.strip()} and {end.strip()}")
    head, rest = text.split(begin, 1)
    path.write_text(head + begin + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1])


def write_resources(folder: Path) -> None:
    """The gate's table, README's section and docs/amd_resources.md."""
    resources = all_resources(folder)
    made_by = code_object.compiler(next((folder / TARGETS[0]).glob("*.co")))
    clang = re.search(r"clang version ((\d+)[\d.]*)", made_by)
    write_csv(resources, clang[2] if clang else made_by)
    made_by = f"clang {clang[1]}" if clang else made_by
    command = "Made by `python benchmarks/static_amd.py resources` from the compiler's report in the code objects."
    replace_section(ROOT / "README.md", "amd-resources", [
        spill_line(resources) + f" ({made_by}).", "Attention, bfloat16, head size 128:", "",
        *readme_table(resources, folder), "",
        command, "All head sizes, dtypes and kernels: `docs/amd_resources.md`."])
    lines = ["# Resources of the AMD kernels", "", command, f"Compiler: {made_by}. " + spill_line(resources) + ".", "",
             "A cell is VGPRs (accumulation registers counted in) / LDS in KiB / waves per SIMD that registers, LDS "
             "and whole workgroups allow."]
    for target in TARGETS:
        def cell(kernel: str, target: str = target) -> str:
            r = resources[target, kernel]
            return f"{r.vgprs} / {r.lds / 1024:.3g} / {r.occupancy:g}"
        lines += ["", f"## {target}", ""]
        lines += table(("attention", *(f"head {head}" for head in HEADS)), [
            (f"{kernel} {kind}", *(cell(f"attention_{kernel}_{kind}_d{head}") for head in HEADS))
            for kernel in ATTENTION for kind in ("bf16", "f16")])
        others: dict[str, list[str]] = {}
        for at, name in resources:
            if at == target and not re.match(r"attention_\w+_d\d+$", name):
                found = re.fullmatch(r"(.*)_(bf16|f16|float)", name)
                others.setdefault(found[1] if found else name, []).append(cell(name))
        lines += ["", *table(("kernel", "bf16", "f16", "float"),
                             [(name, *cells, *[""] * (3 - len(cells))) for name, cells in others.items()])]
    (ROOT / "docs" / "amd_resources.md").write_text("\n".join(lines) + "\n")
    print(spill_line(resources) + f": {CSV.relative_to(ROOT)}, README.md, docs/amd_resources.md")


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
    return (target, who, matrix, c["valu"], c["transcendental"], c["lds"], c["global"], f"{f.load_bytes:.3g}", c["all"],
            by_unit, f"**{clocks / per:.3g}** ({unit})", f"{mca / per:.3g}" if mca else "", what)


def write_loops(folder: Path, triton: Path) -> None:
    """docs/amd_static.md, and on the terminal whether the bounds hold."""
    head = ("target", "kernel", "matrix", "VALU", "trans.", "LDS", "global", "bytes a load", "all",
            "clocks: matrix : VALU : trans. : LDS", "busiest", "llvm-mca", "")
    rows: dict[str, list[tuple[object, ...]]] = {"prefill": [], "decode": []}
    failed = []
    for target in COMPARED:
        for at, phase in enumerate(rows):
            path = folder / target / "attention_bf16_d128.co"
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
    (ROOT / "docs" / "amd_static.md").write_text("\n".join(text) + "\n")
    print("docs/amd_static.md; " + ("; ".join(failed) if failed else "all bounds hold"))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("resources", "loops"))
    parser.add_argument("--kernels", type=Path, default=KERNELS_DIR, help="folder of the built targets")
    parser.add_argument("--triton", type=Path, help="what static_amd_triton.py wrote")
    options = parser.parse_args()
    if options.what == "resources":
        write_resources(options.kernels)
    elif options.triton is None:
        parser.error("loops needs --triton")
    else:
        write_loops(options.kernels, options.triton)


if __name__ == "__main__":
    main()
