# SPDX-License-Identifier: Apache-2.0
"""Registers the model classes of `glm` with vLLM."""

from __future__ import annotations

from rocmforge_plugin.vllm.compile_cache import switched_on

MODULE = "rocmforge_plugin.vllm.position.glm"
MODELS = {
    "GlmForCausalLM": "GlmForCausalLM",
    "Glm4ForCausalLM": "Glm4ForCausalLM",
    "Glm4MoeForCausalLM": "Glm4MoeForCausalLM",
    "Glm4MoeMTPModel": "Glm4MoeMTP",
    "ChatGLMModel": "ChatGLMForCausalLM",
    "ChatGLMForConditionalGeneration": "ChatGLMForCausalLM",
}


def register() -> None:
    """Names the classes in vLLM's registry; they are imported when a model is built. ROCMFORGE_POSITION=0 keeps
    vLLM's own. Safe to call again.
    """
    if not switched_on():
        return
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture, name in MODELS.items():
        ModelRegistry.register_model(architecture, f"{MODULE}:{name}")
