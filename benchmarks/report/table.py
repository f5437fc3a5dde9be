# SPDX-License-Identifier: Apache-2.0
"""Markdown tables of a benchmark's results, put between a document's markers for that benchmark.

    python -m benchmarks.report.table benchmarks/results/h200.json docs/benchmarks_h200.md

What kernels/attention.py wrote goes to <!-- tables -->, mla.py's results to <!-- mla -->, those of problems.py to
<!-- problems -->, of elementwise.py to <!-- elementwise -->, of counters.py to <!-- counters -->, of serving's section
`bench` to <!-- bench -->; of these several files may be named, one for each run of some of the backends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PEERS = ("vLLM Triton", "FlashAttention-3", "torch SDPA")
MLA_PEERS = ("vLLM Triton", "FlashAttention-3", "FlashMLA")
PROBLEM_PEERS = ("vLLM Triton", "FlashAttention-3", "rocmforge, batch-invariant")
VISION_PEERS = ("torch SDPA, each image", "torch SDPA, one batch", "torch SDPA, padded", "FlashAttention-3")
ELEMENTWISE_PEERS = ("vLLM CUDA", "vLLM Triton", "vLLM one launch", "inductor", "torch")


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(cells)} |" for cells in lines)]


def rows(
    cases: list[dict], host: bool, peers: tuple[str, ...] = PEERS, what: str = "case (q heads/kv heads)"
) -> list[str]:
    """A line for each case: our time, its share of the floor, what precedes it, and peers' times with our speed-up."""
    head = [what, "rocmforge", "of floor", *(["plan, once a step", "host, us a call"] if host else []), *peers]
    lines = []
    for case in cases:
        times = case["results"]
        ours = times["rocmforge"]
        cells = [case["case"], f"{ours['ms']:.4g}", f"{ours['of_floor']:.0%}"]
        cells += [f"{case['plan_ms']:.3g}", f"{ours['host_us']:.1f}"] if host else []
        cells += [f"{times[p]['ms']:.4g} ({times[p]['ms'] / ours['ms']:.2f}x)" if p in times else "" for p in peers]
        lines.append(cells)
    return table(head, lines)


def means(result: dict[str, Any]) -> str:
    """The summary that the benchmark made."""
    return "Geometric means: " + "; ".join(f"{name} {value:.2f}x" for name, value in result["summary"].items()) + "."


def attention(result: dict[str, Any]) -> str:
    """The anchors, their geometric means and the sweeps."""
    ceiling = result["ceilings"]
    ceilings = (
        f"{result['device']}, torch {result['torch']}. Ceilings of the same run: copy "
        f"{ceiling['copy'] / 1e9:.0f} GB/s, matrix product {ceiling['product'] / 1e12:.0f} TFLOP/s."
    )
    lines = [ceilings, "", *rows(result["cases"], True), "", means(result)]
    for name, cases in result.get("sweeps", {}).items():
        lines += ["", f"### Over {name}", "", *rows(cases, False)]
    return "\n".join(lines) + "\n"


def mla(result: dict[str, Any]) -> str:
    """Decode from a latent cache, prefill of its expanded heads, and the geometric means."""
    ceiling = result["ceilings"]
    ceilings = (
        f"{result['device']}, torch {result['torch']}, vLLM {result['vllm']}. Ceilings of the same run: copy "
        f"{ceiling['copy'] / 1e9:.0f} GB/s, matrix product {ceiling['product'] / 1e12:.0f} TFLOP/s."
    )
    lines = [ceilings]
    for part, what, peers in (
        ("mla_decode", "decode (h: query heads)", MLA_PEERS),
        ("mla_prefill", "prefill (dims of keys/values)", MLA_PEERS[:2]),
    ):
        lines += ["", *rows(result[part], True, peers, what)]
    worst = max(row["results"]["rocmforge"]["error"] for row in result["mla_decode"] + result["mla_prefill"])
    return "\n".join((*lines, "", f"Largest error of ours: {worst:.1e}. {means(result)}")) + "\n"


def problems(result: dict[str, Any]) -> str:
    """A line for each case of each kind, one for each encoder's, and how much faster we are in mean and at least."""
    ceiling = result["ceilings"]
    ceilings = (
        f"{result['device']}, torch {result['torch']}, vLLM {result['vllm']}. Ceilings of the same run: copy "
        f"{ceiling['copy'] / 1e9:.0f} GB/s, matrix product {ceiling['product'] / 1e12:.0f} TFLOP/s."
    )
    lines = [ceilings]
    if result["problems"]:
        of_kinds = [{**row, "case": f"{row['kind']} | {row['case']}"} for row in result["problems"]]
        lines += ["", *rows(of_kinds, True, PROBLEM_PEERS, "kind | case (q heads/kv heads x head size)")]
        lines[-len(of_kinds) - 1] += "---|"  # of the kinds' column
    if result["vision"]:
        lines += ["", *rows(result["vision"], True, VISION_PEERS, "vision encoder (heads x head size)")]
    lines += ["", *ratios(result)]
    worst = max(row["results"]["rocmforge"]["error"] for row in result["problems"] + result["vision"])
    return "\n".join((*lines, "", f"Largest error of ours: {worst:.1e}.")) + "\n"


def ratios(result: dict[str, Any]) -> list[str]:
    """A table of peers' times over ours: geometric means, and the least of each kind."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in result["problems"]:
        phase = "decode" if row["case"].startswith(("decode", "draft")) else "prefill"
        groups.setdefault(f"{row['kind']}, {phase}", []).append(row)
    if result["vision"]:
        groups["vision"] = result["vision"]
    peers = [
        p for p in dict.fromkeys((*PROBLEM_PEERS, *VISION_PEERS)) if any(f"vs {p}" in n for n in result["summary"])
    ]
    lines = []
    for group, alike in groups.items():
        cells = []
        for peer in peers:
            times = [row["results"] for row in alike if peer in row["results"]]
            least = min((t[peer]["ms"] / t["rocmforge"]["ms"] for t in times), default=0.0)
            mean = result["summary"].get(f"{group} vs {peer}")
            cells.append("" if mean is None else f"{mean:.2f}x, least {least:.2f}x")
        lines.append([group, str(len(alike)), *cells])
    return table(["kind", "cases", *(f"{peer}'s time over ours" for peer in peers)], lines)


def elementwise(result: dict[str, Any]) -> str:
    """A table for each kernel: times in us, our share of copy bandwidth, and everyone's error from fp64."""
    copy = f"Copy of the same run: {result['ceilings']['copy'] / 1e9:.0f} GB/s."
    lines = [f"{result['device']}, torch {result['torch']}, vLLM {result['vllm']}. {copy}"]
    kernels = list(
        dict.fromkeys("causal mask" if r["case"] == "causal mask" else r["kernel"] for r in result["elementwise"])
    )
    for kernel in kernels:
        of_kernel = [
            r for r in result["elementwise"] if kernel in (r["kernel"], r["case"]) and "rocmforge" in r["results"]
        ]
        peers = [p for p in ELEMENTWISE_PEERS if any(p in r["results"] for r in of_kernel)]
        cells = []
        for row in of_kernel:
            found = row["results"]
            ours = found["rocmforge"]
            name = f"{row['case']}, {row['tokens']}" if row["tokens"] else row["kernel"]
            cells.append(
                [
                    name,
                    f"{1e3 * ours['ms']:.4g}",
                    f"{ours['gb_s']:.0f}",
                    f"{ours['of_copy']:.0%}",
                    "wrong result" if ours["wrong"] else f"{ours['error']:.1e}",
                    *(peer_cell(found.get(p), ours) for p in peers),
                ]
            )
        what = "scores" if kernel == "causal mask" else "layer (q heads/kv heads), tokens"
        lines += ["", f"**{kernel}**", "", *table([what, "rocmforge, us", "GB/s", "of copy", "error", *peers], cells)]
    lines += ["", means(result)]
    return "\n".join(lines) + "\n"


def peer_cell(found: dict[str, Any] | None, ours: dict[str, Any]) -> str:
    """A peer's time, how many times faster we are, and its error."""
    if found is None:
        return ""
    if found["wrong"]:
        return "wrong result"
    return f"{1e3 * found['ms']:.4g} ({found['ms'] / ours['ms']:.2f}x), {found['error']:.1e}"


MEASURES = {
    "ttft": "median time to first token, ms",
    "tpot": "median time per token, ms",
    "output_tokens_s": "generated tokens a second",
    "throughput_requests_s": "`vllm bench throughput`: requests a second",
    "throughput_tokens_s": "the same: tokens a second, of prompts and answers",
}


def measure_name(measure: str) -> str:
    """serving/bench.py's name of a measure in words."""
    what, _, concurrency = measure.removesuffix("_ms").partition("_concurrency")
    return f"concurrency {concurrency}: {MEASURES[what]}" if concurrency else MEASURES[what]


def bench(result: dict[str, Any]) -> str:
    """A line for each measure, a column for each backend, empty where its run had ended.

    Raises:
        ValueError: rocmforge's run is missing or incomplete.
    """
    backends = {name: one["measures"] for name, one in result["bench"].items() if one.get("measures")}
    if "rocmforge" not in backends or "failed" in result["bench"]["rocmforge"]:
        raise ValueError(f"there is no complete run of rocmforge, only of {', '.join(backends) or 'none'}")
    ours = backends.pop("rocmforge")
    cells = []
    for measure, mine in ours.items():
        line = [measure_name(measure), f"{mine:.4g}"]
        for other in backends.values():
            if measure not in other:
                line.append("")
                continue
            ratio = other[measure] / mine if measure.endswith("_ms") else mine / other[measure]
            line.append(f"{other[measure]:.4g} ({ratio:.2f}x)")
        cells.append(line)
    return "\n".join(table(["", "rocmforge", *backends], cells)) + "\n"


def counters(result: dict[str, Any]) -> str:
    """A line for each kernel that takes a tenth of its case's time or more."""
    longest: dict[str, float] = {}
    for row in result["counters"]:
        longest[row["case"]] = max(row["us"], longest.get(row["case"], 0.0))
    lines = [
        [
            row["case"],
            f"`{row['kernel']}`",
            f"{row['us']:.1f}",
            f"{row['MB read']:.0f} + {row['MB written']:.0f}",
            *(f"{row[share]:.0%}" for share in ("DRAM", "L2", "tensor cores", "issue", "warps")),
            f"{row['registers']:.0f}",
            ", ".join(f"{why} {n:.1f}" for why, n in row["waits"].items() if n >= 0.05),
        ]
        for row in result["counters"]
        if row["us"] >= 0.1 * longest[row["case"]]
    ]
    return (
        "\n".join(
            table(
                [
                    "case",
                    "kernel",
                    "us",
                    "DRAM, MB read + written",
                    "DRAM",
                    "L2",
                    "tensor cores",
                    "issue",
                    "warps",
                    "registers",
                    "waits",
                ],
                lines,
            )
        )
        + "\n"
    )


KINDS = {
    "cases": ("tables", attention),
    "mla_decode": ("mla", mla),
    "problems": ("problems", problems),
    "elementwise": ("elementwise", elementwise),
    "bench": ("bench", bench),
    "counters": ("counters", counters),
}


def main(source: str, *others: str) -> None:
    """Replace what stands between the markers of the last argument, the document, by the tables of the results before.

    Raises:
        ValueError: the document lacks the markers, or the results are of no kind or cannot be put together.
    """
    *more, document = others
    result = json.loads(Path(source).read_text())
    kind = next((kind for kind in KINDS if kind in result), None)
    if kind is None:
        raise ValueError(f"{source} has none of {', '.join(KINDS)}")
    if more and kind != "bench":
        raise ValueError(f"{source} holds whole results; {', '.join(more)} cannot be added to it")
    for path in more:
        result["bench"] |= json.loads(Path(path).read_text())["bench"]
    marker, text = KINDS[kind]
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    page = Path(document)
    before, found, rest = page.read_text().partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{document} lacks the lines {begin.strip()} and {end}")
    page.write_text(before + begin + text(result) + rest[rest.index(end) :])


if __name__ == "__main__":
    main(*sys.argv[1:])
