# SPDX-License-Identifier: Apache-2.0
"""rocmforge's operations on torch tensors, on AMD and NVIDIA GPUs and on the CPU; vLLM is not needed.

They launch on torch's current stream, allocate nothing that is not returned, and never wait for the device, so they may
be captured in a graph. All but attention, which compiled code calls through vLLM's layer, are registered as
``torch.ops.rocmforge.*`` too.
"""

from . import library  # noqa: F401  registers torch.ops.rocmforge.*
from .attention import paged_attention
from .kv_cache import kv_write
from .latent import latent_attention
from .latent_cache import latent_kv_write, rotary_latent_kv_write
from .mask import causal_mask
from .planner import AttentionPlan, AttentionPlanner
from .position import apply_rotary, rotary, rotary_2d, rotary_kv_write, rotary_out
from .varlen import varlen_attention

__all__ = [
    "AttentionPlan",
    "AttentionPlanner",
    "apply_rotary",
    "causal_mask",
    "kv_write",
    "latent_attention",
    "latent_kv_write",
    "paged_attention",
    "rotary",
    "rotary_2d",
    "rotary_kv_write",
    "rotary_latent_kv_write",
    "rotary_out",
    "varlen_attention",
]
