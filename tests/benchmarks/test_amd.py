# SPDX-License-Identifier: Apache-2.0
"""docs/amd_resources.md says what the gate's table says."""

from __future__ import annotations

import csv
from types import SimpleNamespace

from benchmarks.amd import resources


def test_the_document_has_the_tables_figures() -> None:
    with resources.CSV.open(newline="") as file:
        rows = {
            (row["target"], row["kernel"]): SimpleNamespace(
                vgprs=int(row["vgprs"]), lds=int(row["lds"]), occupancy=float(row["occupancy"])
            )
            for row in csv.DictReader(file)
        }
    document = resources.DOCUMENT.read_text()
    assert document.startswith("\n".join(resources.HEAD) + "\n")
    assert document.endswith("\n".join(resources.details(rows)) + "\n")
    assert f"Of the {len(rows)} kernels of {len(resources.TARGETS)} targets, none spills" in document
    for kernel in resources.ATTENTION:
        shown = [line.split(" | ") for line in document.splitlines() if line.startswith(f"| {kernel} | gfx")]
        assert {target for cells in shown for target in cells[1].split(", ")} == set(resources.TARGETS)
        for _, targets, vgprs, lds, waves, *_ in shown:
            for target in targets.split(", "):
                row = rows[target, f"attention_{kernel}_bf16_d128"]
                assert (vgprs, lds, waves) == (str(row.vgprs), f"{row.lds / 1024:.1f}", f"{row.occupancy:g}")
