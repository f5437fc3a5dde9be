# SPDX-License-Identifier: Apache-2.0
"""Writing to the paged cache of multi-head latent attention.

Of a token it holds one row for all heads: L elements that the keys and values of all heads are made of, the latent, and
behind them R elements of the key, shared by all heads, that carry the position (none in models without). DeepSeek-AI,
"DeepSeek-V2", 2024 (https://arxiv.org/abs/2405.04434), section 2.1.
"""

from __future__ import annotations

import torch

from .. import _C
from . import checks
from .kv_cache import PAGES

_LATENT: checks.Works = {
    "kv_c.shape": "[tokens, L] with an L of at least 1",
    "kv_cache.shape": "[blocks, block_size, {row}], kv_c's last dimension, then k_rope's",
}
LATENT_KV_WRITE: checks.Works = (
    PAGES
    | _LATENT
    | {
        "kv_c.dtype": checks.ANY_ELEMENT,
        "k_rope.shape": "[tokens, R] or [tokens, 1, R], or None where the cache is [blocks, block_size, L]",
    }
)


def latent_kv_write(
    kv_c: torch.Tensor, k_rope: torch.Tensor | None, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
) -> None:
    """Writes latents and the rotated parts of their keys to their slots, bit for bit, in one launch.

    ``kv_cache[slot // block_size, slot % block_size] = cat(kv_c[t], k_rope[t])`` for ``slot = slot_mapping[t]``.

    Args:
        kv_c: [tokens, L], float32, float16 or bfloat16, any strides but the last, which is 1.
        k_rope: [tokens, R] or [tokens, 1, R] of kv_c's dtype, with strides of its own; None where R is 0.
        kv_cache: [blocks, block_size, L + R] of kv_c's dtype, any strides but the last, which is 1.
        slot_mapping: int64 [slots], slots <= tokens; tokens behind them are padding. A slot outside the cache, such as
            -1, is padding too and not written. In a slot that comes twice, each element is that of one of its tokens.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.latent_kv_write(kv_c, k_rope, kv_cache, slot_mapping)
        return
    op = "latent_kv_write"
    failed = _C.latent_kv_write(*checks.place(op, "kv_c", kv_c), kv_c, k_rope, kv_cache, slot_mapping)
    if failed:
        checks.refuse(
            op,
            failed,
            LATENT_KV_WRITE,
            {
                "kv_c": kv_c,
                "k_rope": k_rope,
                "kv_cache": kv_cache,
                "slot_mapping": slot_mapping,
                "row": _last(kv_c) + _last(k_rope),
            },
        )


def _last(tensor: object) -> int:
    """The last dimension's size; 0 of what has none."""
    return tensor.shape[-1] if isinstance(tensor, torch.Tensor) and tensor.dim() else 0
