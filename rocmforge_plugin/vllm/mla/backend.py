# SPDX-License-Identifier: Apache-2.0
"""The MLA backend's face to vLLM; like the dense one's, it needs no compiled extension to be asked."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonBackend
from vllm.v1.attention.backend import MultipleOf

from rocmforge_plugin import served
from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.backend.eligibility import KV_CACHE_DTYPES
from rocmforge_plugin.vllm.backend.settings import plain
from rocmforge_plugin.vllm.backend.target import device_refusals, target
from rocmforge_plugin.vllm.mla import eligibility


class RocmForgeMLABackend(MLACommonBackend):
    """Latent attention through rocmforge's kernels; every refusal comes from `eligibility`."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [getattr(torch, name) for name in served.ELEMENTS]
    supported_kv_cache_dtypes: ClassVar[list[str]] = list(KV_CACHE_DTYPES)

    @staticmethod
    def get_name() -> str:
        return NAME

    @staticmethod
    def get_impl_cls() -> type:
        from rocmforge_plugin.vllm.mla.impl import RocmForgeMLAImpl

        return RocmForgeMLAImpl

    @staticmethod
    def get_builder_cls() -> type:
        from rocmforge_plugin.vllm.mla.builder import RocmForgeMLAMetadataBuilder

        return RocmForgeMLAMetadataBuilder

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: Any = None) -> list[int | MultipleOf]:
        return [MultipleOf(served.BLOCK_MULTIPLE)]

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        return list(eligibility.LATENTS)

    @classmethod
    def validate_configuration(cls, *, device_capability: Any = None, **settings: Any) -> list[str]:
        """Reasons why a layer cannot be served here, empty when it can.

        Takes the fields of vLLM's AttentionSelectorConfig by name, and num_heads. The capability is ignored, as for
        dense layers.
        """
        asked, kind = plain(settings), target()
        reasons = eligibility.selection_refusals(asked, kind)
        return reasons + device_refusals(None if reasons else eligibility.known_problem(asked, kind))
