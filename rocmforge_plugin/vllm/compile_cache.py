# SPDX-License-Identifier: Apache-2.0
"""Tells vLLM's compile cache what of this plugin a compiled graph depends on: ROCMFORGE_POSITION, which switches the
position layers, and what was decided for the model that is being built.
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
        logger.warning(
            "vllm.envs.environment_variables is gone, so rocmforge cannot mark vLLM's compile cache; set "
            "VLLM_DISABLE_COMPILE_CACHE=1 when you switch rocmforge on or off"
        )


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
        logger.warning_once(
            "additional_config is %s, not a dict, so rocmforge cannot mark vLLM's compile cache; set "
            "VLLM_DISABLE_COMPILE_CACHE=1 when you switch rocmforge on or off",
            type(config.additional_config).__name__,
        )
