# SPDX-License-Identifier: Apache-2.0
"""Batches for the properties of paged attention: any lengths, pages, strides, groups, masks and scores."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st

from rocmforge_plugin import served
from rocmforge_plugin.problem import Problem

from .attention_support import Batch
from .kernel_support import seeds

# Lengths around pages (16), tiles (16 to 128 keys) and row blocks.
lengths = st.one_of(st.integers(1, 40), st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257]))
GROUPS = (1, 2, 3, 4, 12, 16, 24, 64)  # and 71 and 100, which are too many for decode, of long heads or of all


def head_sizes(score: str, mask: str) -> list[int]:
    """All that there are kernels for."""
    sizes = range(served.LEAST_HEAD, max(served.HEAD_SIZES) + 1, served.NARROW_STEP)
    return [n for n in sizes if not Problem("bfloat16", 1, 1, n, n, score=score, mask=mask).refusals("cpu")]


@st.composite
def requests(draw: st.DrawFn, most_new: int, causal: bool = True) -> tuple[int, int]:
    """New tokens and all: where it is not causal there may be no keys, or fewer than new tokens."""
    if not causal:
        return draw(st.integers(1, most_new)), draw(st.one_of(st.just(0), lengths))
    length = draw(lengths)
    return draw(st.integers(1, min(length, most_new))), length


@st.composite
def ranges_of(draw: st.DrawFn, request: tuple[int, int]) -> list[tuple[int, int]]:
    """Of a request's positions, most of them near its new tokens, some beyond what is there as yet."""
    new, length = request
    first = max(length - new, 0)
    places = st.one_of(st.integers(0, length + 9), st.integers(max(first - 20, 0), length + 3))
    ends = sorted(draw(st.lists(places, max_size=6, unique=True)))
    found = list(zip(ends[::2], ends[1::2], strict=False))
    return [(begin, begin) if draw(st.sampled_from([False, False, True])) else (begin, end) for begin, end in found]


@st.composite
def batches(
    draw: st.DrawFn,
    dtype: torch.dtype,
    head_size: int,
    most_new: int = 70,
    score: str = "plain",
    mask: str = "windowed",
) -> Batch:
    """Of one problem, with or without a window and sinks."""
    count = draw(st.integers(1, 5))
    causal = draw(st.sampled_from([[True] * count, [True] * count, [False] * count, []]))
    each = causal or draw(st.lists(st.booleans(), min_size=count, max_size=count))
    batch = Batch(
        dtype,
        head_size,
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.sampled_from(GROUPS if most_new == 1 else (*GROUPS, 71, 100))),
        requests=[draw(requests(most_new, own)) for own in each],
        block_size=draw(st.sampled_from([16, 32, 48, 128])),
        seed=draw(seeds),
        window=draw(st.sampled_from([0, 0, 1, 20, 64])),
        sinks=draw(st.booleans()),
        token_major=draw(st.booleans()),
        padding=draw(st.sampled_from([0, 3])),
        causal=causal[0] if causal else each,
        with_lse=draw(st.booleans()),
        soft_cap=draw(st.sampled_from([1.0, 5.0, 20.0])) if score == "capped" else 0.0,
        alibi=score if score in ("biased", "rooted") else "",
        clamped=mask == "clamped_ranges",
    )
    if mask == "windowed":
        return batch
    return replace(batch, ranges=[draw(ranges_of(request)) for request in batch.requests])
