# SPDX-License-Identifier: Apache-2.0
"""What a torch profiler trace says of decode steps: kernels, copies, memory and synchronisation, and whose they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from typing import Any

HOST_CALLS = ("cuda_runtime", "cuda_driver")
MARK = "rocmforge::"  # names of the ranges put around attention's host code begin so
# Host calls that wait for the device, move memory or take it. Parts of names, CUDA's and HIP's.
TRAFFIC = {
    "memcpy": ("Memcpy",),
    "memset": ("Memset",),
    "sync": ("Synchronize",),
    "memory": ("Malloc", "Free", "MemAlloc", "MemCreate", "MemMap"),
}


def traffic_kind(name: str) -> str | None:
    """Which sort of TRAFFIC a host call is."""
    return next((kind for kind, parts in TRAFFIC.items() if any(part in name for part in parts)), None)


def digest(events: Sequence[dict[str, Any]], steps: int, own: Collection[str]) -> dict[str, Any]:
    """Figures of `steps` decode steps from a Chrome trace's events.

    Args:
        events: `traceEvents` of the exported trace.
        steps: decode steps inside it.
        own: names of rocmforge's kernels.

    Returns:
        kernels_per_step, gpu_us_per_step; `own` and `others`, {kernel: {per_step, us_each, us_per_step}}, the others'
        ten longest; copies_per_step, memsets_per_step on the device; inside_attention, counts of TRAFFIC by host calls
        inside the ranges named MARK, and ranges_per_step; beside_attention, device copies and memsets of a replayed
        graph whose neighbours in time are rocmforge's kernels; traffic_per_step of the whole step by host call.
    """
    complete = [e for e in events if e.get("ph") == "X"]
    device = sorted(
        (e for e in complete if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")), key=lambda e: e["ts"]
    )
    calls = [e for e in complete if e.get("cat") in HOST_CALLS]
    ranges = defaultdict(list)
    for e in complete:
        if e.get("cat") == "user_annotation" and e["name"].startswith(MARK):
            ranges[e["tid"]].append((e["ts"], e["ts"] + e["dur"]))

    def inside(call: dict[str, Any]) -> bool:
        return any(start <= call["ts"] <= end for start, end in ranges.get(call["tid"], ()))

    kernels = [e for e in device if e["cat"] == "kernel"]
    times: dict[str, list[float]] = defaultdict(list)
    for e in kernels:
        times[e["name"]].append(e["dur"])
    table = {
        name: {"per_step": len(t) / steps, "us_each": sum(t) / len(t), "us_per_step": sum(t) / steps}
        for name, t in sorted(times.items(), key=lambda item: -sum(item[1]))
    }
    graphs = {e["args"].get("correlation") for e in calls if "GraphLaunch" in e["name"]}
    beside: Counter[str] = Counter()
    for before, e, after in zip([None, *device], device, [*device[1:], None], strict=False):
        if e["cat"] != "kernel" and e["args"].get("correlation") in graphs:
            beside[e["cat"]] += any(x is not None and x["name"] in own for x in (before, after))
    whole = Counter(e["name"] for e in calls if traffic_kind(e["name"]))
    attention = [e for e in calls if inside(e)]
    return {
        "steps": steps,
        "kernels_per_step": len(kernels) / steps,
        "gpu_us_per_step": sum(e["dur"] for e in kernels) / steps,
        "own_us_per_step": sum(row["us_per_step"] for name, row in table.items() if name in own),
        "own": {name: row for name, row in table.items() if name in own},
        "others": dict([(name, row) for name, row in table.items() if name not in own][:10]),
        "copies_per_step": sum(e["cat"] == "gpu_memcpy" for e in device) / steps,
        "memsets_per_step": sum(e["cat"] == "gpu_memset" for e in device) / steps,
        "graph_launches_per_step": len(graphs) / steps,
        "ranges_per_step": sum(map(len, ranges.values())) / steps,
        "calls_inside_attention": dict(Counter(e["name"] for e in attention)),
        "inside_attention": dict(Counter(kind for e in attention if (kind := traffic_kind(e["name"])))),
        "beside_attention": {name: count for name, count in beside.items() if count},
        "traffic_per_step": {name: count / steps for name, count in whole.items()},
    }
