# SPDX-License-Identifier: Apache-2.0
"""Kernels executed whole on emulated AMD GPUs and counted, beside vLLM's Triton kernel; and what a model makes of it.

    python -m benchmarks.amd.triton_peer build/triton
    python -m benchmarks.amd.counters --triton build/triton

writes the section of docs/amd_static.md between the markers `counters`. No GPU is needed, but all AMD targets built,
llvm-objdump 19 or newer, and a few minutes. Without --triton the columns of the peer stay empty.
"""

from __future__ import annotations

import argparse
import textwrap
import time
from functools import cache
from pathlib import Path

from amdgpu.decode.decoder import DecodeError
from amdgpu.decode.target import Target
from rocmforge_build import code_object
from rocmforge_build.code_object import Resources
from rocmforge_plugin.device import kernels_dir

from . import executed, model, triton_launch
from .built import ROOT, TARGETS, put, table
from .cards import CARDS, Card
from .executed import CASES, PEER, Executed
from .model import Range

DOCUMENT = ROOT / "docs" / "amd_static.md"
PLAN = "attention_plan"  # once a step, for all layers

TEXT = """# Whole kernels, executed and counted

Each case ran through `rocmforge_plugin.ops` on an emulated device (`amdgpu`) that executes the code objects, with as
many compute units as the card that the model below speaks of. Nothing here was measured on AMD hardware. bfloat16, head
size 128 where nothing else is said, pages of 16 tokens placed at random; buffers begin at multiples of 512 bytes, as
those of torch's allocator on a GPU. Made by

    python -m benchmarks.amd.triton_peer build/triton
    python -m benchmarks.amd.counters --triton build/triton
"""
COLUMNS = (
    """LDS: clocks that LDS is taken, of 128 bytes each, over those that it would be without bank conflicts. {banks} The
    lanes of an instruction are taken in groups of 128 bytes, of at most 32 lanes; on CDNA the groups of 16-byte loads
    are those that AMD's documents name (lanes 0-3 with 20-23 and so on). Two-address forms are two accesses. Left out:
    how accesses of several waves mix; lane permutations count as accesses without conflicts.""",
    """loads, stores: lines of the first cache that vector instructions touch, over the fewest that could hold the bytes
    of each. {lines} For RDNA 4 that is assumed. Left out: what caches hold, so that two loads that share lines count
    twice (16 rows of keys, 64 bytes of each, are half lines of 128 bytes).""",
)
CELLS = "Cells: LDS / loads / stores, each 1 at best; -: there were none."

PEER_TEXT = """Whole launches on the same inputs: millions of wave instructions by unit, of LDS clocks and of lines; "of
least" as above. Triton's decode leaves parts that another kernel joins, ours those that span workgroups; neither
joining is counted. Where Triton's kernel cannot be executed, as it uses scratch memory, there is no row."""

MODEL_TEXT = """## A model of time

**A model, not a measurement.** For each card a range in microseconds, and what bounds its lower end.

{model}

{costs}

| card | target | CUs | MHz | GB/s | source |
| --- | --- | --- | --- | --- | --- |
{cards}

Attention is what a layer does: decode or prefill with the joining of parts; the plan, which a step makes once, is left
out."""


@cache
def resources(target: str) -> dict[str, Resources]:
    """Of our kernels."""
    return {r.kernel: r for path in (kernels_dir() / target).glob("*.co") for r in code_object.read(path)}


def ratio(numerator: float, denominator: float) -> str:
    """To two places; empty where there is nothing."""
    return f"{numerator / denominator:.2f}" if denominator else "-"


def figures(done: Executed) -> tuple[float, ...]:
    """LDS clocks and the least, lines of loads and the fewest, lines of stores and the fewest."""
    total = done.traffic.total
    loads, stores = (done.traffic.of(f"global_{what}", f"buffer_{what}") for what in ("load", "store"))
    return (
        total.lds_clocks,
        total.least_lds_clocks,
        loads.lines,
        loads.fewest_lines,
        stores.lines,
        stores.fewest_lines,
    )


def cell(done: Executed | None) -> str:
    """LDS / loads / stores, over the least."""
    if done is None:
        return ""
    f = figures(done)
    return " / ".join(ratio(f[at], f[at + 1]) for at in (0, 2, 4))


Runs = dict[tuple[str, str], dict[str, Executed]]  # by card and case; then by kernel


def run_all(cards: tuple[Card, ...] = CARDS) -> Runs:
    """Every case on every card."""
    found: Runs = {}
    for card in cards:
        start = time.monotonic()
        for case in CASES:
            found[card.name, case] = executed.execute(CASES[case], card.target, card.units, model.costs(card))
        print(f"{card.name}: {time.monotonic() - start:.0f} s", flush=True)
    return found


def run_peer(folder: Path, cards: tuple[Card, ...] = CARDS) -> dict[tuple[str, str], tuple[str, Resources, Executed]]:
    """Triton's kernel by card and phase, with the size of the KV cache that it is compiled for."""
    found = {}
    for card in cards:
        for phase, case in PEER.items():
            for size in ("small", "large"):
                path = folder / f"{card.target}_{phase}_{size}.co"
                try:
                    done = triton_launch.execute(path, case, model.costs(card))
                except (DecodeError, ValueError) as refused:
                    print(f"{path.name}: {refused}", flush=True)
                    continue
                found[card.name, phase] = (size, triton_launch.resources(path), done)
                break
    return found


def card_of(target: str) -> Card:
    """The first card of a target."""
    return next(card for card in CARDS if card.target == target)


def conflicts_and_lines(runs: Runs) -> list[str]:
    """A row for each case and kernel, a column for each target."""
    rows = []
    for case in CASES:
        of_target = [runs[card_of(target).name, case] for target in TARGETS]
        for kernel in dict.fromkeys(name for found in of_target for name in found if name != PLAN):
            cells = [cell(found.get(kernel)) for found in of_target]
            rows.append((case, kernel, *cells))
    return table(("case", "kernel", *TARGETS), rows)


def beside_peer(runs: Runs, peers: dict[tuple[str, str], tuple[str, Resources, Executed]]) -> list[str]:
    """Whole launches of both, and how many times as much Triton's does."""
    rows = []
    for phase, case in PEER.items():
        for target in TARGETS:
            name = card_of(target).name
            ours = next(d for kernel, d in runs[name, case.name].items() if kernel.startswith(f"attention_{phase}"))
            size, _, theirs = peers.get((name, phase), ("", None, None))
            for who, done in (("rocmforge", ours), (f"Triton, {size} KV", theirs)):
                if done is None:
                    continue
                f, units = figures(done), done.by_unit
                rows.append(
                    (
                        phase,
                        target,
                        who,
                        *(f"{n / 1e6:.3g}" for n in (done.instructions.total(), *(units[u] for u in UNITS))),
                        *(f"{n / 1e6:.3g}" for n in (f[0], f[2], f[4])),
                        "/".join(ratio(f[at], f[at + 1]) for at in (0, 2, 4)),
                        times(ours, theirs) if done is ours and theirs is not None else "",
                    )
                )
    return table(("", "target", "kernel", "all", *UNITS, "LDS clocks", "lines loaded", "stored", "of least", ""), rows)


UNITS = ("matrix", "valu", "transcendental", "lds", "global")


def times(ours: Executed, theirs: Executed) -> str:
    """What Triton's launch does over ours: instructions, LDS clocks, lines."""
    a, b = figures(ours), figures(theirs)
    return (
        f"Triton: {ratio(theirs.instructions.total(), ours.instructions.total())}x instructions, "
        f"{ratio(b[0], a[0])}x LDS clocks, {ratio(b[2] + b[4], a[2] + a[4])}x lines"
    )


def total(ranges: list[Range]) -> Range:
    """Of kernels that run one after the other; bound as the longest is."""
    longest = max(ranges, key=lambda r: r.low)
    return Range(sum(r.low for r in ranges), sum(r.high for r in ranges), longest.bound, longest.waits)


def predicted(card: Card, done: dict[str, Executed]) -> Range:
    """Of a case's kernels but for the plan."""
    return total([model.predict(card, resources(card.target)[k], d) for k, d in done.items() if k != PLAN])


def shown(r: Range) -> str:
    """A range in a table."""
    return f"{r.low:.3g} - {r.high:.3g} {r.bound}"


def model_table(runs: Runs, peers: dict[tuple[str, str], tuple[str, Resources, Executed]]) -> list[str]:
    """A row for each case, a column for each card."""
    rows: list[tuple[object, ...]] = []
    for case in CASES:
        rows.append((case, *(shown(predicted(card, runs[card.name, case])) for card in CARDS)))
        for phase, peer in PEER.items():
            if peer.name == case:
                cells = [
                    shown(model.predict(card, *peers[card.name, phase][1:])) if (card.name, phase) in peers else ""
                    for card in CARDS
                ]
                rows.append((f"{phase}, Triton's kernel" + (", without joining" * (phase == "decode")), *cells))
    return table(("case", *(card.name for card in CARDS)), rows)


def memory_model() -> dict[str, str]:
    """Banks and lines in words."""
    banks: dict[int, list[str]] = {}
    lines: dict[int, list[str]] = {}
    for target in TARGETS:
        banks.setdefault(Target(target).shared_banks, []).append(target)
        lines.setdefault(Target(target).line_bytes, []).append(target)
    few, many = sorted(banks)
    short, long = sorted(lines)
    return {
        "banks": f"{few} banks of 4 bytes, {many} on {', '.join(banks[many])}.",
        "lines": f"Lines are {short} bytes on {', '.join(lines[short])} and {long} on the others.",
    }


def filled(text: str, bullet: str = "") -> str:
    """A paragraph in lines of 120."""
    return textwrap.fill(" ".join(text.split()), 120, initial_indent=bullet, subsequent_indent=" " * len(bullet))


def document(runs: Runs, peers: dict[tuple[str, str], tuple[str, Resources, Executed]]) -> list[str]:
    """The section's lines."""
    about = (model.__doc__ or "").partition("\n\n")[2].strip()
    costs = " ".join((model.costs.__doc__ or "").partition("\n\n")[2].split()).format(
        memory="800 ns on CDNA and 500 ns on RDNA", lds=model.LDS_LATENCY, scalar=model.SCALAR_LATENCY
    )
    cards = [f"| {c.name} | {c.target} | {c.compute_units} | {c.mhz} | {c.gigabytes:g} | {c.source} |" for c in CARDS]
    return [
        TEXT,
        *(filled(text.format(**memory_model()), "* ") for text in COLUMNS),
        "",
        CELLS,
        "",
        *conflicts_and_lines(runs),
        "",
        "## Beside Triton",
        "",
        PEER_TEXT,
        "",
        *beside_peer(runs, peers),
        "",
        MODEL_TEXT.format(model=about, costs=filled(f"A wave by itself: {costs}"), cards="\n".join(cards)),
        "",
        *model_table(runs, peers),
    ]


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton", type=Path, help="what triton_peer wrote")
    options = parser.parse_args()
    peers = run_peer(options.triton) if options.triton else {}
    put(DOCUMENT, "counters", document(run_all(), peers))
    print(DOCUMENT.relative_to(ROOT))


if __name__ == "__main__":
    main()
