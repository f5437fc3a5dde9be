# SPDX-License-Identifier: Apache-2.0
"""Writing to the paged cache of multi-head latent attention, by itself and with the rotation before it.

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
ROTARY_LATENT_KV_WRITE: checks.Works = (
    PAGES
    | _LATENT
    | {
        "query_rope.dtype": checks.ANY_ELEMENT,
        "query_rope.shape": "[tokens, heads, R] with an R of at least 1",
        "k_rope.shape": "[tokens, {rope}] or [tokens, 1, {rope}], of query_rope's last dimension",
        "positions.dtype": "int64",
        "positions.shape": "[{query_rope.shape[0]}], one for each of query_rope's tokens",
        "positions.contiguous": "contiguous",
        "cos_sin_cache.dtype": "float32 or of query_rope's dtype, {query_rope.dtype}",
        "cos_sin_cache.shape": "[max_position, rotary_dim] with rotary_dim even and 2 to {rope}",
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


def rotary_latent_kv_write(
    positions: torch.Tensor,
    query_rope: torch.Tensor,
    k_rope: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    kv_c: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    *,
    interleaved: bool,
) -> None:
    """Rotates queries and keys in place and writes latents and rotated keys to their slots, in one launch.

    As ``rotary`` of `query_rope` and `k_rope`, then ``latent_kv_write``. Tokens without a slot are rotated too.

    Args:
        positions: int64 [tokens], rows of `cos_sin_cache`; they are not checked, since that would wait for the device.
        query_rope: [tokens, heads, R], float32, float16 or bfloat16; any strides but the last, which is 1. A slice of
            a wider query is fine.
        k_rope: [tokens, R] or [tokens, 1, R] of query_rope's dtype, with strides of its own.
        cos_sin_cache: [max_position, rotary_dim], cosines then sines, with whatever factor the model has for them,
            float32 or query_rope's dtype; rotary_dim is even and at most R, and elements behind it are kept.
        kv_c, kv_cache, slot_mapping: as for `latent_kv_write`, of query_rope's tokens and dtype.
        interleaved: pairs are (2i, 2i + 1), GPT-J's; otherwise (i, i + rotary_dim / 2), NeoX's.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    arguments = (positions, query_rope, k_rope, cos_sin_cache, kv_c, kv_cache, slot_mapping)
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.rotary_latent_kv_write(*arguments, interleaved)
        return
    op = "rotary_latent_kv_write"
    failed = _C.rotary_latent_kv_write(*checks.place(op, "query_rope", query_rope), *arguments, interleaved)
    if failed:
        checks.refuse(
            op,
            failed,
            ROTARY_LATENT_KV_WRITE,
            {
                "query_rope": query_rope,
                "positions": positions,
                "k_rope": k_rope,
                "cos_sin_cache": cos_sin_cache,
                "kv_c": kv_c,
                "kv_cache": kv_cache,
                "slot_mapping": slot_mapping,
                "rope": _last(query_rope),
                "row": _last(kv_c) + _last(query_rope),
            },
        )


def _last(tensor: object) -> int:
    """The last dimension's size; 0 of what has none."""
    return tensor.shape[-1] if isinstance(tensor, torch.Tensor) and tensor.dim() else 0
