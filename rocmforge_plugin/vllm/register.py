# SPDX-License-Identifier: Apache-2.0
"""The two vLLM entry points. vLLM calls them in every process, the general one possibly more than once."""

from __future__ import annotations

from typing import Any

from rocmforge_plugin import __version__
from rocmforge_plugin.vllm import NAME

BACKEND_PATH = "rocmforge_plugin.vllm.backend.backend.RocmForgeBackend"
PLATFORM_PATH = "rocmforge_plugin.vllm.platform.RocmForgeCpuPlatform"
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


def adopt_cpu_platform() -> None:
    """Make the flag count on a CPU platform that was resolved without the platform entry point.

    With VLLM_TARGET_DEVICE=cpu vLLM loads no platform plugin, and its own CPU platform would quietly run CPU_ATTN for
    `--attention-backend rocmforge`. The platform object is shared by every module that imported it, so its class is
    what changes.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from rocmforge_plugin.vllm.platform import RocmForgeCpuPlatform

        if not isinstance(current_platform, RocmForgeCpuPlatform):
            current_platform.__class__ = RocmForgeCpuPlatform


def register() -> None:
    """`vllm.general_plugins` entry point: backend name, position layer, model classes."""
    if _state["registered"]:
        return
    _state["registered"] = True
    check_version()
    backend_member()
    adopt_cpu_platform()
    from rocmforge_plugin.vllm.position import layers, models

    layers.register()
    models.register()


def platform() -> str | None:
    """`vllm.platform_plugins` entry point: the CPU platform's class on a CPU build, None on every other one.

    It also registers the backend's name: `LLM(attention_config={"backend": "rocmforge"})` is parsed before vLLM loads
    the general plugins, but after it has resolved its platform. vllm.platforms.current_platform must not be touched
    here, since it is being resolved.
    """
    from vllm.platforms import cpu_platform_plugin

    backend_member()
    return PLATFORM_PATH if cpu_platform_plugin() else None
