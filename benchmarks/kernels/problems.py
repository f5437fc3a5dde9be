# SPDX-License-Identifier: Apache-2.0
"""Attention's scores, masks and heads, and vision encoders, against their peers on one GPU, in one run.

    python -m benchmarks.kernels.problems [--out results.json] [--quick] [--budget SECONDS] [--cases PART ...]
                                          [--only NAME ...]

Paged attention with a soft cap, ALiBi's biases, sinks and windows as gpt-oss has them, bidirectional ranges of images,
without causality, with heads of other sizes, and in batch-invariant mode (problems_cases.py); and varlen attention of
images as vision encoders have them (vision.py). Measured as by attention.py, on the same tensors for all; every
contestant's result is compared with fp64. `--quick` runs a few cases of each sort. When the budget is spent no case is
begun any more; which were not is said, and stands in the results.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from . import problems_cases, vision
from . import problems_peers as peers
from .compare import OURS, Calls, Row, ceilings, compare, ratios, said
from .problems_cases import Case, Inputs, sampled_error
from .timing import device_and_host

WRONG = 0.02  # relative error
DECODE = ("decode", "draft")  # how names of cases with few tokens a request begin


def paged(case: Case, ceiling: Mapping[str, float], only: Sequence[str], device: str = "cuda") -> Row:
    """All contestants' results of a case of paged attention."""
    sets = [Inputs(case, seed, device) for seed in range(problems_cases.sets_of(case))]

    def begin(make: peers.Contestant) -> Calls:
        sets[0].out.fill_(float("nan"))
        return make(case, sets)

    contestants = {
        name: functools.partial(begin, make) for name, make in peers.available(case).items() if not only or name in only
    }
    row = compare(case, ceiling, contestants, lambda name, result: sampled_error(case, sets[0]))
    return {"kind": case.kind, **_with_plan(row, peers.plan_only(case, sets))}


def images(case: vision.Case, ceiling: Mapping[str, float], only: Sequence[str], device: str = "cuda") -> Row:
    """All contestants' results of a vision encoder's case."""
    sets = [vision.Inputs(case, seed, device) for seed in range(vision.sets_of(case))]
    contestants = {
        name: functools.partial(make, case, sets)
        for name, make in vision.available().items()
        if not only or name in only
    }
    row = compare(case, ceiling, contestants, functools.partial(vision.error, case, sets[0]))
    return _with_plan(row, vision.plan_only(case, sets))


def _with_plan(row: Row, calls: Calls) -> Row:
    if OURS in row["results"]:
        row["plan_ms"], _, row["plan_host_us"] = device_and_host(calls)
    return row


class Budget:
    """Seconds that may still be spent, and what was left out for want of them."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.left_out: list[str] = []

    def measured(self, cases: Sequence[Any], measure: Callable[[Any], Row]) -> list[Row]:
        """The rows of the cases that were begun in time."""
        rows = []
        for case in cases:
            if time.monotonic() > self._end:
                self.left_out.append(case.name)
            else:
                rows.append(measure(case))
        return rows


def summary(rows: Sequence[Row], encoders: Sequence[Row]) -> dict[str, float]:
    """Speed relative to each peer, in geometric mean over the cases of each kind."""
    means: dict[str, float] = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        for phase, decodes in (("prefill", False), ("decode", True)):
            alike = [row for row in rows if row["kind"] == kind and row["case"].startswith(DECODE) == decodes]
            means |= ratios(f"{kind}, {phase}", alike, peers.PEERS)
    return means | ratios("vision", encoders, vision.PEERS)


def main() -> None:
    """Run the cases that the command line names.

    Raises:
        SystemExit: one of our results is wrong.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file to write")
    parser.add_argument("--quick", action="store_true", help="a few cases of each sort")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds after which no case is begun")
    parser.add_argument("--cases", nargs="*", default=[], help="parts of the kinds and names of cases to run")
    parser.add_argument("--only", nargs="*", default=[], help="contestants to run")
    arguments = parser.parse_args()
    budget = Budget(arguments.budget)
    ceiling = ceilings()
    print(said(ceiling), flush=True)

    def chosen(name: str) -> bool:
        return not arguments.cases or any(part in name for part in arguments.cases)

    cases = [
        case
        for case in (problems_cases.QUICK if arguments.quick else problems_cases.CASES)
        if chosen(f"{case.kind}, {case.name}")
    ]
    encoders = [case for case in (vision.QUICK if arguments.quick else vision.CASES) if chosen(f"vision, {case.name}")]
    # First those for which nothing is compiled.
    of_images = budget.measured(encoders, lambda case: images(case, ceiling, arguments.only))
    rows = budget.measured(cases, lambda case: paged(case, ceiling, arguments.only))
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "vllm": importlib.metadata.version("vllm") if importlib.util.find_spec("vllm") else None,
        "ceilings": ceiling,
        "problems": rows,
        "vision": of_images,
        "left_out": budget.left_out,
        "summary": summary(rows, of_images),
    }
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(result, file, indent=1)
    if budget.left_out:
        print(f"left out, as the budget was spent: {'; '.join(budget.left_out)}")
    ours = [(row["case"], row["results"][OURS]["error"]) for row in rows + of_images if OURS in row["results"]]
    if wrong := [f"{case}: {error:.1e}" for case, error in ours if not error <= WRONG]:
        raise SystemExit(f"rocmforge's results are wrong: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
