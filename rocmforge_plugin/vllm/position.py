# SPDX-License-Identifier: Apache-2.0
"""Puts rocmforge's rotary layers in the place of vLLM's.

ROCMFORGE_POSITION=0 leaves vLLM's own layers, and its own model classes (see `models`), in place.
"""
from __future__ import annotations

import os

from vllm import envs
from vllm.config import get_current_vllm_config_or_none
from vllm.model_executor.custom_op import op_registry_oot

from rocmforge_plugin import __version__
from rocmforge_plugin.vllm.log import logger

SWITCH = "ROCMFORGE_POSITION"


def switched_on() -> bool:
    """Whether the environment leaves the position layer on, which is the default."""
    return os.environ.get(SWITCH, "1") != "0"


def _compile_factor() -> str:
    """What of this plugin every compiled graph of the process depends on: its version and the layers it replaced."""
    ours = sorted(name for name, layer in op_registry_oot.items() if layer.__module__.startswith("rocmforge_plugin."))
    return f"{__version__} {' '.join(ours)}" if switched_on() else "0"


def mark_compile_cache() -> None:
    """Makes the switch one of the environment variables that vLLM hashes with every graph.

    vLLM hashes its configuration, which replaced layers are not a part of: without this a process with the plugin and
    one without would load each other's graphs. `salt_compile_cache` alone does not do: a draft model that finds the
    target's rotary layer built never builds one, so its configuration would stay unmarked.
    """
    variables = getattr(envs, "environment_variables", None)
    if isinstance(variables, dict):
        variables[SWITCH] = _compile_factor
    else:
        logger.warning("vllm.envs.environment_variables is gone, so rocmforge cannot mark vLLM's compile cache; set "
                       "VLLM_DISABLE_COMPILE_CACHE=1 when you switch rocmforge on or off")


def salt_compile_cache(**facts: object) -> None:
    """Puts what was decided for the model that is being built (a layer that is off on this device, a fused launch that
    is not legal) into the hash of vLLM's compile cache. `additional_config` is hashed when the first graph is looked
    up, which comes after the model is built.
    """
    config = get_current_vllm_config_or_none()
    if config is None:
        return
    if isinstance(config.additional_config, dict):
        config.additional_config.update({f"rocmforge_{name}": value for name, value in facts.items()})
    else:
        logger.warning_once("additional_config is %s, not a dict, so rocmforge cannot mark vLLM's compile cache; set "
                            "VLLM_DISABLE_COMPILE_CACHE=1 when you switch rocmforge on or off",
                            type(config.additional_config).__name__)


def register() -> None:
    """Replaces vLLM's rotary layers in models built from now on. Safe to call again; a layer that another plugin has
    replaced stays that plugin's."""
    mark_compile_cache()
    if not switched_on():
        logger.info("%s=0: vLLM's own position layers are used", SWITCH)
        return
    try:
        from rocmforge_plugin.vllm.rotary_layers import LAYERS
    except ImportError as error:  # vLLM must still start, with another backend
        logger.warning("rocmforge's position layers are off: %s", error)
        return
    for host, ours in LAYERS.items():
        registered_name = host.__name__
        other = op_registry_oot.get(registered_name)
        if other is ours:
            continue
        if other is not None:
            logger.warning("%s is already replaced by %s.%s, which stays; set %s=0 to silence this", registered_name,
                           other.__module__, other.__name__, SWITCH)
            continue
        host.register_oot(ours)
        ours.name = host.name  # register_oot gives it a name that vLLM's switches (-rotary_embedding) do not reach
