# SPDX-License-Identifier: Apache-2.0
"""The part of a step's metadata that the attention to latents reads; all else is vLLM's MLACommonMetadata."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonDecodeMetadata

from rocmforge_plugin.ops import AttentionPlan
from rocmforge_plugin.vllm.backend.plans import Planned, Planners


@dataclass(kw_only=True)
class LatentMetadata(Planned, MLACommonDecodeMetadata):
    """The step's first requests: decodes, verifications of drafts and other short queries, of any lengths.

    Attributes:
        block_table: int32 [requests, blocks], pages of each request.
        seq_lens: int32 [requests], keys of each request including this step's.
        query_start_loc: int32 [requests + 1], where each request's queries start.
        max_query_len: longest query, or an upper bound.
        num_actual_tokens: query tokens (in a captured graph: of the padded batch).
        planners, plans: see `Planned`.
    """

    query_start_loc: torch.Tensor
    max_query_len: int
    num_actual_tokens: int
    planners: Planners
    plans: dict[int, AttentionPlan] = field(default_factory=dict)
