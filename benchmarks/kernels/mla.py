# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention against its peers on one GPU, in one run on the same tensors.

    python -m benchmarks.kernels.mla [--out results.json] [--cases PART ...] [--only NAME ...]

Decode from a paged latent cache, and prefill of the expanded heads with log-sum-exp. As attention.py: calls captured in
a CUDA graph that rotates over sets of inputs larger together than the L2 cache, the median of the replays, its share of
the ceilings measured in the same run, the host's time of a call outside graphs, and the error against fp64 at a few
tokens. What is in a peer's time and what is not: mla_peers.py. Contestants that are not installed are left out.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from . import mla_peers as peers
from .compare import OURS, Calls, Row, ceilings, compare, ratios, said
from .mla_cases import (
    CASES,
    PREFILL,
    Case,
    Inputs,
    PrefillCase,
    PrefillInputs,
    sampled_error,
    sampled_prefill_error,
    sets_of,
)
from .timing import device_and_host

WRONG = 0.02  # relative error


def decode(case: Case, ceiling: Mapping[str, float], only: Sequence[str], device: str = "cuda") -> Row:
    """All contestants' results of a decode case."""
    sets = [Inputs(case, seed, device) for seed in range(sets_of(case))]

    def error(name: str, result: Any) -> float:
        return sampled_error(case, sets[0], result)

    contestants = {
        name: functools.partial(make, case, sets)
        for name, make in peers.available().items()
        if not only or name in only
    }
    row = compare(case, ceiling, contestants, error)
    return _with_plan(row, peers.plan_only(case, sets) if OURS in contestants else None)


def prefill(case: PrefillCase, ceiling: Mapping[str, float], only: Sequence[str], device: str = "cuda") -> Row:
    """All contestants' results of a prefill case."""
    sets = [PrefillInputs(case, seed, device) for seed in range(sets_of(case))]

    def error(name: str, result: Any) -> float:
        out, log_sums, *_ = result
        return sampled_prefill_error(case, sets[0], out, log_sums)

    contestants = {
        name: functools.partial(make, case, sets)
        for name, make in peers.prefill_available().items()
        if not only or name in only
    }
    row = compare(case, ceiling, contestants, error)
    return _with_plan(row, peers.prefill_plan_only(case, sets) if OURS in contestants else None)


def _with_plan(row: Row, calls: Calls | None) -> Row:
    if calls is not None:
        row["plan_ms"], _, row["plan_host_us"] = device_and_host(calls)
    return row


def main() -> None:
    """Run the cases that the command line names.

    Raises:
        SystemExit: one of our results is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--cases", nargs="*", default=[], help="parts of the names of cases to run")
    parser.add_argument("--only", nargs="*", default=[], help="contestants to run")
    arguments = parser.parse_args()
    ceiling = ceilings()
    print(said(ceiling), flush=True)

    def chosen(name: str) -> bool:
        return not arguments.cases or any(part in name for part in arguments.cases)

    decoded = [decode(case, ceiling, arguments.only) for case in CASES if chosen(case.name)]
    prefilled = [prefill(case, ceiling, arguments.only) for case in PREFILL if chosen(case.name)]
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "vllm": importlib.metadata.version("vllm") if importlib.util.find_spec("vllm") else None,
        "ceilings": ceiling,
        "mla_decode": decoded,
        "mla_prefill": prefilled,
        "summary": ratios("decode", decoded, peers.PEERS) | ratios("prefill", prefilled, peers.PEERS),
    }
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(result, file, indent=1)
    ours = [(row["case"], row["results"][OURS]["error"]) for row in decoded + prefilled if OURS in row["results"]]
    if wrong := [f"{case}: {error:.1e}" for case, error in ours if not error <= WRONG]:
        raise SystemExit(f"rocmforge's results are wrong: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
