# SPDX-License-Identifier: Apache-2.0
"""Writing to the paged KV cache."""

from __future__ import annotations

import torch

from .. import _C, device
from . import checks

_OP = "kv_write"


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
    kind = checks.element(_OP, "key", key)
    if key.dim() != 3:
        checks.fail(_OP, "key", checks.shape_of(key), "[tokens, kv_heads, head_size]")
    if value.shape != key.shape:
        checks.fail(_OP, "value", checks.shape_of(value), f"of key's shape, {list(key.shape)}")
    tokens, heads, head_size = key.shape
    checks.same_dtype(_OP, "value", value, "key", key.dtype)
    checks.same_dtype(_OP, "kv_cache", kv_cache, "key", key.dtype)
    for name, tensor in (("value", value), ("kv_cache", kv_cache), ("slot_mapping", slot_mapping)):
        checks.same_device(_OP, name, tensor, "key", key)
    _, key_rows = checks.rows(_OP, "key", key, head_size)
    _, value_rows = checks.rows(_OP, "value", value, head_size)
    pages = checks.cache(_OP, kv_cache, slot_mapping, heads, head_size, tokens)
    _C.kv_write(device.of(key), device.stream(key), kind, tokens, heads, head_size, key_rows, value_rows, pages)
