# SPDX-License-Identifier: Apache-2.0
"""Plots the attention benchmark's results (needs matplotlib).

    python -m benchmarks.report.plot benchmarks/results/h200.json docs/benchmarks_h200.svg

Case by case how many times faster than each peer rocmforge is, and the sweeps.
"""

from __future__ import annotations

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLOURS = {"rocmforge": "#c8102e", "vLLM Triton": "#4c72b0", "FlashAttention-3": "#55a868", "torch SDPA": "#8c8c8c"}


def speeds(axes: plt.Axes, rows: list[dict]) -> None:
    """How many times faster than each peer rocmforge is, case by case."""
    for i, row in enumerate(rows):
        ours = row["results"]["rocmforge"]["ms"]
        peers = [(name, r["ms"] / ours) for name, r in row["results"].items() if name != "rocmforge"]
        for j, (name, ratio) in enumerate(peers):
            axes.barh(i + 0.27 * (j - (len(peers) - 1) / 2), ratio, 0.25, color=COLOURS[name])
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log", base=2)
    axes.set_xticks([0.5, 1, 2, 4, 8, 16], ["0.5x", "1x", "2x", "4x", "8x", "16x"])
    axes.set_title("peer's time / rocmforge's", fontsize=9)
    axes.legend(handles=[plt.Rectangle((0, 0), 1, 1, color=COLOURS[n], label=n) for n in list(COLOURS)[1:]], fontsize=7)


def sweep(axes: plt.Axes, name: str, rows: list[dict], quantity: str, unit: str) -> None:
    """One line per contestant over a series of cases."""
    for contestant, colour in COLOURS.items():
        points = [
            (i, row["results"][contestant][quantity]) for i, row in enumerate(rows) if contestant in row["results"]
        ]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=contestant)
    labels = [row["case"].rsplit(" ", 1)[1] for row in rows]
    axes.set_xticks(range(len(rows)), [f"{int(n) // 1024}k" if int(n) >= 1024 else n for n in labels], fontsize=7)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{name}: {unit}", fontsize=9)
    axes.tick_params(axis="y", labelsize=7)


def main(source: str, target: str) -> None:
    with open(source) as file:
        result = json.load(file)
    figure = plt.figure(figsize=(11, 7.5), layout="constrained")
    grid = figure.add_gridspec(2, 4)
    speeds(figure.add_subplot(grid[0, :]), result["cases"])
    series = result.get("sweeps", {})
    for i, (name, title, quantity, unit) in enumerate(
        (
            ("batch", "decode over batch, 4k keys, 32/2 heads", "tb_s", "TB/s"),
            ("context", "decode over context, batch 8, 32/8", "tb_s", "TB/s"),
            ("head size", "decode over head size, batch 32, 4k", "tb_s", "TB/s"),
            ("head size, prefill", "prefill 4x2k over head size", "tflop_s", "TFLOP/s"),
        )
    ):
        if name in series:
            sweep(figure.add_subplot(grid[1, i]), title, series[name], quantity, unit)
    figure.suptitle(f"Paged attention on one {result['device']}, bf16", fontsize=10)
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
