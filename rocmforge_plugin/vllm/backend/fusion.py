# SPDX-License-Identifier: Apache-2.0
"""What vLLM's own fusion passes, where a user turns them on, ask of an attention implementation: everything between the
QKV product and attention as one launch. rocmforge's GLM classes come to the same launch by `position.rotary_kv`.
"""

from __future__ import annotations

from typing import Any

import torch

from rocmforge_plugin.ops.position import rotary_kv_write
from rocmforge_plugin.vllm.backend.aiter_quant import declare_quant_op


class CacheUpdates:
    """The fused cache updates that vLLM's passes ask an attention implementation for.

    The rotated key goes to the cache only: `k_out` stays unwritten, since this backend's attention reads no key, unless
    ranks divide the keys. An encoder's does, and has no cache: there is nothing to fuse.
    """

    dcp_world_size: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    is_encoder: bool

    def _reads_no_key(self) -> bool:
        return not self.is_encoder and self.dcp_world_size == 1

    def fused_rope_kvcache_supported(self) -> bool:
        return self._reads_no_key()

    def fused_qk_norm_rope_kvcache_supported(self) -> bool:
        declare_quant_op()  # this is asked before the pass traces its patterns
        return self._reads_no_key()

    def fused_qk_norm_mrope_kvcache_supported(self) -> bool:
        declare_quant_op()
        return self._reads_no_key()

    def do_rope_and_kv_cache_update(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        positions: torch.Tensor,
        cos_sin_cache: torch.Tensor,
        is_neox: bool,
        kv_cache: torch.Tensor,
        layer_slot_mapping: torch.Tensor,
    ) -> None:
        """Rotates the query in place and writes the rotated key and the value; shapes as for ops.rotary_kv_write."""
        rotary_kv_write(
            positions, query, key, value, cos_sin_cache, kv_cache, layer_slot_mapping, interleaved=not is_neox
        )

    def do_qk_norm_rope_kvcache_update(
        self,
        layer: Any,
        qkv: torch.Tensor,
        q_out: torch.Tensor,
        k_out: torch.Tensor,
        positions: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        rms_norm_eps: float,
        cos_sin_cache: torch.Tensor,
        is_neox: bool,
        kv_cache: torch.Tensor,
        layer_slot_mapping: torch.Tensor,
    ) -> None:
        """As above from [tokens, (heads + 2 * kv_heads) * head_size], with the norm; the query goes to `q_out`."""
        rotary_kv_write(
            positions,
            *self._split(qkv),
            cos_sin_cache,
            kv_cache,
            layer_slot_mapping,
            interleaved=not is_neox,
            q_norm_weight=q_weight,
            k_norm_weight=k_weight,
            eps=rms_norm_eps,
            query_out=q_out,
        )

    def do_qk_norm_mrope_kvcache_update(
        self,
        layer: Any,
        qkv: torch.Tensor,
        q_out: torch.Tensor,
        positions: torch.Tensor,
        q_weight: torch.Tensor,
        k_weight: torch.Tensor,
        rms_norm_eps: float,
        cos_sin_cache: torch.Tensor,
        is_neox: bool,
        mrope_section: tuple[int, int, int],
        is_interleaved: bool,
        rotary_dim: int,
        kv_cache: torch.Tensor,
        layer_slot_mapping: torch.Tensor,
    ) -> None:
        """As above with positions [3, tokens]."""
        rotary_kv_write(
            positions,
            *self._split(qkv),
            cos_sin_cache,
            kv_cache,
            layer_slot_mapping,
            interleaved=not is_neox,
            mrope_section=mrope_section,
            mrope_interleaved=is_interleaved,
            q_norm_weight=q_weight,
            k_norm_weight=k_weight,
            eps=rms_norm_eps,
            query_out=q_out,
        )

    def _split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        kv_size = self.num_kv_heads * self.head_size
        query, key, value = qkv.split([self.num_heads * self.head_size, kv_size, kv_size], dim=-1)
        return query, key, value
