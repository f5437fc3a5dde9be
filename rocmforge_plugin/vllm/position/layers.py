# SPDX-License-Identifier: Apache-2.0
"""Puts rocmforge's rotary layers, and its layer of latent attention, in the place of vLLM's.

ROCMFORGE_POSITION=0 leaves vLLM's own layers, and its own model classes (see `models`), in place.
"""

from __future__ import annotations

from vllm.model_executor.custom_op import op_registry_oot

from rocmforge_plugin.vllm.compile_cache import SWITCH, mark_compile_cache, switched_on
from rocmforge_plugin.vllm.log import logger


def register() -> None:
    """Replaces vLLM's layers in models built from now on. Safe to call again; a layer that another plugin has replaced
    stays that plugin's.
    """
    mark_compile_cache()
    if not switched_on():
        logger.info("%s=0: vLLM's own position layers are used", SWITCH)
        return
    try:
        from rocmforge_plugin.vllm.position import latent, rotary_layers
    except ImportError as error:  # vLLM must still start, with another backend
        logger.warning("rocmforge's position layers are off: %s", error)
        return
    for host, ours in (*rotary_layers.LAYERS.items(), *latent.LAYERS.items()):
        registered_name = host.__name__
        other = op_registry_oot.get(registered_name)
        if other is ours:
            continue
        if other is not None:
            logger.warning(
                "%s is already replaced by %s.%s, which stays; set %s=0 to silence this",
                registered_name,
                other.__module__,
                other.__name__,
                SWITCH,
            )
            continue
        host.register_oot(ours)
        ours.name = host.name  # register_oot gives it a name that vLLM's switches (-rotary_embedding) do not reach
