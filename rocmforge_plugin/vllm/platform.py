# SPDX-License-Identifier: Apache-2.0
"""vLLM's CPU platform, with one change: an explicitly chosen rocmforge is honoured, or refused with its reasons."""

from __future__ import annotations

from typing import Any

from vllm.platforms import cpu_platform_plugin
from vllm.utils.import_utils import resolve_obj_by_qualname

from rocmforge_plugin import emulation
from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.log import logger

# Whichever CPU platform vLLM would have used (there is one for Zen CPUs as well).
_HostPlatform: Any = resolve_obj_by_qualname(cpu_platform_plugin() or "vllm.platforms.cpu.CpuPlatform")


class RocmForgeCpuPlatform(_HostPlatform):
    """The CPU platform that knows a second attention backend; `is_cpu()` and everything else stay as they were."""

    @classmethod
    def get_attn_backend_cls(cls, selected_backend: Any, attn_selector_config: Any, *args: Any, **kwargs: Any) -> str:
        """Class path of the backend for one layer; ValueError with the reasons when rocmforge cannot serve it."""
        if getattr(selected_backend, "name", None) != NAME:
            return str(super().get_attn_backend_cls(selected_backend, attn_selector_config, *args, **kwargs))
        reasons = selected_backend.get_class().validate_configuration(
            device_capability=None, **attn_selector_config._asdict()
        )
        if reasons:
            raise ValueError(f"Selected backend {NAME} is not valid for this configuration. Reason: {reasons}")
        emulated = emulation.target()
        where = f": {emulation.label(emulated)}" if emulated else ""
        logger.info_once("Using %s backend (selected via --attention-backend)%s.", NAME, where)
        return str(selected_backend.get_path())
