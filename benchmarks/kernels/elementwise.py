# SPDX-License-Identifier: Apache-2.0
"""Mask, rotary and KV-write kernels against their peers on one GPU, in one run on the same tensors.

    python -m benchmarks.kernels.elementwise [--out results.json] [--tokens 1 64 8192] [--cases PART ...]
                                             [--only NAME ...]

Each contestant's calls are captured in a CUDA graph that rotates over sets of tensors larger together than the L2
cache (a single token's are not); the median of the replays is shown. GB/s counts what must be read and written at
least, once, whatever a contestant really moves; "of copy" is that over the rate of a large copy in the same run; "us of
the host" is what a call outside graphs costs. The error is that of a call on fresh tensors from fp64, the largest of
its results'; a contestant that errs by more than rounding is shown as wrong, and the exit status is 1 if that is
rocmforge. The peers are described in elementwise_peers.py; those that are not installed are left out. Nothing is timed
before it has been compiled and run.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from . import elementwise_peers as peers
from .elementwise_cases import (
    KINDS,
    LATENT_KINDS,
    LATENT_MODELS,
    MASKS,
    MODELS,
    Batch,
    LatentBatch,
    LatentModel,
    Mask,
    Model,
    batches,
)
from .timing import copy_bandwidth, device_and_host

# Relative; bf16 rounds by 2^-9 at most, arithmetic in bf16 errs a few times more, and what is missing by about 1.
WRONG = 0.02
# The contestant may not take the case; anything else is an error of this program.
REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError, AssertionError, ImportError)


def timed(
    row: dict[str, Any], name: str, copy: float, check: Callable[[], float], calls: Sequence[Callable[[], object]]
) -> None:
    """Add one contestant's result to its row and print it."""
    label = f"{row['case']:20}{row['kernel']:24}{row['tokens'] or '':>6}  {name:18}"
    try:
        error = check()
        time, spread, host = device_and_host(calls)
    except REFUSALS as refusal:
        if name == peers.OURS:
            raise
        print(f"{label} does not take this case: {(str(refusal) or repr(refusal)).splitlines()[0][:90]}", flush=True)
        return
    rate = row["bytes"] / time * 1e3
    row["results"][name] = {
        "ms": time,
        "spread_ms": spread,
        "gb_s": rate / 1e9,
        "of_copy": rate / copy,
        "host_us": host,
        "error": error,
        "wrong": not error <= WRONG,
    }
    ours = row["results"].get(peers.OURS)
    ratio = f"{time / ours['ms']:6.2f}x" if ours and name != peers.OURS else " " * 7
    print(
        f"{label}{time * 1e3:10.2f} us{rate / 1e9:7.0f} GB/s{rate / copy:6.0%} of copy {ratio}"
        f"{host:7.1f} us of the host  error {error:.1e}{'' if error <= WRONG else '  WRONG RESULT'}",
        flush=True,
    )


def error_of(call: peers.Call, batch: Batch | LatentBatch, kind: str) -> float:
    """Of one call on fresh tensors."""
    batch.reset()
    query = call(batch)
    return batch.error(kind, query) if isinstance(batch, Batch) else batch.error(kind)


def measure(model: Model | LatentModel, tokens: int, copy: float, only: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each kernel."""
    sets, rows = batches(model, tokens), []
    bytes_of: Callable[..., int] = type(sets[0]).bytes_of
    for kind in model.kinds:
        row: dict[str, Any] = {
            "case": model.name,
            "kernel": kind,
            "tokens": tokens,
            "bytes": bytes_of(model, tokens, kind),
            "results": {},
        }
        for name, make in peers.available(kind, model.interleaved).items():
            if only and name not in only:
                continue
            try:
                call = make(kind)
            except ImportError as reason:
                print(f"{model.name} {kind}: {name} cannot be imported: {reason}", flush=True)
                continue
            timed(
                row,
                name,
                copy,
                functools.partial(error_of, call, sets[0], kind),
                [functools.partial(call, b) for b in sets],
            )
        rows.append(row)
    return rows


def measure_mask(shape: tuple[int, ...], copy: float, only: Sequence[str]) -> dict[str, Any]:
    """The causal mask of one shape, larger than the L2 cache by itself."""
    mask = Mask(shape)
    row: dict[str, Any] = {
        "case": "causal mask",
        "kernel": "x".join(map(str, shape)),
        "tokens": None,
        "bytes": mask.bytes,
        "results": {},
    }
    for name, call in peers.masks().items():

        def check(call: Callable[[Mask], object] = call) -> float:
            mask.reset()
            call(mask)
            return mask.error()

        if not only or name in only:
            timed(row, name, copy, check, [functools.partial(call, mask)])
    return row


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """For each kernel and peer, how many times rocmforge's speed is the peer's, in geometric mean over the cases."""
    means: dict[str, float] = {}
    for kind in (*KINDS, *LATENT_KINDS, "causal mask"):
        for peer in peers.PEERS:
            ratios = [
                r["results"][peer]["ms"] / r["results"][peers.OURS]["ms"]
                for r in rows
                if kind in (r["kernel"], r["case"])
                and {peer, peers.OURS} <= r["results"].keys()
                and not r["results"][peer]["wrong"]
            ]
            if ratios:
                means[f"{kind} vs {peer}"] = math.exp(sum(map(math.log, ratios)) / len(ratios))
                print(f"{kind} vs {peer}: {means[f'{kind} vs {peer}']:.2f}x, least {min(ratios):.2f}x")
    return means


def main() -> int:
    """Run the cases that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", help="JSON file, written after every case")
    parser.add_argument("--tokens", type=int, nargs="*", default=[1, 64, 8192])
    parser.add_argument("--cases", nargs="*", default=[], help="parts of the names of models to run, or 'causal mask'")
    parser.add_argument("--only", nargs="*", default=[], help="contestants to run")
    arguments = parser.parse_args()
    copy = copy_bandwidth()
    torch.cuda.empty_cache()
    vllm = importlib.metadata.version("vllm") if importlib.util.find_spec("vllm") else None
    print(
        f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.0f} GB/s, torch {torch.__version__}, vLLM {vllm}",
        flush=True,
    )
    rows: list[dict[str, Any]] = []
    result = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "vllm": vllm,
        "ceilings": {"copy": copy},
        "elementwise": rows,
    }

    def save() -> None:
        if arguments.out:
            with open(arguments.out, "w") as file:
                json.dump(result, file, indent=1)

    def chosen(name: str) -> bool:
        return not arguments.cases or any(part in name for part in arguments.cases)

    models: Sequence[Model | LatentModel] = (*MODELS, *LATENT_MODELS)
    for model in filter(lambda m: chosen(m.name), models):
        for tokens in arguments.tokens:
            rows += measure(model, tokens, copy, arguments.only)
            save()
    for shape in MASKS if chosen("causal mask") else ():
        rows.append(measure_mask(shape, copy, arguments.only))
        torch.cuda.empty_cache()
        save()
    result["summary"] = summary(rows)
    save()
    wrong = [f"{r['case']} {r['kernel']} {r['tokens']}" for r in rows if r["results"].get(peers.OURS, {}).get("wrong")]
    print(f"rocmforge's results are wrong: {wrong}" if wrong else "rocmforge's results are right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
