# SPDX-License-Identifier: Apache-2.0
"""The ops as `torch.ops.rocmforge.*`, for graphs that torch.compile traces.

Eager code calls the functions directly, which saves the dispatcher's share of a launch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .kv_cache import kv_write
from .latent_cache import latent_kv_write, rotary_latent_kv_write
from .mask import causal_mask
from .position import apply_rotary, rotary, rotary_2d, rotary_kv_write, rotary_out

_library = torch.library.Library("rocmforge", "FRAGMENT")  # registrations live as long as this object


def define(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Registers an op for the CPU and for GPUs (AMD's are CUDA to torch's dispatcher too), with its shape function."""
    name = schema.split("(", 1)[0]
    _library.define(schema)
    for key in ("CPU", "CUDA"):
        _library.impl(name, implementation, key)
    torch.library.register_fake(f"rocmforge::{name}", fake, lib=_library)


def _nothing(*args: object) -> None:
    """Shape function of ops that only write to their arguments."""


def _causal_mask(scores: Tensor, cache_len: int) -> None:
    causal_mask(scores, cache_len)


def _rotary(
    positions: Tensor,
    query: Tensor,
    key: Tensor | None,
    cos_sin_cache: Tensor,
    head_size: int,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
) -> None:
    rotary(
        positions,
        query,
        key,
        cos_sin_cache,
        head_size=head_size,
        interleaved=interleaved,
        mrope_section=mrope_section,
        mrope_interleaved=mrope_interleaved,
    )


def _rotary_out(
    positions: Tensor,
    query: Tensor,
    key: Tensor | None,
    cos_sin_cache: Tensor,
    head_size: int,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
) -> tuple[Tensor, Tensor]:
    query_out, key_out = rotary_out(
        positions,
        query,
        key,
        cos_sin_cache,
        head_size=head_size,
        interleaved=interleaved,
        mrope_section=mrope_section,
        mrope_interleaved=mrope_interleaved,
    )
    return query_out, query.new_empty(0) if key_out is None else key_out


def _rotary_out_fake(positions: Tensor, query: Tensor, key: Tensor | None, *rest: object) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty(0) if key is None else key.new_empty(key.shape)


def _rotary_2d(
    positions: Tensor, query: Tensor, key: Tensor | None, cos_sin_cache: Tensor, head_size: int, interleaved: bool
) -> None:
    rotary_2d(positions, query, key, cos_sin_cache, head_size=head_size, interleaved=interleaved)


def _apply_rotary(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    return apply_rotary(x, cos, sin, interleaved=interleaved)


def _apply_rotary_fake(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    return x.new_empty(x.shape)


def _rotary_kv_write(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos_sin_cache: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
    q_norm_weight: Tensor | None,
    k_norm_weight: Tensor | None,
    eps: float,
) -> None:
    rotary_kv_write(
        positions,
        query,
        key,
        value,
        cos_sin_cache,
        kv_cache,
        slot_mapping,
        interleaved=interleaved,
        mrope_section=mrope_section,
        mrope_interleaved=mrope_interleaved,
        q_norm_weight=q_norm_weight,
        k_norm_weight=k_norm_weight,
        eps=eps,
    )


def _rotary_kv_write_out(
    positions: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos_sin_cache: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    query_out: Tensor,
    interleaved: bool,
    mrope_section: list[int] | None,
    mrope_interleaved: bool,
    q_norm_weight: Tensor | None,
    k_norm_weight: Tensor | None,
    eps: float,
) -> None:
    rotary_kv_write(
        positions,
        query,
        key,
        value,
        cos_sin_cache,
        kv_cache,
        slot_mapping,
        interleaved=interleaved,
        mrope_section=mrope_section,
        mrope_interleaved=mrope_interleaved,
        q_norm_weight=q_norm_weight,
        k_norm_weight=k_norm_weight,
        eps=eps,
        query_out=query_out,
    )


def _rotary_latent_kv_write(
    positions: Tensor,
    query_rope: Tensor,
    k_rope: Tensor,
    cos_sin_cache: Tensor,
    kv_c: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    interleaved: bool,
) -> None:
    rotary_latent_kv_write(
        positions, query_rope, k_rope, cos_sin_cache, kv_c, kv_cache, slot_mapping, interleaved=interleaved
    )


_MROPE = "bool interleaved, int[]? mrope_section, bool mrope_interleaved"
_NORM = "Tensor? q_norm_weight, Tensor? k_norm_weight, float eps"

define("causal_mask(Tensor(a!) scores, int cache_len) -> ()", _causal_mask, _nothing)
define("kv_write(Tensor key, Tensor value, Tensor(a!) kv_cache, Tensor slot_mapping) -> ()", kv_write, _nothing)
define(
    "latent_kv_write(Tensor kv_c, Tensor? k_rope, Tensor(a!) kv_cache, Tensor slot_mapping) -> ()",
    latent_kv_write,
    _nothing,
)
define(
    f"rotary(Tensor positions, Tensor(a!) query, Tensor(b!)? key, Tensor cos_sin_cache, int head_size, {_MROPE}) -> ()",
    _rotary,
    _nothing,
)
define(
    "rotary_out(Tensor positions, Tensor query, Tensor? key, Tensor cos_sin_cache, int head_size, "
    f"{_MROPE}) -> (Tensor, Tensor)",
    _rotary_out,
    _rotary_out_fake,
)
define(
    "rotary_2d(Tensor positions, Tensor(a!) query, Tensor(b!)? key, Tensor cos_sin_cache, int head_size, "
    "bool interleaved) -> ()",
    _rotary_2d,
    _nothing,
)
define("apply_rotary(Tensor x, Tensor cos, Tensor sin, bool interleaved) -> Tensor", _apply_rotary, _apply_rotary_fake)
define(
    "rotary_kv_write(Tensor positions, Tensor(a!) query, Tensor key, Tensor value, Tensor cos_sin_cache, "
    f"Tensor(b!) kv_cache, Tensor slot_mapping, {_MROPE}, {_NORM}) -> ()",
    _rotary_kv_write,
    _nothing,
)
define(
    "rotary_kv_write_out(Tensor positions, Tensor query, Tensor key, Tensor value, Tensor cos_sin_cache, "
    f"Tensor(a!) kv_cache, Tensor slot_mapping, Tensor(b!) query_out, {_MROPE}, {_NORM}) -> ()",
    _rotary_kv_write_out,
    _nothing,
)
define(
    "rotary_latent_kv_write(Tensor positions, Tensor(a!) query_rope, Tensor(b!) k_rope, Tensor cos_sin_cache, "
    "Tensor kv_c, Tensor(c!) kv_cache, Tensor slot_mapping, bool interleaved) -> ()",
    _rotary_latent_kv_write,
    _nothing,
)
