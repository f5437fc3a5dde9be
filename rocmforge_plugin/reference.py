# SPDX-License-Identifier: Apache-2.0
"""What the kernels must compute, in plain torch and as written in the papers. Nothing that serves a model imports this.

`compute` is the dtype that every step is done and rounded in: float64 makes an oracle; the inputs' own dtype makes the
naive implementation whose error bounds the kernels' ("at most twice the error of doing it naively in that dtype").
Nothing is changed in place and results have dtype `compute`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch


def split_heads(x: torch.Tensor, head_size: int) -> torch.Tensor:
    """[tokens, heads * head_size] or [tokens, heads, head_size] as the latter."""
    return x if x.dim() == 3 else x.unflatten(1, (x.shape[1] // head_size, head_size))


def causal_mask(scores: torch.Tensor, cache_len: int = 0) -> torch.Tensor:
    """scores [..., queries, keys] with -inf where ``key > query + cache_len``."""
    queries, keys = scores.shape[-2:]
    future = torch.arange(keys)[None, :] > torch.arange(queries)[:, None] + cache_len
    return scores.masked_fill(future.to(scores.device), float("-inf"))


def select_cos_sin(
    positions: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    mrope_section: Sequence[int] | None = None,
    mrope_interleaved: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [tokens, rotary_dim / 2] of positions [tokens] or [3, tokens]."""
    pairs = cos_sin_cache.shape[1] // 2
    if positions.dim() == 1:
        rows = cos_sin_cache[positions]
        return rows[:, :pairs], rows[:, pairs:]
    if mrope_section is None:
        raise ValueError("positions [3, tokens] need mrope_section")
    time, height, width = mrope_section
    if mrope_interleaved:
        axes = [0] * pairs
        for pair in range(pairs):
            if pair % 3 == 1 and pair < 3 * height:
                axes[pair] = 1
            elif pair % 3 == 2 and pair < 3 * width:
                axes[pair] = 2
    else:
        axes = [0] * time + [1] * height + [2] * width
    rows = torch.stack([cos_sin_cache[positions[axis]][:, [pair, pair + pairs]] for pair, axis in enumerate(axes)], 1)
    return rows[..., 0], rows[..., 1]


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool, compute: torch.dtype = torch.float64
) -> torch.Tensor:
    """x [tokens, heads, head_size] with its first 2 * cos.shape[-1] elements rotated; cos, sin [tokens, pairs]."""
    x, cos, sin = x.to(compute), cos.to(compute)[:, None], sin.to(compute)[:, None]
    pairs = cos.shape[-1]
    out = x.clone()
    first, second = (
        (slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)) if interleaved else (slice(0, pairs), slice(pairs, 2 * pairs))
    )
    a, b = x[..., first], x[..., second]
    out[..., first] = a * cos - b * sin
    out[..., second] = b * cos + a * sin
    return out


def rotary(
    positions: torch.Tensor,
    x: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    *,
    head_size: int,
    interleaved: bool,
    mrope_section: Sequence[int] | None = None,
    mrope_interleaved: bool = False,
    compute: torch.dtype = torch.float64,
) -> torch.Tensor:
    """One of ops.rotary's tensors, rotated, in its own shape."""
    cos, sin = select_cos_sin(positions, cos_sin_cache, mrope_section, mrope_interleaved)
    return rotate(split_heads(x, head_size), cos, sin, interleaved, compute).reshape(x.shape)


def rotary_2d(
    positions: torch.Tensor,
    x: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    *,
    head_size: int,
    interleaved: bool = False,
    compute: torch.dtype = torch.float64,
) -> torch.Tensor:
    """x [tokens, heads * head_size] or [tokens, heads, head_size], each half of a head by its own position."""
    halves = split_heads(x, head_size).split(head_size // 2, dim=-1)
    turned = [
        rotate(half, *select_cos_sin(row, cos_sin_cache), interleaved, compute)
        for half, row in zip(halves, positions, strict=True)
    ]
    return torch.cat(turned, dim=-1).reshape(x.shape)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, compute: torch.dtype = torch.float64) -> torch.Tensor:
    """x [..., size] / sqrt(mean(x^2) + eps) * weight [size]."""
    x = x.to(compute)
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight.to(compute)


def kv_write(
    key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
) -> torch.Tensor:
    """A copy of the cache with the rows written; key and value [tokens, kv_heads, head_size]."""
    out = kv_cache.clone()
    block_size = kv_cache.shape[2]
    for token, slot in enumerate(slot_mapping.tolist()):
        if 0 <= slot < kv_cache.shape[0] * block_size:
            row = torch.cat((key[token], value[token]), dim=-1)
            out[slot // block_size, :, slot % block_size] = row.to(out.dtype)
    return out


def latent_kv_write(
    kv_c: torch.Tensor, k_rope: torch.Tensor | None, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
) -> torch.Tensor:
    """A copy of the cache [blocks, block_size, L + R] with the rows written; kv_c [tokens, L], k_rope [tokens, R]."""
    value = kv_c[:, :0] if k_rope is None else k_rope.flatten(1)
    return kv_write(kv_c[:, None], value[:, None], kv_cache[:, None], slot_mapping)[:, 0]


def visible_keys(
    tokens: int,
    length: int,
    causal: bool = True,
    window: int = 0,
    ranges: Iterable[Sequence[int]] = (),
    clamped: bool = False,
) -> torch.Tensor:
    """Which of a request's keys its new tokens see, bool [tokens, length]; the last token stands at the last key.

    Keys after the token's own only if not `causal`; with a `window` those less far than it, to either side. Of `ranges`
    (first and last position, (0, 0) for none) that a token is in it sees all keys beside, or if `clamped` those that
    are not before its window.
    """
    own, keys = torch.arange(length - tokens, length)[:, None], torch.arange(length)[None, :]
    near = torch.full((tokens, length), True) if window == 0 else own - keys < window
    seen = near & (own >= keys) if causal else near & ((keys - own < window) | (window == 0))
    for first, last in ranges:
        if (first, last) != (0, 0):
            together = (first <= own) & (own <= last) & (first <= keys) & (keys <= last)
            seen |= together & near if clamped else together
    return seen


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scale: float,
    causal: bool = True,
    window: int = 0,
    sinks: torch.Tensor | None = None,
    soft_cap: float = 0,
    alibi_slopes: torch.Tensor | None = None,
    compute: torch.dtype = torch.float64,
    alibi_sqrt: bool = False,
    ranges: Iterable[Sequence[int]] = (),
    ranges_clamped: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One request's attention: query [tokens, heads, key dims], keys [length, kv_heads, key dims], values likewise.

    ``score = scale * q k``; with a soft cap c, ``c * tanh(score / c)``; plus ``slope * (key - query)``, or with
    `alibi_sqrt` ``slope * -sqrt(query - key)`` for keys before the query; of keys that are not visible (`visible_keys`)
    -inf. A sink is a logit that only enlarges the denominator.

    Returns:
        Results [tokens, heads, value dims] in `compute`, zero where a query sees no key; and the natural logarithms of
        the denominators, [heads, tokens], -inf where one is empty.
    """
    tokens, heads, _ = query.shape
    length, kv_heads, _ = keys.shape
    keys, values = (x.to(compute).transpose(0, 1).repeat_interleave(heads // kv_heads, 0) for x in (keys, values))
    scores = query.to(compute).transpose(0, 1) @ keys.transpose(1, 2) * scale
    if soft_cap:
        scores = torch.tanh(scores / soft_cap) * soft_cap
    if alibi_slopes is not None:
        own = torch.arange(length - tokens, length, device=query.device)
        distance = (torch.arange(length, device=query.device)[None, :] - own[:, None]).to(compute)
        rise = -torch.sqrt(-distance.clamp(max=0)) if alibi_sqrt else distance
        scores = scores + alibi_slopes.to(compute)[:, None, None] * rise
    masked = ~visible_keys(tokens, length, causal, window, ranges, ranges_clamped).to(query.device)
    scores = scores.masked_fill(masked, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks.to(compute)[:, None, None].expand(heads, tokens, 1)), dim=-1)
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :length]
    weights = weights.masked_fill(masked.all(-1, keepdim=True), 0)
    return (weights @ values).transpose(0, 1), lse


def _by_request(option: Any, request: int) -> Any:
    """What a request has of an option that may be a tensor of one entry a request."""
    return option[request].tolist() if isinstance(option, torch.Tensor) else option


def paged_attention_reference(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    window: int = 0,
    sinks: torch.Tensor | None = None,
    soft_cap: float = 0,
    alibi_slopes: torch.Tensor | None = None,
    compute: torch.dtype = torch.float64,
    causal: bool | torch.Tensor = True,
    lse: torch.Tensor | None = None,
    alibi_sqrt: bool = False,
    ranges: torch.Tensor | None = None,
    ranges_clamped: bool = False,
) -> torch.Tensor:
    """Attention of each request's new tokens over its pages (`attend`); shapes as for ops.paged_attention.

    Returns:
        [tokens, heads, value dims] in `compute`; zero where a query sees no key. `lse` is written, if given.
    """
    tokens, heads, key_dims = query.shape
    block_size, row_elements = kv_cache.shape[2:]
    out = torch.zeros(tokens, heads, row_elements - key_dims, dtype=compute, device=query.device)
    starts = query_start_loc.tolist()
    for request, length in enumerate(seq_lens.tolist()):
        begin, end = starts[request], starts[request + 1]
        sees_back_only = bool(_by_request(causal, request))
        if begin == end or (sees_back_only and length == 0):
            continue
        slots = torch.arange(length, device=query.device)
        pages = block_table[request].long()[slots // block_size]
        rows = kv_cache[pages, :, slots % block_size]  # [length, kv_heads, row_elements]
        keys, values = rows.tensor_split([key_dims], dim=-1)
        out[begin:end], sums = attend(
            query[begin:end],
            keys,
            values,
            scale,
            sees_back_only,
            window,
            sinks,
            soft_cap,
            alibi_slopes,
            compute,
            alibi_sqrt,
            () if ranges is None else _by_request(ranges, request),
            ranges_clamped,
        )
        if lse is not None:
            lse[:, begin:end] = sums
    return out


def paged_attention_naive(query: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    """As paged_attention_reference, every step in query's own dtype."""
    return paged_attention_reference(query, *arguments, **{**options, "compute": query.dtype})


def latent_attention_reference(
    query_latent: torch.Tensor,
    query_rope: torch.Tensor | None,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    scale: float,
    causal: bool = True,
    compute: torch.dtype = torch.float64,
    lse: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of absorbed queries over pages of latents; shapes as for ops.latent_attention.

    It is paged attention with one KV head, whose values repeat the beginning of its keys.

    Returns:
        [tokens, heads, L] in `compute`; zero where a query sees no key. `lse` is written, if given.
    """
    query = query_latent if query_rope is None else torch.cat((query_latent, query_rope), dim=-1)
    rows = torch.cat((kv_cache, kv_cache[..., : query_latent.shape[2]]), dim=-1)[:, None]
    return paged_attention_reference(
        query, rows, block_table, seq_lens, query_start_loc, scale, causal=causal, compute=compute, lse=lse
    )


def varlen_attention_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_start_loc: torch.Tensor,
    key_start_loc: torch.Tensor,
    scale: float,
    causal: bool | torch.Tensor,
    compute: torch.dtype = torch.float64,
    window: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of each request's tokens over its keys (`attend`); shapes as for ops.varlen_attention.

    Returns:
        What `attend` does, of all requests' tokens; zero and -inf of tokens behind them.
    """
    tokens, heads, _ = query.shape
    out = torch.zeros(tokens, heads, value.shape[2], dtype=compute, device=query.device)
    lse = torch.full((heads, tokens), float("-inf"), dtype=compute, device=query.device)
    starts = zip(query_start_loc.tolist(), key_start_loc.tolist(), strict=True)
    for request, ((begin, first), (end, last)) in enumerate(pairwise(starts)):
        if begin < end:
            of_request = query[begin:end], key[first:last], value[first:last], scale
            sees_back_only = bool(_by_request(causal, request))
            out[begin:end], lse[:, begin:end] = attend(*of_request, sees_back_only, window, compute=compute)
    return out, lse
