# SPDX-License-Identifier: Apache-2.0
"""The way from results to a document, and the command that runs every benchmark."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run
from benchmarks.kernels import elementwise as bench
from benchmarks.report import table
from benchmarks.serving.bench import checked

ROOT = Path(__file__).resolve().parents[2]


def test_elementwise_results_become_tables(tmp_path):
    def result(ms, error=0.001):
        return {
            "ms": ms,
            "spread_ms": 0.0,
            "gb_s": 1.0 / ms,
            "of_copy": 0.5,
            "error": error,
            "wrong": not error <= bench.WRONG,
        }

    rows: list[dict[str, Any]] = [
        {
            "case": "A 32/2",
            "kernel": "rotary",
            "tokens": 64,
            "bytes": 1,
            "results": {"rocmforge": result(0.002), "vLLM CUDA": result(0.003), "inductor": result(0.001, math.nan)},
        },
        {
            "case": "B 96/8",
            "kernel": "rotary",
            "tokens": 1,
            "bytes": 1,
            "results": {"rocmforge": result(0.002), "vLLM CUDA": result(0.012)},
        },
        {
            "case": "causal mask",
            "kernel": "8x8",
            "tokens": None,
            "bytes": 1,
            "results": {"rocmforge": result(0.01, 0.0), "torch": result(0.02, 0.0)},
        },
    ]
    summary = bench.summary(rows)
    assert summary == pytest.approx({"rotary vs vLLM CUDA": 3.0, "causal mask vs torch": 2.0})  # sqrt(1.5 * 6)
    source, document = tmp_path / "r.json", tmp_path / "d.md"
    source.write_text(
        json.dumps(
            {
                "device": "G",
                "torch": "2",
                "vllm": "0",
                "ceilings": {"copy": 1e12},
                "elementwise": rows,
                "summary": summary,
            }
        )
    )
    text = "a\n<!-- elementwise -->\nold\n<!-- /elementwise -->\nb <!-- tables -->\n"
    document.write_text(text)
    table.main(str(source), str(document))
    made = document.read_text()
    assert made.startswith("a\n<!-- elementwise -->\nG, torch 2") and "old" not in made
    assert made.endswith("<!-- /elementwise -->\nb <!-- tables -->\n")
    assert "| A 32/2, 64 | 2 | 500 | 50% | 1.0e-03 | 3 (1.50x), 1.0e-03 | wrong result |" in made
    assert "| B 96/8, 1 | 2 | 500 | 50% | 1.0e-03 | 12 (6.00x), 1.0e-03 |  |" in made
    assert "**causal mask**" in made and "| 8x8 | 10 | 100 | 50% | 0.0e+00 | 20 (2.00x), 0.0e+00 |" in made
    table.main(str(source), str(document))
    assert document.read_text() == made
    document.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines <!-- elementwise -->"):
        table.main(str(source), str(document))


@pytest.mark.parametrize("results", sorted(path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")))
def test_results_stand_in_the_document(tmp_path, results):
    """What was measured stands in the document as the command puts it there."""
    copy = tmp_path / "d.md"
    document = ROOT / "docs" / "benchmarks_h200.md"
    copy.write_text(document.read_text())
    table.main(str(ROOT / "benchmarks" / "results" / f"{results}.json"), str(copy))
    assert copy.read_text() == document.read_text()


def test_all_benchmarks_are_run_and_reported(tmp_path, monkeypatch, capsys):
    """One that fails keeps none of the others from it; one whose tool is missing is named."""
    stand_ins = tmp_path / "benchmarks" / "kernels"
    stand_ins.mkdir(parents=True)
    for folder in (stand_ins, stand_ins.parent):
        (folder / "__init__.py").touch()
    for part in ("attention", "mla", "problems", "elementwise", "counters"):
        (stand_ins / f"{part}.py").write_text(
            "import pathlib, sys\nprint(*sys.argv[1:-1])\n"
            + (
                "sys.exit('no such case')"
                if part in ("mla", "problems", "elementwise")
                else f"pathlib.Path(sys.argv[-1]).write_text(pathlib.Path({str(ROOT / 'benchmarks' / 'results')!r}, "
                f"{ {'attention': 'h200', 'counters': 'counters_h200'}[part] + '.json'!r}).read_text())"
            )
        )
    monkeypatch.chdir(tmp_path)  # where `python -m` looks first
    monkeypatch.setattr(run.shutil, "which", lambda name: name)
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "new" / "results"
    monkeypatch.setattr(sys, "argv", ["run.py", str(folder)])
    assert run.main() == 1
    said = capsys.readouterr().out
    assert "done: attention, counters; failed: mla, problems, elementwise" in said and "no plot: matplotlib" in said
    assert said.count("left out: vLLM is not installed") == 2
    assert (folder / "attention.log").read_text() == "--sweeps --out\n"
    assert "no such case" in (folder / "elementwise.log").read_text()
    document = (ROOT / "docs" / "benchmarks_h200.md").read_text()
    report = (folder / "report.md").read_text()
    for marker in ("tables", "counters"):
        begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
        assert document.partition(begin)[2].partition(end)[0] == report.partition(begin)[2].partition(end)[0] != ""
    monkeypatch.setattr(sys, "argv", ["run.py", str(folder), "--benchmarks", "attention,speed"])
    with pytest.raises(SystemExit):
        run.main()
    assert "--benchmarks has speed; there are attention," in capsys.readouterr().err


def test_bench_results_become_a_table(tmp_path):
    """Of two files; unanswered requests and a run without rocmforge are refused."""
    with pytest.raises(RuntimeError, match="3 of 4 requests were answered, with 24 of 32 tokens"):
        checked({"completed": 3, "total_output_tokens": 24}, 4, 32)

    def one(time, rate):
        return {
            "measures": {
                "ttft_concurrency1_ms": time,
                "output_tokens_s_concurrency1": rate,
                "throughput_tokens_s": rate,
            },
            "done": True,
        }

    ours, others, document = (tmp_path / name for name in ("a.json", "b.json", "d.md"))
    ours.write_text(json.dumps({"bench": {"rocmforge": one(2.0, 30.0)}, "failed": []}))
    others.write_text(
        json.dumps(
            {
                "bench": {
                    "TRITON_ATTN": one(3.0, 10.0),
                    "FLASH_ATTN": {"failed": "why"},
                    "HALF": {"measures": {"ttft_concurrency1_ms": 1.0}, "failed": "why"},
                }
            }
        )
    )
    document.write_text("<!-- bench -->\n<!-- /bench -->\n")
    table.main(str(ours), str(others), str(document))
    assert document.read_text().splitlines() == [
        "<!-- bench -->",
        "|  | rocmforge | TRITON_ATTN | HALF |",
        "|---|---|---|---|",
        "| concurrency 1: median time to first token, ms | 2 | 3 (1.50x) | 1 (0.50x) |",
        "| concurrency 1: generated tokens a second | 30 | 10 (3.00x) |  |",
        "| the same: tokens a second, of prompts and answers | 30 | 10 (3.00x) |  |",
        "<!-- /bench -->",
    ]
    with pytest.raises(ValueError, match="no complete run of rocmforge"):
        table.main(str(others), str(document))
