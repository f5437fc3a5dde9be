# SPDX-License-Identifier: Apache-2.0
"""Attention with any mask, in fp64 and key by key: what the plugin's metadata must come to."""

from __future__ import annotations

from typing import Any

import torch


def sees(query: int, key: int, window: int, causal: bool, ranges: list[tuple[int, int]], clamped: bool) -> bool:
    """Whether a token at position `query` sees the key at `key`, as vLLM's Triton kernel has it."""
    near = not window or abs(query - key) < window
    if near and (key <= query or not causal):
        return True
    in_range = any(first <= query <= last and first <= key <= last for first, last in ranges)
    return in_range and not (clamped and window and query - key >= window)


def attention(
    query: torch.Tensor,
    pages: torch.Tensor,
    step: Any,
    scale: float,
    *,
    window: int = 0,
    causal: Any = True,
    ranges: dict[int, list[tuple[int, int]]] | None = None,
    clamped: bool = False,
    seq_lens: torch.Tensor | None = None,
) -> torch.Tensor:
    """[tokens, heads, size] in fp64 of a step as vLLM's scheduler made it; shapes as for ops.paged_attention.

    Args:
        causal: of all requests, or of each.
        ranges: of requests by their places, ends included.
        seq_lens: keys of each request, where they are not the step's.
    """
    tokens, heads, size = query.shape
    out = torch.zeros(tokens, heads, size, dtype=torch.float64)
    for request, length in enumerate((step.seq_lens if seq_lens is None else seq_lens).tolist()):
        begin, end = step.query_start_loc[request : request + 2].tolist()
        rows = pages[step.block_table_tensor[request].long()].permute(1, 0, 2, 3).flatten(1, 2)[:, :length].double()
        keys, values = (part.repeat_interleave(heads // pages.shape[1], 0) for part in rows.split(size, dim=-1))
        scores = query[begin:end].double().transpose(0, 1) @ keys.transpose(1, 2) * scale
        one = bool(causal[request]) if isinstance(causal, (list, torch.Tensor)) else causal
        spans = (ranges or {}).get(request, [])
        seen = [
            sees(length - (end - begin) + row, key, window, one, spans, clamped)
            for row in range(end - begin)
            for key in range(length)
        ]
        mask = torch.tensor(seen, dtype=torch.bool).view(end - begin, length)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num()  # zero where nothing is seen
        out[begin:end] = (weights @ values).transpose(0, 1)
    return out
