# SPDX-License-Identifier: Apache-2.0
"""What every attention layer of a step shares: the batch's geometry and the work plan made from it, once a step."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.platforms import current_platform
from vllm.v1.attention.backend import (
    AttentionCGSupport,
    AttentionMetadata,
    AttentionMetadataBuilder,
    CommonAttentionMetadata,
)
from vllm.v1.kv_cache_interface import AttentionSpec

from rocmforge_plugin.ops.attention import AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.report import log_summary


class PlanKey(NamedTuple):
    """What a plan depends on besides the batch; layers that agree in it share one."""

    num_heads: int
    window: int


def metadata_base() -> type:
    """vLLM's V1 runner drafts on ROCm only with metadata from a list of its own classes; this is one of them."""
    if current_platform.is_rocm():
        from vllm.v1.attention.backends.rocm_attn import RocmAttentionMetadata

        return RocmAttentionMetadata
    return AttentionMetadata


@dataclass(kw_only=True)
class RocmForgeMetadata(metadata_base()):  # type: ignore[misc]
    """One step's batch.

    Attributes:
        num_actual_tokens: query tokens of the step (in a captured graph: of the padded batch).
        max_query_len: longest query, an upper bound in a captured graph.
        query_start_loc: int32 [requests + 1], where each request's queries start.
        max_seq_len: longest context, or an upper bound; nothing is planned from it.
        seq_lens: int32 [requests], keys of each request including this step's.
        block_table: int32 [requests, blocks], pages of each request.
        slot_mapping: int64 [tokens].
        plans: the work plan of each kind of layer in the group.
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
    plans: Mapping[PlanKey, AttentionPlan] = field(default_factory=dict)


class RocmForgeMetadataBuilder(AttentionMetadataBuilder[RocmForgeMetadata]):
    """Makes one step's metadata, and its plans by one small launch each.

    The plans live in buffers that belong to the builder and are rewritten every step, so a captured graph finds the
    step's plan where it found the capture's. For the same reason a plan is never shared between builders
    (`supports_update_block_table` stays False): a graph would replay over the plan of another group's buffers.
    """

    # Launch sizes depend on the padded batch only; lengths are read on the device.
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.ALWAYS
    supports_draft_decode_metadata_update: bool = True

    def __init__(self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig,
                 device: torch.device) -> None:
        """Raises ValueError when a layer of the group cannot be served."""
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        scheduler = vllm_config.scheduler_config
        self.planners = {
            key: AttentionPlanner(
                Problem(vllm_config.model_config.dtype, key.num_heads, kv_cache_spec.num_kv_heads,
                        kv_cache_spec.head_size, kv_cache_spec.head_size, key.window),
                device, scheduler.max_num_seqs, scheduler.max_num_batched_tokens, _decode_query_len(vllm_config))
            for key in self._plan_keys()
        }
        log_summary(device)

    def _plan_keys(self) -> list[PlanKey]:
        """The kinds of layers in this group, most often one."""
        layers = get_layers_from_vllm_config(self.vllm_config, _attention_layer_class(), self.layer_names)
        keys = set()
        for name, layer in layers.items():
            head_size_v = getattr(layer, "head_size_v", layer.head_size)
            if head_size_v != layer.head_size:
                raise ValueError(f"{name}: value heads of {head_size_v} elements beside key heads of "
                                 f"{layer.head_size} are not supported; leave out --attention-backend")
            if layer.kv_cache_torch_dtype != self.vllm_config.model_config.dtype:
                raise ValueError(f"{name}: a KV cache of {layer.kv_cache_torch_dtype} beside a model of "
                                 f"{self.vllm_config.model_config.dtype} is not supported; use --kv-cache-dtype auto")
            keys.add(layer.impl.plan_key)
        return sorted(keys)

    def build(self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata,
              fast_build: bool = False) -> RocmForgeMetadata:
        """Metadata of one step. `common_prefix_len` is 0 in every supported vLLM; `fast_build` changes nothing.

        Raises ValueError for a batch that is not causal.
        """
        common = common_attn_metadata
        if common.causal is not True:
            raise ValueError("rocmforge computes causal attention only, and this batch asks for another mask; "
                             "leave out --attention-backend (for a drafter: speculative_config.attention_backend)")
        metadata = RocmForgeMetadata(
            num_actual_tokens=common.num_actual_tokens, max_query_len=common.max_query_len,
            query_start_loc=common.query_start_loc, max_seq_len=common.max_seq_len, seq_lens=common.seq_lens,
            block_table=common.block_table_tensor, slot_mapping=common.slot_mapping)
        metadata.plans = {key: self._plan(planner, metadata) for key, planner in self.planners.items()}
        return metadata

    @staticmethod
    def _plan(planner: AttentionPlanner, metadata: RocmForgeMetadata) -> AttentionPlan:
        return planner.plan(metadata.query_start_loc, metadata.seq_lens, metadata.max_query_len,
                            metadata.num_actual_tokens)

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> RocmForgeMetadata:
        """Metadata to capture a graph with: every request as short as its queries allow.

        The lengths vLLM sets here are the longest a model may have; a capture over them would take seconds a graph,
        and nothing that is captured depends on them.
        """
        starts = common_attn_metadata.query_start_loc
        seq_lens = common_attn_metadata.seq_lens
        torch.sub(starts[1:], starts[:-1], out=seq_lens)
        return self.build(0, common_attn_metadata)

    def update_draft_decode_metadata(self, metadata: RocmForgeMetadata) -> None:
        """Plan again from the same device buffers; a launch like any other, so it can be captured."""
        metadata.plans = {key: self._plan(planner, metadata) for key, planner in self.planners.items()}


def _attention_layer_class() -> type:
    from vllm.model_executor.layers.attention.attention import Attention

    return Attention


def _decode_query_len(vllm_config: Any) -> int:
    """Queries of a request in a decode step: one, and one more for each token that a drafter proposes."""
    speculative = vllm_config.speculative_config
    return 1 + (getattr(speculative, "num_speculative_tokens", None) or 0)
