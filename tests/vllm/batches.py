# SPDX-License-Identifier: Apache-2.0
"""Batches, pages and the part of vLLM's configuration that a metadata builder reads: for tests without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import ChunkedLocalAttentionSpec, FullAttentionSpec

BLOCK = 32
KV_HEADS, SIZE = 2, 64


def config(max_num_seqs: int, max_num_batched_tokens: int, drafted: int = 0) -> Any:
    """Of an fp32 model whose layers vLLM does not know by name."""
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens),
        model_config=SimpleNamespace(dtype=torch.float32),
        speculative_config=SimpleNamespace(num_speculative_tokens=drafted) if drafted else None,
        compilation_config=SimpleNamespace(static_forward_context={}),
    )


def spec(chunk: int | None = None) -> FullAttentionSpec | ChunkedLocalAttentionSpec:
    """Of the pages of `cache`."""
    pages: dict[str, Any] = {"block_size": BLOCK, "num_kv_heads": KV_HEADS, "head_size": SIZE, "dtype": torch.float32}
    if chunk is not None:
        return ChunkedLocalAttentionSpec(**pages, attention_chunk_size=chunk)
    return FullAttentionSpec(**pages)


def cache(pages: int) -> torch.Tensor:
    """Random keys and values."""
    return torch.randn(pages, KV_HEADS, BLOCK, 2 * SIZE)


def batch(lengths: list[int], queries: list[int], pages: int) -> CommonAttentionMetadata:
    """A step of requests with so many keys and query tokens, on pages in any order."""
    starts = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
    columns = max(-(-length // BLOCK) for length in lengths)
    assert len(lengths) * columns <= pages, "a page is one request's"
    tokens = int(starts[-1])
    return CommonAttentionMetadata(
        query_start_loc=starts,
        query_start_loc_cpu=starts,
        seq_lens=torch.tensor(lengths, dtype=torch.int32),
        num_reqs=len(lengths),
        num_actual_tokens=tokens,
        max_query_len=max(queries),
        max_seq_len=max(lengths),
        block_table_tensor=torch.randperm(pages)[: len(lengths) * columns].view(len(lengths), columns).int(),
        slot_mapping=torch.full((tokens,), -1),
    )
