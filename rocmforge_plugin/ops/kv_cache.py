# SPDX-License-Identifier: Apache-2.0
"""Writing to the paged KV cache."""

from __future__ import annotations

import torch

from .. import _C
from . import checks

PAGES: checks.Works = {
    "kv_cache.slots": "of fewer than 2^31 slots, blocks * block_size",
    "slot_mapping.dtype": "int64",
    "slot_mapping.shape": "[slots] with at most as many slots as tokens, {first.shape[0]}",
    "slot_mapping.contiguous": "contiguous",
}
WORKS: checks.Works = {
    **PAGES,
    "key.dtype": checks.ANY_ELEMENT,
    "key.shape": "[tokens, kv_heads, head_size] with a head_size of at least 1",
    "value.shape": "of key's shape, {key.shape}",
    "kv_cache.shape": "[blocks, {key.shape[1]}, block_size, 2 * {key.shape[2]}], keys, then values",
}


def kv_write(key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor) -> None:
    """Writes keys and values to their slots, bit for bit.

    ``kv_cache[slot // block_size, h, slot % block_size] = cat(key[t, h], value[t, h])`` for ``slot = slot_mapping[t]``.

    Args:
        key: [tokens, kv_heads, head_size], float32, float16 or bfloat16, any strides but the last, which is 1.
        value: like `key`, with strides of its own.
        kv_cache: [blocks, kv_heads, block_size, 2 * head_size] of key's dtype, any strides but the last, which is 1.
        slot_mapping: int64 [slots], slots <= tokens; keys behind them are padding. A slot outside the cache, such as
            -1, is padding too and not written. No slot may come twice.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.kv_write(key, value, kv_cache, slot_mapping)
        return
    failed = _C.kv_write(*checks.place("kv_write", "key", key), key, value, kv_cache, slot_mapping)
    if failed:
        checks.refuse(
            "kv_write", failed, WORKS, {"key": key, "value": value, "kv_cache": kv_cache, "slot_mapping": slot_mapping}
        )
