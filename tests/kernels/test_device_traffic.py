# SPDX-License-Identifier: Apache-2.0
"""A decode step through the ops moves no memory, waits for nothing and allocates nothing (torch's profiler, a GPU)."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch

from benchmarks.serving.trace import MARK, digest
from rocmforge_plugin import ops
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem

from .kernel_support import DEVICE, cos_sin_table, launched

pytestmark = pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU: ROCMFORGE_TEST_DEVICE=cuda")

STEPS, LENS, HEADS, KV_HEADS, HEAD, BLOCK = 4, (1, 17, 700, 64, 5000, 128), 16, 2, 128, 16
ROTARY_KERNELS = {"rotary": "rotary_kv_write", "norm and rotary": "norm_rotary_kv_write"}


def decode_step(norm: bool = False) -> Callable[[], torch.Tensor]:
    """What a layer's decode step calls: plan, rotary with the KV write, attention; all buffers made ahead."""
    count, pages = len(LENS), [-(-n // BLOCK) for n in LENS]
    width = (HEADS + 2 * KV_HEADS) * HEAD
    qkv = torch.randn(count, width, dtype=torch.bfloat16, device=DEVICE)
    query, key, value = qkv.split([HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD], dim=-1)
    cache = torch.randn(sum(pages), KV_HEADS, BLOCK, 2 * HEAD, dtype=torch.bfloat16, device=DEVICE)
    table = torch.zeros(count, max(pages), dtype=torch.int32)
    slots = torch.zeros(count, dtype=torch.int64)
    at = 0
    for row, (length, used) in enumerate(zip(LENS, pages, strict=True)):
        table[row, :used] = torch.arange(at, at + used)
        slots[row] = (at + used - 1) * BLOCK + (length - 1) % BLOCK
        at += used
    table, slots = table.to(DEVICE), slots.to(DEVICE)
    seq_lens = torch.tensor(LENS, dtype=torch.int32, device=DEVICE)
    starts = torch.arange(count + 1, dtype=torch.int32, device=DEVICE)
    positions = seq_lens.long() - 1
    angles = cos_sin_table(max(LENS), HEAD // 2, torch.bfloat16)
    weight = torch.ones(HEAD, dtype=torch.bfloat16, device=DEVICE) if norm else None
    planner = AttentionPlanner(Problem(torch.bfloat16, HEADS, KV_HEADS, HEAD, HEAD), DEVICE, count, count)
    out = torch.empty(count, HEADS, HEAD, dtype=torch.bfloat16, device=DEVICE)

    def step() -> torch.Tensor:
        plan = planner.plan(starts, seq_lens, 1, count)
        ops.rotary_kv_write(
            positions,
            query,
            key,
            value,
            angles,
            cache,
            slots,
            interleaved=True,
            q_norm_weight=weight,
            k_norm_weight=weight,
            eps=1e-5,
        )
        return paged_attention(
            query.unflatten(1, (HEADS, HEAD)),
            cache,
            table,
            seq_lens,
            starts,
            max_query_len=1,
            scale=HEAD**-0.5,
            out=out,
            plan=plan,
        )

    return step


def traced(step: Callable[[], object], tmp_path) -> dict:
    """Figures of STEPS calls, from a profile of them that follows two without one."""
    own = launched(lambda: (step(), step()))
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            with torch.profiler.record_function(f"{MARK}step"):
                step()
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    return digest(json.loads((tmp_path / "trace.json").read_text())["traceEvents"], STEPS, set(own))


@pytest.mark.parametrize("form", sorted(ROTARY_KERNELS))
def test_decode_step_is_launches_only(form, tmp_path):
    found = traced(decode_step(form != "rotary"), tmp_path)
    assert found["inside_attention"] == {}, found["calls_inside_attention"]
    assert found["copies_per_step"] == 0 and found["memsets_per_step"] == 0
    assert not found["others"], "kernels that are not rocmforge's ran"
    names = [name for name, row in found["own"].items() if row["per_step"] == 1]
    assert len(names) == found["kernels_per_step"] == 4, found["own"]
    for part in ("attention_plan", ROTARY_KERNELS[form], "attention_decode", "attention_combine"):
        assert any(name.startswith(part) for name in names), f"no {part} among {names}"
    assert sum(found["calls_inside_attention"].values()) <= 4 * STEPS, "a host call besides the launches"


def test_decode_step_does_not_wait():
    """Whatever call could wait, seen by the profiler or not: the host is through while the device is still busy.

    A host that others keep busy gets a device that is busy for longer; one that waits is never through first.
    """
    step = decode_step()
    step()

    def through_first(cycles):
        busy = torch.cuda.Event()
        torch.cuda.synchronize()
        torch.cuda._sleep(cycles)  # a thousand million are about half a second
        busy.record()
        for _ in range(STEPS):
            step()
        first = not busy.query()
        torch.cuda.synchronize()
        return first

    assert any(map(through_first, (10**9, 10**10, 10**11)))


def test_decode_step_allocates_nothing():
    step = decode_step()
    step()
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(STEPS):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    after = torch.cuda.memory_stats()
    for counter in ("allocation.all.allocated", "segment.all.allocated", "allocated_bytes.all.allocated"):
        assert after[counter] == before[counter], counter


HELD: list[torch.Tensor] = []


@pytest.mark.parametrize(
    ("kind", "addition"),
    [
        ("sync", lambda out: torch.cuda.synchronize()),
        ("memcpy", lambda out: out.cpu()),
        ("memory", lambda out: HELD.append(torch.empty(256 << 20, dtype=torch.uint8, device=DEVICE))),
    ],
)
def test_the_profile_shows_traffic(kind, addition, tmp_path):
    """What the tests above look for is seen where it is."""
    step = decode_step()
    torch.cuda.empty_cache()  # or what other tests left would serve the request for memory
    try:
        found = traced(lambda: addition(step()), tmp_path)
    finally:
        HELD.clear()
    assert found["inside_attention"].get(kind, 0) >= 1, found["calls_inside_attention"]


def test_a_captured_step_is_the_same_kernels(tmp_path):
    """In a graph: the four kernels, and no copy or memset node beside them."""
    step = decode_step()
    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    own = launched(lambda: capture(graph, step))
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(STEPS):
            graph.replay()
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    found = digest(json.loads((tmp_path / "trace.json").read_text())["traceEvents"], STEPS, set(own))
    assert sum(own.values()) == found["kernels_per_step"] == 4 and not found["others"]
    assert found["copies_per_step"] == 0 and found["memsets_per_step"] == 0


def capture(graph: torch.cuda.CUDAGraph, step: Callable[[], object]) -> None:
    with torch.cuda.graph(graph):
        step()
