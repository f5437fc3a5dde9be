# SPDX-License-Identifier: Apache-2.0
"""What every attention layer of a step shares: the batch's geometry and its work plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.v1.attention.backend import AttentionMetadata

from rocmforge_plugin.ops.planner import AttentionPlan
from rocmforge_plugin.vllm.backend.context_parallel import DividedStep
from rocmforge_plugin.vllm.backend.plans import Planned, Planners


def metadata_base() -> Any:
    """vLLM's V1 runner drafts on ROCm only with metadata from a list of its own classes; this is one of them."""
    if current_platform.is_rocm():
        from vllm.v1.attention.backends.rocm_attn import RocmAttentionMetadata

        return RocmAttentionMetadata
    return AttentionMetadata


@dataclass(kw_only=True)
class RocmForgeMetadata(Planned, metadata_base()):  # type: ignore[misc]
    """One step's batch. vLLM's wrappers of a builder copy its fields one by one.

    Attributes:
        num_actual_tokens: query tokens of the step (in a captured graph: of the padded batch).
        max_query_len: longest query, an upper bound in a captured graph.
        query_start_loc: int32 [requests + 1], where each request's queries start.
        max_seq_len: longest context, or an upper bound; nothing is planned from it.
        seq_lens: int32 [requests], keys of each request including this step's.
        block_table: int32 [requests, blocks], pages of each request.
        slot_mapping: int64 [tokens].
        causal: whether a token sees no keys after its own, or an int32 tensor [requests] that says so of each request.
        ranges: int32 [requests, n, 2], of keys that see each other, for layers that have such; or None.
        divided: what there is of the step where ranks divide the keys, beside which there are no plans.
        planners, plans: see `Planned`.
    """

    num_actual_tokens: int
    max_query_len: int
    query_start_loc: torch.Tensor
    max_seq_len: int
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    slot_mapping: torch.Tensor
    scheduler_metadata: torch.Tensor | None = None
    causal: bool | torch.Tensor = True
    ranges: torch.Tensor | None = None
    divided: DividedStep | None = None
    planners: Planners
    plans: dict[int, AttentionPlan] = field(default_factory=dict)
