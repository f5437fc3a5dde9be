# SPDX-License-Identifier: Apache-2.0
"""Batch-invariant plans: a request's results are the same to the bit in every batch it is part of."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem

from .attention_support import TYPES, launches_of
from .kernel_support import DEVICE

HEADS, KV_HEADS, DIMS, BLOCK = 8, 2, 64, 16
# New tokens and keys: decode steps, verification, prompts and chunks of prompts; lengths on and beside the borders of
# parts, and one that is cut into as many as there can be.
REQUESTS = [(1, 5), (1, 1024), (1, 1025), (1, 9000), (3, 900), (40, 300), (1, 16), (90, 90), (2, 2048), (200, 1500)]
BATCHES, MOST_TOKENS = 24, 1024


class Fleet:
    """All requests over one cache, of which batches are made."""

    def __init__(self, dtype: torch.dtype) -> None:
        drawn = torch.Generator().manual_seed(1)
        pages = [-(-length // BLOCK) for _, length in REQUESTS]
        order = torch.randperm(sum(pages), generator=drawn).int()
        ends = list(itertools.accumulate(pages))
        self.rows = [order[end - count : end] for end, count in zip(ends, pages, strict=True)]
        self.cache = torch.randn(sum(pages), KV_HEADS, BLOCK, 2 * DIMS, generator=drawn).to(dtype).to(DEVICE)
        self.queries = [torch.randn(new, HEADS, DIMS, generator=drawn).to(dtype) for new, _ in REQUESTS]
        self.sinks = torch.randn(HEADS, generator=drawn)
        self.slopes = torch.rand(HEADS, generator=drawn) / 16

    def run(self, planner: AttentionPlanner, chosen: list[int], **options: Any) -> list[tuple[torch.Tensor, ...]]:
        """Output and log-sum-exp of each chosen request, from one batch."""
        new, lens = zip(*(REQUESTS[i] for i in chosen), strict=True)
        table = torch.zeros(len(chosen), max(len(self.rows[i]) for i in chosen), dtype=torch.int32)
        for row, i in enumerate(chosen):
            table[row, : len(self.rows[i])] = self.rows[i]
        starts = torch.tensor([0, *itertools.accumulate(new)], dtype=torch.int32)
        on_device = starts.to(DEVICE), torch.tensor(lens, dtype=torch.int32, device=DEVICE)
        query = torch.cat([self.queries[i] for i in chosen]).to(DEVICE)
        lse = torch.empty(HEADS, sum(new), device=DEVICE)
        plan = planner.plan(*on_device, max(new), sum(new))
        out = paged_attention(
            query,
            self.cache,
            table.to(DEVICE),
            on_device[1],
            on_device[0],
            max_query_len=max(new),
            scale=DIMS**-0.5,
            lse=lse,
            plan=plan,
            **options,
        )
        slices = [slice(a, b) for a, b in itertools.pairwise(starts.tolist())]
        return [(out[at].cpu(), lse[:, at].cpu()) for at in slices]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", ["plain", "window and sinks", "alibi"])
def test_results_do_not_depend_on_the_batch(dtype: torch.dtype, kind: str) -> None:
    fleet = Fleet(dtype)
    options: dict[str, Any] = {
        "plain": {},
        "window and sinks": {"window": 1333, "sinks": fleet.sinks.to(DEVICE)},
        "alibi": {"alibi_slopes": fleet.slopes.to(DEVICE)},
    }[kind]
    score = "biased" if kind == "alibi" else "plain"
    problem = Problem(dtype, HEADS, KV_HEADS, DIMS, DIMS, options.get("window", 0), score=score)
    invariant = AttentionPlanner(problem, DEVICE, len(REQUESTS), MOST_TOKENS, 3, batch_invariant=True)
    usual = AttentionPlanner(problem, DEVICE, len(REQUESTS), MOST_TOKENS, 3)
    alone = [fleet.run(invariant, [i], **options)[0] for i in range(len(REQUESTS))]
    drawn, differed = random.Random(0), False
    for _ in range(BATCHES):
        chosen = drawn.sample(range(len(REQUESTS)), drawn.randint(2, len(REQUESTS)))
        before = launches_of("attention_")
        found = fleet.run(invariant, chosen, **options)
        assert launches_of("attention_") >= before + 2  # the plan, and attention
        for i, (out, lse) in zip(chosen, found, strict=True):
            assert torch.equal(out, alone[i][0]) and torch.equal(lse, alone[i][1]), REQUESTS[i]
        for (out, _), (other, _) in zip(found, fleet.run(usual, chosen, **options), strict=True):
            differed |= not torch.equal(out, other)
            torch.testing.assert_close(out, other, atol=2e-2 if dtype != torch.float32 else 2e-5, rtol=2e-2)
    # Else the requests are too few or too short for usual plans to cut them, and this test shows nothing.
    assert differed


def test_what_is_cut_into_parts_is_right() -> None:
    """A long request in as many parts as there can be, beside the reference in fp64."""
    fleet = Fleet(TYPES[0])
    problem = Problem(TYPES[0], HEADS, KV_HEADS, DIMS, DIMS)
    planner = AttentionPlanner(problem, DEVICE, len(REQUESTS), MOST_TOKENS, 3, batch_invariant=True)
    chosen = [3, 9, 4]
    for i, (out, lse) in zip(chosen, fleet.run(planner, chosen), strict=True):
        new, length = REQUESTS[i]
        rows = fleet.cache[fleet.rows[i].long().to(DEVICE)].transpose(1, 2).reshape(-1, KV_HEADS, 2 * DIMS)[:length]
        key, value = rows.cpu().double().split(DIMS, -1)
        scores = torch.einsum("nhd,lhd->hnl", fleet.queries[i].double(), key.repeat_interleave(4, 1)) * DIMS**-0.5
        own = torch.arange(length - new, length)
        scores = scores.masked_fill(torch.arange(length)[None] > own[:, None], -torch.inf)
        right = torch.einsum("hnl,lhd->nhd", scores.softmax(-1), value.repeat_interleave(4, 1))
        assert (out.double() - right).abs().max() < 1e-2 * right.abs().max()
        torch.testing.assert_close(lse.double(), scores.logsumexp(-1), atol=1e-4, rtol=1e-4)
