# SPDX-License-Identifier: Apache-2.0
"""An encoder's layer of a text model (BERT, ModernBERT, embedding and rerank models): all tokens of a request see each
other, or those within a window to either side.

vLLM hands such a layer the keys and values of whole sequences and keeps no cache of them. It derives a builder from
ours whose batches are not causal.
"""

from __future__ import annotations

import torch

from rocmforge_plugin.ops.planner import AttentionPlan
from rocmforge_plugin.ops.varlen import varlen_attention
from rocmforge_plugin.vllm.backend.metadata import RocmForgeMetadata


def encoder_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_metadata: RocmForgeMetadata,
    output: torch.Tensor,
    *,
    scale: float,
    window: int,
    plan: AttentionPlan,
) -> torch.Tensor:
    """Attention of each request's tokens to each other, into `output`.

    Args:
        query: [tokens (padded), heads, head_size].
        key, value: [tokens (padded), kv_heads, head_size], parts of a fused product as they are.
        attn_metadata: of this step; requests' keys lie where their queries do.
        output: [tokens (padded), heads, head_size]; padding's rows are left as they are.
        scale: factor of the scores.
        window: keys that a token sees to either side, its own included; 0 for all.
        plan: of this step, for this layer's problem.
    """
    starts = attn_metadata.query_start_loc
    return varlen_attention(
        query,
        key,
        value,
        starts,
        starts,
        attn_metadata.seq_lens,
        max_query_len=attn_metadata.max_query_len,
        scale=scale,
        causal=False,
        window=window,
        out=output,
        plan=plan,
    )
