# SPDX-License-Identifier: Apache-2.0
"""Decode context parallelism: results over parts of the keys joined by their log-sum-exps, layers of ranks in threads,
and two ranks of an engine, which must say what one says.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rocmforge_plugin
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.reference import attend
from rocmforge_plugin.vllm.backend import context_parallel
from rocmforge_plugin.vllm.backend.context_parallel import DividedPlanners, Ranks, join, reduce_in_torch

from .batches import BLOCK, batch
from .engines import Run, checkpoint, engine, greedy, largest, metric, prompt, run, score
from .ranks import Meeting, held_before

SIZE, SCALE = 64, 0.11


@given(st.data())
def test_parts_joined_are_the_whole(data):
    """Any division of the keys among ranks and new tokens, some of which have none, and the sinks once."""
    draw = data.draw
    ranks, heads, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    owner = torch.tensor(draw(st.lists(st.integers(0, ranks), min_size=1, max_size=40)))  # `ranks`: new tokens
    owner[-1] = ranks
    torch.manual_seed(draw(st.integers(0, 99)))
    keys, values, query = (
        torch.randn(n, k, SIZE) for n, k in ((len(owner), 1), (len(owner), 1), (tokens, ranks * heads))
    )
    sinks = torch.randn(ranks * heads) * 3 if draw(st.booleans()) else None
    whole, _ = attend(query, keys, values, SCALE, causal=False, sinks=sinks)
    parts = []
    for part in range(ranks + 1):
        out, lse = attend(query, keys[owner == part], values[owner == part], SCALE, causal=False)
        parts.append((out.float(), lse.t().float()))
    meeting = Meeting(ranks)
    found = meeting.run(lambda rank: reduce_in_torch(*parts[rank], meeting.group()))
    for rank, (context, context_lse) in enumerate(found):
        own = slice(rank * heads, (rank + 1) * heads)
        out, lse = (part[:, own].contiguous() for part in parts[-1])
        join(out, lse, context, context_lse, None if sinks is None else sinks[own])
        torch.testing.assert_close(out, whole[:, own].float(), atol=1e-5, rtol=1e-5)


class Step(NamedTuple):
    """A batch whose keys are divided, and what its layer must say, of all ranks' heads."""

    tables: list[torch.Tensor]
    caches: list[torch.Tensor]
    common: Any
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    right: torch.Tensor


def step_of(
    lengths: list[int], queries: list[int], ranks: int, run_of: int, heads: int, sinks: torch.Tensor | None
) -> Step:
    """Random keys, each on the rank whose run it is in; what nobody wrote is NaN."""
    common = batch(lengths, queries, sum(-(-length // BLOCK) for length in lengths) + len(lengths) * max(lengths))
    common.seq_lens_cpu_upper_bound = common.seq_lens.clone()
    starts, tokens = common.query_start_loc.tolist(), common.num_actual_tokens
    query = torch.randn(tokens, ranks * heads, SIZE)
    key, value = torch.randn(tokens, 1, SIZE), torch.randn(tokens, 1, SIZE)
    columns = -(-max(lengths) // BLOCK)
    caches = [torch.full((len(lengths) * columns, 1, BLOCK, 2 * SIZE), float("nan")) for _ in range(ranks)]
    tables = [torch.randperm(len(lengths) * columns).view(len(lengths), columns).int() for _ in range(ranks)]
    right = []
    for request, length in enumerate(lengths):
        new = slice(starts[request], starts[request + 1])
        before = length - queries[request]
        keys = torch.cat((torch.randn(before, 1, SIZE), key[new]))
        values = torch.cat((torch.randn(before, 1, SIZE), value[new]))
        place = torch.arange(length)
        held = held_before(place, ranks, run_of)
        for rank in range(ranks):
            own = place // run_of % ranks == rank  # new tokens are written before attention, too
            page, offset = tables[rank][request, held[own] // BLOCK].long(), held[own] % BLOCK
            caches[rank][page, 0, offset] = torch.cat((keys[own], values[own]), dim=-1)[:, 0]
        right.append(attend(query[new], keys, values, SCALE, sinks=sinks)[0])
    return Step(tables, caches, common, query, key, value, torch.cat(right))


def layer_of(rank: int, heads: int, sinks: torch.Tensor | None) -> Any:
    """What `attend` asks of an implementation."""
    return SimpleNamespace(
        problem=lambda dtype: Problem(str(dtype), heads, 1, SIZE, SIZE),
        scale=SCALE,
        sinks=None if sinks is None else sinks[rank * heads : (rank + 1) * heads],
        reduce_context=reduce_in_torch,
    )


@given(st.data())
def test_layers_of_ranks(data):
    """Prompts, chunks of prompts, decodes and verifications side by side, with context on some ranks or on none; rows
    of padding behind them stay finite, as what is made of them may meet others' in a scale.
    """
    draw = data.draw
    ranks, heads = draw(st.integers(2, 3)), draw(st.sampled_from((1, 2, 5)))
    run_of = draw(st.sampled_from((1, 2, 16, BLOCK)))
    queries = draw(st.lists(st.sampled_from((1, 1, 3, 40)), min_size=1, max_size=4))
    lengths = [one + draw(st.sampled_from((0, 0, 1, 7, 33, 100))) for one in queries]
    torch.manual_seed(draw(st.integers(0, 99)))
    sinks = torch.randn(ranks * heads) * 3 if draw(st.booleans()) else None
    step = step_of(lengths, queries, ranks, run_of, heads, sinks)
    meeting = Meeting(ranks)

    def work(rank: int) -> torch.Tensor:
        planners = DividedPlanners(Ranks(ranks, rank, run_of), torch.device("cpu"), 4, 256, 1)
        query, key, value = (
            torch.cat((rows, torch.full((2, *rows.shape[1:]), float("nan"))))
            for rows in (step.query[:, rank * heads : (rank + 1) * heads], step.key, step.value)
        )
        made, out = planners.step(step.common), torch.full_like(query, 7.0)
        assert made.has_context == (lengths != queries)
        layer = layer_of(rank, heads, sinks)
        return context_parallel.attend(layer, query, key, value, step.caches[rank], step.tables[rank], made, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(context_parallel, "get_dcp_group", meeting.group)
        found = torch.cat(meeting.run(work), dim=1)
    torch.testing.assert_close(found[:-2], step.right.float(), atol=1e-4, rtol=1e-4)
    assert found[-2:].isfinite().all()


def test_plans_stay_where_they_are():
    """A captured graph reads the lengths and plans of the step that it replays for; layers that nobody announced are
    met; two launches a problem.
    """
    planners = DividedPlanners(Ranks(2, 1, 1), torch.device("cpu"), 4, 64, 1)
    planners.add(Problem("float32", 4, 1, SIZE, SIZE))
    first = planners.step(batch([9, 30], [4, 1], 4))
    rocmforge_plugin.reset_launches()
    second = planners.step(batch([6, 30], [1, 1], 4))
    assert sum(rocmforge_plugin.launches().values()) == 2
    for one, other in ((first.context_lens, second.context_lens), (first.query_lens, second.query_lens)):
        assert one.data_ptr() == other.data_ptr()
    assert second.context_lens.tolist() == [2, 14] and second.query_lens.tolist() == [1, 1]
    assert {id(plan.planner) for plan in first.plans.popitem()[1]} == {
        id(plan.planner) for plan in second.plans.popitem()[1]
    }
    assert len(second.plans_of(Problem("float32", 8, 1, SIZE, SIZE))) == 2


def test_what_cannot_be_divided_is_refused():
    planners = DividedPlanners(Ranks(32, 0, 1), torch.device("cpu"), 4, 64, 1)
    with pytest.raises(ValueError, match="32 ranks.*num_heads.*--decode-context-parallel-size 1"):
        planners.add(Problem("float32", 8, 1, SIZE, SIZE))
    common = batch([9], [4], 4)
    common.causal = False
    with pytest.raises(ValueError, match="not causal.*--decode-context-parallel-size 1"):
        planners.step(common)
    nothing, step = torch.empty(0), planners.step(batch([9], [4], 4))
    with pytest.raises(ValueError, match="keys and values.*--decode-context-parallel-size 1"):
        context_parallel.attend(None, nothing, None, None, nothing, nothing, step, nothing)


SHAPE = {"num_key_value_heads": 1}
PROMPTS = [prompt(1), prompt(31, 2), prompt(70, 5), prompt(150, 9)]
SHARED = prompt(96, 20)["prompt_token_ids"]
SETTINGS: dict[str, Any] = {"enable_prefix_caching": True, "block_size": 16, "max_num_batched_tokens": 64}
RANKS = SETTINGS | {
    "tensor_parallel_size": 2,
    "decode_context_parallel_size": 2,
    "cp_kv_cache_interleave_size": 4,
    "distributed_executor_backend": "mp",
    "worker_extension_cls": "tests.vllm.divided_slots.Worker",
}


class Said(NamedTuple):
    """Tokens and log probabilities of continuations, with and without cached context, and of prompts."""

    tokens: list[list[int]]
    logprobs: list[list[float]]
    hits: float
    workers: list[dict[str, int]]


def say(llm: Any) -> Said:
    """Prompts in chunks of a step's tokens, decodes beside them; then what begins with what is in the cache."""
    greedy(llm, [{"prompt_token_ids": SHARED}], max_tokens=1)
    before = metric(llm, "vllm:prefix_cache_hits")
    cached = [{"prompt_token_ids": SHARED + prompt(n, 3 * n)["prompt_token_ids"]} for n in (1, 40)]
    sequences = greedy(llm, PROMPTS, max_tokens=12) + greedy(llm, cached, max_tokens=6)
    hits = metric(llm, "vllm:prefix_cache_hits") - before
    scored = score(llm, [one["prompt_token_ids"] for one in PROMPTS[1:]])
    workers = (
        llm.collective_rpc("rocmforge_launches") if llm.llm_engine.vllm_config.parallel_config.world_size > 1 else []
    )
    return Said([one.tokens for one in sequences], [*(one.logprobs for one in sequences), *scored], hits, workers)


@pytest.fixture(scope="module")
def said():
    """What two ranks say, in a process beside this one, and one engine here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # two ranks on one NUMA node, which do not wait in turns
        patch.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            future = pool.submit(run, checkpoint("llama", **SHAPE), "rocmforge", "float32", say, RANKS)
            with engine(checkpoint("llama", **SHAPE), "rocmforge", "float32", **SETTINGS) as llm:
                alone = say(llm)
            ranks: Run = future.result()
            yield ranks.result, alone


def test_two_ranks_say_what_one_says(said):
    ranks, alone = said
    assert ranks.tokens == alone.tokens
    pairs = [
        pair
        for ours, theirs in zip(ranks.logprobs, alone.logprobs, strict=True)
        for pair in zip(ours, theirs, strict=True)
    ]
    assert largest(abs(a - b) for a, b in pairs) < 5e-4


def test_both_ranks_launched_both_parts(said):
    ranks, _ = said
    assert ranks.hits >= 2 * 64  # cached context, by blocks of both ranks
    assert len(ranks.workers) == 2 and ranks.workers[0] == ranks.workers[1]
    counts = ranks.workers[0]
    assert all(any(part in name for name in counts) for part in ("split", "attention_decode", "kv_write"))
    assert sum(n for name, n in counts.items() if "split" in name) == sum(
        n for name, n in counts.items() if name.startswith("kv_write")
    )
