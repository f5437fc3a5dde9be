# SPDX-License-Identifier: Apache-2.0
"""Decode from a latent cache (MLA) on AMD GPUs, counted beside vLLM's Triton kernels; all AMD targets must be built.

    python -m benchmarks.amd.triton_peer build/triton
    python -m benchmarks.amd.mla --triton build/triton

writes the section of docs/amd_static.md between the markers `mla`, and says where our clocks are more than a third of
Triton's. No GPU is needed, but llvm-objdump, 19 or newer, and ten minutes.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

from amdgpu.decode.decoder import DecodeError

from ..kernels.mla_cases import AMD, KEY, LATENT, Case
from . import executed, model, triton_launch
from .built import ROOT, TARGETS, put, table
from .cards import CARDS, Card
from .counters import PLAN, card_of, cell
from .executed import Executed
from .loops import loop_of
from .machine_code import MATRIX_RATE, Figures

DOCUMENT = ROOT / "docs" / "amd_static.md"
ROW_BYTES = 2 * KEY
HEADS = (5, 10, 20, 64, 128)
OURS_HEADS = HEADS[1:]
SIZES = ("small", "large")
# Triton's four waves share a tile of 16 keys, and 20 heads take two workgroups.
WAVES, TILE, GROUPS = 4, 16, 2

TEXT = """# Decode from a latent cache (MLA), counted

bfloat16, a latent of 512 elements and 64 rotated ones, which all heads share; 20 query heads (GLM-4.7-Flash), one token
each, pages of 16 tokens. Nothing here was measured on AMD hardware. Made by

    python -m benchmarks.amd.triton_peer build/triton
    python -m benchmarks.amd.mla --triton build/triton

Clocks are per key of a request and for all heads together: those for which all waves of all workgroups take a unit of
their SIMDs, at peak rates as above. LDS: of its port, times the SIMDs that share it. Peer: both stages of vLLM 0.32's
`decode_attention_fwd` as its TRITON_MLA backend launches it on ROCm (16 heads and 16 keys a tile, 4 waves), compiled by
Triton 3.9.0. 16 and 4 heads are two workgroups, each of which loads all keys and computes whole tiles; each wave
computes all of QK^T. "small KV" and "large KV": a cache below 2 GiB or not, as above.

## The hot loop of Triton's first stage
"""
EXECUTED_TEXT = """
## Whole launches, executed

16 requests of 8192 keys on the emulated device with as many compute units as the first card of each target (below),
all kernels but the plan; results were checked. "memory": clocks that the card's bandwidth takes for the lines that were
read and written, each once; "issue": those in which a SIMD issues scalar, LDS or global instructions, whichever are
most. Last columns: LDS, loads and stores over the least, as above, of the first kernel; and what Triton's hot loop with
a small KV cache takes over what rocmforge's whole launch does, each by its busiest unit, memory aside. The aim is 3; on
gfx90a, gfx11 and gfx12 whole tiles of 16 rows allow 2.59 for 20 heads. Where Triton's kernel uses scratch memory, it
cannot be executed.
"""
CARDS_TEXT = """
## Products or memory

How long products take, over how long memory takes for the same keys (1152 bytes each): above 1 products bound decode.
Products of whole tiles of 16 rows (query heads times tokens of a request) and nothing else, at peak rates; figures of
the cards as above. "clocks a key": of all SIMDs, which memory takes.
"""
OURS_TEXT = """
rocmforge's kernels, executed as above on each card's number of compute units: the busiest unit over memory, each line
once. Up to 16 heads are one tile of rows.
"""

Executions = dict[str, Executed]


def busiest(clocks: dict[str, float]) -> tuple[str, float]:
    """The unit, memory aside, that is taken longest."""
    return max(((unit, taken) for unit, taken in clocks.items() if unit != "memory"), key=lambda found: found[1])


def peer_loop(folder: Path, target: str, size: str) -> tuple[Figures, dict[str, float]]:
    """Of Triton's first stage: its hot loop, and clocks per key."""
    f, _ = loop_of(folder / f"{target}_latent1_{size}.co", None, target, mca=False)
    return f, {unit: taken * WAVES * GROUPS / TILE for unit, taken in f.clocks.items()}


def loops_table(folder: Path) -> list[str]:
    """A row for each target and size of the cache."""
    rows = []
    for target in TARGETS:
        for size in SIZES:
            r = triton_launch.resources(folder / f"{target}_latent1_{size}.co")
            f, clocks = peer_loop(folder, target, size)
            unit, most = busiest(clocks)
            rows.append(
                (
                    target,
                    f"{size} KV",
                    f"{r.vgprs} / {r.lds / 1024:.3g} / {r.scratch} / {r.occupancy:g}",
                    *(f.counts[u] for u in ("matrix", "valu", "transcendental", "lds", "global", "all")),
                    " : ".join(f"{clocks[u]:.3g}" for u in ("matrix", "valu", "transcendental", "lds")),
                    f"**{most:.3g}** ({unit})",
                )
            )
    resources = "VGPRs / LDS, KiB / scratch, bytes / waves per SIMD"
    counts = ("matrix", "VALU", "trans.", "LDS", "global", "all")
    return table(("target", "", resources, *counts, "clocks: matrix : VALU : trans. : LDS", "busiest"), rows)


def per_key(card: Card, done: Executions, case: Case) -> dict[str, float]:
    """Clocks per key of all SIMDs, by unit, of several kernels together; as `model.busy`."""
    found: dict[str, float] = {}
    for one in done.values():
        for unit, microseconds in model.busy(card, one, sum(one.traffic.footprint)).items():
            found[unit] = found.get(unit, 0) + microseconds * card.mhz * card.simds / sum(case.lens)
    return found


def run_ours(card: Card, case: Case) -> Executions:
    """Our kernels but the plan, the one that joins parts last."""
    done = executed.execute(partial(executed.attend_latent, case), card.target, card.units)
    return {kernel: done[kernel] for kernel in sorted(done, key=lambda name: "combine" in name) if kernel != PLAN}


def run_peer(folder: Path, target: str) -> Executions:
    """Both of Triton's stages with a small KV cache; empty if they cannot be executed."""
    try:
        first, second = triton_launch.execute_latent(folder, target, "small")
    except (DecodeError, ValueError) as refused:
        print(f"{target}: {refused}", flush=True)
        return {}
    return {"Triton, small KV": first, "second stage": second}


def executed_table(folder: Path) -> tuple[list[str], list[str]]:
    """Ours and Triton's for each target; and where ours are more than a third."""
    rows, more = [], []
    for target in TARGETS:
        card = card_of(target)
        loop = busiest(peer_loop(folder, target, "small")[1])[1]
        ours = run_ours(card, AMD)
        for done in (ours, run_peer(folder, target)):
            if not done:
                continue
            clocks = per_key(card, done, AMD)
            unit, most = busiest(clocks)
            if done is ours and most > loop / 3:
                more.append(f"{target}: {most:.3g} clocks, a third is {loop / 3:.3g}")
            rows.append(
                (
                    target,
                    " + ".join(done),
                    *(f"{clocks[u]:.3g}" for u in ("matrix", "VALU", "LDS", "issue", "memory")),
                    f"**{most:.3g}** ({unit})",
                    cell(next(iter(done.values()))),
                    f"{loop / most:.2f}x of Triton's loop" if done is ours else "",
                )
            )
    head = ("target", "kernels", "matrix", "VALU", "LDS", "issue", "memory", "busiest", "LDS / loads / stores", "")
    return table(head, rows), more


def memory_clocks(card: Card) -> float:
    """Of all SIMDs, while memory delivers a key."""
    return ROW_BYTES / card.gigabytes / 1000 * card.mhz * card.simds


def product_clocks(target: str, heads: int) -> float:
    """Of the matrix units, for one key and whole tiles of 16 rows."""
    rate = MATRIX_RATE.get(target) or MATRIX_RATE[target[:5]]
    return 16 * math.ceil(heads / 16) * (KEY + LATENT) / rate


def cards_table(folder: Path) -> list[str]:
    """A row for each card: products over memory by heads, and Triton's busiest unit over memory."""
    rows = []
    for card in CARDS:
        memory = memory_clocks(card)
        shares = (product_clocks(card.target, heads) / memory for heads in HEADS)
        unit, most = busiest(peer_loop(folder, card.target, "small")[1])
        cells = (f"**{share:.2f}**" if share > 1 else f"{share:.2f}" for share in shares)
        rows.append((card.name, card.target, f"{memory:.0f}", *cells, f"{most / memory:.2f} ({unit})"))
    head = ("card", "target", "clocks a key", *(f"{heads} rows" for heads in HEADS), "Triton's loop, 20 rows")
    return table(head, rows)


def ours_table() -> list[str]:
    """A row for each card: the busiest unit of our kernels over memory, by heads."""
    rows = []
    for card in CARDS:
        cells = []
        for heads in OURS_HEADS:
            case = replace(AMD, name=f"{heads} heads", heads=heads)
            clocks = per_key(card, run_ours(card, case), case)
            unit, most = busiest(clocks)
            share = most / clocks["memory"]
            cells.append(f"**{share:.2f}** ({unit})" if share > 1 else f"{share:.2f} ({unit})")
        rows.append((card.name, card.target, *cells))
        print(f"{card.name}: {', '.join(cells)}", flush=True)
    return table(("card", "target", *(f"{heads} heads" for heads in OURS_HEADS)), rows)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", type=Path, required=True, help="what triton_peer wrote")
    folder = parser.parse_args().triton
    lines, more = executed_table(folder)
    products = [CARDS_TEXT, *cards_table(folder), OURS_TEXT, *ours_table()]
    put(DOCUMENT, "mla", [TEXT, *loops_table(folder), EXECUTED_TEXT, *lines, *products])
    print(f"{DOCUMENT.relative_to(ROOT)}; " + ("; ".join(more) or "nowhere more than a third of Triton's clocks"))


if __name__ == "__main__":
    main()
