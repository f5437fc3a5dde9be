# SPDX-License-Identifier: Apache-2.0
"""One case, all contestants: times, shares of the floor, errors; and means over cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from .timing import copy_bandwidth, device_and_host, milliseconds

OURS = "rocmforge"
Calls = Sequence[Callable[[], Any]]  # that do the same on different sets of inputs
Row = dict[str, Any]


class Work(Protocol):
    """A case."""

    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> float: ...
    @property
    def flops(self) -> float: ...


def ceilings() -> dict[str, float]:
    """Copied bytes (read and written) and bf16 matrix-product operations per second."""
    copy = copy_bandwidth()
    a, b = (torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    product = torch.empty_like(a)
    return {"copy": copy, "product": 2 * 8192**3 / milliseconds([lambda: torch.mm(a, b, out=product)])[0] * 1e3}


def said(ceiling: Mapping[str, float]) -> str:
    """The device and its ceilings, for the terminal."""
    return (
        f"{torch.cuda.get_device_name()}: copy {ceiling['copy'] / 1e9:.0f} GB/s, product "
        f"{ceiling['product'] / 1e12:.0f} TFLOP/s, torch {torch.__version__}"
    )


def compare(
    case: Work,
    ceiling: Mapping[str, float],
    contestants: Mapping[str, Callable[[], Calls]],
    error: Callable[[str, Any], float | None],
) -> Row:
    """Times of whoever takes the case, in a row of results.

    `error` gets a contestant's name and what its first call returned after all were timed. Of ours a refusal is raised.
    """
    floor = max(case.bytes / ceiling["copy"], case.flops / ceiling["product"]) * 1e3
    row: Row = {"case": case.name, "floor_ms": floor, "bytes": case.bytes, "flops": case.flops, "results": {}}
    for name, make in contestants.items():
        try:
            calls = make()
            time, spread, host = device_and_host(calls)
        except Exception as refused:  # peers have errors of their own, as Triton of memory that does not suffice
            if name == OURS:
                raise
            why = next(iter(str(refused).splitlines()), type(refused).__name__)
            print(f"{case.name:38}{name:18} does not take this case: {why[:80]}", flush=True)
            continue
        result = {
            "ms": time,
            "spread_ms": spread,
            "of_floor": floor / time,
            "tb_s": case.bytes / time / 1e9,
            "tflop_s": case.flops / time / 1e9,
            "host_us": host,
        }
        far = error(name, calls[0]())
        if far is not None:
            result["error"] = far
        row["results"][name] = result
        print(
            f"{case.name:38}{name:18}{time:10.4f} ms{floor / time:8.1%} of floor{result['tb_s']:7.2f} TB/s"
            f"{result['tflop_s']:7.0f} TFLOP/s{host:7.1f} us of the host {'' if far is None else f'{far:.1e}'}",
            flush=True,
        )
        del calls  # and the tensors that it holds
    return row


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def ratios(kind: str, rows: Sequence[Row], peers: Sequence[str]) -> dict[str, float]:
    """How many times a peer's time ours is, in geometric mean over the rows that have both."""
    means: dict[str, float] = {}
    for peer in peers:
        pairs = [
            r["results"][peer]["ms"] / r["results"][OURS]["ms"] for r in rows if {peer, OURS} <= r["results"].keys()
        ]
        if pairs:
            name = f"{kind} vs {peer}"
            means[name] = geometric_mean(pairs)
            print(f"{name}: {means[name]:.2f}x, least {min(pairs):.2f}x")
    return means
