# SPDX-License-Identifier: Apache-2.0
"""Makes one step's metadata: vLLM's, and the plans of what attends to latents."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.model_executor.layers.attention.mla_attention import (
    MLAAttention,
    MLACommonMetadata,
    MLACommonMetadataBuilder,
    QueryLenSupport,
)
from vllm.v1.attention.backend import AttentionCGSupport, CommonAttentionMetadata, max_decode_query_len
from vllm.v1.kv_cache_interface import AttentionSpec

from rocmforge_plugin.vllm.backend.builder import as_short_as_possible
from rocmforge_plugin.vllm.backend.plans import Planners
from rocmforge_plugin.vllm.mla.impl import RocmForgeMLAImpl
from rocmforge_plugin.vllm.mla.metadata import LatentMetadata
from rocmforge_plugin.vllm.mla.prefill import RocmForgeMLAPrefill
from rocmforge_plugin.vllm.report import log_summary


class RocmForgeMLAMetadataBuilder(MLACommonMetadataBuilder[MLACommonMetadata]):
    """One for each group of layers (and each microbatch) that share pages.

    Requests of a few query tokens, of any lengths side by side, come first in a batch and attend to latents; as for
    dense layers, the plans are rewritten every step where a captured graph finds them. Prompts are planned for by the
    prefill class, outside of full graphs.
    """

    # What attends to latents takes any batch, but vLLM captures no prompts of latent attention.
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.UNIFORM_BATCH
    query_len_support: ClassVar[QueryLenSupport] = QueryLenSupport.VARLEN
    supports_draft_decode_metadata_update: bool = True

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        scheduler = vllm_config.scheduler_config
        self.planners = Planners(
            device, scheduler.max_num_seqs, scheduler.max_num_batched_tokens, self.reorder_batch_threshold
        )
        for layer in get_layers_from_vllm_config(vllm_config, MLAAttention, layer_names).values():
            if isinstance(layer.impl, RocmForgeMLAImpl):
                self.planners.add(layer.impl.problem(vllm_config.model_config.dtype))
        if isinstance(self._prefill_backend, RocmForgeMLAPrefill):  # a user may name another
            self._prefill_backend.make_planner(device)
        log_summary(device)

    @classmethod
    def get_varlen_cudagraph_max_query_len(cls, vllm_config: VllmConfig, kv_cache_spec: AttentionSpec) -> int:
        return int(max_decode_query_len(vllm_config))  # query lengths are read on the device

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> MLACommonMetadata:
        """Metadata of one step. Raises ValueError for a batch that is not causal."""
        refuse_other_masks(common_attn_metadata)
        return super().build(common_prefix_len, common_attn_metadata, fast_build)

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> MLACommonMetadata:
        as_short_as_possible(common_attn_metadata)
        return super().build_for_cudagraph_capture(common_attn_metadata)

    def update_draft_decode_metadata(self, metadata: MLACommonMetadata) -> None:
        """Plan again from the same device buffers; a launch like any other, so it can be captured."""
        metadata.decode.plan_again()

    def _build_decode(
        self,
        block_table_tensor: torch.Tensor,
        seq_lens_device: torch.Tensor,
        max_seq_len: int,
        query_start_loc_cpu: torch.Tensor,
        query_start_loc_device: torch.Tensor,
        num_decode_tokens: int,
        max_query_len: int,
        dcp_tot_seq_lens_device: torch.Tensor | None,
        **later: Any,
    ) -> LatentMetadata:
        step = LatentMetadata(
            block_table=block_table_tensor,
            seq_lens=seq_lens_device,
            dcp_tot_seq_lens=dcp_tot_seq_lens_device,
            query_start_loc=query_start_loc_device,
            max_query_len=max_query_len,
            num_actual_tokens=num_decode_tokens,
            planners=self.planners,
        )
        step.plans = self.planners.plan_all(step)
        return step


def refuse_other_masks(common: CommonAttentionMetadata) -> None:
    """Raises ValueError for a batch that is not causal."""
    if common.causal is not True:
        raise ValueError(
            "rocmforge computes latent attention causally only, and this batch asks for another mask; "
            "leave out --attention-backend (for a drafter: speculative_config.attention_backend)"
        )
