# SPDX-License-Identifier: Apache-2.0
"""Latent attention's layer with one launch for all that happens between its products and attention: rotation of the
queries' and the key's rope slices, and the write of latent and key to the cache.

vLLM builds the layer of every model with latent attention from one class and lets plugins replace it. The replacement
is vLLM's own layer wherever the launch is not legal.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import VllmConfig, get_current_vllm_config_or_none
from vllm.model_executor.layers.attention.attention import get_attention_context
from vllm.model_executor.layers.mla import MultiHeadLatentAttentionWrapper
from vllm.utils.torch_utils import LayerNameType, _encode_layer_name, _resolve_layer_name, direct_register_custom_op

from rocmforge_plugin.ops import rotary_latent_kv_write
from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.compile_cache import salt_compile_cache
from rocmforge_plugin.vllm.log import logger
from rocmforge_plugin.vllm.position.rotary_layers import host_fuses_rotary

# What a layer may have beside products, norms and rotary; vLLM's own forward knows what to do with it.
_EXTRAS = ("is_sparse", "indexer", "g_proj", "dcp_q_replicate", "fuse_qkv_rmsnorm")


def obstacle(module: Any, config: VllmConfig) -> str | None:
    """Why a layer of latent attention cannot use the fused launch; None if it can."""
    attn, rotary = module.mla_attn, module.rotary_emb
    if attn.attn_backend.get_name() != NAME:
        return f"attention runs on {attn.attn_backend.get_name()}, which must be given keys"
    if rotary is None:
        return "it has no rotary layer"
    if host_fuses_rotary():
        return "vLLM's own fusion pass is on"
    if not getattr(rotary, "kernels", False):
        return f"its rotary layer, {type(rotary).__name__}, does not run on rocmforge"
    if getattr(rotary, "mrope_section", None) is not None:
        return "its positions are in time, height and width (M-RoPE)"
    for name in _EXTRAS:
        if getattr(module, name, None):
            return f"it has {name}"
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(config.parallel_config, name, 1) > 1:
            return f"{name} is {getattr(config.parallel_config, name)}: a rank keeps only a part of the keys"
    return None


class RocmForgeLatentAttention(MultiHeadLatentAttentionWrapper):
    """vLLM's layer; where it is legal, its rotary and the KV write are one launch."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        config = get_current_vllm_config_or_none()
        reason = "there is no configuration" if config is None else obstacle(self, config)
        self.fused = reason is None
        salt_compile_cache(fused_latent=self.fused)
        if self.fused:
            self.mla_attn.impl.writes_cache = False
            logger.info_once("rotary and the write of latents are one launch")
        elif self.mla_attn.attn_backend.get_name() == NAME:
            logger.info_once("rotary and the write of latents are two launches: %s", reason)

    def forward(
        self, positions: torch.Tensor, hidden_states: torch.Tensor, llama_4_scaling: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attention of [tokens, hidden_size] at `positions`, int64 [tokens]; the scaling is of rotated queries."""
        if not self.fused:
            return super().forward(positions, hidden_states, llama_4_scaling)
        rope, rank = self.qk_rope_head_dim, self.kv_lora_rank
        # `low` ends with the latent and the key's rope slice, whether or not queries have a low rank before them.
        if self.q_lora_rank is None:
            low = self.kv_a_proj_with_mqa(hidden_states)[0]
            flat = self.q_proj(hidden_states)[0]
        else:
            low = self.fused_qkv_a_proj(hidden_states)[0]
            flat = self.q_b_proj(self.q_a_layernorm(low[:, : self.q_lora_rank]))[0]
        kv_c = self.kv_a_layernorm(low[:, -(rank + rope) : -rope])
        rotary_latent_kv(self, positions, flat, low, kv_c)
        query = flat.view(-1, self.num_heads, self.qk_head_dim)
        if llama_4_scaling is not None:
            query *= llama_4_scaling
        shape = (hidden_states.shape[0], self.num_heads * self.v_head_dim)
        return self.o_proj(self.mla_attn(query, kv_c, low[:, None, -rope:], output_shape=shape))[0]


def rotary_latent_kv(
    layer: Any, positions: torch.Tensor, query: torch.Tensor, low: torch.Tensor, kv_c: torch.Tensor
) -> None:
    """Rotates in place and writes a layer's latents and keys to the cache.

    Args:
        layer: a RocmForgeLatentAttention.
        positions: int64 [tokens].
        query: [tokens, heads * qk_head_dim], of which the last qk_rope_head_dim elements of each head are rotated.
        low: [tokens, n], of which the last qk_rope_head_dim elements, the key's, are rotated.
        kv_c: [tokens, kv_lora_rank], normed.

    Nothing is done while vLLM measures memory, when there is no cache yet.
    """
    arguments = (
        positions.flatten(),
        query,
        low,
        kv_c,
        layer.rotary_emb._match_cos_sin_cache_dtype(query),
        layer.qk_head_dim,
        layer.qk_rope_head_dim,
        not layer.rotary_emb.is_neox_style,
    )
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.rotary_latent_kv(*arguments, _encode_layer_name(layer.mla_attn.layer_name))
    else:
        _rotary_latent_kv(*arguments, layer.mla_attn.layer_name)


def _rotary_latent_kv(
    positions: torch.Tensor,
    query: torch.Tensor,
    low: torch.Tensor,
    kv_c: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    qk_head_dim: int,
    rope_dim: int,
    interleaved: bool,
    layer_name: LayerNameType,
) -> None:
    name = _resolve_layer_name(layer_name)
    _, _, kv_cache, slots = get_attention_context(name)
    if slots is None or kv_cache.numel() == 0:
        if query.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{name}: a graph is captured without a slot mapping, so its replays would rotate and write nothing"
            )
        return
    heads = query.view(query.shape[0], -1, qk_head_dim)
    rotary_latent_kv_write(
        positions,
        heads[..., -rope_dim:],
        low[:, -rope_dim:],
        cos_sin_cache,
        kv_c,
        kv_cache,
        slots.flatten(),
        interleaved=interleaved,
    )


def _rotary_latent_kv_fake(
    positions: torch.Tensor,
    query: torch.Tensor,
    low: torch.Tensor,
    kv_c: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    qk_head_dim: int,
    rope_dim: int,
    interleaved: bool,
    layer_name: LayerNameType,
) -> None:
    return None


# A compiled graph is told of two whole products that are written, and reads neither of them as it was: so it has
# nothing to copy, as it would of views. The cache is written behind its back; the query that attention reads keeps
# the order.
_library = torch.library.Library("rocmforge", "FRAGMENT")
direct_register_custom_op(
    "rotary_latent_kv",
    _rotary_latent_kv,
    mutates_args=["query", "low"],
    fake_impl=_rotary_latent_kv_fake,
    target_lib=_library,
)

LAYERS: dict[Any, Any] = {MultiHeadLatentAttentionWrapper: RocmForgeLatentAttention}
