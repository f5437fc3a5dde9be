# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of multi-head latent attention times: a callable for each set of inputs, which returns its result.

Peers are called as vLLM's backends call them, with what a step prepares once for all layers made ahead: ours and
FlashAttention-3's plans, FlashMLA's, and the repeated block table of Triton's with several tokens a request. What
TRITON_MLA and FLASHMLA do around their kernels in each layer, joining the query's two parts and filling results with
zeros, is left out as well, in their favour. FlashAttention-3 and we take the parts as they are.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch

from rocmforge_plugin.ops import AttentionPlan, AttentionPlanner, latent_attention, varlen_attention
from rocmforge_plugin.problem import Problem

from .compare import OURS, Calls
from .mla_cases import KEY, LATENT, ROPE, Case, Inputs, PrefillCase, PrefillInputs, triton_splits

MOST_SPLITS = 32  # vLLM's attention_config.flash_attn_max_num_splits_for_cuda_graph
TRITON, FLASH_ATTENTION, FLASHMLA = "vLLM Triton", "FlashAttention-3", "FlashMLA"
PEERS = (TRITON, FLASH_ATTENTION, FLASHMLA)
Contestant = Callable[[Case, list[Inputs]], Calls]
PrefillContestant = Callable[[PrefillCase, list[PrefillInputs]], Calls]


def planner_of(case: Case, device: torch.device | str) -> AttentionPlanner:
    """What a model whose steps are like the case would make."""
    problem = Problem(str(case.dtype), case.heads, 1, KEY, LATENT, format="latent")
    return AttentionPlanner(problem, device, len(case.lens), case.tokens, case.query_len)


def plan(case: Case, planner: AttentionPlanner, x: Inputs) -> AttentionPlan:
    return planner.plan(x.query_start, x.seq_lens, case.query_len, case.tokens)


def ours(case: Case, sets: list[Inputs]) -> Calls:
    """rocmforge through its public op, with the plan that a step makes once for all layers."""
    return [
        functools.partial(
            latent_attention,
            x.query_latent,
            x.query_rope,
            x.pages,
            x.block_table,
            x.seq_lens,
            x.query_start,
            max_query_len=case.query_len,
            scale=case.scale,
            out=x.out,
            plan=plan(case, planner_of(case, x.pages.device), x),
        )
        for x in sets
    ]


def plan_only(case: Case, sets: list[Inputs]) -> Calls:
    """The plan of a step by itself."""
    planner = planner_of(case, sets[0].pages.device)
    return [functools.partial(plan, case, planner, x) for x in sets]


def triton_mla(case: Case, sets: list[Inputs]) -> Calls:
    """vLLM's Triton kernels as its TRITON_MLA backend launches them: a row of the batch for each query token.

    The number of splits is of the longest request; where vLLM captures graphs, it is of the longest that a model takes.
    """
    from vllm.v1.attention.ops.triton_decode_attention import decode_attention_fwd

    device = sets[0].pages.device
    splits = triton_splits(max(case.lens), torch.cuda.get_device_properties(device).multi_processor_count)
    parts = torch.empty(case.tokens, case.heads, splits, LATENT + 1, device=device)
    log_sums = torch.empty(case.tokens, case.heads, dtype=case.dtype, device=device)
    one = torch.ones((), device=device)
    ends = torch.arange(1 - case.query_len, 1, dtype=torch.int32, device=device)
    calls = []
    for x in sets:
        rows = x.pages.unsqueeze(2)
        table = x.block_table.repeat_interleave(case.query_len, 0)
        seen = (x.seq_lens[:, None] + ends).flatten()
        out = torch.empty_like(x.out)
        launch = functools.partial(
            decode_attention_fwd,
            x.query,
            rows,
            rows[..., :LATENT],
            out,
            log_sums,
            table,
            seen,
            parts,
            splits,
            case.scale,
            case.page,
            k_scale=one,
            v_scale=one,
            is_mla=True,
        )
        calls.append(functools.partial(_returning, launch, out))
    return calls


def _returning(launch: Callable[[], object], result: torch.Tensor) -> torch.Tensor:
    launch()
    return result


def flash_attention(case: Case, sets: list[Inputs]) -> Calls:
    """FlashAttention-3 as vLLM's FLASH_ATTN_MLA backend calls it under CUDA graphs."""
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func, get_scheduler_metadata

    calls = []
    for x in sets:
        schedule = get_scheduler_metadata(
            batch_size=len(case.lens),
            max_seqlen_q=case.query_len,
            max_seqlen_k=max(case.lens),
            num_heads_q=case.heads,
            num_heads_kv=1,
            headdim=ROPE,
            cache_seqlens=x.seq_lens,
            qkv_dtype=case.dtype,
            headdim_v=LATENT,
            page_size=case.page,
            cu_seqlens_q=x.query_start,
            causal=True,
            num_splits=MOST_SPLITS,
        )
        rows = x.pages.unsqueeze(-2)
        calls.append(
            functools.partial(
                flash_attn_varlen_func,
                q=x.query_rope,
                k=rows[..., LATENT:],
                v=rows[..., :LATENT],
                q_v=x.query_latent,
                max_seqlen_q=case.query_len,
                cu_seqlens_q=x.query_start,
                max_seqlen_k=max(case.lens),
                seqused_k=x.seq_lens,
                block_table=x.block_table,
                softmax_scale=case.scale,
                causal=True,
                fa_version=3,
                scheduler_metadata=schedule,
                num_splits=MOST_SPLITS,
            )
        )
    return calls


def flashmla(case: Case, sets: list[Inputs]) -> Calls:
    """FlashMLA as vLLM's FLASHMLA backend calls it: the first call with a schedule makes it."""
    from vllm.v1.attention.ops.flashmla import flash_mla_with_kvcache, get_mla_metadata

    calls = []
    for x in sets:
        schedule, _ = get_mla_metadata(x.seq_lens, case.query_len * case.heads, 1, is_fp8_kvcache=False)
        launch = functools.partial(
            flash_mla_with_kvcache,
            q=x.query.view(len(case.lens), case.query_len, case.heads, KEY),
            k_cache=x.pages.unsqueeze(-2),
            block_table=x.block_table,
            cache_seqlens=x.seq_lens,
            head_dim_v=LATENT,
            tile_scheduler_metadata=schedule,
            softmax_scale=case.scale,
            causal=True,
            is_fp8_kvcache=False,
        )
        calls.append(functools.partial(_tokens, launch))
    return calls


def _tokens(launch: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    return launch()[0].flatten(0, 1)


def available() -> dict[str, Contestant]:
    """Contestants of decode that are here."""
    found: dict[str, Contestant] = {OURS: ours}
    if importlib.util.find_spec("vllm"):
        found |= {TRITON: triton_mla, FLASH_ATTENTION: flash_attention, FLASHMLA: flashmla}
    return found


def prefill_plan(case: PrefillCase, planner: AttentionPlanner, x: PrefillInputs) -> AttentionPlan:
    return planner.plan(x.query_start, x.seq_lens, case.queries, case.queries, causal=case.causal)


def prefill_planner_of(case: PrefillCase, device: torch.device | str) -> AttentionPlanner:
    problem = Problem(str(case.dtype), case.heads, case.heads, case.key_dims, case.value_dims, format="split")
    return AttentionPlanner(problem, device, 1, case.queries)


def prefill_ours(case: PrefillCase, sets: list[PrefillInputs]) -> Calls:
    """rocmforge through its public op."""
    calls = []
    for x in sets:
        launch = functools.partial(
            varlen_attention,
            x.query,
            x.key,
            x.value,
            x.query_start,
            x.key_start,
            x.seq_lens,
            max_query_len=case.queries,
            scale=case.scale,
            causal=case.causal,
            out=x.out,
            lse=x.lse,
            plan=prefill_plan(case, prefill_planner_of(case, x.key.device), x),
        )
        calls.append(functools.partial(_with_log_sums, launch, x.lse))
    return calls


def _with_log_sums(
    launch: Callable[[], torch.Tensor], log_sums: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return launch(), log_sums


def prefill_plan_only(case: PrefillCase, sets: list[PrefillInputs]) -> Calls:
    """The plan of a step by itself."""
    planner = prefill_planner_of(case, sets[0].key.device)
    return [functools.partial(prefill_plan, case, planner, x) for x in sets]


def prefill_flash_attention(case: PrefillCase, sets: list[PrefillInputs]) -> Calls:
    """FlashAttention-3 as vLLM's FLASH_ATTN prefill backend of MLA calls it; it is given no schedule."""
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func

    return [
        functools.partial(
            flash_attn_varlen_func,
            q=x.query,
            k=x.key,
            v=x.value,
            cu_seqlens_q=x.query_start,
            cu_seqlens_k=x.key_start,
            max_seqlen_q=case.queries,
            max_seqlen_k=case.keys,
            softmax_scale=case.scale,
            causal=case.causal,
            return_softmax_lse=True,
            fa_version=3,
        )
        for x in sets
    ]


def prefill_triton(case: PrefillCase, sets: list[PrefillInputs]) -> Calls:
    """vLLM's Triton kernel for contiguous keys: whole prompts, keys as wide as values, and no log-sum-exp.

    Raises:
        NotImplementedError: the case is another.
    """
    from vllm.v1.attention.ops.triton_prefill_attention import context_attention_fwd

    if case.queries != case.keys or not case.causal or case.key_dims != case.value_dims:
        raise NotImplementedError("only whole prompts with keys as wide as values")
    calls = []
    for x in sets:
        out = torch.empty_like(x.out)
        launch = functools.partial(
            context_attention_fwd,
            x.query,
            x.key,
            x.value,
            out,
            x.query_start[:1],
            x.seq_lens,
            case.queries,
            is_causal=True,
            softmax_scale=case.scale,
        )
        calls.append(functools.partial(_with_log_sums, functools.partial(_returning, launch, out), None))
    return calls


def prefill_available() -> dict[str, PrefillContestant]:
    """Contestants of prefill that are here."""
    found: dict[str, PrefillContestant] = {OURS: prefill_ours}
    if importlib.util.find_spec("vllm"):
        found |= {TRITON: prefill_triton, FLASH_ATTENTION: prefill_flash_attention}
    return found
