# SPDX-License-Identifier: Apache-2.0
"""What a plan of latent attention serves, and what is launched for it."""

from __future__ import annotations

import contextlib

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C
from rocmforge_plugin.device import open_device
from rocmforge_plugin.ops.latent import latent_attention
from rocmforge_plugin.ops.planner import AttentionPlanner, native_problem

from .attention_support import ON_CPU, TYPES, launches_of
from .kernel_support import DEVICE, Buffer, same_bits
from .latent_support import DIMS, Dims, LatentBatch

GLM = (576, 512), 20  # dims and heads of GLM-4.7-Flash


@pytest.mark.parametrize("dims", DIMS)
def test_one_plan_serves_many_calls_and_is_remade_in_place(dims: Dims) -> None:
    """Layers share a plan; the next step's plan overwrites it in the same buffers."""
    first = LatentBatch(TYPES[0], dims, 20, [(1, 70), (20, 20), (3, 90)], 16, seed=1)
    second = LatentBatch(TYPES[0], dims, 20, [(1, 5), (1, 200)], 64, seed=2, causal=False)
    planner = AttentionPlanner(first.problem(), DEVICE, 3, 24, 4)
    where = planner._words.data_ptr(), planner._workspace.data_ptr()
    for batch in (first, second, first):
        plan = batch.plan(planner)
        rocmforge_plugin.reset_launches()
        for _ in range(2):
            batch.out = Buffer(batch.out.view.shape, batch.out.view.stride(), 24, batch.dtype, 5)
            batch.run(plan)
            batch.check()
        assert launches_of("attention_plan") == 0 and launches_of("attention_decode") == 2
    assert (planner._words.data_ptr(), planner._workspace.data_ptr()) == where


@pytest.mark.parametrize("new", [1, 2])
def test_replays_serve_other_lengths(new: int) -> None:
    """What was launched for one step does the next ones, whose lengths and pages are written to the same tensors."""
    batch = LatentBatch(TYPES[0], *GLM, [(new, 300), (new, 40), (new, 129)], 16, seed=3)
    planner = batch.planner(decode_query_len=new)
    plan = batch.plan(planner)
    graph = None if ON_CPU else torch.cuda.CUDAGraph()
    if graph is not None:
        batch.run(plan)
        with torch.cuda.graph(graph):
            batch.run(plan)
    table, lengths = batch.block_table.clone(), batch.seq_lens.clone()
    for order, less in (([2, 0, 1], 0), ([1, 2, 0], 7), ([0, 1, 2], 30)):
        batch.block_table.copy_(table[order])
        batch.seq_lens.copy_(lengths[order] - less)
        batch.out.view.fill_(float("nan"))
        batch.plan(planner)
        if graph is None:
            batch.run(plan)
        else:
            graph.replay()
        batch.check()


def test_launches_see_what_was_written_just_ahead() -> None:
    """Attention starts before the launch ahead of it has ended, be it the plan or what fills the block table."""
    batch = LatentBatch(TYPES[0], *GLM, [(1, 700), (1, 40)], 16, seed=3)
    planner = batch.planner()
    tables, lengths = ((x.clone(), x.flip(0).contiguous()) for x in (batch.block_table, batch.seq_lens))
    out = torch.empty(12, *batch.out.view.shape, dtype=batch.dtype, device=DEVICE)

    def step(turn: int) -> None:
        batch.seq_lens.copy_(lengths[turn % 2])
        if turn % 4 < 2:
            batch.block_table.copy_(tables[turn % 2])
        plan = batch.plan(planner)
        batch.block_table.copy_(tables[turn % 2])
        if turn % 4 < 2:
            batch.plan(planner)
        batch.run(plan)

    for turn in range(2):
        batch.out.view.fill_(float("nan"))
        step(turn)
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


def test_where_all_queries_are_long_nothing_is_launched_for_short_ones() -> None:
    """So many tokens leave no room for a decode step's request."""
    batch = LatentBatch(TYPES[0], *GLM, [(40, 48), (40, 70)], 16, seed=4)
    plan = batch.plan(batch.planner())
    rocmforge_plugin.reset_launches()
    batch.run(plan)
    assert launches_of("attention_decode") == 0
    assert launches_of("attention_prefill") == launches_of("attention_combine") == 1
    batch.check()


@pytest.mark.parametrize("dims", DIMS)
def test_without_a_plan(dims: Dims) -> None:
    """The op makes one itself, and its own output."""
    batch = LatentBatch(TYPES[0], dims, 20, [(1, 70), (20, 20), (3, 90)], 16, seed=1)
    batch.run(None)
    batch.check()
    out = latent_attention(
        batch.query.view,
        None if batch.rope is None else batch.rope.view,
        batch.cache,
        batch.block_table,
        batch.seq_lens,
        batch.starts,
        max_query_len=batch.max_query_len,
        scale=batch.scale,
    )
    assert out.is_contiguous() and torch.equal(out, batch.out.view)


@pytest.mark.parametrize("heads", [1, 5, 20])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_planner_made_here_is_for_the_queries_that_its_decode_kernels_take(heads: int, beyond: int) -> None:
    """How many rows that is the kernels say; longer queries are prefill's."""
    problem = LatentBatch(TYPES[0], (576, 512), heads, [(1, 1)], 16, seed=1).problem()
    new = _C.decode_rows(open_device(DEVICE), native_problem(problem)) // heads + beyond
    batch = LatentBatch(TYPES[0], (576, 512), heads, [(new, new + 30)] * 2, 16, seed=1)
    rocmforge_plugin.reset_launches()
    batch.run(None)
    assert (launches_of("attention_decode"), launches_of("attention_prefill")) == (1 - beyond, beyond)
    batch.check()


def test_padding_requests_are_skipped() -> None:
    """Requests without query tokens, or without keys, as a padded graph has them, change nothing."""
    batch = LatentBatch(TYPES[0], *GLM, [(1, 70), (0, 0), (1, 20), (0, 5)], 16, seed=1, padding=2)
    batch.run(batch.planner())
    batch.check()
    batch = LatentBatch(TYPES[0], *GLM, [(5, 0), (1, 0)], 16, seed=1)
    batch.run(batch.planner())
    assert batch.lse is not None and batch.out.untouched() and batch.lse.untouched()


def test_no_tokens() -> None:
    """An empty batch launches nothing."""
    batch = LatentBatch(TYPES[0], *GLM, [(1, 1)], 16, seed=1)
    assert batch.rope is not None
    rocmforge_plugin.reset_launches()
    out = latent_attention(
        batch.query.view[:0],
        batch.rope.view[:0],
        batch.cache,
        batch.block_table[:0],
        batch.seq_lens[:0],
        batch.starts[:1],
        max_query_len=0,
        scale=1.0,
    )
    assert out.shape == (0, 20, 512) and rocmforge_plugin.launches() == {}
