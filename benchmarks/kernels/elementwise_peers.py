# SPDX-License-Identifier: Apache-2.0
"""What the elementwise benchmark times: a call on a set of tensors for each contestant that can be imported.

All take the same cache (token-major pages, keys and values side by side): vLLM's writes through the views of its halves
that its backends make. The contestants, and what they do beside what is asked:

* vLLM Triton: the write that TRITON_ATTN makes.
* vLLM CUDA: the rotary operation of vLLM's layers, which rotates the key in place where rocmforge's fused one leaves
  it, then the write that FLASH_ATTN makes; with head norms its fused norm and rotary in place of the first.
* vLLM one launch: its operation for norm, rotary and write; for pairs that are halves only. It also returns the
  rotated keys and a copy of the values. Of latents its operation for rotary and write, which computes in bf16.
* inductor: torch.compile of the same fp32 arithmetic as rocmforge's, static shapes; with a write, vLLM's Triton write
  follows, as in a compiled vLLM model. In place it writes only what is rotated; otherwise all of query and key.
* torch: eager `masked_fill_` with a mask made before.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from rocmforge_plugin import ops

from .elementwise_cases import (
    BOTH_OUT,
    EPS,
    HEAD,
    LATENT_BOTH,
    LATENT_KINDS,
    LATENT_WRITE,
    NORM,
    ROTARY,
    WRITE,
    Batch,
    LatentBatch,
    Mask,
)
from .mla_cases import ROPE

OURS = "rocmforge"
PEERS = ("vLLM CUDA", "vLLM Triton", "vLLM one launch", "inductor", "torch")
Call = Callable[[Any], torch.Tensor | None]  # of a Batch or LatentBatch; the query, if it is not rotated in place


def ours(kind: str) -> Call:
    """rocmforge's public operations."""

    def rotary(b: Batch) -> None:
        ops.rotary(b.positions, b.query, b.key, b.table, head_size=HEAD, interleaved=b.model.interleaved)

    def write(b: Batch) -> None:
        ops.kv_write(b.heads(b.key), b.heads(b.value), b.kv_cache, b.slots)

    def both(b: Batch) -> torch.Tensor | None:
        weights = (b.q_weight, b.k_weight) if kind == NORM else (None, None)
        out = b.out if kind == BOTH_OUT else None
        ops.rotary_kv_write(
            b.positions,
            b.query,
            b.key,
            b.value,
            b.table,
            b.kv_cache,
            b.slots,
            interleaved=b.model.interleaved,
            q_norm_weight=weights[0],
            k_norm_weight=weights[1],
            eps=EPS,
            query_out=out,
        )
        return out

    def latent_write(b: LatentBatch) -> None:
        ops.latent_kv_write(b.latent, b.k_rope, b.pages, b.slots)

    def latent_both(b: LatentBatch) -> None:
        ops.rotary_latent_kv_write(
            b.positions, b.query_rope, b.k_rope, b.table, b.latent, b.pages, b.slots, interleaved=b.model.interleaved
        )

    calls: dict[str, Call] = {ROTARY: rotary, WRITE: write, LATENT_WRITE: latent_write, LATENT_BOTH: latent_both}
    return calls.get(kind, both)


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """The part of x [tokens, heads, HEAD] that turns; cos and sin [tokens, 1, pairs] fp32; the result is fp32."""
    pairs = cos.shape[-1]
    if interleaved:
        a, b = x[..., 0 : 2 * pairs : 2].float(), x[..., 1 : 2 * pairs : 2].float()
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)
    a, b = x[..., :pairs].float(), x[..., pairs : 2 * pairs].float()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def angles(positions: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = table[positions].float()[:, None].chunk(2, -1)
    return cos, sin


def rotate_in_place(
    qkv: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, heads: int, interleaved: bool
) -> None:
    """Rotates the first `heads` heads, queries and keys, of qkv."""
    x = qkv[:, : heads * HEAD].unflatten(1, (heads, HEAD))
    x[..., : table.shape[1]] = rotated(x, *angles(positions, table), interleaved).to(qkv.dtype)


def rotate_out(
    qkv: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, heads: int, interleaved: bool
) -> torch.Tensor:
    """The first `heads` heads of qkv, rotated, [tokens, heads, HEAD]."""
    x = qkv[:, : heads * HEAD].unflatten(1, (heads, HEAD))
    turned = rotated(x, *angles(positions, table), interleaved).to(qkv.dtype)
    return torch.cat((turned, x[..., table.shape[1] :]), -1)


def norm_rotate_out(
    qkv: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    heads: int,
    interleaved: bool,
    q_weight: torch.Tensor,
    k_weight: torch.Tensor,
    kv_heads: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `rotate_out`, heads normalised before; query and key apart."""
    cos, sin = angles(positions, table)

    def one(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(1, (x.shape[1] // HEAD, HEAD)).float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight.float()
        return torch.cat((rotated(x, cos, sin, interleaved), x[..., table.shape[1] :]), -1).to(qkv.dtype)

    at = (heads - kv_heads) * HEAD
    return one(qkv[:, :at], q_weight), one(qkv[:, at : heads * HEAD], k_weight)


def as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """By inductor for the shapes of its first call; what was compiled before is forgotten, lest a limit be reached."""
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)


def torch_rotary(
    kind: str,
    write: Callable[[Batch, torch.Tensor], None],
    compiler: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Call:
    """torch's arithmetic through `compiler`, then `write(batch, key [tokens, kv_heads, HEAD])`."""
    written: dict[str, Callable[..., Any]] = {BOTH_OUT: rotate_out, NORM: norm_rotate_out}
    function = compiler(written.get(kind, rotate_in_place))

    def call(b: Batch) -> torch.Tensor | None:
        m = b.model
        arguments = (b.qkv, b.positions, b.table, m.heads + m.kv_heads, m.interleaved)
        if kind == NORM:
            query, key = function(*arguments, b.q_weight, b.k_weight, m.kv_heads)
        elif kind == BOTH_OUT:
            query, key = function(*arguments).split((m.heads, m.kv_heads), 1)
        else:
            function(*arguments)
            query, key = None, b.heads(b.key)
        if kind != ROTARY:
            write(b, key)
        return None if query is None else query.flatten(1)

    return call


def triton_write() -> Callable[[Batch, torch.Tensor], None]:
    """vLLM's Triton kernel, as TRITON_ATTN's do_kv_cache_update calls it."""
    from vllm.v1.attention.ops.triton_reshape_and_cache_flash import triton_reshape_and_cache_flash

    return lambda b, key: triton_reshape_and_cache_flash(
        key, b.heads(b.value), b.key_cache, b.value_cache, b.slots, "auto", b.one, b.one
    )


def cuda_write() -> Callable[[Batch, torch.Tensor], None]:
    """vLLM's CUDA kernel, as FLASH_ATTN's do_kv_cache_update calls it."""
    from vllm._custom_ops import reshape_and_cache_flash

    return lambda b, key: reshape_and_cache_flash(
        key, b.heads(b.value), b.key_cache, b.value_cache, b.slots, "auto", b.one, b.one
    )


def vllm_cuda(kind: str) -> Call:
    """vLLM's compiled operations, one after another."""
    from vllm import _custom_ops as vllm_ops

    write = cuda_write() if kind != ROTARY else None

    def call(b: Batch) -> None:
        m = b.model
        if kind == NORM:
            vllm_ops.fused_qk_norm_rope(
                b.qkv,
                m.heads,
                m.kv_heads,
                m.kv_heads,
                HEAD,
                EPS,
                b.q_weight,
                b.k_weight,
                b.table,
                not m.interleaved,
                b.positions,
            )
        elif kind != WRITE:
            vllm_ops.rotary_embedding(b.positions, b.query, b.key, HEAD, b.table, not m.interleaved)
        if write:
            write(b, b.heads(b.key))

    return call


def vllm_one_launch(kind: str) -> Call:
    """vLLM's fused operation."""
    from vllm._custom_ops import fused_qknorm_rope_cache

    return lambda b: fused_qknorm_rope_cache(
        b.qkv,
        b.q_weight,
        b.k_weight,
        b.table,
        b.positions,
        b.slots,
        b.key_cache,
        b.value_cache,
        b.model.heads,
        b.model.kv_heads,
        HEAD,
        b.model.rotary_dim,
        EPS,
    )[0]


def vllm_cuda_latent(kind: str) -> Call:
    """vLLM's compiled operations for latents, one after another."""
    from vllm import _custom_ops as vllm_ops

    def call(b: LatentBatch) -> None:
        if kind == LATENT_BOTH:
            vllm_ops.rotary_embedding(b.positions, b.query_rope, b.k_rope, ROPE, b.table, not b.model.interleaved)
        vllm_ops.concat_and_cache_mla(b.latent, b.k_rope.squeeze(1), b.pages, b.slots, "auto", b.one)

    return call


def vllm_one_launch_latent(kind: str) -> Call:
    """vLLM's fused operation for latents."""
    from vllm._custom_ops import concat_and_cache_mla_rope_fused

    return lambda b: concat_and_cache_mla_rope_fused(
        b.positions, b.query_rope, b.k_rope, b.latent, b.table, not b.model.interleaved, b.slots, b.pages, "auto", b.one
    )


def vllm_triton(kind: str) -> Call:
    """The write alone."""
    write = triton_write()
    return lambda b: write(b, b.heads(b.key))


def inductor(kind: str) -> Call:
    """torch's arithmetic compiled, and vLLM's Triton write."""
    return torch_rotary(kind, (lambda b, key: None) if kind == ROTARY else triton_write(), compiled)


def has_op(library: str, name: str) -> bool:
    """Whether vLLM is there with this compiled operation."""
    if not importlib.util.find_spec("vllm"):
        return False
    import vllm._custom_ops  # noqa: F401  loads them

    return hasattr(getattr(torch.ops, library), name)


def available(kind: str, interleaved: bool) -> dict[str, Callable[[str], Call]]:
    """Contestants for one kernel that can be imported here; rocmforge first."""
    has_triton = importlib.util.find_spec("triton") is not None
    has_write = has_triton and importlib.util.find_spec("vllm") is not None
    has_cuda_write = has_op("_C_cache_ops", "reshape_and_cache_flash")
    found: dict[str, Callable[[str], Call]] = {OURS: ours}
    if kind in LATENT_KINDS:
        found |= {"vLLM CUDA": vllm_cuda_latent} if has_op("_C_cache_ops", "concat_and_cache_mla") else {}
        if kind == LATENT_BOTH and has_op("_C_cache_ops", "concat_and_cache_mla_rope_fused"):
            found["vLLM one launch"] = vllm_one_launch_latent
        return found
    if kind == WRITE:
        found |= {"vLLM CUDA": vllm_cuda} if has_cuda_write else {}
        return found | ({"vLLM Triton": vllm_triton} if has_write else {})
    rotary = "fused_qk_norm_rope" if kind == NORM else "rotary_embedding"
    if kind != BOTH_OUT and has_op("_C", rotary) and (kind == ROTARY or has_cuda_write):
        found["vLLM CUDA"] = vllm_cuda
    if kind == NORM and not interleaved and has_op("_C", "fused_qknorm_rope_cache"):
        found["vLLM one launch"] = vllm_one_launch
    if (has_triton and kind == ROTARY) or has_write:
        found["inductor"] = inductor
    return found


def masks() -> dict[str, Callable[[Mask], object]]:
    """Contestants for the causal mask."""
    found: dict[str, Callable[[Mask], object]] = {
        OURS: lambda m: ops.causal_mask(m.scores, m.cache_len),
        "torch": lambda m: m.scores.masked_fill_(m.future, float("-inf")),
    }
    if importlib.util.find_spec("triton"):
        mask = compiled(mask_in_place)
        found["inductor"] = lambda m: mask(m.scores, m.cache_len)
    return found


def mask_in_place(scores: torch.Tensor, cache_len: int) -> None:
    """What inductor compiles: the mask from indices."""
    queries, keys = (torch.arange(n, device=scores.device) for n in scores.shape[-2:])
    scores.masked_fill_(keys[None, :] > queries[:, None] + cache_len, float("-inf"))
