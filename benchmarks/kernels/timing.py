# SPDX-License-Identifier: Apache-2.0
"""Times of calls on one GPU, and the copy bandwidth that they are held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

GRAPH_MS, TOTAL_MS = 5.0, 150.0  # length of a graph, and of a measurement
HOST_ROW, HOST_SECONDS = 40, 0.1  # calls in a row, as of a model's layers in a step, and how long rows are begun


def once(call: Callable[[], object]) -> float:
    """Milliseconds of one call between two events."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def milliseconds(calls: Sequence[Callable[[], object]]) -> tuple[float, float]:
    """Median time of one call and the spread (90th minus 10th percentile) of its measurements.

    The calls, which do the same on different buffers, are captured in turn in one graph, whose replays are timed.
    """
    for call in calls:
        call()
    torch.cuda.synchronize()
    guess = min(once(calls[0]) for _ in range(3))
    launches = len(calls) * max(1, min(40, int(GRAPH_MS / guess / len(calls))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(launches):
            calls[i % len(calls)]()
    graph.replay()
    torch.cuda.synchronize()
    repetitions = max(7, min(60, int(TOTAL_MS / (guess * launches))))
    times = sorted(once(graph.replay) / launches for _ in range(repetitions))
    return statistics.median(times), times[int(0.9 * (len(times) - 1))] - times[int(0.1 * (len(times) - 1))]


def host_microseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Median time until one call of a row of calls returns, outside graphs: what it costs the host.

    Behind a wait for the device a call was seen to take longer, 14 to 41 us by the wait's length, so rows begin with
    one that does not count. The device's queue must hold a row's launches; a thousand fit.
    """
    times: list[float] = []
    end = time.perf_counter() + HOST_SECONDS
    while not times or time.perf_counter() < end:
        torch.cuda.synchronize()
        calls[0]()
        for i in range(1, HOST_ROW + 1):
            start = time.perf_counter()
            calls[i % len(calls)]()
            times.append(time.perf_counter() - start)
    torch.cuda.synchronize()
    return statistics.median(times) * 1e6


def device_and_host(calls: Sequence[Callable[[], object]]) -> tuple[float, float, float]:
    """`milliseconds` and `host_microseconds` of the same calls, which hold their tensors no longer than this."""
    return *milliseconds(calls), host_microseconds(calls)


def copy_bandwidth() -> float:
    """Bytes, read and written, per second of a large copy on the device.

    Not from a graph, where a copy may go to a copy engine, which is slower.
    """
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / statistics.median(once(lambda: target.copy_(source)) for _ in range(9)) * 1e3
