# SPDX-License-Identifier: Apache-2.0
"""vLLM's platform, whichever it is, with one change: an explicitly chosen rocmforge is honoured, for both kinds of
attention and with all that the choice entails, or refused with its reasons.
"""

from __future__ import annotations

from typing import Any

from vllm.config import get_current_vllm_config_or_none
from vllm.utils.import_utils import resolve_obj_by_qualname
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from rocmforge_plugin import emulation
from rocmforge_plugin.vllm import BACKEND_PATH, MLA_PATH, MLA_PREFILL_PATH, NAME
from rocmforge_plugin.vllm.log import logger

MLA_KIND = "mla_attention"  # in attention_config.backend_per_kind, which goes before attention_config.backend
CPU_BLOCK_SIZE = 128  # what vLLM's CPU platform takes where neither the user nor its own MLA kernel wants another


def serves_mla(config: Any) -> bool:
    """Whether the user's choice for layers of latent attention is rocmforge."""
    if config is None:
        return False
    choices = config.attention_config
    return getattr(choices.backend_per_kind.get(MLA_KIND, choices.backend), "name", None) == NAME


_Host: Any = object  # in the adopted class, vLLM's platform comes after these


class Selection(_Host):
    """One name for two classes, by the kind of layer; vLLM's own selection resolves a name to one class."""

    @classmethod
    def get_attn_backend_cls(
        cls, selected_backend: Any, attn_selector_config: Any, num_heads: int | None = None, **options: Any
    ) -> str:
        """Class path of the backend for one layer; ValueError with the reasons when rocmforge cannot serve it."""
        if getattr(selected_backend, "name", None) != NAME:
            return str(super().get_attn_backend_cls(selected_backend, attn_selector_config, num_heads, **options))
        layer = attn_selector_config._asdict()
        path = BACKEND_PATH
        if layer["use_mla"]:
            path = MLA_PATH
            layer["num_heads"] = num_heads
        reasons = resolve_obj_by_qualname(path).validate_configuration(device_capability=None, **layer)
        if reasons:
            raise ValueError(f"Selected backend {NAME} is not valid for this configuration. Reason: {reasons}")
        emulated = emulation.target()
        where = f": {emulation.label(emulated)}" if emulated else ""
        kind = " for latent attention" if layer["use_mla"] else ""
        logger.info_once("Using %s backend%s (selected via --attention-backend)%s.", NAME, kind, where)
        return path

    @classmethod
    def get_vit_attn_backend(cls, head_size: int, dtype: Any, backend: Any = None) -> Any:
        """As vLLM's, which knows names of its own only: by what it picks itself, models prepare their encoder's batch.

        The encoder's layer asks anew what the user named.
        """
        ours = getattr(backend, "name", None) == NAME
        return super().get_vit_attn_backend(head_size, dtype, None if ours else backend)

    @classmethod
    def get_mla_prefill_backend_cls(cls, mla_selector_config: Any) -> Any:
        """Class of the prefill of latent attention; vLLM asks where the user names none."""
        if not serves_mla(get_current_vllm_config_or_none()):
            return super().get_mla_prefill_backend_cls(mla_selector_config)
        chosen = resolve_obj_by_qualname(MLA_PREFILL_PATH)
        reasons = chosen.validate_configuration(None, mla_selector_config)
        if reasons:
            raise ValueError(f"{NAME} has no MLA prefill for this configuration. Reason: {reasons}")
        return chosen

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """As vLLM's; a drafter with latent attention gets the same backend, unless the user names one for it.

        vLLM's V1 runner otherwise chooses anew for the drafter, which on most AMD GPUs finds no prefill for it.
        """
        super().check_and_update_config(vllm_config)
        speculative = vllm_config.speculative_config
        drafter = getattr(speculative, "draft_model_config", None)
        latent = drafter is not None and drafter.use_mla
        if latent and serves_mla(vllm_config) and speculative.attention_backend is None:
            speculative.attention_backend = AttentionBackendEnum[NAME]


class CpuSettings(Selection):
    """On the CPU also what vLLM's own kernel of latent attention does without there, and rocmforge's does not."""

    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        """As vLLM's, after which the user's block size, chunked prefill and prefix caching are as they were."""
        model, cache, scheduler = vllm_config.model_config, vllm_config.cache_config, vllm_config.scheduler_config
        chunked, tokens = scheduler.enable_chunked_prefill, scheduler.max_num_batched_tokens
        prefixes, block_size = cache.enable_prefix_caching, cache.block_size
        super().check_and_update_config(vllm_config)
        if model is None or not model.use_mla or not serves_mla(vllm_config):
            return
        if block_size == cache.DEFAULT_BLOCK_SIZE and not cache.user_specified_block_size:
            block_size = CPU_BLOCK_SIZE
        scheduler.enable_chunked_prefill, scheduler.max_num_batched_tokens = chunked, tokens
        cache.enable_prefix_caching, cache.block_size = prefixes, block_size
        logger.info_once(
            "%s serves latent attention with what was asked for: block size %d, chunked prefill %s, prefix caching %s.",
            NAME,
            block_size,
            *("on" if asked else "off" for asked in (chunked, prefixes)),
        )


def adopt(platform: Any) -> None:
    """Gives vLLM's platform the selection above; safe to call again.

    The platform object is shared by every module that imported it, so its class is what changes. As a platform plugin
    of its own it would take the only place that vLLM has for one.
    """
    if not isinstance(platform, Selection):
        kind = type(platform)
        added = CpuSettings if platform.is_cpu() else Selection
        platform.__class__ = type(f"RocmForge{kind.__name__}", (added, kind), {})
