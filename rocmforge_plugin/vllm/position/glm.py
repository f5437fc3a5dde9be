# SPDX-License-Identifier: Apache-2.0
"""GLM model classes: vLLM's own, with the attention modules' forward replaced by the fused launch where that is legal.

`GlmForCausalLM` (GLM-4-9B-hf, GLM-Edge) is new: vLLM runs it through Transformers, whose rotary no vLLM layer sees.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models import chatglm, glm4, glm4_moe, glm4_moe_mtp
from vllm.v1.attention.backend import AttentionType

from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.compile_cache import salt_compile_cache
from rocmforge_plugin.vllm.log import logger
from rocmforge_plugin.vllm.position.rotary_kv import rotary_kv
from rocmforge_plugin.vllm.position.rotary_layers import host_fuses_rotary


class FusedGlm4Attention(glm4.Glm4Attention):
    """Glm4Attention in two launches between its matrix products: this and attention."""

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        qkv, _ = self.qkv_proj(hidden_states)
        query = rotary_kv(self, positions, qkv, None)
        return self.o_proj(self.attn(query, None, None))[0]


class FusedGlm4MoeAttention(glm4_moe.Glm4MoeAttention):
    """As above, with the norm of query and key heads in GLM-4.5, 4.6 and 4.7."""

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        qkv, _ = self.qkv_proj(hidden_states)
        query = rotary_kv(self, positions, qkv, (self.q_norm, self.k_norm) if self.use_qk_norm else None)
        return self.o_proj(self.attn(query, None, None))[0]


class FusedChatGLMAttention(chatglm.GLMAttention):
    """As above for ChatGLM2, ChatGLM3, GLM-4-9B and GLM-4V."""

    def forward(self, hidden_states: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        qkv, _ = self.query_key_value(hidden_states)
        query = rotary_kv(self, position_ids, qkv, None)
        return self.dense(self.attn(query, None, None))[0]


FUSED: dict[type[nn.Module], type[nn.Module]] = {
    glm4.Glm4Attention: FusedGlm4Attention,
    glm4_moe.Glm4MoeAttention: FusedGlm4MoeAttention,
    chatglm.GLMAttention: FusedChatGLMAttention,
}


def obstacle(module: Any, config: VllmConfig) -> str | None:
    """Why an attention module cannot use the fused launch; None if it can."""
    attn = module.attn
    parallel = config.parallel_config
    if attn.attn_backend.get_name() != NAME:
        return f"attention runs on {attn.attn_backend.get_name()}, which must be given keys and values"
    if host_fuses_rotary():
        return "vLLM's own fusion pass is on"
    if not getattr(module.rotary_emb, "kernels", False):
        return f"its rotary layer, {type(module.rotary_emb).__name__}, does not run on rocmforge"
    if attn.attn_type != AttentionType.DECODER:
        return f"its attention type is {attn.attn_type}"
    if attn.kv_sharing_target_layer_name is not None:
        return f"it shares the KV cache of {attn.kv_sharing_target_layer_name}"
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            return f"{name} is {getattr(parallel, name)}: a rank keeps only a part of the keys"
    if attn.kv_cache_dtype not in ("auto", str(config.model_config.dtype).removeprefix("torch.")):
        return f"the KV cache is {attn.kv_cache_dtype}"
    return None


def fuse(model: nn.Module, config: VllmConfig) -> None:
    """Gives every attention module of `model` that may have it the fused forward, and says so, or why not, in one line.

    The modules keep their state and only change their class, so loading weights, LoRA and quantization see what they
    know.
    """
    obstacles: dict[str, None] = {}
    fused = 0
    for module in model.modules():
        replacement = FUSED.get(type(module))
        if replacement is None:
            continue
        reason = obstacle(module, config)
        if reason is not None:
            obstacles[reason] = None
            continue
        module.__class__ = replacement
        if hasattr(module.attn, "kv_cache_update_bypass"):  # vLLM 0.33 wants to be told who writes the cache
            module.attn.kv_cache_update_bypass = True
        fused += 1
    salt_compile_cache(fused_layers=fused)
    if fused:
        logger.info_once("rotary and the KV write are one launch in %d layers", fused)
    if obstacles and getattr(config.attention_config.backend, "name", None) == NAME:
        logger.info_once("rotary and the KV write are two launches: %s", "; ".join(obstacles))


class Glm4ForCausalLM(glm4.Glm4ForCausalLM):
    """GLM-4-0414, GLM-Z1, and the language model of GLM-4.1V and GLM-OCR."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        fuse(self, vllm_config)


class GlmForCausalLM(glm4.Glm4ForCausalLM):
    """GLM-4-9B-hf and GLM-Edge: GLM-4-0414 without the norms behind attention and MLP."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        for layer in self.model.layers:
            if isinstance(layer, glm4.Glm4DecoderLayer):  # other pipeline stages' layers are placeholders
                layer.post_self_attn_layernorm = nn.Identity()
                layer.post_mlp_layernorm = nn.Identity()
        fuse(self, vllm_config)


class Glm4MoeForCausalLM(glm4_moe.Glm4MoeForCausalLM):
    """GLM-4.5, 4.6, 4.7, and the language model of GLM-4.5V."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        fuse(self, vllm_config)


class Glm4MoeMTP(glm4_moe_mtp.Glm4MoeMTP):
    """Their draft model."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        fuse(self, vllm_config)


def warn_of_first_generation(config: VllmConfig) -> None:
    """ChatGLM-6B (v1) declares the architecture of its successors, and vLLM would build it as one of them."""
    if getattr(config.model_config.hf_config, "position_encoding_2d", False):
        logger.warning(
            "this checkpoint is ChatGLM-6B v1 or GLM-130B (position_encoding_2d is set): vLLM has no model "
            "class for it and builds it as ChatGLM2, whose positions and layers differ. Its output will be "
            "wrong. rocmforge_plugin.ops.rotary_2d computes its positions."
        )


class ChatGLMForCausalLM(chatglm.ChatGLMForCausalLM):
    """ChatGLM2, ChatGLM3, GLM-4-9B, CodeGeeX4."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        warn_of_first_generation(vllm_config)
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        fuse(self, vllm_config)
