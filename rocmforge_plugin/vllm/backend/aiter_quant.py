# SPDX-License-Identifier: Apache-2.0
"""A stand-in for an op of AITER's that vLLM's pass for head norms names, so that the pass can be made without AITER."""

from __future__ import annotations

import torch
from vllm.utils.torch_utils import direct_register_custom_op

_QUANT = "rocm_aiter_per_tensor_quant"


def _quant_without_aiter(out: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, is_dynamic: bool) -> None:
    raise RuntimeError(f"{_QUANT} was called, and AITER is not installed")


def declare_quant_op() -> None:
    """Lets vLLM's pass for head norms be made where AITER is not installed.

    For every layer it also traces the pattern of an fp8 query, which names an op that vLLM registers with AITER only,
    and without it the engine would not start. Nothing matches that pattern here: this backend takes no fp8 query.
    """
    if not hasattr(torch.ops.vllm, _QUANT):
        direct_register_custom_op(
            _QUANT,
            _quant_without_aiter,
            mutates_args=["out", "scale"],
            fake_impl=lambda out, x, scale, is_dynamic: None,
        )
