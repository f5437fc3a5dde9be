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
import functools
import json
from collections.abc import Sequence

import torch

from . import attention_peers as peers
from .attention_cases import CASES, SWEEPS, Case, input_sets, sampled_error
from .compare import OURS, Calls, Row, ceilings, compare, ratios, said
from .timing import device_and_host

PEERS = ("vLLM Triton", "FlashAttention-3", "torch SDPA")


def measure(case: Case, ceiling: dict[str, float], only: Sequence[str]) -> Row:
    sets = input_sets(case)

    def begin(make: peers.Contestant) -> Calls:
        sets[0].out.fill_(float("nan"))
        return make(case, sets)

    def error(name: str, result: object) -> float | None:
        return sampled_error(case, sets[0]) if name in peers.PAGED else None

    contestants = {
        name: functools.partial(begin, make) for name, make in peers.available(case).items() if not only or name in only
    }
    row = compare(case, ceiling, contestants, error)
    if not only or OURS in only:
        row["plan_ms"], _, row["plan_host_us"] = device_and_host(peers.plan_only(case, sets))
    return row


def summary(rows: Sequence[Row]) -> dict[str, float]:
    """Speed relative to each peer, in geometric mean over the decode and the prefill cases."""
    kinds = {"prefill": ("prefill", "chunked"), "decode": ("decode", "spec")}
    means: dict[str, float] = {}
    for kind, begins in kinds.items():
        means |= ratios(kind, [row for row in rows if row["case"].startswith(begins)], PEERS)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--sweeps", action="store_true", help="also series over batch, context, head size and float16")
    parser.add_argument("--cases", nargs="*", default=[], help="parts of the names of cases to run")
    parser.add_argument("--only", nargs="*", default=[], help="contestants to run")
    arguments = parser.parse_args()
    ceiling = ceilings()
    print(said(ceiling), flush=True)

    def measured(cases: Sequence[Case]) -> list[Row]:
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
