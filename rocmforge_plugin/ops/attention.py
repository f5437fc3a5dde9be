# SPDX-License-Identifier: Apache-2.0
"""Paged attention: a plan once a step (planner.py), then one call per layer."""

from __future__ import annotations

import torch

from ..problem import Problem
from . import checks
from .planner import COMMON, PAGES, PLAN, AttentionPlan, AttentionPlanner, shared_planner

_OP = "paged_attention"
RUN: checks.Works = {
    **COMMON,
    **PAGES,
    "window.plan": "{planner.problem.window}, as the plan has it",
    "kv_cache.shape": "[blocks, {planner.problem.num_kv_heads}, block_size, {planner.row_elements}], a key's "
    "and its value's elements in a row",
    "sinks.dtype": "float32",
    "sinks.shape": "[{planner.problem.num_heads}], one for each query head",
    "sinks.contiguous": "contiguous",
}


def _planner_for(
    query: torch.Tensor, kv_cache: torch.Tensor, seq_lens: torch.Tensor, max_query_len: int, window: int
) -> AttentionPlanner:
    """One that calls of like shapes share; what only a plan asks of the tensors is left to it."""
    checks.of_dims(
        _OP,
        ("query", query, 3, "[tokens, num_heads, head_size]"),
        ("kv_cache", kv_cache, 4, "[blocks, num_kv_heads, block_size, 2 * head_size]"),
        ("seq_lens", seq_lens, 1, "[requests]"),
    )
    tokens, num_heads, head_size = query.shape
    problem = Problem(str(query.dtype), num_heads, kv_cache.shape[1], head_size, head_size, window)
    of = f"{_OP}, of query, kv_cache and window"
    return shared_planner(of, problem, query.device, seq_lens.shape[0], tokens, max_query_len)


def paged_attention(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    max_query_len: int,
    scale: float,
    out: torch.Tensor | None = None,
    window: int = 0,
    sinks: torch.Tensor | None = None,
    causal: bool = True,
    lse: torch.Tensor | None = None,
    plan: AttentionPlan | None = None,
) -> torch.Tensor:
    """Attention of a batch's new tokens over the paged cache, which holds their keys and values already.

    For query token i (of n) of a request with L keys and query head h of KV head g = h // (num_heads / num_kv_heads):
    ``out = softmax(scale * q . k_j) v_j`` over the keys ``max(0, p - window + 1) <= j <= p``, ``p = L - n + i``
    (Vaswani et al. 2017, eq. 1; the running softmax is Milakov and Gimelshein's, 2018), or if not `causal` over all L
    keys; zero where there are none. With `sinks`, ``exp(sinks[h])`` joins the sum of the softmax (as in gpt-oss).
    Products and sums are fp32, probabilities are rounded to the cache's
    dtype before they meet V, the result is rounded once.

    Args:
        query: [tokens, num_heads, head_size], bfloat16 or float16 (CPU: also float32); the last stride is 1, the others
            and the address are multiples of 16 bytes. Tokens past the last request's are padding.
        kv_cache: [blocks, num_kv_heads, block_size, 2 * head_size] of query's dtype, K then V in the last dimension,
            whose stride is 1; the others are multiples of 16 bytes. block_size is a multiple of 16.
        block_table: int32 [requests, blocks per request]; entries past a request's last page are not read.
        seq_lens: int32 [requests], keys of each request, its new tokens included.
        query_start_loc: int32 [requests + 1], where each request's query tokens start.
        max_query_len: most query tokens of a request, or an upper bound.
        scale: factor of the scores, positive.
        out: like query in shape and dtype; allocated if None. Padding tokens are left as they are.
        window: sliding window, in keys, the query's own included; 0 for none.
        sinks: float32 [num_heads] logits, or None.
        causal: whether a token sees no keys after its own; without it there is no window.
        lse: float32 [num_heads, tokens], of any strides, or None: receives the natural logarithm of each row's sum of
            exponentials, with which results over different keys can be joined. The sum is the softmax's whole
            denominator, the sink's part included; -inf where it is empty. Padding tokens' are left as they are.
        plan: from an `AttentionPlanner` of this geometry for these lengths; None makes one here, which costs a launch.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if out is None:
        checks.placed(_OP, "query", query)
        size = query.shape if plan is None else (*query.shape[:-1], plan.planner.problem.value_dims)
        out = torch.empty(size, dtype=query.dtype, device=query.device)
    if plan is not None:
        planner = plan.planner
        failed = planner.native.run_paged(
            planner.stream(),
            plan.num_reqs,
            plan.num_tokens,
            plan.max_query_len,
            plan.causal,
            query,
            kv_cache,
            block_table,
            seq_lens,
            out,
            lse,
            sinks,
            max_query_len,
            scale,
            window,
            causal,
        )
    else:
        planner = _planner_for(query, kv_cache, seq_lens, max_query_len, window)
        if query.shape[0] == 0 or seq_lens.shape[0] == 0:
            return out
        failed = planner.native.plan_and_run_paged(
            planner.stream(),
            query_start_loc,
            query.shape[0],
            query,
            kv_cache,
            block_table,
            seq_lens,
            out,
            lse,
            sinks,
            max_query_len,
            scale,
            window,
            causal,
        )
    if failed:
        checks.refuse(
            _OP,
            failed,
            PLAN | RUN,
            {
                "query": query,
                "kv_cache": kv_cache,
                "block_table": block_table,
                "seq_lens": seq_lens,
                "out": out,
                "query_start_loc": query_start_loc,
                "max_query_len": max_query_len,
                "scale": scale,
                "window": window,
                "sinks": sinks,
                "causal": causal,
                "lse": lse,
                "plan": plan,
                "planner": planner,
            },
        )
    return out
