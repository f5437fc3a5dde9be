# SPDX-License-Identifier: Apache-2.0
"""The documents of AMD code objects: docs/amd_resources.md says what the gate's table says."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

from benchmarks.amd import built, counters, executed, resources
from benchmarks.amd.cards import CARDS


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


def test_a_document_keeps_what_is_around_markers(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    built.put(document, "counts", ["a", "b"])
    assert document.read_text() == "<!-- counts -->\na\nb\n<!-- /counts -->\n"
    document.write_text(f"# Title\n\n{document.read_text()}\nmore\n")
    built.put(document, "counts", ["c"])
    assert document.read_text() == "# Title\n\n<!-- counts -->\nc\n<!-- /counts -->\n\nmore\n"
    built.put(document, "others", ["d"])
    assert document.read_text().endswith("\nmore\n\n<!-- others -->\nd\n<!-- /others -->\n")


def test_the_document_of_counts_says_what_was_counted() -> None:
    """A row for each case and kernel, one of Triton's for each phase, and every card of the model, labelled as one."""
    text = counters.DOCUMENT.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for case in executed.CASES:
        assert sum(line.startswith(f"| {case} |") for line in rows) >= 2  # counted, and modelled
    for card in CARDS:
        assert f"| {card.name} | {card.target} | {card.compute_units} |" in text and card.source in text
    assert "**A model, not a measurement.**" in text and text.count("Triton, small KV") > 10
