# SPDX-License-Identifier: Apache-2.0
"""What every attention layer of a step shares: the batch's geometry and its work plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from vllm.platforms import current_platform
from vllm.v1.attention.backend import AttentionMetadata

from rocmforge_plugin.ops.planner import AttentionPlan
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.plans import Planners


def metadata_base() -> Any:
    """vLLM's V1 runner drafts on ROCm only with metadata from a list of its own classes; this is one of them."""
    if current_platform.is_rocm():
        from vllm.v1.attention.backends.rocm_attn import RocmAttentionMetadata

        return RocmAttentionMetadata
    return AttentionMetadata


@dataclass(kw_only=True)
class RocmForgeMetadata(metadata_base()):  # type: ignore[misc]
    """One step's batch. vLLM's wrappers of a builder copy its fields one by one.

    Attributes:
        num_actual_tokens: query tokens of the step (in a captured graph: of the padded batch).
        max_query_len: longest query, an upper bound in a captured graph.
        query_start_loc: int32 [requests + 1], where each request's queries start.
        max_seq_len: longest context, or an upper bound; nothing is planned from it.
        seq_lens: int32 [requests], keys of each request including this step's.
        block_table: int32 [requests, blocks], pages of each request.
        slot_mapping: int64 [tokens].
        planners: the builder's.
        plans: the work plan of each problem, by its number.
    """

    num_actual_tokens: int
    max_query_len: int
    query_start_loc: torch.Tensor
    max_seq_len: int
    seq_lens: torch.Tensor
    block_table: torch.Tensor
    slot_mapping: torch.Tensor
    scheduler_metadata: torch.Tensor | None = None
    causal: bool = True
    planners: Planners
    plans: dict[int, AttentionPlan] = field(default_factory=dict)

    def first_plan(self, problem: Problem) -> tuple[int, AttentionPlan]:
        """The number and the plan of a layer that does not know its number.

        The builder may have been told of the layer; else it learns of it here, and plans for it in the steps to come.
        """
        number = self.planners.add(problem)
        if number not in self.plans:
            self.plans[number] = self.planners.plan(number, self)
        return number, self.plans[number]

    def plan_again(self) -> None:
        """Plans from the same device buffers, which now hold other lengths; launches only, so it can be captured."""
        for number in self.plans:
            self.plans[number] = self.planners.plan(number, self)
