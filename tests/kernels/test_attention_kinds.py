# SPDX-License-Identifier: Apache-2.0
"""Every score function and mask of paged attention, alone and together, against the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rocmforge_plugin
from rocmforge_plugin import served
from rocmforge_plugin.ops.planner import AttentionPlanner

from .attention_strategies import batches, head_sizes
from .attention_support import ON_CPU, TYPES, Batch, launches_of
from .kernel_support import DEVICE, Buffer

SCORES = dict.fromkeys(score for _, score, _ in served.PROBLEMS)
KINDS = [(score, mask) for mask in served.MASKS for score in SCORES if head_sizes(score, mask)]
HEADS = {kind: next(size for size in head_sizes(*kind) if size >= 72) for kind in KINDS}
SPREAD = [(1, 70), (20, 20), (3, 90), (40, 100), (1, 5)]  # decode, a prompt, drafts, and a chunk of a prompt


def check(batch: Batch, decode_query_len: int = 1) -> None:
    rocmforge_plugin.reset_launches()
    planner = batch.planner(decode_query_len=decode_query_len)
    batch.run(planner)
    ran = [name for name in rocmforge_plugin.launches() if name.startswith(("attention_decode", "attention_prefill"))]
    assert ran and all(name.endswith(f"_{batch.problem.suffix}") for name in ran)
    batch.check()


def test_the_kinds_are_those_that_are_named() -> None:
    """Soft caps and ranges go together; biases have windows only."""
    assert len(KINDS) == 8
    assert {mask for score, mask in KINDS if score in ("plain", "capped")} == set(served.MASKS)
    assert {mask for score, mask in KINDS if score in ("biased", "rooted")} == {"windowed"}


@pytest.mark.parametrize(("score", "mask"), KINDS)
@given(data=st.data())
def test_batches(score: str, mask: str, data: st.DataObject) -> None:
    """Prompts, chunks of prompts, drafts to verify and decode steps, of any heads, windows, sinks and lengths."""
    most_new, decode_query_len = data.draw(st.sampled_from([(70, 1), (70, 4), (4, 4), (1, 1)]))
    head_size, dtype = data.draw(st.sampled_from(head_sizes(score, mask))), data.draw(st.sampled_from(TYPES))
    check(data.draw(batches(dtype, head_size, most_new, score, mask)), decode_query_len)


@pytest.mark.parametrize(
    ("score", "mask", "head_size"), [(*kind, size) for kind in KINDS[:2] for size in head_sizes(*kind)]
)
def test_every_head_size(score: str, mask: str, head_size: int) -> None:
    """In kernels that may be for longer ones; the rest of the kinds' are among these."""
    dtype, capped = TYPES[head_size // 8 % 2], score == "capped"
    batch = Batch(
        dtype, head_size, 2, 3, SPREAD, 16, head_size, soft_cap=5.0 * capped, window=40 * capped, sinks=capped
    )
    check(batch, 4)


@pytest.mark.parametrize(("score", "mask"), [("rooted", "windowed"), ("capped", "ranges")])
def test_heads_shorter_than_half_of_their_kernels(score: str, mask: str) -> None:
    """What lies behind a head's dims is the next rows then, which may hold anything."""
    ranges = None if mask == "windowed" else [[(0, 3)]]
    check(
        Batch(
            TYPES[0],
            32,
            1,
            3,
            [(6, 6)],
            16,
            0,
            soft_cap=5.0 * (score == "capped"),
            ranges=ranges,
            alibi=score if score == "rooted" else "",
        )
    )


@pytest.mark.parametrize(("score", "mask"), KINDS)
@pytest.mark.parametrize("dtype", TYPES)
def test_parts_are_joined(score: str, mask: str, dtype: torch.dtype) -> None:
    """Long requests over every workgroup: parts of an item must agree in what their maxima and sums are of."""
    batch = Batch(
        dtype,
        64,
        1,
        4,
        [(1, 1500), (3, 900)],
        16,
        seed=7,
        sinks=True,
        with_lse=True,
        causal=[True, False],
        soft_cap=20.0 * (score == "capped"),
        alibi=score if score in ("biased", "rooted") else "",
        ranges=None if mask == "windowed" else [[(1400, 1600)], [(100, 897), (898, 899)]],
        clamped=mask == "clamped_ranges",
    )
    check(batch, 3)
    assert launches_of("attention_combine") == 1


@pytest.mark.parametrize(("score", "mask"), KINDS)
def test_a_plan_is_remade_in_place(score: str, mask: str) -> None:
    """A step's ranges, and what says which requests are causal, replace the last step's in the same buffers."""
    options: dict[str, Any] = {
        "soft_cap": 5.0 * (score == "capped"),
        "alibi": score if score in ("biased", "rooted") else "",
        "window": 30,
        "clamped": mask == "clamped_ranges",
    }
    listed = mask != "windowed"
    first = Batch(TYPES[0], HEADS[score, mask], 2, 4, SPREAD[:3], 16, 1, causal=[True, False, True], **options)
    second = Batch(TYPES[0], HEADS[score, mask], 2, 4, [(1, 5), (9, 200)], 16, 2, causal=[False, True], **options)
    if listed:
        first.ranges, second.ranges = [[(60, 80)], [(3, 9), (15, 30)], [(86, 88)]], [[], [(100, 195), (196, 198)]]
    planner = AttentionPlanner(first.problem, DEVICE, 3, 24)
    buffers = planner._words, planner._workspace, planner._spans
    where = [buffer.data_ptr() for buffer in buffers]
    assert planner._spans.numel() == (48 if listed else 0)
    for batch in (first, second, first):
        batch.out = Buffer(batch.out.view.shape, batch.out.view.stride(), 24, batch.dtype, 5)
        batch.run(planner)
        batch.check()
    assert [buffer.data_ptr() for buffer in buffers] == where


def test_falcons_71_heads() -> None:
    """Query heads of one KV head, in decode, verification and prompts, plain and with a bias."""
    for alibi in ("", "biased", "rooted"):
        batch = Batch(TYPES[0], 64, 1, 71, [(1, 200), (2, 33), (20, 50)], 16, 3, alibi=alibi, with_lse=True)
        check(batch)


@pytest.mark.parametrize("planned", [False, True])
def test_ranges_may_be_none_at_all(planned: bool) -> None:
    """As tensors without ranges, and of empty ones, which say the same as windows do; with and without a plan."""
    cases: list[list[list[tuple[int, int]]]] = [[[], [], []], [[(0, 0)], [(0, 0), (0, 0)], []]]
    for ranges in cases:
        batch = Batch(TYPES[0], 64, 2, 4, SPREAD[:3], 16, 1, window=30, ranges=ranges)
        batch.run(batch.planner() if planned else None)
        batch.check()


@pytest.mark.parametrize(("score", "mask"), KINDS)
def test_without_a_plan(score: str, mask: str) -> None:
    """The op makes one itself, of the problem that its arguments name."""
    batch = Batch(
        TYPES[0],
        HEADS[score, mask],
        2,
        4,
        SPREAD,
        16,
        seed=1,
        window=25,
        causal=[True, True, False, False, True],
        soft_cap=5.0 * (score == "capped"),
        alibi=score if score in ("biased", "rooted") else "",
        ranges=None if mask == "windowed" else [[(60, 69)], [(0, 4), (10, 17)], [], [(50, 80)], [(1, 3)]],
        clamped=mask == "clamped_ranges",
    )
    rocmforge_plugin.reset_launches()
    batch.run(None)
    assert launches_of("attention_prefill") == 1
    assert all(name.endswith(batch.problem.suffix) for name in rocmforge_plugin.launches() if "prefill" in name)
    batch.check()


def test_padding_requests_are_skipped() -> None:
    """Requests without tokens or keys, as a padded graph has them, whatever is said of them."""
    for says in (True, False):
        batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (5, 20)], 16, 1, padding=2, ranges=[[(60, 90)], [(14, 17)]])
        empty = torch.zeros(2, dtype=torch.int32, device=DEVICE)
        batch.requests += [(0, 0), (0, 0)]
        batch.causal, batch.ranges = [True, False, says, not says], [*(batch.ranges or []), [(0, 5)], []]
        batch.seq_lens = torch.cat((batch.seq_lens, empty))
        batch.starts = torch.cat((batch.starts, batch.starts[-1:].expand(2)))
        batch.block_table = torch.cat((batch.block_table, batch.block_table))
        batch.run(batch.planner())
        batch.check()


@pytest.mark.skipif(ON_CPU, reason="needs CUDA graphs")
@pytest.mark.parametrize(("score", "mask"), KINDS)
def test_a_graph_serves_other_ranges_and_other_causal_requests(score: str, mask: str) -> None:
    """Both are read on the device, by the plan."""
    batch = Batch(
        TYPES[0],
        64,
        2,
        4,
        [(2, 70), (20, 60)],
        16,
        seed=5,
        window=30,
        causal=[True, False],
        soft_cap=5.0 * (score == "capped"),
        alibi=score if score in ("biased", "rooted") else "",
        ranges=None if mask == "windowed" else [[(60, 69)], [(38, 44), (50, 55)]],
        clamped=mask == "clamped_ranges",
    )
    planner = batch.planner()
    batch.run(planner)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        batch.run(planner)
    batch.causal = [False, True]
    assert isinstance(batch.causal_given, torch.Tensor)
    batch.causal_given.copy_(torch.tensor([0, 1]))
    if batch.ranges_given is not None:
        batch.ranges_given.copy_(batch.ranges_given.flip(0))
    batch.out.view.fill_(float("nan"))
    graph.replay()
    batch.check()
