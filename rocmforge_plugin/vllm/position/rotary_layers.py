# SPDX-License-Identifier: Apache-2.0
"""vLLM's rotary layers through rocmforge's kernels, eager and compiled.

They replace vLLM's for every model in the process, not only GLM, so what the kernels do not cover goes to vLLM's own
implementation, which is said in the log.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from vllm.config import get_cached_compilation_config, get_current_vllm_config_or_none
from vllm.model_executor.layers.rotary_embedding import (
    DeepseekScalingRotaryEmbedding,
    MRotaryEmbedding,
    RotaryEmbedding,
    YaRNScalingRotaryEmbedding,
)
from vllm.model_executor.layers.rotary_embedding.common import ApplyRotaryEmb
from vllm.platforms import current_platform

from rocmforge_plugin import __version__, ops
from rocmforge_plugin.ops.checks import ELEMENTS
from rocmforge_plugin.vllm.backend import target
from rocmforge_plugin.vllm.compile_cache import salt_compile_cache
from rocmforge_plugin.vllm.log import logger


def host_fuses_rotary() -> bool:
    """Whether vLLM itself fuses rotary into other kernels; the passes that do look for vLLM's own rotary op."""
    passes = get_cached_compilation_config().pass_config
    return any(
        getattr(passes, name, False)
        for name in (
            "fuse_rope_kvcache",
            "fuse_qk_norm_rope_kvcache",
            "enable_qk_norm_rope_fusion",
            "fuse_rope_kvcache_cat_mla",
        )
    )


@cache
def device_usable() -> bool:
    """Whether there are kernels for this process's device; says why not, once."""
    refusals = target.device_refusals()
    if refusals:
        logger.warning("vLLM's own position layers are used: %s", "; ".join(refusals))
    return not refusals


_Replaced: Any = object  # in each class below, the layer of vLLM's comes after these


class _Layer(_Replaced):
    """On unless switched off: vLLM turns all custom ops off under inductor, which would put its own layers back."""

    name: str

    @classmethod
    def enabled(cls) -> bool:
        """Whether the kernels are used: not with `-rotary_embedding` (or the class's name) among the custom ops."""
        if not device_usable() or host_fuses_rotary():
            return bool(super().enabled())
        directives = get_cached_compilation_config().custom_ops
        return not any(f"-{name}" in directives for name in (cls.name, cls.host_class()))

    @classmethod
    def host_class(cls) -> str:
        """Name of the class of vLLM that this one replaces."""
        return next(str(host.__name__) for host, ours in LAYERS.items() if ours is cls)

    def uses_kernels(self) -> bool:
        return self.enabled() and device_usable() and not host_fuses_rotary()


class _RotaryLayer(_Layer):
    """What the layers for language models share. One instance serves all layers of a model with the same settings."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kernels = self.uses_kernels()
        salt_compile_cache(rotary=__version__ if self.kernels else "off")
        # The indexer of sparse attention ignores what the layer returns and relies on its arguments being rotated.
        model = getattr(get_current_vllm_config_or_none(), "model_config", None)
        self.must_mutate = hasattr(getattr(model, "hf_text_config", None), "index_topk")

    def _rotate(
        self,
        positions: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        offsets: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Eager: in place, and the arguments are returned. Traced: an op that returns new tensors.

        Inductor pays for an op that writes to views of the QKV product with two copies of it.
        """
        if not self.kernels:
            arguments = (positions, query, key) if offsets is None else (positions, query, key, offsets)
            host = (
                super().forward_cpu
                if current_platform.is_cpu()
                else super().forward_hip
                if current_platform.is_rocm()
                else super().forward_cuda
            )
            rotated: tuple[torch.Tensor, torch.Tensor | None] = host(*arguments)
            return rotated
        if offsets is not None:
            positions = positions + offsets
        section = getattr(self, "mrope_section", None) if positions.dim() == 2 else None
        if section is None:
            positions = positions.flatten()
        tokens = positions.shape[-1]
        rows = _as_rows(query, tokens, self.head_size)
        key_rows = None if key is None else _as_rows(key, tokens, self.head_size)
        options = dict(
            head_size=self.head_size,
            interleaved=not self.is_neox_style,
            mrope_section=None if section is None else list(section),
            mrope_interleaved=getattr(self, "mrope_interleaved", False),
        )
        table = self._match_cos_sin_cache_dtype(query)
        if torch.compiler.is_compiling() and key is not None and not self.must_mutate:
            query_out, key_out = ops.rotary_out(positions, rows, key_rows, table, **options)
            return query_out.view(query.shape), None if key_out is None else key_out.view(key.shape)
        ops.rotary(positions, rows, key_rows, table, **options)
        return query, key

    forward_cuda = forward_hip = forward_cpu = _rotate


def _as_rows(x: torch.Tensor, tokens: int, head_size: int) -> torch.Tensor:
    if x.dim() == 2 or (x.dim() == 3 and x.shape[-1] == head_size):
        return x
    return x.view(tokens, -1, head_size)


class RocmForgeRotaryEmbedding(_RotaryLayer, RotaryEmbedding):
    """GLM-4, GLM-4.5 and later, ChatGLM and the rope slice of latent attention."""


class RocmForgeMRotaryEmbedding(_RotaryLayer, MRotaryEmbedding):
    """GLM-4.1V, GLM-4.5V and GLM-OCR: positions in time, height and width."""


class RocmForgeYaRNScalingRotaryEmbedding(_RotaryLayer, YaRNScalingRotaryEmbedding):
    """Any of them with YaRN's longer context."""


class RocmForgeDeepseekScalingRotaryEmbedding(_RotaryLayer, DeepseekScalingRotaryEmbedding):
    """Latent attention with YaRN's longer context."""


class RocmForgeApplyRotaryEmb(_Layer, ApplyRotaryEmb):
    """Vision encoders, which bring cosines and sines per patch."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kernels = (self._enforce_enable or self.enabled()) and device_usable()
        salt_compile_cache(apply_rotary=__version__ if self.kernels else "off")

    def _rotate(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        covered = x.dtype in ELEMENTS and x.dim() in (3, 4) and cos.dim() == 2 and x.stride(-1) == 1
        if not self.kernels or not covered:
            if not covered:
                logger.info_once(
                    "rotary of %s %s with cos %s is left to vLLM; rocmforge rotates [(batch,) sequence, "
                    "heads, head_size] in float32, float16 or bfloat16",
                    str(x.dtype),
                    str(x.dim()),
                    str(cos.dim()),
                )
            return super().forward_native(x, cos, sin)
        if cos.dtype != torch.float32:
            cos, sin = cos.to(x.dtype), sin.to(x.dtype)
        return ops.apply_rotary(x, cos, sin, interleaved=not self.is_neox_style)

    forward_cuda = forward_hip = forward_cpu = _rotate


LAYERS = {
    RotaryEmbedding: RocmForgeRotaryEmbedding,
    MRotaryEmbedding: RocmForgeMRotaryEmbedding,
    YaRNScalingRotaryEmbedding: RocmForgeYaRNScalingRotaryEmbedding,
    DeepseekScalingRotaryEmbedding: RocmForgeDeepseekScalingRotaryEmbedding,
    ApplyRotaryEmb: RocmForgeApplyRotaryEmb,
}
