#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A Markdown table of the attention benchmark's results.

    python benchmarks/table.py benchmarks/results/h200.json > docs/benchmarks_h200.md
"""

from __future__ import annotations

import json
import sys

PEERS = ("vLLM Triton", "FlashAttention-3", "torch SDPA")


def main(path: str) -> None:
    with open(path) as file:
        result = json.load(file)
    ceiling = result["ceilings"]
    print(f"# Paged attention on one {result['device']}\n")
    print("bf16, head size 128, pages of 16 tokens placed at random, CUDA graph replays over inputs larger than the L2 "
          "cache, medians in ms.\nEach column after the second is a peer's time, and in brackets how many times faster "
          "rocmforge is. `of floor`: the larger of\nbytes over copy bandwidth and operations over the matrix product's "
          f"rate, both measured in the same run: {ceiling['copy'] / 1e9:.0f} GB/s\nand "
          f"{ceiling['product'] / 1e12:.0f} TFLOP/s; torch {result['torch']}. torch SDPA reads contiguous keys instead "
          "of pages.\n")
    print("Made by `python benchmarks/attention.py --out benchmarks/results/h200.json` and "
          f"`python benchmarks/table.py {path}`.\n")
    print("| case (q heads/kv heads) | rocmforge | of floor | plan, once a step | " + " | ".join(PEERS) + " |")
    print("|---|---|---|---|" + "---|" * len(PEERS))
    for row in result["cases"]:
        times = row["results"]
        ours = times["rocmforge"]
        peers = [f"{times[p]['ms']:.4g} ({times[p]['ms'] / ours['ms']:.2f}x)" if p in times else "" for p in PEERS]
        print(f"| {row['case']} | {ours['ms']:.4g} | {ours['of_floor']:.0%} | {row['plan_ms']:.3g} | " + " | ".join(peers) + " |")
    print("\nGeometric means: " + "; ".join(f"{name} {value:.2f}x" for name, value in result["summary"].items()) + ".")


if __name__ == "__main__":
    main(sys.argv[1])
