# SPDX-License-Identifier: Apache-2.0
"""Everything between the QKV product and attention as one launch, as an op of torch's: norm of the heads, rotary,
paged-KV write.

The model classes in `glm` own the call: their attention asks for `rotary_kv` and hands vLLM's layer no key and value,
so that it writes nothing itself. The same launch for vLLM's own fusion passes is `backend.fusion`.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.attention.attention import get_attention_context
from vllm.utils.torch_utils import LayerNameType, _encode_layer_name, _resolve_layer_name, direct_register_custom_op

from rocmforge_plugin.ops.position import rotary_kv_write

_library = torch.library.Library("rocmforge", "FRAGMENT")


def rotary_kv(
    attention: Any, positions: torch.Tensor, qkv: torch.Tensor, norms: tuple[Any, Any] | None
) -> torch.Tensor:
    """Writes the layer's keys and values and returns its rotated query.

    Args:
        attention: a model's attention module: q_size, kv_size, rotary_emb and vLLM's `attn` layer are read.
        positions: int64 [tokens] or [3, tokens].
        qkv: [tokens, q_size + 2 * kv_size]; eager, the query is rotated in place.
        norms: the query's and the key's RMSNorm, if the model has them.

    Returns:
        [tokens, q_size]. Nothing is written (and the values mean nothing) while vLLM measures memory, when there is no
        cache yet.
    """
    rotary = attention.rotary_emb
    q_weight, k_weight, eps = None, None, 0.0
    if norms is not None:
        q_weight, k_weight, eps = norms[0].weight, norms[1].weight, norms[0].variance_epsilon
    section = getattr(rotary, "mrope_section", None) if positions.dim() == 2 else None
    arguments = (
        positions,
        qkv,
        rotary._match_cos_sin_cache_dtype(qkv),
        attention.q_size,
        attention.kv_size,
        not rotary.is_neox_style,
        None if section is None else list(section),
        getattr(rotary, "mrope_interleaved", False),
        q_weight,
        k_weight,
        eps,
    )
    if torch.compiler.is_compiling():
        return torch.ops.rocmforge.rotary_kv(*arguments, _encode_layer_name(attention.attn.layer_name))
    query = qkv[:, : attention.q_size]
    _write(*arguments, attention.attn.layer_name, query)
    return query


def _write(
    positions: torch.Tensor,
    qkv: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    q_size: int,
    kv_size: int,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float,
    layer_name: str,
    query_out: torch.Tensor,
) -> bool:
    """False if there is no cache to write to."""
    _, _, kv_cache, slots = get_attention_context(layer_name)
    if slots is None or kv_cache.numel() == 0:
        if qkv.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{layer_name}: a graph is captured without a slot mapping, so its replays would write "
                "no keys and values"
            )
        return False
    query, key, value = qkv.split([q_size, kv_size, kv_size], dim=-1)
    in_place = query_out.data_ptr() == query.data_ptr()
    rotary_kv_write(
        positions,
        query,
        key,
        value,
        cos_sin_cache,
        kv_cache,
        slots,
        interleaved=interleaved,
        mrope_section=mrope_section,
        mrope_interleaved=mrope_interleaved,
        q_norm_weight=q_weight,
        k_norm_weight=k_weight,
        eps=eps,
        query_out=None if in_place else query_out,
    )
    return True


def _rotary_kv(
    positions: torch.Tensor,
    qkv: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    q_size: int,
    kv_size: int,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float,
    layer_name: LayerNameType,
) -> torch.Tensor:
    out = qkv.new_empty(qkv.shape[0], q_size)
    if not _write(
        positions,
        qkv,
        cos_sin_cache,
        q_size,
        kv_size,
        interleaved,
        mrope_section,
        mrope_interleaved,
        q_weight,
        k_weight,
        eps,
        _resolve_layer_name(layer_name),
        out,
    ):
        out.zero_()
    return out


def _rotary_kv_fake(
    positions: torch.Tensor,
    qkv: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    q_size: int,
    kv_size: int,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
    q_weight: torch.Tensor | None,
    k_weight: torch.Tensor | None,
    eps: float,
    layer_name: LayerNameType,
) -> torch.Tensor:
    return qkv.new_empty(qkv.shape[0], q_size)


# The cache is written behind the graph's back, as by vLLM's own unified_kv_cache_update; the query that attention reads
# keeps the order. A graph with an op that is declared to write views of the QKV product would copy that product.
direct_register_custom_op("rotary_kv", _rotary_kv, mutates_args=[], fake_impl=_rotary_kv_fake, target_lib=_library)
