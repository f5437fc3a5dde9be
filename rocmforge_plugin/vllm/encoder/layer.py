# SPDX-License-Identifier: Apache-2.0
"""vLLM's attention layer of vision and audio encoders through rocmforge's kernels, eager and compiled.

Sequences of any lengths in one launch, without a copy of queries, keys or values and without waiting for the device.
"""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention
from vllm.platforms import current_platform
from vllm.utils.torch_utils import LayerNameType, _encode_layer_name, _resolve_layer_name, direct_register_custom_op

from rocmforge_plugin import __version__
from rocmforge_plugin.ops import varlen_attention
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.compile_cache import salt_compile_cache
from rocmforge_plugin.vllm.encoder.choice import decide
from rocmforge_plugin.vllm.encoder.plans import EncoderPlans, shared_plans
from rocmforge_plugin.vllm.log import logger

ALIGNMENT = 16  # bytes, of addresses and strides
_numbers = itertools.count()
_layers: WeakValueDictionary[str, EncoderLayer] = WeakValueDictionary()  # by their names in compiled graphs
_library = torch.library.Library("rocmforge", "FRAGMENT")
_Replaced: Any = object  # in the classes below, the layer of vLLM's comes after these


class EncoderLayer(_Replaced):
    """What takes the place of a layer: vLLM's own where rocmforge is not chosen or has no kernel, else the kernels."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Raises ValueError where rocmforge is named for encoders and has no kernel."""
        super().__init__(*arguments, **options)
        self._problem = Problem(
            str(self.dtype), self.num_heads, self.num_kv_heads, self.head_size, self.head_size, format="split"
        )
        self.kernels = decide(self._problem, self.attn_backend, self.fp8_enabled)
        self._plans: EncoderPlans | None = None
        self._number = next(_numbers)
        if self.kernels:
            _layers[f"encoder.{self._number}"] = self
        salt_compile_cache(encoder=__version__ if self.kernels else "off")

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: torch.Tensor | None = None,
        sequence_lengths: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attention of each sequence's tokens to each other.

        Args:
            query: [batch, tokens, heads * head_size] or [batch, tokens, heads, head_size].
            key, value: [batch, key tokens, kv_heads * head_size], or with heads apart.
            cu_seqlens: [sequences + 1], where sequences start in all tokens of the batch; None if each of the batch's
                is one.
            max_seqlen, sequence_lengths: of other backends'; a bound from the shapes will do for the kernels.

        Returns:
            In the shape of `query`.
        """
        if not self.kernels or not self.dtype == query.dtype == key.dtype == value.dtype:
            if self.kernels:
                logger.warning_once(
                    "attention of an encoder in %s is left to vLLM: the model is of %s", str(query.dtype), self.dtype
                )
            host = (
                super().forward_cpu
                if current_platform.is_cpu()
                else super().forward_hip
                if current_platform.is_rocm()
                else super().forward_cuda
            )
            attended: torch.Tensor = host(query, key, value, cu_seqlens, max_seqlen, sequence_lengths)
            return attended
        if torch.compiler.is_compiling():
            name = _encode_layer_name(f"encoder.{self._number}")
            compiled: torch.Tensor = torch.ops.rocmforge.encoder_attention(query, key, value, cu_seqlens, name)
            return compiled
        return self.attend(query, key, value, cu_seqlens)

    forward_cuda = forward_hip = forward_cpu = _attend

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor | None
    ) -> torch.Tensor:
        """As `_attend`, by the kernels."""
        batch, length = query.shape[:2]
        if batch * length == 0:
            return torch.empty(query.shape, dtype=query.dtype, device=query.device)
        if self._plans is None or self._plans.device != query.device:
            self._plans = shared_plans(self._problem, query.device)
        cut = (batch, length, key.shape[1]) if cu_seqlens is None else cu_seqlens
        sequences = self._plans.of(self._number, cut, batch * length)
        out = varlen_attention(
            self._rows(query, self.num_heads),
            self._rows(key, self.num_kv_heads),
            self._rows(value, self.num_kv_heads),
            sequences.query_start_loc,
            sequences.key_start_loc,
            sequences.seq_lens,
            max_query_len=sequences.max_query_len,
            scale=self.scale,
            causal=False,
            plan=sequences.plan,
        )
        return out.view(query.shape)

    def _rows(self, x: torch.Tensor, heads: int) -> torch.Tensor:
        """[all tokens, heads, head_size] without a copy, unless the kernels could not read it so."""
        rows = x.view(*x.shape[:2], heads, self.head_size).flatten(0, 1)
        item = rows.element_size()
        aligned = rows.stride(2) == 1 and not (
            rows.data_ptr() % ALIGNMENT or rows.stride(0) * item % ALIGNMENT or rows.stride(1) * item % ALIGNMENT
        )
        return rows if aligned else rows.clone(memory_format=torch.contiguous_format)


class RocmForgeMMEncoderAttention(EncoderLayer, MMEncoderAttention):
    """Of the vision encoders, and of audio encoders other than Whisper's."""


def _encoder_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    layer_name: LayerNameType,
) -> torch.Tensor:
    return _layers[_resolve_layer_name(layer_name)].attend(query, key, value, cu_seqlens)


def _encoder_attention_fake(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor | None,
    layer_name: LayerNameType,
) -> torch.Tensor:
    return query.new_empty(query.shape)


direct_register_custom_op(
    "encoder_attention", _encoder_attention, mutates_args=[], fake_impl=_encoder_attention_fake, target_lib=_library
)
