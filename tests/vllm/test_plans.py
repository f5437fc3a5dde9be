# SPDX-License-Identifier: Apache-2.0
"""The planners of a metadata builder, and builders that meet layers and batches which nobody announced."""

from __future__ import annotations

import pytest
import torch
from vllm.v1.attention.backends.utils import create_fast_prefill_custom_backend

import rocmforge_plugin
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.reference import paged_attention_reference
from rocmforge_plugin.vllm.backend import plans
from rocmforge_plugin.vllm.backend.backend import RocmForgeBackend
from rocmforge_plugin.vllm.backend.builder import RocmForgeMetadataBuilder
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from rocmforge_plugin.vllm.backend.plans import Planners, number_of

from .batches import KV_HEADS, SIZE, batch, cache, config, spec

SCALE = SIZE**-0.5
PROBLEM = Problem("float32", 4, KV_HEADS, SIZE, SIZE)
PAGES = 40


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    rocmforge_plugin.reset_launches()


def launched(part: str = "") -> int:
    """Launches of the kernels with `part` in their names since the last time."""
    count = sum(times for name, times in rocmforge_plugin.launches().items() if part in name)
    rocmforge_plugin.reset_launches()
    return count


def layer(heads: int = 4, window: int | None = None) -> RocmForgeImpl:
    return RocmForgeImpl(heads, SIZE, SCALE, KV_HEADS, None, window)


def builder(max_num_seqs: int = 4, max_num_batched_tokens: int = 64) -> RocmForgeMetadataBuilder:
    return RocmForgeMetadataBuilder(
        spec(), ["placeholder"], config(max_num_seqs, max_num_batched_tokens), torch.device("cpu")
    )


def assert_right(impl: RocmForgeImpl, metadata, pages: torch.Tensor) -> None:
    """The layer's result for random queries is that of the fp64 reference."""
    query = torch.randn(metadata.num_actual_tokens, impl.num_heads, SIZE)
    out = impl.forward(None, query, None, None, pages, metadata, torch.full_like(query, torch.nan))
    right = paged_attention_reference(
        query, pages, metadata.block_table, metadata.seq_lens, metadata.query_start_loc, SCALE, window=impl.window
    )
    torch.testing.assert_close(out.double(), right, atol=1e-5, rtol=1e-5)


def test_equal_problems_have_one_number():
    assert number_of(PROBLEM) == number_of(Problem(torch.float32, 4, KV_HEADS, SIZE, SIZE))
    assert number_of(PROBLEM) != number_of(Problem("float32", 4, KV_HEADS, SIZE, SIZE, window=8))


def test_a_layer_that_nobody_announced_is_planned_for_when_it_asks():
    made, pages = builder(), cache(PAGES)
    metadata = made.build(0, batch([40, 9], [3, 1], PAGES))
    assert metadata.plans == {} and launched() == 0
    impl = layer()
    assert_right(impl, metadata, pages)
    assert launched("attention_plan") == 1
    assert_right(impl, metadata, pages)  # of the same step
    assert launched("attention_plan") == 0
    following = made.build(0, batch([41, 10], [1, 1], PAGES))
    assert launched() == 1  # the builder has learned of it
    assert_right(impl, following, pages)
    assert_right(layer(), following, pages)  # another layer that computes the same
    assert launched("attention_plan") == 0


def test_layers_that_differ_have_plans_of_their_own():
    made, pages = builder(), cache(PAGES)
    metadata = made.build(0, batch([40, 9], [3, 1], PAGES))
    layers = [layer(), layer(heads=8), layer(window=5), layer(heads=8, window=5)]
    for impl in (*layers, *layers):
        assert_right(impl, metadata, pages)
    assert launched("attention_plan") == len(metadata.plans) == len(layers)
    made.build(0, batch([40, 9], [3, 1], PAGES))
    assert launched() == len(layers)


def test_what_was_met_late_is_planned_again_with_the_rest():
    """As a drafter does within a graph: the same metadata, other lengths in its buffers."""
    made, pages = builder(), cache(PAGES)
    given = batch([40, 9], [1, 1], PAGES)
    metadata = made.build(0, given)
    layers = [layer(), layer(window=5)]
    for impl in layers:
        assert_right(impl, metadata, pages)
    given.seq_lens.copy_(torch.tensor([64, 23]))
    launched()
    made.update_draft_decode_metadata(metadata)
    assert launched() == len(layers)
    for impl in layers:
        assert_right(impl, metadata, pages)
    assert launched("attention_plan") == 0


def test_through_a_wrapper_that_copies_the_metadata():
    """vLLM's fast prefill returns a class of its own with the fields copied."""
    backend = create_fast_prefill_custom_backend("FastPrefill", RocmForgeBackend)
    made = backend.get_builder_cls()(spec(), ["placeholder"], config(4, 64), torch.device("cpu"))
    pages, impl = cache(PAGES), layer()
    assert_right(impl, made.build(0, batch([40, 9], [3, 1], PAGES)), pages)
    assert launched("attention_plan") == 1
    metadata = made.build(0, batch([44, 9], [3, 1], PAGES))
    assert type(metadata).__name__ == "KVSharingFastPrefillAttentionMetadata"
    assert launched() == 1
    assert_right(impl, metadata, pages)


@pytest.mark.parametrize(
    ("lengths", "queries"), [([9] * 9, [1] * 9), ([200], [150]), ([40, 140, 3] * 2, [30, 60, 3] * 2)]
)
def test_a_batch_that_nobody_expected_gets_memory_of_its_own(lengths, queries):
    """And leaves the planner in its place that graphs may have been captured with."""
    made, pages, impl = builder(), cache(PAGES), layer()
    usual = made.build(0, batch([40, 9], [3, 1], PAGES))
    assert_right(impl, usual, pages)
    (first,) = usual.plans.values()
    many = made.build(0, batch(lengths, queries, PAGES))
    (other,) = many.plans.values()
    assert other.planner is not first.planner
    assert_right(impl, many, pages)
    again = made.build(0, batch(lengths, queries, PAGES))
    assert [plan.planner for plan in again.plans.values()] == [other.planner]
    back = made.build(0, batch([40, 9], [3, 1], PAGES))
    assert [plan.planner for plan in back.plans.values()] == [first.planner]
    assert_right(impl, back, pages)


def test_nothing_is_made_while_a_graph_is_captured(monkeypatch):
    planners = Planners(torch.device("cpu"), 4, 64, 1)
    known = planners.add(PROBLEM)
    monkeypatch.setattr(plans, "capturing", lambda device: True)
    given = builder().build(0, batch([40, 9], [3, 1], PAGES))
    assert planners.add(PROBLEM) == known
    planners.plan(known, given)
    with pytest.raises(RuntimeError, match="num_heads=8.*while a graph is captured.*cudagraph_num_of_warmups=1"):
        planners.add(Problem("float32", 8, KV_HEADS, SIZE, SIZE))
    with pytest.raises(RuntimeError, match="18 requests.*while a graph is captured"):
        planners.plan(known, builder(9).build(0, batch([9] * 9, [1] * 9, PAGES)))
    assert planners.plan(known, given).planner.max_num_reqs == 4


def test_only_a_gpu_captures():
    assert plans.capturing(torch.device("cpu")) is False


def test_a_layer_asks_without_hashing_its_problem(monkeypatch):
    """The way to a plan that every layer of every step takes."""
    made, pages, impl = builder(), cache(PAGES), layer()
    assert_right(impl, made.build(0, batch([40, 9], [3, 1], PAGES)), pages)

    def hashed(problem):
        raise AssertionError("a problem was hashed")

    monkeypatch.setattr(Problem, "__hash__", hashed)
    assert_right(impl, made.build(0, batch([41, 10], [1, 1], PAGES)), pages)
