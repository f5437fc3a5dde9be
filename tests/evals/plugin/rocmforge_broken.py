# SPDX-License-Identifier: Apache-2.0
"""Test-only vLLM plugin: attention and rotary in plain torch, with faults that can be switched on.

It takes the place of CPU_ATTN, and rocmforge_broken_latent that of CPU_MLA. `state.fault` names what is broken and
`state.phase` where: "prefill", "decode" or "both". The environment variable ROCMFORGE_BROKEN=fault:phase sets it for a
process of its own. Nothing in the product imports this file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor
from vllm.forward_context import get_forward_context
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl

PATH, LATENT_PATH = "rocmforge_broken.TorchBackend", "rocmforge_broken_latent.LatentBackend"

#: What can be broken in attention and in rotary embedding.
ATTENTION_FAULTS = (
    "future_key",
    "own_key_hidden",
    "oldest_key_hidden",
    "page_dropped",
    "pages_swapped",
    "wrong_page",
    "scale_2",
    "scale_half",
    "fp8_kv",
    "split_average",
    "tail_read",
    "gqa_order",
    "window_256",
    "soft_cap",
    "value_shift",
    "chunk_context",
)
#: And in latent attention alone.
LATENT_FAULTS = ("rope_dropped", "scale_latent", "values_late", "values_half", "heads_rolled")
#: What has no place in latent attention on the CPU: one KV head, prompts in one piece, and all of a rope slice turned.
NOT_LATENT = ("gqa_order", "chunk_context", "rotary_all")
ROTARY_FAULTS = ("neox_pairs", "rotary_all", "rotary_base", "rotary_late", "rotary_clipped")
#: Correct, but computed otherwise: these must pass.
CLEAN = ("none", "rounded_probabilities", "split_rescaled")


@dataclass
class State:
    """The fault planted at present and the phase it is planted in; counts of requests computed by phase."""

    fault: str = "none"
    phase: str = "both"
    prefills: int = 0
    decodes: int = 0

    def hits(self, decoding: bool) -> bool:
        """Whether the fault applies to a request in this phase."""
        return self.phase in ("both", "decode" if decoding else "prefill")


state = State()


class TorchBackend(CPUAttentionBackend):
    """CPU_ATTN's metadata, torch's arithmetic."""

    forward_includes_kv_cache_update: bool = False

    @staticmethod
    def get_impl_cls() -> type[TorchImpl]:
        return TorchImpl


def attend(query: Tensor, keys: Tensor, values: Tensor, scale: float, fault: str, kept: Tensor) -> Tensor:
    """Attention of one request in float32.

    query [heads, new, head], keys and values [kv_heads, context, head]; kept [new, context] says who sees what.
    """
    share = query.shape[0] // keys.shape[0]
    if fault == "gqa_order":
        keys, values = keys.repeat(share, 1, 1), values.repeat(share, 1, 1)
    else:
        keys, values = keys.repeat_interleave(share, 0), values.repeat_interleave(share, 0)
    if fault == "value_shift":
        values = values.roll(1, 1)
    scores = (query * scale) @ keys.mT
    if fault == "soft_cap":
        scores = 30 * torch.tanh(scores / 30)
    scores = scores.masked_fill(~kept, float("-inf"))
    if fault in ("split_average", "split_rescaled") and keys.shape[1] > 128:
        parts = []
        for part, value in zip(scores.split(128, -1), values.split(128, 1), strict=True):
            top = part.amax(-1, keepdim=True)
            weight = torch.exp(part - torch.where(top.isinf(), 0.0, top))
            parts.append((top, weight.sum(-1, keepdim=True), weight @ value))
        if fault == "split_average":
            seen = [(t, s, o) for t, s, o in parts]
            used = sum((s > 0).float() for _, s, _ in seen)
            return sum(o / s.clamp_min(1e-30) for _, s, o in seen) / used
        top = torch.stack([t for t, _, _ in parts]).amax(0)
        total = sum(s * torch.exp(t - top) for t, s, _ in parts)
        return sum(o * torch.exp(t - top) for t, _, o in parts) / total
    weights = torch.softmax(scores, -1)
    if fault == "rounded_probabilities":
        weights = weights.to(torch.bfloat16).float()
    return weights @ values


class TorchImpl(CPUAttentionBackendImpl):
    """Paged attention, request by request."""

    def do_kv_cache_update(
        self, layer: torch.nn.Module, key: Tensor, value: Tensor, kv_cache: Tensor, slot_mapping: Tensor
    ) -> None:
        size = kv_cache.shape[2]
        slots = slot_mapping[slot_mapping >= 0]
        kv_cache[slots // size, :, slots % size] = torch.cat((key, value), -1)[: len(slot_mapping)][slot_mapping >= 0]

    def forward(
        self, layer, query, key, value, kv_cache, attn_metadata, output, output_scale=None, output_block_scale=None
    ):
        if attn_metadata is None:
            return output
        starts, lengths = attn_metadata.query_start_loc.tolist(), attn_metadata.seq_lens.tolist()
        for place, context in enumerate(lengths[: len(starts) - 1]):
            begin, end = starts[place], starts[place + 1]
            if begin == end:
                continue
            decoding = end - begin == 1 and context > 1
            if decoding:
                state.decodes += 1
            else:
                state.prefills += 1
            fault = state.fault if state.hits(decoding) or state.fault in CLEAN else "none"
            found = self.request(query[begin:end].float(), kv_cache, attn_metadata.block_table[place], context, fault)
            output[begin:end] = found.to(output.dtype).view_as(output[begin:end])
        return output

    def request(self, query: Tensor, kv_cache: Tensor, table: Tensor, context: int, fault: str) -> Tensor:
        """One request: query [new, heads, head] -> [new, heads, head]."""
        size, new = kv_cache.shape[2], query.shape[0]
        pages, visible = paged(table, size, context, new, fault)
        cached = kv_cache[pages].permute(1, 0, 2, 3).flatten(1, 2).float()
        keys, values = hidden_cleared(cached, visible, context).chunk(2, -1)
        if fault == "fp8_kv":
            keys, values = (part.to(torch.float8_e4m3fn).float() for part in (keys, values))
        kept = seen(visible, context, new, fault)
        return attend(query.transpose(0, 1), keys, values, scaled(self.scale, fault), fault, kept).transpose(0, 1)


def paged(table: Tensor, size: int, context: int, new: int, fault: str) -> tuple[list[int], Tensor]:
    """The pages of a request, of `size` keys each, and bool [keys of these pages]: which of their keys are there."""
    pages = table[: -(-context // size)].tolist()
    visible = torch.ones(len(pages) * size, dtype=torch.bool)
    visible[context:] = fault == "tail_read"
    if fault == "future_key" and new == 1:
        # A decoding request has no future key in its context: one key too many is the slot after it.
        visible[context : context + 1] = True
    if fault == "page_dropped" and len(pages) > 4:
        visible[3 * size : 4 * size] = False
    if fault == "pages_swapped" and len(pages) > 2:
        # The order of whole pages does not matter to attention; the halves of two pages do, through what is masked.
        pages[0], pages[-1] = pages[-1], pages[0]
    if fault == "wrong_page" and len(pages) > 4:
        pages[2] = pages[1]
    return pages, visible


def hidden_cleared(cached: Tensor, visible: Tensor, context: int) -> Tensor:
    """cached [heads, keys, width] with zeros where nothing was written and nobody looks."""
    return torch.where(visible[:, None] | (torch.arange(len(visible)) < context)[:, None], cached, 0.0)


def seen(visible: Tensor, context: int, new: int, fault: str) -> Tensor:
    """bool [new, keys]: who sees what. visible [keys]."""
    at = torch.arange(len(visible))
    mine = torch.arange(context - new, context)[:, None]
    last = mine + 1 if fault == "future_key" else mine
    kept = (at[None] <= last) & visible
    if fault == "own_key_hidden":
        kept &= (at[None] != mine) | (mine == 0)
    elif fault == "oldest_key_hidden":
        kept &= (at[None] != 0) | (mine == 0)
    elif fault == "window_256":
        kept &= at[None] > mine - 256
    elif fault == "tail_read":
        kept = at[None] <= torch.where(mine == context - 1, len(visible), mine)
    elif fault == "chunk_context" and 1 < new < context:
        kept &= (at[None] >= 8) | (mine < 16)
    return kept


def scaled(scale: float, fault: str) -> float:
    """The softmax scale."""
    return scale * {"scale_2": 1.02, "scale_half": 1.005}.get(fault, 1.0)


def rotate(x: Tensor, positions: Tensor, width: int, base: float, interleaved: bool) -> Tensor:
    """Rotary embedding of x [tokens, heads, head] over its first `width` elements, in float32."""
    steps = base ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    phase = positions[:, None, None].float() * steps
    cos, sin = phase.cos(), phase.sin()
    turned = x[..., :width].float()
    if interleaved:
        even, odd = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    else:
        low, high = turned.chunk(2, -1)
        turned = torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
    return torch.cat((turned.to(x.dtype), x[..., width:]), -1)


def decoding_tokens(count: int) -> Tensor:
    """bool [count]: which tokens of this step belong to requests that decode."""
    metadata = get_forward_context().attn_metadata
    found = torch.zeros(count, dtype=torch.bool)
    if isinstance(metadata, dict) and metadata:
        one = next(iter(metadata.values()))
        if hasattr(one, "num_decode_tokens"):
            # Latent attention's metadata: requests that decode come first.
            found[: one.num_decode_tokens] = True
            return found
        starts, lengths = one.query_start_loc.tolist(), one.seq_lens.tolist()
        for place, context in enumerate(lengths[: len(starts) - 1]):
            if starts[place + 1] - starts[place] == 1 and context > 1:
                found[starts[place]] = True
    return found


def broken_rotary(layer: torch.nn.Module, positions: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """The layer's rotary embedding with the planted fault on the tokens of the planted phase."""
    fault = state.fault if state.fault in ROTARY_FAULTS else "none"
    decoding = decoding_tokens(positions.shape[-1])
    hit = torch.tensor([fault != "none" and state.hits(bool(flag)) for flag in decoding])
    width = layer.head_size if fault == "rotary_all" else layer.rotary_dim
    interleaved = layer.is_neox_style if fault == "neox_pairs" else not layer.is_neox_style
    base = layer.base * (1.05 if fault == "rotary_base" else 1.0)
    shifted = positions + 1 if fault == "rotary_late" else positions
    if fault == "rotary_clipped":
        shifted = positions.clamp(max=1023)
    found = []
    for x in (query, key):
        heads = x.view(x.shape[0], -1, layer.head_size)
        right = rotate(heads, positions, layer.rotary_dim, layer.base, not layer.is_neox_style)
        wrong = rotate(heads, shifted, width, base, interleaved) if hit.any() else right
        found.append(torch.where(hit[:, None, None], wrong, right).view_as(x))
    return found[0], found[1]


def register() -> None:
    """`vllm.general_plugins` entry point."""
    wanted = os.environ.get("ROCMFORGE_BROKEN")
    if not wanted:
        return
    state.fault, _, phase = wanted.partition(":")
    state.phase = phase or "both"
    if state.fault not in (*ATTENTION_FAULTS, *LATENT_FAULTS, *ROTARY_FAULTS, *CLEAN) or state.phase not in (
        "both",
        "prefill",
        "decode",
    ):
        raise ValueError(f"ROCMFORGE_BROKEN={wanted}: unknown fault or phase")
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    register_backend(AttentionBackendEnum.CPU_ATTN, PATH)
    register_backend(AttentionBackendEnum.CPU_MLA, LATENT_PATH)

    def forward(
        layer: torch.nn.Module, positions: Tensor, query: Tensor, key: Tensor | None = None, *_: object
    ) -> tuple[Tensor, Tensor | None]:
        return broken_rotary(layer, positions, query, key)

    RotaryEmbedding.forward_native = RotaryEmbedding.forward_cpu = forward
