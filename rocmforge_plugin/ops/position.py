# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding: every form that GLM models use, and the launch that also writes the KV cache.

A pair (a, b) of a head's elements becomes (a cos - b sin, b cos + a sin). The product is computed in float32 from the
inputs as they are stored, and rounded once. Pairs are (2i, 2i + 1) when `interleaved` (GPT-J) and
(i, i + rotary_dim / 2) otherwise (NeoX); elements behind the rotary dimensions are kept bit for bit. Su et al.,
"RoFormer", 2021 (https://arxiv.org/abs/2104.09864).

Positions are indices into the table of cosines and sines. They are not checked, since that would wait for the device:
a position outside the table is the caller's error and reads memory that is not the table's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch

from .. import _C, device
from . import checks
from .checks import NO_ROWS, Rows


class _Mode(IntEnum):  # numbered as kernels/position/args.h does
    ONE = 0
    SECTIONS = 1
    INTERLEAVED = 2
    AXES = 3
    PER_TOKEN = 4


def rotary(positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None, cos_sin_cache: torch.Tensor, *,
           head_size: int, interleaved: bool, mrope_section: Sequence[int] | None = None,
           mrope_interleaved: bool = False) -> None:
    """Rotates query and key in place.

    Args:
        positions: int64 [tokens], or [3, tokens] (time, height, width) with `mrope_section`.
        query: [tokens, heads * head_size] or [tokens, heads, head_size], float32, float16 or bfloat16; any strides but
            the last, which is 1. Views of a wider buffer are fine.
        key: like `query` with its own number of heads and strides, or None.
        cos_sin_cache: [max_position, rotary_dim], cosines then sines, float32 or query's dtype; rotary_dim is even and
            at most head_size.
        head_size: elements of a head.
        interleaved: pair layout, see the module's text.
        mrope_section: pairs that take the time, height and width position; they add up to rotary_dim / 2. Without
            effect on one-dimensional positions.
        mrope_interleaved: the sections are taken in turn (t h w t h w ... t) instead of one after the other.
    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.rotary(positions, query, key, cos_sin_cache, head_size, interleaved,
                                   None if mrope_section is None else list(mrope_section), mrope_interleaved)
        return
    table = _table("rotary", positions, query, cos_sin_cache, head_size, mrope_section, mrope_interleaved)
    _rotate("rotary", query, key, query, key, head_size, interleaved, cos_sin_cache.shape[1], table)


def rotary_out(positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None, cos_sin_cache: torch.Tensor, *,
               head_size: int, interleaved: bool, mrope_section: Sequence[int] | None = None,
               mrope_interleaved: bool = False) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `rotary`, into new contiguous tensors of the inputs' shapes: what a compiled graph needs not to copy."""
    if torch.compiler.is_compiling():
        query_out, key_out = torch.ops.rocmforge.rotary_out(
            positions, query, key, cos_sin_cache, head_size, interleaved,
            None if mrope_section is None else list(mrope_section), mrope_interleaved)
        return query_out, None if key is None else key_out
    table = _table("rotary_out", positions, query, cos_sin_cache, head_size, mrope_section, mrope_interleaved)
    query_out = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    key_out = None if key is None else torch.empty(key.shape, dtype=key.dtype, device=key.device)
    _rotate("rotary_out", query, key, query_out, key_out, head_size, interleaved, cos_sin_cache.shape[1], table)
    return query_out, key_out


def rotary_2d(positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor | None, cos_sin_cache: torch.Tensor, *,
              head_size: int, interleaved: bool = False) -> None:
    """Rotates query and key in place by two positions per token, as ChatGLM-6B (v1) and GLM-130B do.

    The first half of a head's dimensions is rotated by ``positions[0]`` (the place in the text, at the mask token for
    all that is generated) and the second half by ``positions[1]`` (the place in the generated block), each half as a
    head of its own. Du et al., "GLM", 2022 (https://arxiv.org/abs/2103.10360), section 2.1.

    Args:
        positions: int64 [2, tokens].
        query, key: as for `rotary`.
        cos_sin_cache: [max_position, head_size / 2], cosines then sines, float32 or query's dtype.
        head_size: elements of a head, a multiple of 4.
        interleaved: pair layout within a half; the models use NeoX pairs.
    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.rotary_2d(positions, query, key, cos_sin_cache, head_size, interleaved)
        return
    op = "rotary_2d"
    _check_positions(op, positions, query, axes=2)
    _check_table(op, "cos_sin_cache", cos_sin_cache, query, head_size)
    if 2 * cos_sin_cache.shape[1] != head_size:
        checks.fail(op, "cos_sin_cache", checks.shape_of(cos_sin_cache),
                    f"[max_position, {head_size // 2}], half a head")
    table = _table_args(cos_sin_cache, positions, _Mode.AXES)
    _rotate(op, query, key, query, key, head_size, interleaved, cos_sin_cache.shape[1], table)


def apply_rotary(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, interleaved: bool = False) -> torch.Tensor:
    """Rotates by cosines and sines that are given per token, as vision encoders do; returns a new contiguous tensor.

    Args:
        x: [sequence, heads, head_size] or [batch, sequence, heads, head_size], float32, float16 or bfloat16; any
            strides but the last, which is 1.
        cos, sin: [sequence, rotary_dim / 2], float32 or x's dtype, contiguous in the last dimension; rotary_dim is at
            most head_size and the elements behind it are copied.
        interleaved: pair layout, see the module's text.
    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if torch.compiler.is_compiling():
        return torch.ops.rocmforge.apply_rotary(x, cos, sin, interleaved)
    op = "apply_rotary"
    kind = checks.element(op, "x", x)
    if x.dim() not in (3, 4):
        checks.fail(op, "x", checks.shape_of(x), "[sequence, heads, head_size] or [batch, sequence, heads, head_size]")
    batch, (sequence, heads, head_size) = (x.shape[0] if x.dim() == 4 else 1), x.shape[-3:]
    for name, tensor in (("cos", cos), ("sin", sin)):
        if tensor.dim() != 2 or tensor.shape[0] != sequence or not 0 < 2 * tensor.shape[1] <= head_size:
            checks.fail(op, name, checks.shape_of(tensor),
                        f"[{sequence}, rotary_dim / 2] with rotary_dim <= {head_size}")
        _check_table_layout(op, name, tensor, x)
    if cos.shape != sin.shape or cos.dtype != sin.dtype:
        checks.fail(op, "sin", f"{checks.shape_of(sin)} {sin.dtype}", f"like cos, {list(cos.shape)} {cos.dtype}")
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if x.numel() == 0:
        return out
    _, rows = checks.rows(op, "x", x if x.dim() == 3 else x[0], head_size)
    _, out_rows = checks.rows(op, "out", out if x.dim() == 3 else out[0], head_size)
    strides = (x.stride(0), out.stride(0)) if batch > 1 else (0, 0)
    table = (cos.data_ptr(), sin.data_ptr(), cos.stride(0) if sequence > 1 else 0, sin.stride(0) if sequence > 1 else 0,
             int(cos.dtype == torch.float32), 0, 0, 0, 0, _Mode.PER_TOKEN)
    _C.rotary(device.of(x), device.stream(x), kind, batch * sequence, heads, 0,
              (head_size, 2 * cos.shape[1], interleaved), table, rows, out_rows, NO_ROWS, NO_ROWS, (sequence, *strides))
    return out


def rotary_kv_write(positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                    cos_sin_cache: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor, *,
                    interleaved: bool, mrope_section: Sequence[int] | None = None, mrope_interleaved: bool = False,
                    q_norm_weight: torch.Tensor | None = None, k_norm_weight: torch.Tensor | None = None,
                    eps: float = 1e-5, query_out: torch.Tensor | None = None) -> None:
    """All that stands between the QKV product and attention, in one launch.

    Normalises query and key heads where the model does (``x / sqrt(mean(x^2) + eps) * weight`` over each head, Zhang
    and Sennrich 2019, https://arxiv.org/abs/1910.07467), rotates both, and writes keys and values to their slots. All
    of it is float32 with one rounding at the end. `key` and `value` are left as they are: the rotated key exists in the
    cache only.

    Args:
        positions: as for `rotary`.
        query: [tokens, heads * head_size] or [tokens, heads, head_size], as for `rotary`; rotated in place, or only
            read if `query_out` is given. head_size is half of the cache's last dimension.
        key, value: [tokens, kv_heads, head_size] or [tokens, kv_heads * head_size], query's dtype.
        cos_sin_cache: as for `rotary`.
        kv_cache, slot_mapping: as for `kv_write`. Tokens without a slot still have their query rotated.
        interleaved, mrope_section, mrope_interleaved: as for `rotary`.
        q_norm_weight, k_norm_weight: [head_size] contiguous, query's dtype; both or neither.
        eps: of the norm.
        query_out: a tensor like `query` that takes the rotated query, every element of it.
    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    op = "rotary_kv_write"
    if torch.compiler.is_compiling():
        rest = (interleaved, None if mrope_section is None else list(mrope_section), mrope_interleaved, q_norm_weight,
                k_norm_weight, eps)
        arguments = (positions, query, key, value, cos_sin_cache, kv_cache, slot_mapping)
        if query_out is None:
            torch.ops.rocmforge.rotary_kv_write(*arguments, *rest)
        else:
            torch.ops.rocmforge.rotary_kv_write_out(*arguments, query_out, *rest)
        return
    kind = checks.element(op, "query", query)
    if kv_cache.dim() != 4:
        checks.fail(op, "kv_cache", checks.shape_of(kv_cache), "[blocks, kv_heads, block_size, 2 * head_size]")
    head_size = kv_cache.shape[3] // 2
    table = _table(op, positions, query, cos_sin_cache, head_size, mrope_section, mrope_interleaved)
    tokens = positions.shape[-1]
    heads, query_rows = checks.rows(op, "query", query, head_size, written=query_out is None)
    kv_heads, key_rows = checks.rows(op, "key", key, head_size)
    value_heads, value_rows = checks.rows(op, "value", value, head_size)
    if value_heads != kv_heads:
        checks.fail(op, "value", checks.shape_of(value), f"of key's {kv_heads} heads")
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.shape[0] != tokens:
            checks.fail(op, name, checks.shape_of(tensor), f"of as many tokens as there are positions, {tokens}")
    for name, tensor in (("key", key), ("value", value), ("kv_cache", kv_cache)):
        checks.same_dtype(op, name, tensor, "query", query.dtype)
        checks.same_device(op, name, tensor, "query", query)
    checks.same_device(op, "slot_mapping", slot_mapping, "query", query)
    out_rows = query_rows
    if query_out is not None:
        checks.same_dtype(op, "query_out", query_out, "query", query.dtype)
        checks.same_device(op, "query_out", query_out, "query", query)
        out_heads, out_rows = checks.rows(op, "query_out", query_out, head_size, written=True)
        if out_heads != heads or query_out.shape[0] != tokens:
            checks.fail(op, "query_out", checks.shape_of(query_out), f"of query's {tokens} tokens and {heads} heads")
    weights = _norm_weights(op, q_norm_weight, k_norm_weight, head_size, query)
    pages = checks.cache(op, kv_cache, slot_mapping, kv_heads, head_size, tokens)
    _C.rotary_kv_write(device.of(query), device.stream(query), kind, tokens, heads, kv_heads,
                       (head_size, cos_sin_cache.shape[1], interleaved), table, query_rows, out_rows, key_rows,
                       value_rows, pages, *weights, eps)


def _norm_weights(op: str, q_norm_weight: torch.Tensor | None, k_norm_weight: torch.Tensor | None, head_size: int,
                  query: torch.Tensor) -> tuple[int, int]:
    if q_norm_weight is None and k_norm_weight is None:
        return 0, 0
    pointers = []
    for name, other, weight in (("q_norm_weight", "k_norm_weight", q_norm_weight),
                                ("k_norm_weight", "q_norm_weight", k_norm_weight)):
        if weight is None:
            checks.fail(op, name, "None", f"given, because {other} is")
        checks.same_dtype(op, name, weight, "query", query.dtype)
        checks.same_device(op, name, weight, "query", query)
        if weight.shape != (head_size,) or (head_size > 1 and weight.stride(0) != 1):
            checks.fail(op, name, checks.shape_of(weight), f"[{head_size}] and contiguous")
        pointers.append(weight.data_ptr())
    return pointers[0], pointers[1]


def _rotate(op: str, query: torch.Tensor, key: torch.Tensor | None, query_out: torch.Tensor,
            key_out: torch.Tensor | None, head_size: int, interleaved: bool, rotary_dim: int,
            table: tuple[int, ...]) -> None:
    tokens = query.shape[0]
    in_place = query_out is query
    kind = checks.element(op, "query", query)
    heads, query_rows = checks.rows(op, "query", query, head_size, written=in_place)
    query_out_rows = query_rows if in_place else checks.rows(op, "query_out", query_out, head_size)[1]
    key_heads, key_rows, key_out_rows = 0, NO_ROWS, NO_ROWS
    if key is not None:
        checks.same_dtype(op, "key", key, "query", query.dtype)
        checks.same_device(op, "key", key, "query", query)
        key_heads, key_rows = checks.rows(op, "key", key, head_size, written=in_place)
        if key.shape[0] != tokens:
            checks.fail(op, "key", checks.shape_of(key), f"of as many tokens as query, {tokens}")
        key_out_rows = key_rows if in_place else checks.rows(op, "key_out", key_out, head_size)[1]
    _C.rotary(device.of(query), device.stream(query), kind, tokens, heads, key_heads,
              (head_size, rotary_dim, interleaved), table, query_rows, query_out_rows, key_rows, key_out_rows,
              (max(tokens, 1), 0, 0))


def _table(op: str, positions: torch.Tensor, query: torch.Tensor, cos_sin_cache: torch.Tensor, head_size: int,
           mrope_section: Sequence[int] | None, mrope_interleaved: bool) -> tuple[int, ...]:
    axes = positions.dim() == 2
    _check_positions(op, positions, query, axes=3 if axes else 1)
    _check_table(op, "cos_sin_cache", cos_sin_cache, query, head_size)
    if not axes:
        return _table_args(cos_sin_cache, positions, _Mode.ONE)
    pairs = cos_sin_cache.shape[1] // 2
    if mrope_section is None or len(mrope_section) != 3 or sum(mrope_section) != pairs or min(mrope_section) < 0:
        checks.fail(op, "mrope_section", mrope_section,
                    f"three counts that add up to rotary_dim / 2, {pairs}, since positions are [3, tokens]")
    time, height, width = mrope_section
    if mrope_interleaved:
        return _table_args(cos_sin_cache, positions, _Mode.INTERLEAVED, 3 * height, 3 * width)
    return _table_args(cos_sin_cache, positions, _Mode.SECTIONS, time, time + height)


def _table_args(cos_sin_cache: torch.Tensor, positions: torch.Tensor, mode: _Mode, first: int = 0,
                second: int = 0) -> tuple[int, ...]:
    cos = cos_sin_cache.data_ptr()
    sin = cos + cos_sin_cache.shape[1] // 2 * cos_sin_cache.element_size()
    stride = cos_sin_cache.stride(0) if cos_sin_cache.shape[0] > 1 else 0
    return (cos, sin, stride, stride, int(cos_sin_cache.dtype == torch.float32), positions.data_ptr(),
            positions.stride(0) if positions.dim() == 2 else 0, first, second, mode)


def _check_positions(op: str, positions: torch.Tensor, query: torch.Tensor, axes: int) -> None:
    if positions.dtype != torch.int64:
        raise TypeError(f"{op}: positions is {positions.dtype}; it must be int64")
    checks.same_device(op, "positions", positions, "query", query)
    tokens = query.shape[0] if query.dim() else 0
    shape = [tokens] if axes == 1 else [axes, tokens]
    if list(positions.shape) != shape or (tokens > 1 and positions.stride(-1) != 1):
        wanted = f"{shape}" if op == "rotary_2d" else f"[{tokens}] or [3, {tokens}]"
        checks.fail(op, "positions", checks.shape_of(positions), f"{wanted}, contiguous over query's tokens")


def _check_table(op: str, name: str, table: torch.Tensor, query: torch.Tensor, head_size: int) -> None:
    if table.dim() != 2 or table.shape[1] % 2 or not 0 < table.shape[1] <= head_size:
        checks.fail(op, name, checks.shape_of(table), f"[max_position, rotary_dim], rotary_dim even, 2 to {head_size}")
    _check_table_layout(op, name, table, query)


def _check_table_layout(op: str, name: str, table: torch.Tensor, rows: torch.Tensor) -> None:
    if table.dtype != torch.float32 and table.dtype != rows.dtype:
        raise TypeError(f"{op}: {name} is {table.dtype}; it must be float32 or {rows.dtype}")
    checks.same_device(op, name, table, "the rows", rows)
    if table.shape[1] > 1 and table.stride(1) != 1:
        checks.fail(op, name, checks.shape_of(table), "contiguous in its last dimension (stride 1)")


__all__ = ["Rows", "apply_rotary", "rotary", "rotary_2d", "rotary_kv_write", "rotary_out"]
