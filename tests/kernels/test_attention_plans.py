# SPDX-License-Identifier: Apache-2.0
"""What a plan serves: layers, steps, graphs; and what is launched for it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C
from rocmforge_plugin.device import open_device
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlanner, native_problem
from rocmforge_plugin.problem import Problem

from .attention_support import ON_CPU, TYPES, Batch, launches_of
from .kernel_support import DEVICE, Buffer, same_bits


@pytest.mark.parametrize("dtype", TYPES)
def test_one_plan_serves_many_calls_and_is_remade_in_place(dtype: torch.dtype) -> None:
    """Layers share a plan; the next step's plan overwrites it in the same buffers."""
    first = Batch(dtype, 64, 2, 4, [(1, 70), (20, 20), (3, 90)], 16, seed=1)
    second = Batch(dtype, 64, 2, 4, [(1, 5), (1, 200)], 16, seed=2)
    planner = AttentionPlanner(Problem(dtype, 8, 2, 64, 64), DEVICE, 3, 24)
    where = planner._words.data_ptr(), planner._workspace.data_ptr()
    for batch in (first, second, first):
        for _ in range(2):
            batch.out = Buffer(batch.out.view.shape, batch.out.view.stride(), 24, dtype, 5)
            batch.run(planner)
            batch.check()
    assert (planner._words.data_ptr(), planner._workspace.data_ptr()) == where


def test_planners_beside_each_other_have_plans_at_a_time() -> None:
    """Two batches are planned for and then run, in any order, with one memory for partial results."""
    dtype = TYPES[0]
    batches = [
        Batch(dtype, 64, 2, 4, requests, 16, seed=seed)
        for seed, requests in enumerate(([(1, 700), (20, 20), (3, 90)], [(9, 900), (1, 5)]))
    ]
    first = AttentionPlanner(Problem(dtype, 8, 2, 64, 64), DEVICE, 3, 24)
    second = AttentionPlanner(Problem(dtype, 8, 2, 64, 64), DEVICE, 2, 10, beside=first)
    assert second._workspace.data_ptr() == first._workspace.data_ptr()
    plans = [batch.plan(planner) for planner, batch in zip((first, second), batches, strict=True)]
    for index in (0, 1, 0):
        batch = batches[index]
        batch.out = Buffer(batch.out.view.shape, batch.out.view.stride(), 24, dtype, 5)
        batch.run_with(plans[index])
        batch.check()


@pytest.mark.parametrize("unlike", [{"num_heads": 4}, {"window": 7}, {"key_dims": 128, "value_dims": 128}])
def test_a_planner_beside_another_problems_is_refused(unlike: dict[str, int]) -> None:
    problem: dict[str, Any] = {"num_heads": 8, "num_kv_heads": 2, "key_dims": 64, "value_dims": 64}
    other = AttentionPlanner(Problem(TYPES[0], **problem), DEVICE, 1, 1)
    with pytest.raises(ValueError, match="AttentionPlanner: beside is of Problem.*it must be a planner of Problem"):
        AttentionPlanner(Problem(TYPES[0], **(problem | unlike)), DEVICE, 1, 1, beside=other)


@pytest.mark.parametrize(
    ("requests", "claimed"), [([(40, 48), (40, 70)], 80), ([(1, 70), (20, 20)], 60), ([(1, 70)], 30)]
)
def test_where_all_queries_are_long_nothing_is_launched_for_short_ones(
    requests: list[tuple[int, int]], claimed: int
) -> None:
    """So many tokens leave no room for a decode step's request; where the bound was too large one is served all the
    same.
    """
    batch = Batch(TYPES[0], 64, 2, 4, requests, 16, seed=4)
    longest = max(batch.max_query_len, claimed // len(requests))
    planner = AttentionPlanner(Problem(TYPES[0], 8, 2, 64, 64), DEVICE, len(requests), claimed)
    plan = planner.plan(batch.starts, batch.seq_lens, longest, claimed)
    rocmforge_plugin.reset_launches()
    paged_attention(
        batch.query.view,
        batch.cache,
        batch.block_table,
        batch.seq_lens,
        batch.starts,
        max_query_len=longest,
        scale=batch.scale,
        out=batch.out.view,
        plan=plan,
    )
    assert launches_of("attention_decode") == 0
    assert launches_of("attention_prefill") == launches_of("attention_combine") == 1
    batch.check()


@pytest.mark.skipif(ON_CPU, reason="needs CUDA graphs")
def test_a_graph_captured_with_long_queries_serves_short_ones() -> None:
    """A capture holds the launches for both, whatever its own batch has."""
    batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (20, 20)], 16, seed=5)
    planner = AttentionPlanner(Problem(TYPES[0], 8, 2, 64, 64), DEVICE, 2, 40)
    plan = planner.plan(batch.starts, batch.seq_lens, 20, 40)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        paged_attention(
            batch.query.view,
            batch.cache,
            batch.block_table,
            batch.seq_lens,
            batch.starts,
            max_query_len=20,
            scale=batch.scale,
            out=batch.out.view,
            plan=plan,
        )
    for tokens in (21, 40):
        planner.plan(batch.starts, batch.seq_lens, 20, tokens)
        batch.out.view.fill_(float("nan"))
        graph.replay()
        batch.check()


def test_launches_see_what_was_written_just_ahead() -> None:
    """Attention starts before the launch ahead of it has ended, be it the plan or what fills the block table."""
    batch = Batch(TYPES[0], 128, 2, 4, [(1, 700), (1, 40)], 16, seed=3)
    planner = batch.planner()
    tables, lengths = ((x.clone(), x.flip(0).contiguous()) for x in (batch.block_table, batch.seq_lens))
    out = torch.empty(40, *batch.out.view.shape, dtype=batch.dtype, device=DEVICE)

    def step(turn: int) -> None:
        batch.seq_lens.copy_(lengths[turn % 2])
        if turn % 4 < 2:
            batch.block_table.copy_(tables[turn % 2])
        plan = planner.plan(batch.starts, batch.seq_lens, 1, batch.tokens)
        batch.block_table.copy_(tables[turn % 2])
        if turn % 4 < 2:
            planner.plan(batch.starts, batch.seq_lens, 1, batch.tokens)
        paged_attention(
            batch.query.view,
            batch.cache,
            batch.block_table,
            batch.seq_lens,
            batch.starts,
            max_query_len=1,
            scale=batch.scale,
            out=batch.out.view,
            plan=plan,
        )

    for turn in range(2):
        batch.out.view.fill_(float("nan"))
        rocmforge_plugin.reset_launches()
        step(turn)
        assert launches_of("attention_plan") == 2
        assert launches_of("attention_decode") == launches_of("attention_combine") == 1
        batch.check()
        out[turn] = batch.out.view
    graph = None if ON_CPU else torch.cuda.CUDAGraph()
    with contextlib.nullcontext() if graph is None else torch.cuda.graph(graph):
        for turn in range(2, len(out)):
            step(turn)
            out[turn] = batch.out.view
    if graph is not None:
        graph.replay()
    assert all(same_bits(result, out[turn % 2]) for turn, result in enumerate(out))


def test_without_a_plan() -> None:
    """The op makes one itself."""
    batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (20, 20), (3, 90)], 16, seed=1)
    batch.run(None)
    batch.check()


@pytest.mark.parametrize("group", [1, 6, 64])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_planner_made_here_is_for_the_queries_that_its_decode_kernels_take(group: int, beyond: int) -> None:
    """How many rows that is the kernels say; longer queries are prefill's."""
    planner = Batch(TYPES[0], 64, 1, group, [(1, 1)], 16, seed=1).planner()
    new = _C.decode_rows(open_device(DEVICE), native_problem(planner.problem)) // group + beyond
    if new == 0:
        pytest.skip("no decode kernel takes one token of so many heads")
    batch = Batch(TYPES[0], 64, 1, group, [(new, new + 30)] * 2, 16, seed=1)
    rocmforge_plugin.reset_launches()
    batch.run(None)
    assert (launches_of("attention_decode"), launches_of("attention_prefill")) == (1 - beyond, beyond)
    batch.check()


def test_padding_requests_are_skipped() -> None:
    """Requests without query tokens or keys, as a padded graph has them, change nothing."""
    batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1, padding=2)
    empty = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    batch.requests += [(0, 0), (0, 0)]
    batch.seq_lens = torch.cat((batch.seq_lens, empty))
    batch.starts = torch.cat((batch.starts, batch.starts[-1:].expand(2)))
    batch.block_table = torch.cat((batch.block_table, batch.block_table))
    batch.run(batch.planner())
    batch.check()


def test_no_tokens() -> None:
    """An empty batch launches nothing."""
    batch = Batch(TYPES[0], 64, 1, 1, [(1, 1)], 16, seed=1)
    rocmforge_plugin.reset_launches()
    empty = batch.query.view[:0]
    out = paged_attention(
        empty, batch.cache, batch.block_table[:0], batch.seq_lens[:0], batch.starts[:1], max_query_len=0, scale=1.0
    )
    assert out.shape == empty.shape and rocmforge_plugin.launches() == {}
