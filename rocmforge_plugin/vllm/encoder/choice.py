# SPDX-License-Identifier: Apache-2.0
"""Whether an encoder's layer is rocmforge's, which is decided as a model is built: what the user chose, and what the
kernels serve.
"""

from __future__ import annotations

from typing import Any

from vllm.config import get_current_vllm_config_or_none

from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.backend.eligibility import problem_refusals
from rocmforge_plugin.vllm.backend.target import device_refusals, target
from rocmforge_plugin.vllm.log import logger

SWITCH = "-mm_encoder_attn"  # of vLLM's compilation_config.custom_ops
OTHER = "leave out --mm-encoder-attn-backend and vLLM picks an attention that does"


def _name(backend: Any) -> str | None:
    return getattr(backend, "name", None)


def named() -> str | None:
    """The backend that the user names for encoders alone (--mm-encoder-attn-backend)."""
    config = get_current_vllm_config_or_none()
    multimodal = getattr(getattr(config, "model_config", None), "multimodal_config", None)
    return _name(getattr(multimodal, "mm_encoder_attn_backend", None))


def chosen() -> bool:
    """Whether encoders of the model that is being built are to be rocmforge's.

    The backend for encoders decides where one is named, else that of the model, and neither with the op switched off.
    """
    config = get_current_vllm_config_or_none()
    if config is None or SWITCH in config.compilation_config.custom_ops:
        return False
    return (named() or _name(config.attention_config.backend)) == NAME


def refusals(problem: Problem, host: Any, quantized: bool) -> list[str]:
    """Why a layer cannot be served, empty when it can.

    Args:
        problem: what it computes.
        host: the backend that vLLM has for it, which decides in what units the model counts tokens.
        quantized: whether queries, keys and values are to be rounded to fp8.
    """
    found = problem_refusals(problem, target())
    if _name(host) == "FLASHINFER":
        found.append("sequences are cut as FLASHINFER wants them; use another --mm-encoder-attn-backend")
    if quantized:
        found.append("attention of encoders in fp8 is not supported; leave out --mm-encoder-attn-dtype")
    return found or device_refusals(problem)


def decide(problem: Problem, host: Any, quantized: bool) -> bool:
    """Whether the kernels are used; the log says so, or why not.

    Raises ValueError where the user named rocmforge for encoders and it has no kernel.
    """
    if not chosen():
        return False
    reasons = refusals(problem, host, quantized)
    if not reasons:
        logger.info_once("Using %s for MMEncoderAttention.", NAME)
        return True
    if named() == NAME:
        raise ValueError(f"rocmforge cannot serve this encoder's attention: {'; '.join(reasons)}; {OTHER}")
    logger.warning_once("vLLM's own attention (%s) is used in the encoder: %s", _name(host), "; ".join(reasons))
    return False
