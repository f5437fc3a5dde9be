# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention over its paged cache (latent_cache.py writes it): a plan once a step, then one call per
layer.
"""

from __future__ import annotations

import torch

from .. import _C
from ..problem import Problem
from . import checks
from .planner import ALIGNED, COMMON, PAGES, PLAN, AttentionPlan, AttentionPlanner, shared_planner

_OP = "latent_attention"
RUN: checks.Works = {
    **{condition: works for condition, works in COMMON.items() if not condition.startswith("query.")},
    **PAGES,
    "query_latent.dtype": "{planner.problem.dtype}, as the plan has it",
    "query_latent.device": "on {planner.device}, as the plan is",
    "query_latent.shape": "[tokens, {planner.problem.num_heads}, {planner.problem.value_dims}], as the plan has it",
    "query_latent.aligned": ALIGNED,
    "query_rope.given": "a tensor where a key has more elements than a value, else None",
    "query_rope.dtype": "{planner.problem.dtype}, as the plan has it",
    "query_rope.device": "on {planner.device}, as the plan is",
    "query_rope.shape": "[tokens, num_heads, {rope_dims}], as query_latent is {query.shape}",
    "query_rope.aligned": ALIGNED,
    "kv_cache.shape": "[blocks, block_size, {planner.row_elements}]",
}


def _planner_for(
    query_latent: torch.Tensor, kv_cache: torch.Tensor, seq_lens: torch.Tensor, max_query_len: int
) -> AttentionPlanner:
    """One that calls of like shapes share; what only a plan asks of the tensors is left to it."""
    checks.of_dims(
        _OP,
        ("query_latent", query_latent, 3, "[tokens, num_heads, L]"),
        ("kv_cache", kv_cache, 3, "[blocks, block_size, L + R]"),
        ("seq_lens", seq_lens, 1, "[requests]"),
    )
    tokens, num_heads, value_dims = query_latent.shape
    problem = Problem(str(query_latent.dtype), num_heads, 1, kv_cache.shape[2], value_dims, format="latent")
    of = f"{_OP}, of query_latent and kv_cache"
    return shared_planner(of, problem, query_latent.device, seq_lens.shape[0], tokens, max_query_len)


def latent_attention(
    query_latent: torch.Tensor,
    query_rope: torch.Tensor | None,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    max_query_len: int,
    scale: float,
    out: torch.Tensor | None = None,
    causal: bool = True,
    lse: torch.Tensor | None = None,
    plan: AttentionPlan | None = None,
) -> torch.Tensor:
    """Attention of absorbed queries over the latents of all heads, which lie in the paged cache already.

    For query token i (of n) of a request with L keys k_j, and any query head: ``out = softmax(scale * q . k_j) v_j``
    over the keys ``j <= L - n + i``, or if not `causal` over all of them; zero where there are none. q is the query's
    latent part and behind it its rotated part, v_j the part of k_j as long as the former. DeepSeek-AI, "DeepSeek-V2",
    2024 (https://arxiv.org/abs/2405.04434), section 2.1.2 with the up-projections absorbed; products and sums are fp32,
    probabilities are rounded to the cache's dtype before they meet values, the result is rounded once.

    Args:
        query_latent: [tokens, num_heads, value_dims], bfloat16 or float16 (CPU: also float32); the last stride is 1,
            the others and the address are multiples of 16 bytes. Tokens past the last request's are padding.
        query_rope: [tokens, num_heads, key_dims - value_dims] likewise, with strides of its own; None where a key has
            no more elements than a value.
        kv_cache: [blocks, block_size, key_dims] of the same dtype, strides likewise. block_size is a multiple of 16.
        block_table: int32 [requests, blocks per request]; entries past a request's last page are not read.
        seq_lens: int32 [requests], keys of each request, its new tokens included.
        query_start_loc: int32 [requests + 1], where each request's query tokens start.
        max_query_len: most query tokens of a request, or an upper bound.
        scale: factor of the scores, positive.
        out: like query_latent in shape and dtype; allocated if None. Padding tokens are left as they are.
        causal: whether a token sees no keys after its own.
        lse: float32 [num_heads, tokens], of any strides, or None: receives the natural logarithm of each row's sum of
            exponentials, -inf where it has no keys. Padding tokens' are left as they are.
        plan: from an `AttentionPlanner` of this problem (format "latent") for these lengths; None makes one here, which
            costs a launch.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if out is None:
        checks.placed(_OP, "query_latent", query_latent)
        out = torch.empty(query_latent.shape, dtype=query_latent.dtype, device=query_latent.device)
    if plan is not None:
        planner = plan.planner
        failed = _C.run_latent(
            planner.native,
            planner.stream(),
            plan.num_reqs,
            plan.num_tokens,
            plan.max_query_len,
            plan.causal,
            query_latent,
            query_rope,
            kv_cache,
            block_table,
            seq_lens,
            out,
            lse,
            max_query_len,
            scale,
            causal,
        )
    else:
        planner = _planner_for(query_latent, kv_cache, seq_lens, max_query_len)
        if query_latent.shape[0] == 0 or seq_lens.shape[0] == 0:
            return out
        failed = _C.plan_and_run_latent(
            planner.native,
            planner.stream(),
            query_start_loc,
            query_latent.shape[0],
            query_latent,
            query_rope,
            kv_cache,
            block_table,
            seq_lens,
            out,
            lse,
            max_query_len,
            scale,
            causal,
        )
    if failed:
        checks.refuse(
            _OP,
            failed,
            PLAN | RUN,
            {
                "query_latent": query_latent,
                "query": query_latent,  # as the words of all ops have it
                "query_rope": query_rope,
                "kv_cache": kv_cache,
                "block_table": block_table,
                "seq_lens": seq_lens,
                "out": out,
                "query_start_loc": query_start_loc,
                "max_query_len": max_query_len,
                "scale": scale,
                "causal": causal,
                "lse": lse,
                "plan": plan,
                "planner": planner,
                "rope_dims": planner.problem.key_dims - planner.problem.value_dims,
            },
        )
    return out
