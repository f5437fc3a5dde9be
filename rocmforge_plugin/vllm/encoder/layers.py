# SPDX-License-Identifier: Apache-2.0
"""Puts rocmforge's layer in the place of vLLM's attention of encoders, and of the layers derived from it.

vLLM looks a replacement up by the name of the very class that is made, so that a subclass (Whisper's encoder has one)
needs one of its own; it gets it where its module defines it.
"""

from __future__ import annotations

from typing import Any

from vllm.model_executor.custom_op import op_registry_oot

from rocmforge_plugin.vllm.log import logger


def register() -> None:
    """Replaces the layer in models built from now on. Safe to call again; a layer that another plugin has replaced
    stays that plugin's.
    """
    try:
        from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention

        from rocmforge_plugin.vllm.encoder.layer import EncoderLayer, RocmForgeMMEncoderAttention
    except ImportError as error:  # vLLM must still start, with another backend
        logger.warning("rocmforge's attention of encoders is off: %s", error)
        return
    if not _replace(MMEncoderAttention, RocmForgeMMEncoderAttention):
        return

    def follow(kind: Any, /, **options: Any) -> None:
        super(MMEncoderAttention, kind).__init_subclass__(**options)
        if not issubclass(kind, EncoderLayer):
            _replace(kind, type(f"RocmForge{kind.__name__}", (EncoderLayer, kind), {}))

    for kind in MMEncoderAttention.__subclasses__():
        follow(kind)
    MMEncoderAttention.__init_subclass__ = classmethod(follow)


def _replace(host: Any, ours: Any) -> bool:
    """Whether `ours` has the place of a layer of vLLM's from now on."""
    other = op_registry_oot.get(host.__name__)
    if other is not None:
        if other is not ours:
            logger.warning(
                "%s is already replaced by %s.%s, which stays", host.__name__, other.__module__, other.__name__
            )
        return False
    host.register_oot(ours)
    ours.name = host.name  # register_oot gives it a name that vLLM's switches (-mm_encoder_attn) do not reach
    return True
