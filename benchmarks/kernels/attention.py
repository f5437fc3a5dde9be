# SPDX-License-Identifier: Apache-2.0
"""Paged attention against its peers on one GPU, in one run on the same tensors.

    python -m benchmarks.kernels.attention [--out results.json] [--sweeps] [--cases PART ...] [--only NAME ...]

Each contestant's calls are captured in a CUDA graph that rotates over sets of inputs larger together than the L2 cache;
the median of the replays is shown, its share of the measured ceilings (copy bandwidth, bf16 matrix product), what a
call outside graphs costs the host, and the error against fp64 at a few tokens. Contestants that are not installed are
left out.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import torch

from . import attention_peers as peers
from .attention_cases import CASES, SWEEPS, Case, input_sets, sampled_error
from .timing import copy_bandwidth, device_and_host, milliseconds


def ceilings() -> dict[str, float]:
    """Copied bytes (read and written) and bf16 matrix-product operations per second."""
    copy = copy_bandwidth()
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = torch.empty_like(a)
    return {"copy": copy, "product": 2 * 8192**3 / milliseconds([lambda: torch.mm(a, b, out=product)])[0] * 1e3}


def measure(case: Case, ceiling: dict[str, float], only: Sequence[str]) -> dict[str, Any]:
    floor = max(case.bytes / ceiling["copy"], case.flops / ceiling["product"]) * 1e3
    row: dict[str, Any] = {
        "case": case.name,
        "floor_ms": floor,
        "bytes": case.bytes,
        "flops": case.flops,
        "results": {},
    }
    sets = input_sets(case)
    for name, make in peers.available(case).items():
        if only and name not in only:
            continue
        sets[0].out.fill_(float("nan"))
        try:
            time, spread, host = device_and_host(make(case, sets))
        except (RuntimeError, ValueError, NotImplementedError, AssertionError) as error:
            if name == "rocmforge":
                raise
            print(f"{case.name:38}{name:18} does not take this case: {str(error).splitlines()[0][:80]}", flush=True)
            continue
        result = {
            "ms": time,
            "spread_ms": spread,
            "of_floor": floor / time,
            "tb_s": case.bytes / time / 1e9,
            "tflop_s": case.flops / time / 1e9,
            "host_us": host,
        }
        if name in peers.PAGED:
            result["error"] = sampled_error(case, sets[0])
        row["results"][name] = result
        far = f"{result['error']:.1e}" if "error" in result else ""
        print(
            f"{case.name:38}{name:18}{time:10.4f} ms{floor / time:8.1%} of floor{result['tb_s']:7.2f} TB/s"
            f"{result['tflop_s']:7.0f} TFLOP/s{host:7.1f} us of the host {far}",
            flush=True,
        )
    if not only or "rocmforge" in only:
        row["plan_ms"], _, row["plan_host_us"] = device_and_host(peers.plan_only(case, sets))
    return row


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(rows: Sequence[dict]) -> dict[str, float]:
    """Speed relative to each peer, in geometric mean over the decode and the prefill cases."""
    ratios: dict[str, float] = {}
    for kind, of_kind in (
        ("prefill", lambda n: n.startswith(("prefill", "chunked"))),
        ("decode", lambda n: n.startswith(("decode", "spec"))),
    ):
        for peer in ("vLLM Triton", "FlashAttention-3", "torch SDPA"):
            pairs = [
                r["results"][peer]["ms"] / r["results"]["rocmforge"]["ms"]
                for r in rows
                if of_kind(r["case"]) and {peer, "rocmforge"} <= r["results"].keys()
            ]
            if pairs:
                ratios[f"{kind} vs {peer}"] = geometric_mean(pairs)
                print(f"{kind} vs {peer}: {ratios[f'{kind} vs {peer}']:.2f}x, least {min(pairs):.2f}x")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--sweeps", action="store_true", help="also series over batch, context, head size and float16")
    parser.add_argument("--cases", nargs="*", default=[], help="parts of the names of cases to run")
    parser.add_argument("--only", nargs="*", default=[], help="contestants to run")
    arguments = parser.parse_args()
    ceiling = ceilings()
    print(
        f"{torch.cuda.get_device_name()}: copy {ceiling['copy'] / 1e9:.0f} GB/s, product "
        f"{ceiling['product'] / 1e12:.0f} TFLOP/s, torch {torch.__version__}",
        flush=True,
    )

    def measured(cases: Sequence[Case]) -> list[dict[str, object]]:
        return [
            measure(case, ceiling, arguments.only)
            for case in cases
            if not arguments.cases or any(part in case.name for part in arguments.cases)
        ]

    rows = measured(CASES)
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "ceilings": ceiling,
        "cases": rows,
        "summary": summary(rows),
    }
    if arguments.sweeps:
        result["sweeps"] = {name: measured(cases) for name, cases in SWEEPS.items()}
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
