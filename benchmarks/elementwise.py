#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mask, rotary and KV-write kernels against the bandwidth of a copy, on one GPU.

    python benchmarks/elementwise.py [--tokens 8192]

Each kernel is replayed from a CUDA graph of 20 launches over buffers that together exceed the L2 cache; the median of
the repetitions is shown. "of copy" is the kernel's bytes (each read and written once) per second over a copy's.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch

from rocmforge_plugin import ops

LAUNCHES, REPETITIONS = 20, 30
HEAD = 128


def milliseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Median time of one call; `calls` do the same on different buffers and are taken in turn."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(LAUNCHES):
            calls[i % len(calls)]()
    times = []
    for _ in range(REPETITIONS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / LAUNCHES)
    return statistics.median(times)


def copy_bandwidth() -> float:
    """Bytes per second of a large device-to-device copy, read and written: the driver's own, outside of graphs."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(REPETITIONS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(4):
            target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 4)
    return 2 * source.numel() / statistics.median(times) * 1e3


class Batch:
    """A layer's tensors for `tokens` tokens."""

    def __init__(self, tokens: int, heads: int, kv_heads: int, rotary_dim: int, interleaved: bool) -> None:
        self.tokens, self.heads, self.kv_heads, self.rotary_dim = tokens, heads, kv_heads, rotary_dim
        options = dict(dtype=torch.bfloat16, device="cuda")
        sizes = [heads * HEAD, kv_heads * HEAD, kv_heads * HEAD]
        qkv = torch.randn(tokens, sum(sizes), **options)
        self.query, self.key, self.value = qkv.split(sizes, dim=-1)
        self.out = torch.empty(tokens, sizes[0], **options)
        self.table = torch.randn(131072, rotary_dim, **options)
        self.positions = torch.randint(0, 131072, (tokens,), device="cuda")
        blocks = tokens // 16 + 8
        self.cache = torch.zeros(blocks, kv_heads, 16, 2 * HEAD, **options)
        self.slots = torch.randperm(blocks * 16, device="cuda")[:tokens]
        self.weight = torch.ones(HEAD, **options)
        self.interleaved = interleaved

    def rotary(self) -> None:
        ops.rotary(self.positions, self.query, self.key, self.table, head_size=HEAD, interleaved=self.interleaved)

    def kv_write(self) -> None:
        shape = (self.kv_heads, HEAD)
        ops.kv_write(self.key.unflatten(1, shape), self.value.unflatten(1, shape), self.cache, self.slots)

    def fused(self, norm: bool = False, out: bool = False) -> None:
        weight = self.weight if norm else None
        ops.rotary_kv_write(self.positions, self.query, self.key, self.value, self.table, self.cache, self.slots,
                            interleaved=self.interleaved, q_norm_weight=weight, k_norm_weight=weight,
                            query_out=self.out if out else None)

    def bytes(self, kind: str) -> int:
        """Read and written, the table's rows once a token."""
        size = 2 * 2 * self.tokens * HEAD
        table = 2 * self.tokens * self.rotary_dim
        part = self.rotary_dim / HEAD
        query = {"rotary": part, "rotary + write": part}.get(kind, 1.0)
        return int({"rotary": size * (self.heads + self.kv_heads) * part + table,
                    "kv write": size * 2 * self.kv_heads}.get(
                        kind, size * (self.heads * query + 2 * self.kv_heads) + table))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="*", default=[1, 64, 8192])
    arguments = parser.parse_args()
    copy = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copy {copy / 1e9:.0f} GB/s")
    print(f"{'model':24}{'kernel':24}{'tokens':>8}{'us':>10}{'GB/s':>8}{'of copy':>9}")
    models = {"GLM-4-9B 32/2": (32, 2, 64, True), "GLM-4.6 96/8": (96, 8, 64, False),
              "full rotary 32/8": (32, 8, 128, False)}
    for model, (heads, kv_heads, rotary_dim, interleaved) in models.items():
        for tokens in arguments.tokens:
            # Enough sets of buffers to push each other out of the L2 cache.
            per_set = 4 * tokens * (heads + 2 * kv_heads) * HEAD
            batches = [Batch(tokens, heads, kv_heads, rotary_dim, interleaved)
                       for _ in range(max(1, min(LAUNCHES, (256 << 20) // per_set)))]
            kernels = {"rotary": Batch.rotary, "kv write": Batch.kv_write, "rotary + write": Batch.fused,
                       "rotary + write, q out": lambda b: b.fused(out=True),
                       "norm + rotary + write": lambda b: b.fused(norm=True)}
            for kind, call in kernels.items():
                time = milliseconds([lambda b=b: call(b) for b in batches])
                rate = batches[0].bytes(kind) / time * 1e3
                print(f"{model:24}{kind:24}{tokens:8}{time * 1e3:10.2f}{rate / 1e9:8.0f}{rate / copy:9.0%}")
    for shape in ((8, 32, 2048, 2048), (32, 64, 8256), (1, 16384, 16384)):
        scores = torch.zeros(shape, dtype=torch.bfloat16, device="cuda")
        cache_len = shape[-1] - shape[-2]
        time = milliseconds([lambda: ops.causal_mask(scores, cache_len)])
        rows = scores.numel() // shape[-1] // shape[-2]
        written = 2 * rows * shape[-2] * (shape[-2] - 1) // 2
        print(f"{'causal mask':24}{'x'.join(map(str, shape)):24}{'':8}{time * 1e3:10.2f}{written / time / 1e6:8.0f}"
              f"{written / time * 1e3 / copy:9.0%}")


if __name__ == "__main__":
    main()
