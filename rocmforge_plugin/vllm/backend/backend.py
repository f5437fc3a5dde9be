# SPDX-License-Identifier: Apache-2.0
"""The attention backend's face to vLLM: what it is called, what it supports, which classes do the work.

vLLM imports this module to ask whether the backend can serve a layer, so it needs no compiled extension: a missing or
unloadable one becomes a reason like any other.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.v1.attention.backend import AttentionBackend, MultipleOf

from rocmforge_plugin import served
from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.backend import eligibility
from rocmforge_plugin.vllm.backend.settings import plain
from rocmforge_plugin.vllm.backend.target import device_refusals, target


class RocmForgeBackend(AttentionBackend):
    """Paged attention through rocmforge's kernels; every refusal comes from `eligibility`."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [getattr(torch, name) for name in served.ELEMENTS]
    supported_kv_cache_dtypes: ClassVar[list[str]] = list(eligibility.KV_CACHE_DTYPES)
    # The cache is written by its own kernel, before attention and outside it, from the layer's slot mapping.
    forward_includes_kv_cache_update: bool = False
    # Attention reads the cache only, so a layer may bring its keys there by other means and pass none.
    supports_kv_cache_update_bypass: bool = True

    @staticmethod
    def get_name() -> str:
        return NAME

    @staticmethod
    def get_impl_cls() -> type:
        from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl

        return RocmForgeImpl

    @staticmethod
    def get_builder_cls() -> type:
        from rocmforge_plugin.vllm.backend.builder import RocmForgeMetadataBuilder

        return RocmForgeMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:
        return [MultipleOf(served.BLOCK_MULTIPLE)]

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return list(eligibility.HEAD_SIZES)

    @classmethod
    def supports_sink(cls) -> bool:
        return True

    @classmethod
    def supports_alibi_sqrt(cls) -> bool:
        return True

    @classmethod
    def supports_sliding_window(cls) -> bool:
        return True

    @classmethod
    def supports_batch_invariance(cls) -> bool:
        return True

    @classmethod
    def supports_attn_type(cls, attn_type: str) -> bool:
        return getattr(attn_type, "value", attn_type) in eligibility.ATTN_TYPES

    @classmethod
    def supports_mm_prefix(cls) -> bool:
        return True

    @classmethod
    def supports_non_causal(cls) -> bool:
        return True

    @classmethod
    def validate_configuration(cls, *, device_capability: Any = None, **settings: Any) -> list[str]:
        """Reasons why a layer cannot be served here, empty when it can.

        Takes the fields of vLLM's AttentionSelectorConfig by name. The capability is ignored: on ROCm it does not
        tell the architectures apart.
        """
        asked, kind = plain(settings), target()
        reasons = eligibility.refusals(asked, kind)
        # A problem that no kernel is written for is not looked for among those that are built.
        return reasons + device_refusals(None if reasons else eligibility.problem_of(asked, kind))
