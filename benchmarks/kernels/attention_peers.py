# SPDX-License-Identifier: Apache-2.0
"""What the attention benchmark times: a callable per set of inputs, or the reason why there is none."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from .attention_cases import BLOCK, Case, Inputs

if TYPE_CHECKING:
    from rocmforge_plugin.ops.planner import AttentionPlanner

Calls = list[Callable[[], object]]
Contestant = Callable[[Case, list[Inputs]], Calls]


def planner_of(case: Case, device: torch.device | str) -> AttentionPlanner:
    """What a model whose steps are like the case would make."""
    from rocmforge_plugin.ops.planner import AttentionPlanner
    from rocmforge_plugin.problem import Problem

    return AttentionPlanner(
        Problem(case.dtype, case.heads, case.kv_heads, case.head, case.head),
        device,
        len(case.lens),
        case.tokens,
        1 if case.is_prefill else case.query_len,
    )


def ours(case: Case, sets: list[Inputs]) -> Calls:
    """rocmforge through its public op, with the plan that a step makes once for all layers."""
    from rocmforge_plugin.ops.attention import paged_attention

    calls: Calls = []
    for x in sets:
        plan = planner_of(case, x.query.device).plan(x.query_start, x.seq_lens, case.query_len, case.tokens)
        calls.append(
            functools.partial(
                paged_attention,
                x.query,
                x.kv_cache,
                x.block_table,
                x.seq_lens,
                x.query_start,
                max_query_len=case.query_len,
                scale=case.head**-0.5,
                out=x.out,
                plan=plan,
            )
        )
    return calls


def plan_only(case: Case, sets: list[Inputs]) -> Calls:
    """The plan of a step by itself."""
    planner = planner_of(case, sets[0].query.device)
    return [functools.partial(planner.plan, x.query_start, x.seq_lens, case.query_len, case.tokens) for x in sets]


def triton_unified(case: Case, sets: list[Inputs]) -> Calls:
    """vLLM's Triton kernel as its TRITON_ATTN backend launches it."""
    from vllm.v1.attention.ops.triton_unified_attention import unified_attention

    segments, threshold = 16, 128 // case.kv_heads
    shape = (threshold, case.heads, segments)
    output = torch.empty(*shape, 1 << (case.head - 1).bit_length(), dtype=torch.float32, device="cuda")
    maximum, total = (torch.empty(shape, dtype=torch.float32, device="cuda") for _ in range(2))
    calls: Calls = []
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
                softmax_scale=case.head**-0.5,
                causal=True,
                window_size=(-1, -1),
                block_table=x.block_table,
                softcap=0,
                q_descale=None,
                k_descale=None,
                v_descale=None,
                seq_threshold_3D=threshold,
                num_par_softmax_segments=segments,
                softmax_segm_output=output,
                softmax_segm_max=maximum,
                softmax_segm_expsum=total,
            )
        )
    return calls


def flash_attention_3(case: Case, sets: list[Inputs]) -> Calls:
    """FlashAttention-3 as vLLM builds it, with its schedule made ahead, as vLLM does."""
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func, get_scheduler_metadata

    calls: Calls = []
    for x in sets:
        k, v = x.pages.split(case.head, -1)
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
            causal=True,
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
                softmax_scale=case.head**-0.5,
                causal=True,
                block_table=x.block_table,
                scheduler_metadata=schedule,
                fa_version=3,
            )
        )
    return calls


def torch_sdpa(case: Case, sets: list[Inputs]) -> Calls:
    """torch's FlashAttention-2, on contiguous keys instead of pages; whole prompts only."""
    count, length = len(case.lens), case.query_len
    calls: Calls = []
    for x in sets:
        q = x.query.view(count, length, case.heads, case.head).transpose(1, 2)
        k, v = (
            torch.randn(count, length, case.kv_heads, case.head, dtype=case.dtype, device="cuda").transpose(1, 2)
            for _ in range(2)
        )

        def call(q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v) -> torch.Tensor:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        calls.append(call)
    return calls


PAGED: dict[str, Contestant] = {"rocmforge": ours, "vLLM Triton": triton_unified, "FlashAttention-3": flash_attention_3}


def available(case: Case) -> dict[str, Contestant]:
    """Contestants that can be imported and take this case."""
    found: dict[str, Contestant] = {"rocmforge": ours}
    if importlib.util.find_spec("vllm"):
        found |= {name: make for name, make in PAGED.items() if name != "rocmforge"}
    if case.is_prefill and all(n == case.query_len for n in case.lens):
        found["torch SDPA"] = torch_sdpa
    return found
