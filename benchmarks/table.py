#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of the attention benchmark's results, put between a document's markers.

    python benchmarks/table.py benchmarks/results/h200.json docs/benchmarks_h200.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

PEERS = ("vLLM Triton", "FlashAttention-3", "torch SDPA")
BEGIN, END = "<!-- tables -->\n", "<!-- /tables -->"


def rows(cases: list[dict], plan: bool) -> list[str]:
    """A line for each case: our time, its share of the floor, and every peer's time with our speed-up."""
    head = ["case (q heads/kv heads)", "rocmforge", "of floor", *(["plan, once a step"] if plan else []), *PEERS]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for case in cases:
        times = case["results"]
        ours = times["rocmforge"]
        cells = [case["case"], f"{ours['ms']:.4g}", f"{ours['of_floor']:.0%}", *([f"{case['plan_ms']:.3g}"] if plan else [])]
        cells += [f"{times[p]['ms']:.4g} ({times[p]['ms'] / ours['ms']:.2f}x)" if p in times else "" for p in PEERS]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def tables(result: dict) -> str:
    """The anchors, their geometric means and the sweeps."""
    ceiling = result["ceilings"]
    lines = [f"{result['device']}, torch {result['torch']}. Ceilings of the same run: copy {ceiling['copy'] / 1e9:.0f} GB/s, "
             f"matrix product {ceiling['product'] / 1e12:.0f} TFLOP/s.", "", *rows(result["cases"], True), "",
             "Geometric means: " + "; ".join(f"{name} {value:.2f}x" for name, value in result["summary"].items()) + "."]
    for name, cases in result.get("sweeps", {}).items():
        lines += ["", f"### Over {name}", "", *rows(cases, False)]
    return "\n".join(lines) + "\n"


def main(source: str, document: str) -> None:
    path = Path(document)
    before, rest = path.read_text().split(BEGIN)
    path.write_text(before + BEGIN + tables(json.loads(Path(source).read_text())) + END + rest.split(END)[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
