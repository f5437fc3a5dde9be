# SPDX-License-Identifier: Apache-2.0
"""The two vLLM entry points. vLLM calls them in every process, the general one possibly more than once."""

from __future__ import annotations

from typing import Any

from rocmforge_plugin import __version__
from rocmforge_plugin.vllm import BACKEND_PATH, MLA_PREFILL_PATH, NAME

# First and last minor release of vLLM that the tests ran with.
TESTED = ((0, 32), (0, 33))

_state = {"registered": False, "version_checked": False}


def backend_member() -> Any:
    """Register the backend's name with vLLM and return its enum member; safe to call again.

    vLLM pickles an enum member by its value, and a spawned engine process unpickles the configuration before it loads
    any plugin, so a member made here would not be found there. The member therefore pickles as a call of this
    function, which registers the name in the process that reads it.
    """
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    if NAME not in AttentionBackendEnum.__members__:
        register_backend(NAME, BACKEND_PATH)
        member = AttentionBackendEnum[NAME]
        member.__reduce_ex__ = lambda protocol: (backend_member, ())
    return AttentionBackendEnum[NAME]


def prefill_member() -> Any:
    """As above for attention_config.mla_prefill_backend. Nobody needs to name it: the backend brings it along."""
    from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum, register_mla_prefill_backend

    if NAME not in MLAPrefillBackendEnum.__members__:
        register_mla_prefill_backend(NAME, MLA_PREFILL_PATH)
        member = MLAPrefillBackendEnum[NAME]
        member.__reduce_ex__ = lambda protocol: (prefill_member, ())
    return MLAPrefillBackendEnum[NAME]


def check_version() -> None:
    """Warn once, naming the tested range, when vLLM's version is outside it."""
    if _state["version_checked"]:
        return
    _state["version_checked"] = True
    import vllm

    from rocmforge_plugin.vllm.log import logger

    parts = vllm.__version__.split(".")
    try:
        release = (int(parts[0]), int(parts[1]))
    except (ValueError, IndexError):
        release = None
    if release is None or not TESTED[0] <= release <= TESTED[1]:
        first, last = (".".join(map(str, version)) for version in TESTED)
        logger.warning(
            "rocmforge %s was tested with vLLM %s to %s; this is vLLM %s and may not work.",
            __version__,
            first,
            last,
            vllm.__version__,
        )


def register() -> None:
    """`vllm.general_plugins` entry point: backend names, their selection, layers, model classes."""
    if _state["registered"]:
        return
    _state["registered"] = True
    check_version()
    backend_member()
    prefill_member()
    from vllm.platforms import current_platform

    from rocmforge_plugin.vllm import selection
    from rocmforge_plugin.vllm.encoder import layers as encoder_layers
    from rocmforge_plugin.vllm.position import layers, models

    selection.adopt(current_platform)
    layers.register()
    encoder_layers.register()
    models.register()


def platform() -> None:
    """`vllm.platform_plugins` entry point: no platform, which stays vLLM's or another plugin's, but the names.

    `LLM(attention_config={"backend": "rocmforge"})` is parsed before vLLM loads the general plugins, but after it has
    resolved its platform. vllm.platforms.current_platform must not be touched here, since it is being resolved.
    """
    backend_member()
    prefill_member()
