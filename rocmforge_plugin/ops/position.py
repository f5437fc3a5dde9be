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

import torch

from .. import _C
from . import checks
from .kv_cache import PAGES

_ROWS = "[tokens, heads, {head_size}] or [tokens, heads * {head_size}]"
_ROTATION: checks.Works = {
    "query.dtype": checks.ANY_ELEMENT,
    "query.shape": _ROWS,
    "key.shape": _ROWS,
    "positions.dtype": "int64",
    "positions.shape": "[{query.shape[0]}] or [3, {query.shape[0]}], one for each of query's tokens",
    "positions.contiguous": "contiguous over query's tokens",
    "cos_sin_cache.dtype": "float32 or of query's dtype, {query.dtype}",
    "cos_sin_cache.shape": "[max_position, rotary_dim] with rotary_dim even and 2 to {head_size}",
    "mrope_section.sum": "three counts that add up to rotary_dim / 2, {cos_sin_cache.shape[1]} / 2, since positions "
    "are [3, tokens]",
}
ROTARY: checks.Works = _ROTATION | {"head_size.least": "at least 1"}
ROTARY_2D: checks.Works = ROTARY | {
    "positions.shape": "[2, {query.shape[0]}], two for each of query's tokens",
    "cos_sin_cache.shape": "[max_position, {head_size} / 2], half a head, of an even number of elements",
}
_PER_TOKEN = "[sequence, rotary_dim / 2] for x's sequence and rotary_dim <= head_size, as x is {x.shape}"
APPLY_ROTARY: checks.Works = {
    "x.dtype": checks.ANY_ELEMENT,
    "x.shape": "[sequence, heads, head_size] or [batch, sequence, heads, head_size]",
    "cos.dtype": "float32 or of x's dtype, {x.dtype}",
    "sin.dtype": "float32 or of x's dtype, {x.dtype}",
    "cos.shape": _PER_TOKEN,
    "sin.shape": _PER_TOKEN,
    "sin.like_cos": "like cos, {cos.shape} of {cos.dtype}",
}
_WEIGHT = "[{head_size}] and contiguous"
ROTARY_KV_WRITE: checks.Works = (
    _ROTATION
    | PAGES
    | {
        "kv_cache.dims": "[blocks, kv_heads, block_size, 2 * head_size]",
        "kv_cache.shape": "[blocks, kv_heads, block_size, 2 * {head_size}] for key's heads, as key is {key.shape}",
        "value.shape": _ROWS,
        "query_out.shape": _ROWS,
        "value.heads": "of key's heads, as key is {key.shape}",
        "query_out.heads": "of query's heads, as query is {query.shape}",
        "q_norm_weight.pair": "given, because k_norm_weight is",
        "k_norm_weight.pair": "given, because q_norm_weight is",
        "q_norm_weight.shape": _WEIGHT,
        "k_norm_weight.shape": _WEIGHT,
        "eps.range": "finite and at least 0",
    }
)


def rotary(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos_sin_cache: torch.Tensor,
    *,
    head_size: int,
    interleaved: bool,
    mrope_section: Sequence[int] | None = None,
    mrope_interleaved: bool = False,
) -> None:
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
        torch.ops.rocmforge.rotary(
            positions,
            query,
            key,
            cos_sin_cache,
            head_size,
            interleaved,
            None if mrope_section is None else list(mrope_section),
            mrope_interleaved,
        )
        return
    _rotate(
        "rotary",
        ROTARY,
        positions,
        query,
        key,
        None,
        None,
        cos_sin_cache,
        head_size,
        interleaved,
        mrope_section,
        mrope_interleaved,
    )


def rotary_out(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos_sin_cache: torch.Tensor,
    *,
    head_size: int,
    interleaved: bool,
    mrope_section: Sequence[int] | None = None,
    mrope_interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As `rotary`, into new contiguous tensors of the inputs' shapes: what a compiled graph needs not to copy."""
    if torch.compiler.is_compiling():
        query_out, key_out = torch.ops.rocmforge.rotary_out(
            positions,
            query,
            key,
            cos_sin_cache,
            head_size,
            interleaved,
            None if mrope_section is None else list(mrope_section),
            mrope_interleaved,
        )
        return query_out, None if key is None else key_out
    query_out = checks.empty_like("rotary_out", "query", query)
    key_out = None if key is None else checks.empty_like("rotary_out", "key", key)
    _rotate(
        "rotary_out",
        ROTARY,
        positions,
        query,
        key,
        query_out,
        key_out,
        cos_sin_cache,
        head_size,
        interleaved,
        mrope_section,
        mrope_interleaved,
    )
    return query_out, key_out


def rotary_2d(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    cos_sin_cache: torch.Tensor,
    *,
    head_size: int,
    interleaved: bool = False,
) -> None:
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
    _rotate(
        "rotary_2d",
        ROTARY_2D,
        positions,
        query,
        key,
        None,
        None,
        cos_sin_cache,
        head_size,
        interleaved,
        None,
        False,
        halves=True,
    )


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
    out = checks.empty_like(op, "x", x)
    failed = _C.apply_rotary(*checks.place(op, "x", x), x, cos, sin, out, interleaved)
    if failed:
        checks.refuse(op, failed, APPLY_ROTARY, {"x": x, "cos": cos, "sin": sin, "out": out})
    return out


def rotary_kv_write(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    *,
    interleaved: bool,
    mrope_section: Sequence[int] | None = None,
    mrope_interleaved: bool = False,
    q_norm_weight: torch.Tensor | None = None,
    k_norm_weight: torch.Tensor | None = None,
    eps: float = 1e-5,
    query_out: torch.Tensor | None = None,
) -> None:
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
        rest = (
            interleaved,
            None if mrope_section is None else list(mrope_section),
            mrope_interleaved,
            q_norm_weight,
            k_norm_weight,
            eps,
        )
        arguments = (positions, query, key, value, cos_sin_cache, kv_cache, slot_mapping)
        if query_out is None:
            torch.ops.rocmforge.rotary_kv_write(*arguments, *rest)
        else:
            torch.ops.rocmforge.rotary_kv_write_out(*arguments, query_out, *rest)
        return
    failed = _C.rotary_kv_write(
        *checks.place(op, "query", query),
        positions,
        query,
        key,
        value,
        cos_sin_cache,
        kv_cache,
        slot_mapping,
        interleaved,
        mrope_section,
        mrope_interleaved,
        q_norm_weight,
        k_norm_weight,
        eps,
        query_out,
    )
    if failed:
        sizes = list(getattr(kv_cache, "shape", ()))  # what failed may be that it is no tensor, or of other dimensions
        checks.refuse(
            op,
            failed,
            ROTARY_KV_WRITE,
            {
                "query": query,
                "key": key,
                "value": value,
                "positions": positions,
                "cos_sin_cache": cos_sin_cache,
                "kv_cache": kv_cache,
                "slot_mapping": slot_mapping,
                "mrope_section": mrope_section,
                "eps": eps,
                "q_norm_weight": q_norm_weight,
                "k_norm_weight": k_norm_weight,
                "query_out": query_out,
                "head_size": sizes[3] // 2 if len(sizes) == 4 else 0,
            },
        )


def _rotate(
    op: str,
    works: checks.Works,
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    query_out: torch.Tensor | None,
    key_out: torch.Tensor | None,
    cos_sin_cache: torch.Tensor,
    head_size: int,
    interleaved: bool,
    mrope_section: Sequence[int] | None,
    mrope_interleaved: bool,
    halves: bool = False,
) -> None:
    """Rotates query and key, in place where there is no tensor to write to."""
    failed = _C.rotary(
        *checks.place(op, "query", query),
        positions,
        query,
        key,
        query_out,
        key_out,
        cos_sin_cache,
        head_size,
        interleaved,
        mrope_section,
        mrope_interleaved,
        halves,
    )
    if failed:
        checks.refuse(
            op,
            failed,
            works,
            {
                "query": query,
                "key": key,
                "positions": positions,
                "cos_sin_cache": cos_sin_cache,
                "head_size": head_size,
                "mrope_section": mrope_section,
                "query_out": query_out,
                "key_out": key_out,
            },
        )
