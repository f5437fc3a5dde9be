# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of scores, masks and heads times: a callable for each set of inputs; results go to their `out`.

Peers are called as vLLM's backends call them, with what a step prepares once for all layers made ahead: plans, ranges,
FlashAttention-3's schedule. A peer that cannot do what a case asks for raises.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch

from rocmforge_plugin.ops import AttentionPlan, AttentionPlanner, paged_attention
from rocmforge_plugin.problem import Problem

from .attention_cases import BLOCK
from .compare import OURS, Calls
from .problems_cases import KIND_INVARIANT, SOFT_CAP, Case, Inputs

TRITON, FLASH_ATTENTION, INVARIANT = "vLLM Triton", "FlashAttention-3", "rocmforge, batch-invariant"
PEERS = (TRITON, FLASH_ATTENTION, INVARIANT)
SEGMENTS, GRID = 16, 128  # of vLLM's TRITON_ATTN
Contestant = Callable[[Case, list[Inputs]], Calls]


def planner_of(case: Case, device: torch.device | str, batch_invariant: bool = False) -> AttentionPlanner:
    """What a model whose steps are like the case would make."""
    problem = Problem(
        str(case.dtype), case.heads, case.kv_heads, case.head, case.head, case.window, score=case.score, mask=case.mask
    )
    decode_query_len = 1 if case.is_prefill else case.query_len
    return AttentionPlanner(
        problem, device, len(case.lens), case.tokens, decode_query_len, batch_invariant=batch_invariant
    )


def plan(case: Case, planner: AttentionPlanner, x: Inputs) -> AttentionPlan:
    return planner.plan(x.query_start, x.seq_lens, case.query_len, case.tokens, x.causal, x.ranges)


def ours(case: Case, sets: list[Inputs], batch_invariant: bool = False) -> Calls:
    """rocmforge through its public op, with the plan that a step makes once for all layers."""
    return [
        functools.partial(
            paged_attention,
            x.query,
            x.kv_cache,
            x.block_table,
            x.seq_lens,
            x.query_start,
            max_query_len=case.query_len,
            scale=case.scale,
            out=x.out,
            window=case.window,
            sinks=None if x.sinks is None else x.sinks.float(),
            soft_cap=SOFT_CAP if case.score == "capped" else 0.0,
            alibi_slopes=x.slopes,
            alibi_sqrt=case.score == "rooted",
            causal=x.causal,
            plan=plan(case, planner_of(case, x.query.device, batch_invariant), x),
        )
        for x in sets
    ]


def plan_only(case: Case, sets: list[Inputs]) -> Calls:
    """The plan of a step by itself."""
    planner = planner_of(case, sets[0].query.device)
    return [functools.partial(plan, case, planner, x) for x in sets]


def triton_unified(case: Case, sets: list[Inputs]) -> Calls:
    """vLLM's Triton kernel as its TRITON_ATTN backend launches it."""
    from vllm.v1.attention.ops.triton_unified_attention import unified_attention

    threshold = GRID // case.kv_heads
    shape = (threshold, case.heads, SEGMENTS)
    device = sets[0].query.device
    output = torch.empty(*shape, 1 << (case.head - 1).bit_length(), dtype=torch.float32, device=device)
    maximum, total = (torch.empty(shape, dtype=torch.float32, device=device) for _ in range(2))
    calls = []
    for x in sets:
        k, v = x.pages.split(case.head, -1)
        calls.append(
            functools.partial(
                unified_attention,
                q=x.query,
                k=k,
                v=v,
                out=x.out,
                cu_seqlens_q=x.query_start,
                max_seqlen_q=case.query_len,
                seqused_k=x.seq_lens,
                max_seqlen_k=max(case.lens),
                softmax_scale=case.scale,
                causal=x.causal,
                alibi_slopes=x.slopes,
                use_alibi_sqrt=case.score == "rooted",
                window_size=(case.window - 1, 0) if case.window else (-1, -1),
                block_table=x.block_table,
                softcap=SOFT_CAP if case.score == "capped" else 0,
                q_descale=None,
                k_descale=None,
                v_descale=None,
                seq_threshold_3D=threshold,
                num_par_softmax_segments=SEGMENTS,
                softmax_segm_output=output,
                softmax_segm_max=maximum,
                softmax_segm_expsum=total,
                sinks=x.sinks,
                mm_prefix_range=x.ranges,
                mm_prefix_clamp_sliding_window=case.clamped,
            )
        )
    return calls


def flash_attention(case: Case, sets: list[Inputs]) -> Calls:
    """FlashAttention-3 as vLLM builds it and its FLASH_ATTN backend calls it.

    Raises:
        NotImplementedError: the case has a bias, ranges, or requests of which some are causal.
    """
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func, get_scheduler_metadata

    if case.images or case.score in ("biased", "rooted") or isinstance(sets[0].causal, torch.Tensor):
        raise NotImplementedError("no biases, no ranges, and all requests alike")
    calls = []
    for x in sets:
        k, v = x.pages.split(case.head, -1)
        causal = bool(x.causal)
        reach = case.window - 1
        window = (reach, 0 if causal else reach) if case.window else (-1, -1)
        schedule = get_scheduler_metadata(
            batch_size=len(case.lens),
            max_seqlen_q=case.query_len,
            max_seqlen_k=max(case.lens),
            num_heads_q=case.heads,
            num_heads_kv=case.kv_heads,
            headdim=case.head,
            cache_seqlens=x.seq_lens,
            qkv_dtype=case.dtype,
            cu_seqlens_q=x.query_start,
            page_size=BLOCK,
            causal=causal,
            window_size=window,
            num_splits=0,
        )
        calls.append(
            functools.partial(
                flash_attn_varlen_func,
                q=x.query,
                k=k,
                v=v,
                out=x.out,
                cu_seqlens_q=x.query_start,
                max_seqlen_q=case.query_len,
                seqused_k=x.seq_lens,
                max_seqlen_k=max(case.lens),
                softmax_scale=case.scale,
                causal=causal,
                window_size=list(window),
                softcap=SOFT_CAP if case.score == "capped" else 0.0,
                block_table=x.block_table,
                scheduler_metadata=schedule,
                fa_version=3,
                s_aux=x.sinks,
            )
        )
    return calls


def available(case: Case) -> dict[str, Contestant]:
    """Contestants that are here; ours also in batch-invariant mode, where the case is about that."""
    found: dict[str, Contestant] = {OURS: ours}
    if case.kind == KIND_INVARIANT:
        found[INVARIANT] = functools.partial(ours, batch_invariant=True)
    if importlib.util.find_spec("vllm"):
        found |= {TRITON: triton_unified, FLASH_ATTENTION: flash_attention}
    return found
