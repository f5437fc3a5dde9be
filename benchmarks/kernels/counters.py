# SPDX-License-Identifier: Apache-2.0
"""What bounds a kernel: its hardware counters on one NVIDIA GPU, read by Nsight Compute (ncu).

    python -m benchmarks.kernels.counters [--out counters.json] [--cases PART ...]

Each case runs in a process of its own under ncu, on tensors that are rotated beyond the L2 cache as in the other
benchmarks, caches and clocks left as they are. A row is the median of a kernel's launches. Beside the layers' rotary
there is torch's `add_` over as many bytes in one piece, which is as fast as a launch of that size gets, and beside
attention FlashAttention-3, if vLLM is there.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import attention_cases, elementwise_cases

LAUNCHES = 4
# What a row shows: a counter of ncu's and the factor to the unit named.
METRICS = {
    "us": ("gpu__time_duration.sum", 1e-3),
    "MB read": ("dram__bytes_read.sum", 1e-6),
    "MB written": ("dram__bytes_write.sum", 1e-6),
    "DRAM": ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed", 0.01),
    "L2": ("lts__throughput.avg.pct_of_peak_sustained_elapsed", 0.01),
    "tensor cores": ("sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active", 0.01),
    "issue": ("smsp__issue_active.avg.pct_of_peak_sustained_active", 0.01),
    "warps": ("sm__warps_active.avg.pct_of_peak_sustained_active", 0.01),
    "registers": ("launch__registers_per_thread", 1.0),
}
WAIT = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio"
# Why warps wait, in cycles an instruction issued: memory, the tensor cores, a fixed latency, a barrier.
WAITS = {"memory": "long_scoreboard", "products": "gmma", "fixed": "wait", "barrier": "barrier"}
Calls = Sequence[Callable[[], object]]
Case = tuple[str, Callable[[], Calls]]


def cases() -> Iterator[Case]:
    """Names, and what makes the calls."""
    import torch

    from . import attention_peers as peers
    from .attention_cases import CASES, input_sets
    from .elementwise_cases import BOTH, MODELS, ROTARY, WRITE, Batch, batches
    from .elementwise_peers import ours

    tokens = 8192

    def rotary_calls(model: elementwise_cases.Model, kind: str) -> Calls:
        return [functools.partial(ours(kind), b) for b in batches(model, tokens)]

    def add_calls(elements: int) -> Calls:
        return [functools.partial(x.add_, 1) for x in torch.randn(8, elements, device="cuda").bfloat16()]

    def attention_calls(case: attention_cases.Case, name: str) -> Calls:
        return peers.available(case)[name](case, input_sets(case))

    for model in MODELS:
        for kind in (ROTARY, BOTH, WRITE):
            yield f"{model.name} {kind}", functools.partial(rotary_calls, model, kind)
        elements = Batch.bytes_of(model, tokens, ROTARY) // 4  # read and written, 2 bytes each
        yield f"{model.name} add_ in one piece", functools.partial(add_calls, elements)
    for case in CASES:
        if any(part in case.name for part in ("b1 ctx128k", "b32 ctx8k 32/8", "1x16k", "8x2k")):
            for name in ("rocmforge", "FlashAttention-3"):
                if name in peers.available(case):
                    yield f"{case.name} {name}", functools.partial(attention_calls, case, name)


def launch(name: str) -> None:
    """Run the named case's calls, LAUNCHES of them between the marks that ncu looks for."""
    import torch

    calls = dict(cases())[name]()
    for call in calls[:2]:
        call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    for i in range(LAUNCHES):
        calls[i % len(calls)]()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def number(text: str) -> float:
    """As ncu writes it, with commas between thousands; nan for a counter that it could not read."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return math.nan


def rows(report: str) -> list[dict[str, Any]]:
    """For each kernel in ncu's CSV page `raw`, in the order of their first launches: medians over its launches.

    Raises:
        ValueError: there is no table in it.
    """
    lines = [line for line in report.splitlines() if line.startswith('"')]
    if len(lines) < 3:
        raise ValueError(f"ncu wrote no table: {report.strip()[-500:] or 'nothing'}")
    head, _, *data = csv.reader(lines)
    kernels: dict[str, list[dict[str, str]]] = {}
    for cells in data:
        launched = dict(zip(head, cells, strict=True))
        kernels.setdefault(launched["Kernel Name"], []).append(launched)

    def median(launches: list[dict[str, str]], metric: str) -> float:
        return statistics.median(number(one.get(metric, "")) for one in launches)

    return [
        {
            "kernel": short(name),
            "launches": len(launches),
            **{label: factor * median(launches, metric) for label, (metric, factor) in METRICS.items()},
            "waits": {label: median(launches, WAIT.format(reason)) for label, reason in WAITS.items()},
        }
        for name, launches in kernels.items()
    ]


def short(kernel: str) -> str:
    """A kernel's name without templates' arguments and parameters."""
    return kernel.removeprefix("void ").partition("<")[0].partition("(")[0]


def profile(ncu: str, name: str) -> list[dict[str, Any]]:
    """One case's rows.

    Raises:
        RuntimeError: ncu or the case failed.
    """
    metrics = [metric for metric, _ in METRICS.values()] + [WAIT.format(reason) for reason in WAITS.values()]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "ncu.csv")
        command = [
            ncu,
            "--clock-control",
            "none",
            "--cache-control",
            "none",
            "--profile-from-start",
            "off",
            "--metrics",
            ",".join(metrics),
            "--page",
            "raw",
            "--csv",
            "--log-file",
            str(log),
            sys.executable,
            "-m",
            "benchmarks.kernels.counters",
            "--launch",
            name,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        report = log.read_text() if log.exists() else ""
    if done.returncode:
        raise RuntimeError(f"{name}: ncu ended with {done.returncode}: {(done.stderr + report).strip()[-1000:]}")
    return rows(report)


def main() -> int:
    """Profile the cases that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file, written after every case")
    parser.add_argument("--cases", nargs="*", default=[], help="parts of the names of cases to run")
    parser.add_argument("--launch", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.launch:
        launch(arguments.launch)
        return 0
    ncu = shutil.which("ncu")
    if ncu is None:
        raise SystemExit("ncu is not on the PATH; it comes with NVIDIA's CUDA toolkit (Nsight Compute)")
    found: list[dict[str, Any]] = []
    for name, _ in cases():
        if arguments.cases and not any(part in name for part in arguments.cases):
            continue
        for row in profile(ncu, name):
            found.append({"case": name, **row})
            waits = ", ".join(f"{label} {cycles:.1f}" for label, cycles in row["waits"].items())
            print(
                f"{name:34}{row['kernel']:34}{row['us']:9.1f} us{row['MB read']:8.1f} MB read"
                f"{row['MB written']:8.1f} written  DRAM {row['DRAM']:4.0%}  L2 {row['L2']:4.0%}  "
                f"tensor cores {row['tensor cores']:4.0%}  issue {row['issue']:4.0%}  warps {row['warps']:4.0%} of "
                f"{row['registers']:.0f} registers  waits: {waits}",
                flush=True,
            )
        if arguments.out:
            Path(arguments.out).write_text(json.dumps({"counters": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
