# SPDX-License-Identifier: Apache-2.0
"""Registers, LDS, occupancy and spills of every AMD kernel, from the code objects; they must be built for every target.

    python -m benchmarks.amd.resources

writes tests/amdgpu/resources.csv, which the tests hold later code to, and docs/amd_resources.md. No GPU is needed; the
matrix instructions per tile need llvm-objdump, 19 or newer.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from amdgpu.disassembly import disassemble
from rocmforge_build import code_object
from rocmforge_build.code_object import Resources

from . import built
from .built import KERNELS_DIR, ROOT, TARGETS, table
from .machine_code import figures, hot_loop

CSV = ROOT / "tests" / "amdgpu" / "resources.csv"
DOCUMENT = ROOT / "docs" / "amd_resources.md"
NAME = re.compile(
    r"attention_(?P<kernel>prefill|decode\d|combine)_(?P<kind>bf16|f16)_d(?P<dims>\d+(?:v\d+)?)"
    r"(?P<rest>\w*)"
)
ATTENTION = ("prefill", "decode1", "decode2", "decode4", "combine")
HEAD = (
    "# Resources of the AMD kernels",
    "",
    "Made by `python -m benchmarks.amd.resources` from the compiler's report in the code objects. `make test` fails",
    "if a kernel spills, uses scratch memory, exceeds the LDS, or needs more registers or LDS than the table in",
    "`tests/amdgpu/resources.csv`, which the same command writes. What the hot loops cost: `amd_static.md`.",
    "",
)
CELL = (
    "A cell is VGPRs (accumulation registers counted in) / LDS in KiB / waves per SIMD that registers, LDS and "
    "whole workgroups allow."
)


class Registers(Protocol):
    """What `details` shows of a kernel."""

    @property
    def vgprs(self) -> int: ...
    @property
    def lds(self) -> int: ...
    @property
    def occupancy(self) -> float: ...


def all_resources(folder: Path) -> dict[tuple[str, str], Resources]:
    """Every kernel of every target, by (target, kernel), in the instantiation table's order."""
    out: dict[tuple[str, str], Resources] = {}
    for target in TARGETS:
        found = {r.kernel: r for path in (folder / target).glob("*.co") for r in code_object.read(path)}
        if missing := [kernel for kernel in built.units() if kernel not in found]:
            sys.exit(f"{folder / target} lacks {missing[0]}: python -m rocmforge_build --targets {','.join(TARGETS)}")
        out |= {(target, kernel): found[kernel] for kernel in built.units()}
    return out


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
    return (
        f"Of the {len(resources)} kernels of {len(TARGETS)} targets, {spilling or 'none'} spill{s} registers or "
        f"use{s} scratch memory"
    )


def summary(resources: dict[tuple[str, str], Resources], folder: Path) -> list[str]:
    """The attention kernels of bfloat16 and head size 128, a row for each kernel and kind of target."""
    rows = []
    for kernel in ATTENTION:
        cells: dict[tuple[object, ...], list[str]] = {}
        for target in TARGETS:
            r = resources[target, f"attention_{kernel}_bf16_d128"]
            tile = 0
            if kernel != "combine":
                code = disassemble(built.code_object(folder, target, r.kernel))[r.kernel]
                tile = figures(hot_loop(code), target).counts["matrix"]
            spills = r.vgpr_spills + r.sgpr_spills
            cell = (r.vgprs, f"{r.lds / 1024:.1f}", f"{r.occupancy:g}", spills, tile or "")
            cells.setdefault(cell, []).append(target)
        rows += [(kernel, ", ".join(targets), *cell) for cell, targets in cells.items()]
    return table(
        ("kernel", "targets", "VGPRs", "LDS, KiB", "waves per SIMD", "spills", "matrix instructions per tile"), rows
    )


def details(resources: Mapping[tuple[str, str], Registers]) -> list[str]:
    """Every kernel of every target."""
    lines = [CELL]
    names = list(dict.fromkeys(name for _, name in resources))
    attention = {name: found for name in names if (found := NAME.fullmatch(name))}
    dims = list(dict.fromkeys(found["dims"] for found in attention.values()))
    for target in TARGETS:

        def cell(kernel: str, target: str = target) -> str:
            r = resources[target, kernel]
            return f"{r.vgprs} / {r.lds / 1024:.3g} / {r.occupancy:g}"

        rows: dict[str, dict[str, str]] = {}
        for kernel in ATTENTION:
            for name, found in attention.items():
                if found["kernel"] == kernel:
                    row = f"{kernel} {found['kind']}{found['rest']}".replace("_", " ")
                    rows.setdefault(row, {})[found["dims"]] = cell(name)
        lines += [
            "",
            f"## {target}",
            "",
            *table(
                ("attention", *(f"head {size}" for size in dims)),
                [(row, *(cells.get(size, "") for size in dims)) for row, cells in rows.items()],
            ),
        ]
        others: dict[str, list[str]] = {}
        for name in names:
            if name not in attention:
                found = re.fullmatch(r"(.*)_(bf16|f16|float)", name)
                others.setdefault(found[1] if found else name, []).append(cell(name))
        lines += [
            "",
            *table(
                ("kernel", "bf16", "f16", "float"),
                [(name, *cells, *[""] * (3 - len(cells))) for name, cells in others.items()],
            ),
        ]
    return lines


def write_resources(folder: Path) -> None:
    """The gate's table and the document."""
    resources = all_resources(folder)
    made_by = code_object.compiler(next((folder / TARGETS[0]).glob("*.co")))
    clang = re.search(r"clang version ((\d+)[\d.]*)", made_by)
    write_csv(resources, clang[2] if clang else made_by)
    made_by = f"clang {clang[1]}" if clang else made_by
    DOCUMENT.write_text(
        "\n".join(
            [
                *HEAD,
                f"{spill_line(resources)} ({made_by}).",
                "Attention, bfloat16, head size 128:",
                "",
                *summary(resources, folder),
                "",
                *details(resources),
            ]
        )
        + "\n"
    )
    print(f"{spill_line(resources)}: {CSV.relative_to(ROOT)}, {DOCUMENT.relative_to(ROOT)}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", type=Path, default=KERNELS_DIR, help="folder of the built targets")
    write_resources(parser.parse_args().kernels)


if __name__ == "__main__":
    main()
