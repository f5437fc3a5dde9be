# SPDX-License-Identifier: Apache-2.0
"""The metadata builder and a layer with masks that are not causal, against fp64, without an engine."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from vllm.model_executor.layers.attention.cross_attention import create_cross_attention_backend
from vllm.model_executor.layers.attention.encoder_only_attention import create_encoder_only_attention_backend
from vllm.v1.kv_cache_interface import CrossAttentionSpec

import rocmforge_plugin
from rocmforge_plugin.vllm.backend import builder as builders
from rocmforge_plugin.vllm.backend.backend import RocmForgeBackend
from rocmforge_plugin.vllm.backend.builder import RocmForgeMetadataBuilder
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from rocmforge_plugin.vllm.backend.masks import RequestRanges, mask_of

from . import masks
from .batches import BLOCK, KV_HEADS, SIZE, batch, cache, config, spec

HEADS, PAGES = 4, 48
SCALE = SIZE**-0.5
# A prompt, a chunk of one, verification of drafts, a decode, and a prompt of one token.
LENGTHS, QUERIES = [70, 150, 40, 33, 1], [70, 60, 3, 1, 1]
# Of an image that the chunk begins in, one that it ends in and that has no keys yet behind the chunk, one behind the
# window's begin, one on the edge of pages; and of one token. The decode's lies before its token.
RANGES = {0: [(3, 31), (32, 69)], 1: [(80, 99), (120, 179)], 2: [(10, 36)], 3: [(4, 20)], 4: [(0, 0)]}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    rocmforge_plugin.reset_launches()


def make_builder(requests: int = len(LENGTHS), tokens: int = sum(QUERIES), backend: Any = RocmForgeBackend) -> Any:
    return backend.get_builder_cls()(spec(), ["placeholder"], config(requests, tokens), CPU)


def layer(window: int = 0, mask: str = "windowed") -> RocmForgeImpl:
    impl = RocmForgeImpl(HEADS, SIZE, SCALE, KV_HEADS, None, window or None)
    impl.mask = mask
    return impl


def result(impl: RocmForgeImpl, metadata: Any, pages: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    return impl.forward(None, query, None, None, pages, metadata, torch.full_like(query, torch.nan)).double()


def differ(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().nan_to_num(nan=torch.inf).max())


def check(impl: RocmForgeImpl, metadata: Any, pages: torch.Tensor, step: Any, **mask: Any) -> None:
    """The layer's result is what `mask` says."""
    query = torch.randn(step.num_actual_tokens, HEADS, SIZE)
    found = result(impl, metadata, pages, query)
    assert differ(found, masks.attention(query, pages, step, SCALE, window=impl.window, **mask)) < 1e-5


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("causal", [False, [0, 1, 0, 1, 0], [1, 0, 1, 0, 1]])
def test_requests_that_are_not_causal(causal, window):
    """Of a batch, or of some requests: vLLM's tensor is read in a buffer of ours, in any dtype."""
    made, pages, impl = make_builder(), cache(PAGES), layer(window)
    given = causal if causal is False else torch.tensor(causal, dtype=torch.bool if window else torch.int32)
    step = dataclasses.replace(batch(LENGTHS, QUERIES, PAGES), causal=given)
    check(impl, made.build(0, step), pages, step, causal=causal)
    rocmforge_plugin.reset_launches()
    metadata = made.build(0, step)
    assert rocmforge_plugin.launches()["attention_plan"] == 1
    check(impl, metadata, pages, step, causal=causal)
    assert rocmforge_plugin.launches()["attention_plan"] == 1  # none by the layer
    assert metadata.causal is False if causal is False else metadata.causal.tolist() == causal


def test_causal_stays_in_its_place():
    """What a graph of a plan has captured is where the next step's answer stands."""
    made, pages, impl = make_builder(), cache(PAGES), layer()
    step = dataclasses.replace(batch(LENGTHS, QUERIES, PAGES), causal=torch.tensor([1, 0, 1, 0, 1], dtype=torch.int32))
    captured = made.build_for_cudagraph_capture(dataclasses.replace(step, seq_lens=step.seq_lens.clone()))
    result(impl, captured, pages, torch.randn(step.num_actual_tokens, HEADS, SIZE))
    following = made.build(0, dataclasses.replace(step, causal=torch.tensor([0, 0, 0, 1, 1], dtype=torch.int32)))
    assert following.causal.data_ptr() == captured.causal.data_ptr()
    assert captured.causal.tolist() == [0, 0, 0, 1, 1]
    captured.seq_lens.copy_(step.seq_lens)
    made.update_draft_decode_metadata(captured)  # what a graph would replay
    check(impl, captured, pages, step, causal=[0, 0, 0, 1, 1])


def test_more_requests_than_expected_that_are_not_causal():
    made, pages = make_builder(2, 40), cache(PAGES)
    step = dataclasses.replace(batch([20] * 5, [20] * 5, PAGES), causal=torch.tensor([1, 0, 0, 1, 0]))
    check(layer(), made.build(0, step), pages, step, causal=[1, 0, 0, 1, 0])


@pytest.mark.parametrize("causal", [True, False])
def test_a_drafter_without_a_causal_mask(causal):
    """vLLM asserts `causal is False` of a draft's metadata, and captures its planning."""
    step = dataclasses.replace(batch([60, 60], [4, 4], PAGES), causal=causal)
    made, pages, impl = make_builder(), cache(PAGES), layer()
    metadata = made.build_for_cudagraph_capture(step)
    assert metadata.causal is causal
    check(impl, metadata, pages, step, causal=causal)
    step.seq_lens.copy_(torch.tensor([44, 31]))
    made.update_draft_decode_metadata(metadata)
    check(impl, metadata, pages, step, causal=causal)


def test_a_prefix_lm_layer():
    """vLLM's wrapper of the builder makes every batch non-causal."""
    made, pages = make_builder(backend=create_encoder_only_attention_backend(RocmForgeBackend)), cache(PAGES)
    step = batch(LENGTHS, QUERIES, PAGES)
    check(layer(), made.build(0, step), pages, step, causal=False)


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("clamped", [False, True])
def test_images_whose_tokens_see_each_other(window, clamped):
    made, pages = make_builder(), cache(PAGES)
    impl = layer(window, "clamped_ranges" if clamped else "ranges")
    step = dataclasses.replace(batch(LENGTHS, QUERIES, PAGES), mm_req_doc_ranges=RANGES)
    for _ in range(2):
        rocmforge_plugin.reset_launches()
        metadata = made.build(0, step)
        check(impl, metadata, pages, step, ranges=RANGES, clamped=clamped)
        assert rocmforge_plugin.launches()["attention_plan_listed"] == 1
    check(layer(window), metadata, pages, step)  # a layer of the same step that has no such mask
    # A step of text has no ranges, and the problem and the planner that it had.
    (planner,) = {
        id(plan.planner) for plan in metadata.plans.values() if plan.planner.problem == impl.problem("float32")
    }
    text = made.build(0, dataclasses.replace(step, mm_req_doc_ranges={0: [], 1: []}))
    assert text.ranges is None
    assert planner in {id(plan.planner) for plan in text.plans.values()}
    check(impl, text, pages, step)


@pytest.mark.parametrize(
    "wrong", [{0: [(3, 30), (32, 69)]}, {0: [(3, 31), (33, 69)]}, {0: [(3, 31), (32, 68)]}, {0: []}]
)
def test_a_position_more_or_less_would_show(wrong):
    """The comparison above tells an end that is not included, or a window that is off by one."""
    step, pages = batch(LENGTHS, QUERIES, PAGES), cache(PAGES)
    query = torch.randn(step.num_actual_tokens, HEADS, SIZE)
    right = masks.attention(query, pages, step, SCALE, window=20, ranges=RANGES)
    assert differ(masks.attention(query, pages, step, SCALE, window=20, ranges=RANGES | wrong), right) > 1e-3
    assert differ(masks.attention(query, pages, step, SCALE, window=21, ranges=RANGES), right) > 1e-3


def test_a_drafter_plans_again_without_the_ranges():
    """They are the target's, of positions before all drafts, and would be those of the capture."""
    made, pages, impl = make_builder(), cache(PAGES), layer(20, "ranges")
    step = dataclasses.replace(batch([60, 90], [1, 1], PAGES), mm_req_doc_ranges={1: [(10, 50)]})
    metadata = made.build(0, step)
    check(impl, metadata, pages, step, ranges=step.mm_req_doc_ranges)
    step.seq_lens.copy_(torch.tensor([61, 45]))
    made.update_draft_decode_metadata(metadata)
    check(impl, metadata, pages, step)


def packed(held: RequestRanges, ranges: dict[int, list[tuple[int, int]]], requests: int) -> torch.Tensor:
    found = held.hold(ranges, requests)
    assert found is not None
    return found


def test_ranges_are_packed_where_they_were():
    held = RequestRanges(CPU, 4)
    assert held.hold(None, 4) is None and held.hold({}, 4) is None and held.hold({0: [], 3: []}, 4) is None
    one = packed(held, {2: [(5, 9)]}, 3)
    assert one.dtype == torch.int32 and one.tolist() == [[[0, 0]], [[0, 0]], [[5, 9]]]
    place = one.data_ptr()
    assert packed(held, {0: [(1, 2)]}, 4).tolist() == [[[1, 2]], [[0, 0]], [[0, 0]], [[0, 0]]]
    assert packed(held, {0: [(1, 2)]}, 2).data_ptr() == place
    three = packed(held, {1: [(1, 2), (4, 6), (7, 9)]}, 2)  # a power of two, which stays
    assert three.shape == (2, 4, 2) and three.tolist()[1] == [[1, 2], [4, 6], [7, 9], [0, 0]]
    again = packed(held, {0: [(3, 4)]}, 2)
    assert again.data_ptr() == three.data_ptr() and again.tolist() == [[[3, 4]] + [[0, 0]] * 3, [[0, 0]] * 4]
    assert packed(held, {5: [(1, 2)]}, 6).shape == (6, 4, 2)  # more requests than expected
    assert held.hold({5: [(1, 2)]}, 2) is None  # of a request that is not in the batch


def test_ranges_that_did_not_change_are_not_sent(monkeypatch):
    held, sent = RequestRanges(CPU, 2), []
    send = RequestRanges._send

    def counted(self: RequestRanges, found: dict[int, list[tuple[int, int]]]) -> None:
        sent.append(found)
        send(self, found)

    monkeypatch.setattr(RequestRanges, "_send", counted)
    given: list[dict[int, list[tuple[int, int]]]] = [
        {0: [(1, 2)]},
        {0: [(1, 2)], 1: []},
        {0: [(1, 3)]},
        {1: [(1, 3)]},
        {1: [(1, 3)]},
    ]
    for ranges in given:
        held.hold(ranges, 2)
    assert sent == [{0: [(1, 2)]}, {0: [(1, 3)]}, {1: [(1, 3)]}]


def test_no_memory_for_ranges_is_made_while_a_graph_is_captured(monkeypatch):
    made = make_builder()
    monkeypatch.setattr(builders, "capturing", lambda device: True)
    step = batch([60, 90], [1, 1], PAGES)
    assert made.build_for_cudagraph_capture(dataclasses.replace(step, mm_req_doc_ranges={0: []})).ranges is None
    assert made.build(0, dataclasses.replace(step, mm_req_doc_ranges={0: [(1, 2)]})).ranges is not None
    with pytest.raises(RuntimeError, match="2 images each.*while a graph is captured"):
        made.build(0, dataclasses.replace(step, mm_req_doc_ranges={0: [(1, 2), (4, 5)]}))


def test_the_masks_of_a_models_layers():
    clamps, full = SimpleNamespace(mm_prefix_clamp_sliding_window=True), SimpleNamespace()
    told = SimpleNamespace(use_mm_prefix=True)
    assert mask_of(full, False, [full]) == "windowed"
    assert mask_of(full, True, [full, full]) == mask_of(told, False, [told]) == "ranges"
    assert mask_of(clamps, True, [clamps, full]) == "clamped_ranges"
    assert mask_of(full, True, [clamps, full]) == "windowed"  # as Gemma 4's layers without a window
    assert mask_of(clamps, False, [clamps]) == "windowed"  # serves text only
    assert mask_of(SimpleNamespace(attn_type="encoder_decoder"), True, []) == "windowed"


@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize("text_first", [False, True])
def test_a_layer_that_nobody_announced(text_first, clamped):
    """Its mask is asked of the model's configuration, or learned from the ranges of a batch."""
    made, pages = make_builder(), cache(PAGES)
    made.planners.has_ranges = text_first
    impl = RocmForgeImpl(HEADS, SIZE, SCALE, KV_HEADS, None, 20)
    named = SimpleNamespace(mm_prefix_clamp_sliding_window=clamped)
    step = dataclasses.replace(batch(LENGTHS, QUERIES, PAGES), mm_req_doc_ranges=RANGES)
    for ranges in ({}, RANGES) if text_first else (RANGES, {}):
        metadata = made.build(0, dataclasses.replace(step, mm_req_doc_ranges=ranges))
        query = torch.randn(step.num_actual_tokens, HEADS, SIZE)
        found = impl.forward(named, query, None, None, pages, metadata, torch.empty_like(query)).double()
        right = masks.attention(query, pages, step, SCALE, window=20, ranges=ranges, clamped=clamped)
        assert differ(found, right) < 1e-5


def test_a_mask_without_a_kernel_is_refused_before_the_first_step(monkeypatch):
    """At the build of the metadata builder, with what works instead."""
    impl = layer()
    ours = impl.problem(torch.float32)
    monkeypatch.setattr(impl, "problem", lambda dtype: dataclasses.replace(ours, score="biased", mask=impl.mask))
    named = SimpleNamespace(impl=impl, head_size=SIZE, kv_cache_torch_dtype=torch.float32, use_mm_prefix=True)
    monkeypatch.setattr(builders, "get_layers_from_vllm_config", lambda *_: {"model.layers.0": named})
    with pytest.raises(ValueError, match=r"model.layers.0: .*beside images.*use_mm_prefix.*--limit-mm-per-prompt"):
        RocmForgeMetadataBuilder(spec(), ["model.layers.0"], config(2, 64), CPU)


def test_cross_attention():
    """Non-causal over the encoder's keys, of whatever length, by vLLM's wrapper; without keys after the first step."""
    wrapped = create_cross_attention_backend(RocmForgeBackend)
    pages_of = CrossAttentionSpec(block_size=BLOCK, num_kv_heads=KV_HEADS, head_size=SIZE, dtype=torch.float32)
    made = wrapped.get_builder_cls()(pages_of, ["placeholder"], config(4, 64), CPU)
    impl = wrapped.get_impl_cls()(HEADS, SIZE, SCALE, KV_HEADS, attn_type="encoder_decoder")
    encoder = [45, 77, 32, 0]
    # Two requests begin, one goes on, and one is padding.
    first = dataclasses.replace(
        batch([4, 1, 30, 0], [4, 1, 1, 0], PAGES),
        block_table_tensor=torch.randperm(PAGES)[:12].view(4, 3).int(),
        seq_lens_cpu_upper_bound=torch.tensor([4, 1, 30, 0]),
        encoder_seq_lens=torch.tensor(encoder, dtype=torch.int32),
        encoder_seq_lens_cpu=numpy.array(encoder),
    )
    pages = cache(PAGES)
    before = pages.clone()
    metadata = made.build(0, first)
    assert metadata.causal is False and metadata.seq_lens is first.encoder_seq_lens
    keys, values = torch.randn(2, 45 + 77, KV_HEADS, SIZE)
    query = torch.randn(6, HEADS, SIZE)
    of_layer = SimpleNamespace(kv_sharing_target_layer_name=None)
    found = impl.forward(of_layer, query, keys, values, pages, metadata, torch.empty_like(query)).double()
    assert rocmforge_plugin.launches()["kv_write_v16_float"] == 1
    rows = pages[first.block_table_tensor[1].long()].transpose(1, 2).flatten(0, 1)[:77]
    torch.testing.assert_close(rows, torch.cat((keys[45:], values[45:]), dim=-1))
    untouched = first.block_table_tensor[2].long()
    torch.testing.assert_close(pages[untouched], before[untouched])
    right = masks.attention(query, pages, first, SCALE, causal=False, seq_lens=first.encoder_seq_lens)
    assert differ(found, right) < 1e-5
    later = dataclasses.replace(
        first,
        query_start_loc=torch.tensor([0, 1, 2, 3, 3], dtype=torch.int32),
        query_start_loc_cpu=torch.tensor([0, 1, 2, 3, 3]),
        num_actual_tokens=3,
        max_query_len=1,
        seq_lens_cpu_upper_bound=torch.tensor([5, 2, 31, 0]),
    )
    metadata = made.build(0, later)
    found = impl.forward(of_layer, query[:3], None, None, pages, metadata, torch.empty_like(query[:3])).double()
    right = masks.attention(query[:3], pages, later, SCALE, causal=False, seq_lens=later.encoder_seq_lens)
    assert differ(found, right) < 1e-5
    assert rocmforge_plugin.launches()["kv_write_v16_float"] == 1  # keys came once
