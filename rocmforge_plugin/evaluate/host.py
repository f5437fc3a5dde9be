# SPDX-License-Identifier: Apache-2.0
"""vLLM's own attention as the reference: which backend stands for it, and what must be set for it to answer rightly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

#: vLLM's own backends: of attention that keeps keys and values, and of latent attention.
ON_CPU, ON_GPU = ("CPU_ATTN", "CPU_MLA"), ("TRITON_ATTN", "TRITON_MLA")
ROTARY = "rotary_embedding"


@dataclass(frozen=True)
class Host:
    """vLLM on this machine with one model.

    latent: the model's architecture has latent attention. as_latent: vLLM will run it so (VLLM_MLA_DISABLE=1 makes it
    keep keys and values).
    """

    cpu: bool
    latent: bool
    as_latent: bool

    @property
    def backend(self) -> str:
        """vLLM's name for the backend to compare with."""
        return (ON_CPU if self.cpu else ON_GPU)[self.as_latent]

    def corrected(self, engine: Mapping[str, Any]) -> dict[str, Any]:
        """`engine`, arguments of vLLM's LLM, so that vLLM's own layers answer rightly.

        The rotary operation of its CPU extension takes the heads of a tensor of three dimensions for tokens, and a
        latent's rope slices come to it as such; the same layer in torch is right.
        """
        made = dict(engine)
        if self.cpu and self.latent:
            compilation = dict(made.get("compilation_config") or {})
            ops = list(compilation.get("custom_ops", ()))
            if "none" not in ops and f"-{ROTARY}" not in ops:
                made["compilation_config"] = {**compilation, "custom_ops": [*ops, f"-{ROTARY}"]}
        return made


def host(model: str, engine: Mapping[str, Any]) -> Host:
    """What vLLM is to `model`, a checkpoint folder or hub name. engine: arguments of vLLM's LLM."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.platforms import current_platform

    # lm-eval takes some arguments for itself.
    known = {one.name for one in fields(EngineArgs)}
    given = {name: value for name, value in engine.items() if name in known}
    config = EngineArgs(**{**given, "model": model}).create_model_config()
    return Host(current_platform.is_cpu(), config.is_deepseek_mla, config.use_mla)
