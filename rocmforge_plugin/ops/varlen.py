# SPDX-License-Identifier: Apache-2.0
"""Attention over keys and values in two tensors, request after request: of prompts, before there is a cache of them."""

from __future__ import annotations

import torch

from .. import _C
from ..problem import Problem
from . import checks
from .planner import ALIGNED, COMMON, PLAN, AttentionPlan, AttentionPlanner, shared_planner

_OP = "varlen_attention"
RUN: checks.Works = {
    **COMMON,
    "window.plan": "{planner.problem.window}, as the plan has it",
    "key.shape": "[key tokens, {planner.problem.num_kv_heads}, {planner.problem.key_dims}]",
    "key.most": "of fewer than 2^31 tokens",
    "key.aligned": ALIGNED,
    "value.shape": "[key tokens, {planner.problem.num_kv_heads}, {planner.problem.value_dims}], as key is {key.shape}",
    "value.aligned": ALIGNED,
    "key_start_loc.dtype": "int32",
    "key_start_loc.shape": "of size [requests + 1], as seq_lens is {seq_lens.shape}",
    "key_start_loc.contiguous": "contiguous",
}


def _planner_for(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seq_lens: torch.Tensor, max_query_len: int, window: int
) -> AttentionPlanner:
    """One that calls of like shapes share; what only a plan asks of the tensors is left to it."""
    checks.of_dims(
        _OP,
        ("query", query, 3, "[tokens, num_heads, key dims]"),
        ("key", key, 3, "[key tokens, num_kv_heads, key dims]"),
        ("value", value, 3, "[key tokens, num_kv_heads, value dims]"),
        ("seq_lens", seq_lens, 1, "[requests]"),
    )
    tokens, num_heads, key_dims = query.shape
    problem = Problem(str(query.dtype), num_heads, key.shape[1], key_dims, value.shape[2], window, format="split")
    of = f"{_OP}, of query, key and value"
    return shared_planner(of, problem, query.device, seq_lens.shape[0], tokens, max_query_len)


def varlen_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_start_loc: torch.Tensor,
    key_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    *,
    max_query_len: int,
    scale: float,
    causal: bool | torch.Tensor,
    window: int = 0,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    plan: AttentionPlan | None = None,
) -> torch.Tensor:
    """Attention of requests' query tokens over their keys and values, which lie request after request in two tensors.

    For query token i (of n) of a request with L keys and query head h of KV head g = h // (num_heads / num_kv_heads):
    ``out = softmax(scale * q . k_j) v_j`` over all L keys, or if `causal` over the keys ``j <= p``, ``p = L - n + i``,
    and with a `window` over those of them with ``p - window < j < p + window``; zero where there are none. Results over
    different keys of the same queries are joined by their `lse`. Numbers are rounded as in `paged_attention`.

    Args:
        query: [tokens, num_heads, key_dims], bfloat16 or float16 (CPU: also float32); the last stride is 1, the others
            and the address are multiples of 16 bytes. Tokens past the last request's are padding.
        key: [key tokens, num_kv_heads, key_dims] of query's dtype; strides as query's. Key tokens of no request are
            not read.
        value: [key tokens, num_kv_heads, value_dims], likewise, in a tensor and with strides of its own.
            (key_dims, value_dims) are those of "split" in `served.PROBLEMS`, or both the same multiple of 8 from 32 to
            256.
        query_start_loc: int32 [requests + 1], where each request's query tokens start.
        key_start_loc: int32 [requests + 1], where each request's key tokens start.
        seq_lens: int32 [requests], keys of each request: the differences of key_start_loc. With `causal`, a request
            without keys is padding.
        max_query_len: most query tokens of a request, or an upper bound.
        scale: factor of the scores, positive.
        causal: whether a query token sees no keys after the one that stands beside it, the last beside the last; an
            int32 tensor [requests] says so of each request.
        window: keys that a token sees on either side that it sees, the one beside it included; 0 for all.
        out: [tokens, num_heads, value_dims] of query's dtype; allocated if None. Padding tokens are left as they are.
        lse: float32 [num_heads, tokens], of any strides, or None: receives the natural logarithm of each row's sum of
            exponentials, -inf where there are no keys. Padding tokens' are left as they are.
        plan: from an `AttentionPlanner` of this geometry, of format "split", for these lengths and this `causal`; None
            makes one here, which costs a launch.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    planner = _planner_for(query, key, value, seq_lens, max_query_len, window) if plan is None else plan.planner
    if out is None:
        checks.placed(_OP, "query", query)
        size = (*query.shape[:-1], planner.problem.value_dims)
        out = torch.empty(size, dtype=query.dtype, device=query.device)
    if plan is not None:
        failed = _C.run_varlen(
            planner.native,
            planner.stream(),
            plan.num_reqs,
            plan.num_tokens,
            plan.max_query_len,
            plan.causal,
            query,
            key,
            value,
            key_start_loc,
            seq_lens,
            out,
            lse,
            max_query_len,
            scale,
            window,
            causal,
        )
    else:
        if query.shape[0] == 0 or seq_lens.shape[0] == 0:
            return out
        failed = _C.plan_and_run_varlen(
            planner.native,
            planner.stream(),
            query_start_loc,
            query.shape[0],
            query,
            key,
            value,
            key_start_loc,
            seq_lens,
            out,
            lse,
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
                "key": key,
                "value": value,
                "query_start_loc": query_start_loc,
                "key_start_loc": key_start_loc,
                "seq_lens": seq_lens,
                "out": out,
                "max_query_len": max_query_len,
                "scale": scale,
                "window": window,
                "causal": causal,
                "lse": lse,
                "plan": plan,
                "planner": planner,
            },
        )
    return out
