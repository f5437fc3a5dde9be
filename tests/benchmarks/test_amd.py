# SPDX-License-Identifier: Apache-2.0
"""The documents of AMD code objects: docs/amd_resources.md says what the gate's table says."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.amd import built, counters, executed, machine_code, mla, resources, scores
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


@pytest.mark.parametrize(
    ("target", "mnemonic", "multiply_adds", "clocks"),
    [
        ("gfx90a", "v_mfma_f32_16x16x16bf16_1k", 4096, 32),
        ("gfx90a", "v_mfma_f32_4x4x4bf16_1k", 1024, 8),
        ("gfx942", "v_mfma_f32_4x4x4_16b_bf16", 1024, 8),
        ("gfx950", "v_mfma_f32_16x16x32_bf16", 8192, 16),
        ("gfx1201", "v_wmma_f32_16x16x16_bf16", 4096, 16),
    ],
)
def test_matrix_instructions_of_several_products(target: str, mnemonic: str, multiply_adds: int, clocks: float) -> None:
    assert machine_code.matrix_work(target, mnemonic) == (multiply_adds, clocks)


def test_clocks_per_key_are_those_of_all_simds() -> None:
    """Of two kernels that each keep the matrix units of the card busy for as long as one tile of each key takes."""
    case = mla.AMD
    card = mla.card_of("gfx942")
    tiles = sum(case.lens) * (mla.KEY + mla.LATENT) // 256
    memory = SimpleNamespace(lds_clocks=1000, lines=0)
    traffic = SimpleNamespace(footprint=(3000, 1000), line_bytes=128, total=memory)
    done = executed.Executed(Counter({"v_mfma_f32_16x16x16_bf16": tiles}), traffic)  # type: ignore[arg-type]
    clocks = mla.per_key(card, {"a": done, "b": done}, case)
    assert clocks["matrix"] == pytest.approx(2 * mla.product_clocks("gfx942", 16))
    assert clocks["memory"] == pytest.approx(2 * 4000 * 128 / 1152 / sum(case.lens) * mla.memory_clocks(card))
    assert clocks["LDS"] == pytest.approx(2 * 1000 * 4 / sum(case.lens))
    assert mla.busiest(clocks | {"memory": 1e9}) == ("matrix", clocks["matrix"])


def test_the_document_of_latent_decode_says_what_was_counted() -> None:
    """Triton's loop on every target, its whole launches where they can be executed, and every card's arithmetic."""
    text = mla.DOCUMENT.read_text().partition("<!-- mla -->")[2].partition("<!-- /mla -->")[0]
    assert text.startswith("\n" + mla.TEXT)
    for target in built.TARGETS:
        assert text.count(f"| {target} | small KV |") == text.count(f"| {target} | large KV |") == 1
        assert text.count(f"| {target} | attention_decode") == 1
    assert text.count("| Triton, small KV + second stage |") == 3
    for card in CARDS:
        shares = [mla.product_clocks(card.target, heads) / mla.memory_clocks(card) for heads in mla.HEADS]
        row, executed_row = (line for line in text.splitlines() if line.startswith(f"| {card.name} | "))
        assert executed_row.count("(") == len(mla.OURS_HEADS)
        assert [cell.strip(" *") for cell in row.split("|")[4:9]] == [f"{share:.2f}" for share in shares]


def test_the_document_of_scores_says_what_was_counted() -> None:
    """A row for each kernel that does more than a plain one, a cell for each target, and none above its bound."""
    text = scores.DOCUMENT.read_text().partition("<!-- scores -->")[2].partition("<!-- /scores -->")[0]
    if not text:
        pytest.skip("not counted yet: python -m benchmarks.amd.scores, all AMD targets built")
    assert text.startswith("\n" + scores.TEXT)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    assert rows[0][3:] == list(built.TARGETS)
    assert all(cell.split(": ")[1] for row in rows[2:] for cell in row[3:])
    found = {(phase, dims, what): cells for phase, dims, what, *cells in rows[2:]}
    assert len(found) == len(rows) - 2
    for kind in scores.kinds():
        cells = found.pop((kind.phase, str(kind.dims // 2), kind.what))
        for target, cell in zip(built.TARGETS, cells, strict=True):
            assert float(cell.split(": ")[1].partition(",")[0]) <= kind.held_to(target) + 0.005
    assert not found
