# SPDX-License-Identifier: Apache-2.0
"""One attention layer: the KV write and paged attention, each one launch of a rocmforge kernel family."""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import get_current_vllm_config
from vllm.v1.attention.backend import AttentionImpl, AttentionType

from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.kv_cache import kv_write
from rocmforge_plugin.ops.planner import AttentionPlan
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend import context_parallel, eligibility
from rocmforge_plugin.vllm.backend.encoder import encoder_attention
from rocmforge_plugin.vllm.backend.fusion import CacheUpdates
from rocmforge_plugin.vllm.backend.head_values import Copies, HeadValues
from rocmforge_plugin.vllm.backend.masks import mask_of
from rocmforge_plugin.vllm.backend.metadata import RocmForgeMetadata
from rocmforge_plugin.vllm.backend.target import target


class RocmForgeImpl(CacheUpdates, AttentionImpl[RocmForgeMetadata]):
    """Paged attention of one layer; the arguments are positional in the order vLLM passes them."""

    # Where ranks divide the keys, `context_parallel` does it all, for any runs of tokens and any number of queries.
    supports_dcp: bool = True
    can_return_lse_for_decode: bool = True
    supports_mtp_with_cp_non_trivial_interleave_size: bool = True

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        scale: float,
        num_kv_heads: int | None = None,
        alibi_slopes: list[float] | None = None,
        sliding_window: int | None = None,
        kv_cache_dtype: str = "auto",
        logits_soft_cap: float | None = None,
        attn_type: str = AttentionType.DECODER,
        kv_sharing_target_layer_name: str | None = None,
        sinks: torch.Tensor | None = None,
        **extra: Any,
    ) -> None:
        """Raises ValueError, naming the setting and what works, for what the kernels cannot do.

        vLLM's selection does not see some of these (the soft cap above all), so they are checked again here.
        `extra` may have `use_alibi_sqrt`, which bias `alibi_slopes` are of.
        """
        num_kv_heads = num_kv_heads or num_heads
        asked = {
            "num_heads": num_heads,
            "num_kv_heads": num_kv_heads,
            "head_size": head_size,
            "alibi_slopes": alibi_slopes,
            "sliding_window": sliding_window,
            "kv_cache_dtype": kv_cache_dtype,
            "logits_soft_cap": logits_soft_cap,
            "attn_type": getattr(attn_type, "value", attn_type),
            "sinks": sinks,
            "kv_sharing_target_layer_name": kv_sharing_target_layer_name,
            "use_dcp": self.dcp_world_size > 1,
            **extra,
        }
        reasons = eligibility.refusals(asked, target(), eligibility.LAYER)
        if reasons:
            raise ValueError(f"rocmforge cannot serve this attention layer: {'; '.join(reasons)}")
        self.num_heads = num_heads
        self.head_size = head_size
        self.scale = float(scale)
        self.num_kv_heads = num_kv_heads
        self.kv_cache_dtype = kv_cache_dtype
        self.attn_type = attn_type
        self.is_encoder = attn_type in eligibility.ENCODERS
        self.kv_sharing_target_layer_name = kv_sharing_target_layer_name
        self.window = sliding_window or 0
        self.mask = ""  # of `Problem`; the builder knows, if it knows the layer
        self.score = eligibility.score_of(asked)
        self.logits_soft_cap = float(logits_soft_cap or 0.0)
        self.alibi_sqrt = self.score == "rooted"
        # As the kernels read them, once they are placed.
        self.sinks: torch.Tensor | None = None
        self.alibi_slopes: torch.Tensor | None = None
        self._sinks = None if sinks is None else HeadValues(sinks)
        self._alibi_slopes = None if alibi_slopes is None else HeadValues(alibi_slopes)
        self._number = -1  # of the problem, which is known when the queries' dtype is
        if self.dcp_world_size > 1:
            self.reduce_context = context_parallel.reduction(get_current_vllm_config().parallel_config)

    def problem(self, dtype: torch.dtype) -> Problem:
        """What this layer computes with queries and a cache of `dtype`."""
        size, mask = self.head_size, self.mask or "windowed"
        format = eligibility.format_of(self.attn_type)
        return Problem(
            str(dtype), self.num_heads, self.num_kv_heads, size, size, self.window, format, self.score, mask=mask
        )

    def place(self, device: torch.device, copies: Copies) -> None:
        """Puts what the layer has for each head where the kernels read it; `copies` keeps it what the model has.

        Once is enough, and then a call costs little.
        """
        if self._sinks is not None:
            self.sinks = self._sinks.place(device)
            copies.add(self._sinks)
        if self._alibi_slopes is not None:
            self.alibi_slopes = self._alibi_slopes.place(device)

    def process_weights_after_loading(self, act_dtype: torch.dtype) -> None:
        """After a reload, possibly into memory that had been given up: what was placed is written anew."""
        for values in (self._sinks, self._alibi_slopes):
            if values is not None:
                values.refresh()

    def do_kv_cache_update(
        self, layer: Any, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
    ) -> None:
        """Write keys and values to their pages.

        Args:
            layer: vLLM's attention layer, unused (the cache has the model's dtype, so there are no scales).
            key: [tokens, kv_heads, head_size], any strides but the last; may be longer than `slot_mapping`.
            value: as `key`.
            kv_cache: [blocks, kv_heads, block_size, 2 * head_size] view, keys then values.
            slot_mapping: int64 [written tokens], block * block_size + offset; -1 is skipped.
        """
        if not self.is_encoder:  # which has no cache
            kv_write(key, value, kv_cache, slot_mapping)

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
        kv_cache: torch.Tensor,
        attn_metadata: RocmForgeMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of the batch over its pages, into `output`.

        Args:
            layer: vLLM's attention layer, which is asked for nothing but its mask, if nobody told.
            query: [tokens (padded), heads, head_size].
            key, value: of an encoder, or where ranks divide the keys, [tokens (padded), kv_heads, head_size]; else
                unused: everything is read from the cache, also what this step wrote. May be None.
            kv_cache: as for `do_kv_cache_update`.
            attn_metadata: of this step; None while vLLM profiles memory, when there is no cache yet.
            output: [tokens (padded), heads, head_size], uninitialised.
            output_scale, output_block_scale: for fused output quantization, which this layer does not offer.
        """
        if output_scale is not None or output_block_scale is not None:
            raise ValueError(
                "rocmforge does not quantize attention outputs; "
                "set compilation_config.pass_config.fuse_attn_quant=false"
            )
        if attn_metadata is None:
            return output.zero_()
        if attn_metadata.divided is not None:
            pages, step = attn_metadata.block_table, attn_metadata.divided
            self.place(query.device, attn_metadata.planners.copies)
            return context_parallel.attend(self, query, key, value, kv_cache, pages, step, output)
        plan = attn_metadata.plans.get(self._number)
        if plan is None:
            plan = self._first_plan(attn_metadata, layer, query)
        if self.is_encoder:
            return encoder_attention(
                query, key, value, attn_metadata, output, scale=self.scale, window=self.window, plan=plan
            )
        # Padding tokens belong to no request; slicing them off would cost as much as the call's checks.
        paged_attention(
            query,
            kv_cache,
            attn_metadata.block_table,
            attn_metadata.seq_lens,
            attn_metadata.query_start_loc,
            max_query_len=attn_metadata.max_query_len,
            scale=self.scale,
            out=output,
            window=self.window,
            sinks=self.sinks,
            soft_cap=self.logits_soft_cap,
            alibi_slopes=self.alibi_slopes,
            alibi_sqrt=self.alibi_sqrt,
            causal=plan.causal,
            plan=plan,
        )
        return output

    def _first_plan(self, attn_metadata: RocmForgeMetadata, layer: Any, query: torch.Tensor) -> AttentionPlan:
        """The plan of a step whose builder did not know this layer, or this layer its number."""
        has_ranges = attn_metadata.planners.has_ranges or attn_metadata.ranges is not None
        self.mask = self.mask or mask_of(layer, has_ranges, ())
        self._number, plan = attn_metadata.first_plan(self.problem(query.dtype))
        self.place(query.device, attn_metadata.planners.copies)
        return plan
