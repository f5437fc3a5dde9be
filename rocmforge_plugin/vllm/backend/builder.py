# SPDX-License-Identifier: Apache-2.0
"""Makes one step's metadata, and its plans by one small launch each."""

from __future__ import annotations

from typing import ClassVar

import torch
from vllm.config import VllmConfig, get_layers_from_vllm_config
from vllm.model_executor.layers.attention.attention import Attention
from vllm.v1.attention.backend import AttentionCGSupport, AttentionMetadataBuilder, CommonAttentionMetadata
from vllm.v1.kv_cache_interface import AttentionSpec

from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.context_parallel import DividedPlanners, ranks_of
from rocmforge_plugin.vllm.backend.eligibility import problem_refusals
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from rocmforge_plugin.vllm.backend.masks import CausalRequests, RequestRanges, mask_of
from rocmforge_plugin.vllm.backend.metadata import RocmForgeMetadata
from rocmforge_plugin.vllm.backend.plans import Planners, capturing
from rocmforge_plugin.vllm.backend.target import target
from rocmforge_plugin.vllm.report import log_summary


class RocmForgeMetadataBuilder(AttentionMetadataBuilder[RocmForgeMetadata]):
    """One for each group of layers (and each microbatch) that share pages.

    The plans live in buffers that belong to the builder and are rewritten every step, so a captured graph finds the
    step's plan where it found the capture's. For the same reason a plan is never shared between builders
    (`supports_update_block_table` stays False): a graph would replay over the plan of another group's buffers.
    """

    # Launch sizes depend on the padded batch only; lengths are read on the device.
    _cudagraph_support: ClassVar[AttentionCGSupport] = AttentionCGSupport.ALWAYS
    supports_draft_decode_metadata_update: bool = True

    def __init__(
        self, kv_cache_spec: AttentionSpec, layer_names: list[str], vllm_config: VllmConfig, device: torch.device
    ) -> None:
        """Raises ValueError when a layer of the group cannot be served."""
        super().__init__(kv_cache_spec, layer_names, vllm_config, device)
        requests = most_requests(vllm_config, kv_cache_spec)
        self.planners = Planners(
            device, requests, vllm_config.scheduler_config.max_num_batched_tokens, decode_query_len(vllm_config)
        )
        self._causal = CausalRequests(device, requests)
        self._ranges = RequestRanges(device, requests)
        self.divided = self._divided_planners()
        self._announce_layers()
        log_summary(device)

    def _divided_planners(self) -> DividedPlanners | None:
        """Where ranks divide the keys, which then no other planner is asked about."""
        ranks = ranks_of(self.kv_cache_spec, self.vllm_config)
        if ranks is None:
            return None
        self.supports_draft_decode_metadata_update = False  # whether there is context is known to the host alone
        scheduler = self.vllm_config.scheduler_config
        bounds = (scheduler.max_num_seqs, scheduler.max_num_batched_tokens, decode_query_len(self.vllm_config))
        return DividedPlanners(ranks, self.device, *bounds)

    def _announce_layers(self) -> None:
        """The layers that vLLM already has by their names; one that it has not is met when it first asks for a plan."""
        model = self.vllm_config.model_config
        dtype = model.dtype
        self.planners.has_ranges = bool(getattr(model, "is_mm_prefix_lm", False))
        of_model = self.vllm_config.compilation_config.static_forward_context.values()
        layers = get_layers_from_vllm_config(self.vllm_config, Attention, self.layer_names)
        for name, layer in layers.items():
            head_size_v = getattr(layer, "head_size_v", layer.head_size)
            if head_size_v != layer.head_size:
                raise ValueError(
                    f"{name}: value heads of {head_size_v} elements beside key heads of "
                    f"{layer.head_size} are not supported; leave out --attention-backend"
                )
            if layer.kv_cache_torch_dtype != dtype:
                raise ValueError(
                    f"{name}: a KV cache of {layer.kv_cache_torch_dtype} beside a model of {dtype} is not "
                    f"supported; use --kv-cache-dtype {str(dtype).removeprefix('torch.')}"
                )
            for impl in layer.impl.get_impl_variants():
                if isinstance(impl, RocmForgeImpl):
                    impl.mask = mask_of(layer, self.planners.has_ranges, of_model)
                    self._announce(name, impl.problem(dtype))
                    impl.place(self.device, self.planners.copies)

    def _announce(self, name: str, problem: Problem) -> None:
        """Plans for a problem from the first step on. Raises ValueError where the layer's mask has no kernel with the
        rest of it, which neither the selection nor the layer could tell.
        """
        reasons = problem_refusals(problem, target())
        if reasons:
            raise ValueError(f"rocmforge cannot serve {name}: {'; '.join(reasons)}")
        (self.divided or self.planners).add(problem)

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> RocmForgeMetadata:
        """Metadata of one step. `common_prefix_len` is 0 in every supported vLLM; `fast_build` changes nothing."""
        common = common_attn_metadata
        requests = common.seq_lens.shape[0]
        causal = common.causal
        metadata = RocmForgeMetadata(
            num_actual_tokens=common.num_actual_tokens,
            max_query_len=common.max_query_len,
            query_start_loc=common.query_start_loc,
            max_seq_len=common.max_seq_len,
            seq_lens=common.seq_lens,
            block_table=common.block_table_tensor,
            slot_mapping=common.slot_mapping,
            causal=self._causal.hold(causal, requests) if isinstance(causal, torch.Tensor) else bool(causal),
            ranges=self._ranges.hold(common.mm_req_doc_ranges, requests, capturing(self.device)),
            divided=None if self.divided is None else self.divided.step(common),
            planners=self.planners,
        )
        metadata.plans = self.planners.plan_all(metadata)
        self.planners.copies.refresh()
        return metadata

    def build_for_cudagraph_capture(self, common_attn_metadata: CommonAttentionMetadata) -> RocmForgeMetadata:
        """Metadata to capture a graph with."""
        as_short_as_possible(common_attn_metadata)
        metadata = self.build(0, common_attn_metadata)
        if metadata.divided is not None:
            metadata.divided.has_context = True  # of what replays
        return metadata

    def update_draft_decode_metadata(self, metadata: RocmForgeMetadata) -> None:
        """Plan again from the same device buffers; a launch like any other, so it can be captured."""
        metadata.plan_again()


def as_short_as_possible(common: CommonAttentionMetadata) -> None:
    """Makes every request as short as its queries allow, for the capture of a graph.

    The lengths vLLM sets here are the longest a model may have; a capture over them would take seconds a graph,
    and nothing that is captured depends on them.
    """
    starts = common.query_start_loc
    torch.sub(starts[1:], starts[:-1], out=common.seq_lens)


def decode_query_len(vllm_config: VllmConfig) -> int:
    """Queries of a request in a decode step: one, and one more for each token that a drafter proposes."""
    speculative = vllm_config.speculative_config
    return 1 + (getattr(speculative, "num_speculative_tokens", None) or 0)


def most_requests(vllm_config: VllmConfig, kv_cache_spec: AttentionSpec) -> int:
    """Most requests that vLLM can hand the builder in a step.

    Those of the scheduler, padding included: batches of a drafter, of a microbatch or for a capture have no more, and
    their tokens, those that a drafter adds included, are within max_num_batched_tokens. But vLLM's chunked local
    attention cuts a request where its queries enter another chunk: a request of two queries becomes two, and each
    further chunk's worth of queries one more.
    """
    scheduler = vllm_config.scheduler_config
    requests: int = scheduler.max_num_seqs
    tokens: int = scheduler.max_num_batched_tokens
    chunk: int | None = getattr(kv_cache_spec, "attention_chunk_size", None)
    if not chunk:
        return requests
    cut_in_two = min(requests, max(tokens - requests, 0))
    return requests + cut_in_two + max(tokens - 2 * requests, 0) // chunk
