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
    "soft_cap.range": "at least 0 and finite",
    **{
        f"{name}.plan": "what the plan is for: scores that are {planner.problem.score}"
        for name in ("soft_cap", "alibi_slopes")
    },
    "kv_cache.shape": "[blocks, {planner.problem.num_kv_heads}, block_size, {planner.row_elements}], a key's "
    "and its value's elements in a row",
    **{
        f"{name}.{what}": works
        for name in ("sinks", "alibi_slopes")
        for what, works in (
            ("dtype", "float32"),
            ("shape", "[{planner.problem.num_heads}], one for each query head"),
            ("contiguous", "contiguous"),
        )
    },
}


def _planner_for(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    seq_lens: torch.Tensor,
    max_query_len: int,
    window: int,
    score: str,
    mask: str,
) -> AttentionPlanner:
    """One that calls of like shapes share; what only a plan asks of the tensors is left to it."""
    checks.of_dims(
        _OP,
        ("query", query, 3, "[tokens, num_heads, head_size]"),
        ("kv_cache", kv_cache, 4, "[blocks, num_kv_heads, block_size, 2 * head_size]"),
        ("seq_lens", seq_lens, 1, "[requests]"),
    )
    tokens, num_heads, head_size = query.shape
    problem = Problem(
        str(query.dtype), num_heads, kv_cache.shape[1], head_size, head_size, window, score=score, mask=mask
    )
    of = f"{_OP}, of query, kv_cache, window, soft_cap, alibi_slopes and ranges"
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
    soft_cap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    alibi_sqrt: bool = False,
    causal: bool | torch.Tensor = True,
    ranges: torch.Tensor | None = None,
    ranges_clamped: bool = False,
    lse: torch.Tensor | None = None,
    plan: AttentionPlan | None = None,
) -> torch.Tensor:
    """Attention of a batch's new tokens over the paged cache, which holds their keys and values already.

    For query token i (of n) of a request with L keys and query head h of KV head g = h // (num_heads / num_kv_heads):
    ``out = softmax(scale * q . k_j) v_j`` over the keys ``max(0, p - window + 1) <= j <= p``, ``p = L - n + i``
    (Vaswani et al. 2017, eq. 1; the running softmax is Milakov and Gimelshein's, 2018), or if not `causal` over the
    keys ``p - window < j < p + window`` of all L; zero where there are none. Then a score is ``s = scale * q . k_j``
    with, in this order, a soft cap, ``soft_cap * tanh(s / soft_cap)`` (Gemma 2), and a bias, ``alibi_slopes[h] * (j -
    p)`` (ALiBi, Press et al. 2022) or, with `alibi_sqrt`, ``-alibi_slopes[h] * sqrt(max(p - j, 0))``. With `sinks`,
    ``exp(sinks[h])`` joins the sum of the softmax (as in gpt-oss). Products and sums are fp32, probabilities are
    rounded to the cache's dtype before they meet V, the result is rounded once.

    Args:
        query: [tokens, num_heads, head_size], bfloat16 or float16 (CPU: also float32); the last stride is 1, the others
            and the address are multiples of 16 bytes. head_size is a multiple of 8 from 32 to 256, or 512. Tokens past
            the last request's are padding.
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
        soft_cap: of the scores; 0 for none.
        alibi_slopes: float32 [num_heads], or None; not beside a soft cap.
        alibi_sqrt: which bias `alibi_slopes` are of.
        causal: whether a token sees no keys after its own; an int32 tensor [requests] says so of each request.
        ranges: int32 [requests, ranges, 2] or None: the first and the last position, both included, of ranges of a
            request's keys, of which there is none in 0, 0, and which must not overlap. A token in one sees all of it,
            beside what it sees anyway. With a plan they are the plan's.
        ranges_clamped: whether of its range too a token sees no key before its window.
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
            alibi_slopes,
            max_query_len,
            scale,
            window,
            soft_cap,
            causal,
        )
    else:
        score = "capped" if soft_cap else "plain" if alibi_slopes is None else "rooted" if alibi_sqrt else "biased"
        mask = "windowed" if ranges is None else "clamped_ranges" if ranges_clamped else "ranges"
        planner = _planner_for(query, kv_cache, seq_lens, max_query_len, window, score, mask)
        if query.shape[0] == 0 or seq_lens.shape[0] == 0:
            return out
        failed = planner.native.plan_and_run_paged(
            planner.stream(),
            query_start_loc,
            query.shape[0],
            ranges,
            query,
            kv_cache,
            block_table,
            seq_lens,
            out,
            lse,
            sinks,
            alibi_slopes,
            max_query_len,
            scale,
            window,
            soft_cap,
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
                "soft_cap": soft_cap,
                "alibi_slopes": alibi_slopes,
                "ranges": ranges,
                "causal": causal,
                "lse": lse,
                "plan": plan,
                "planner": planner,
            },
        )
    return out
