# SPDX-License-Identifier: Apache-2.0
"""Latent attention in plain torch in place of CPU_MLA's, with the faults of rocmforge_broken's `state`.

Decoding reads latents from pages, as one KV head whose values are the first part of its keys; a prompt's keys and
values of all heads are made from its latents, and no page is read.
"""

from __future__ import annotations

import itertools

import torch
from rocmforge_broken import CLEAN, attend, hidden_cleared, paged, scaled, seen, state
from torch import Tensor
from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend, CPUMLAImpl


class LatentBackend(CPUMLABackend):
    """CPU_MLA's metadata, torch's arithmetic."""

    @staticmethod
    def get_impl_cls() -> type[LatentImpl]:
        return LatentImpl


def planted(decoding: bool) -> str:
    """The fault that applies to requests of this phase."""
    return state.fault if state.hits(decoding) or state.fault in CLEAN else "none"


class LatentImpl(CPUMLAImpl):
    """Request by request."""

    def attention(self, query: Tensor, keys: Tensor, values: Tensor, fault: str, kept: Tensor) -> Tensor:
        """float32 [new, heads, dims] of query [new, heads, dims], keys and values [kv_heads, context, dims], kept [new,
        context].
        """
        scale, rope = scaled(self.scale, fault), self.qk_rope_head_dim
        if fault == "rope_dropped":
            query, keys = query[..., :-rope], keys[..., :-rope]
        elif fault == "scale_latent":
            scale = self.head_size**-0.5
        elif fault == "values_half":
            half = values.shape[-1] // 2
            values = torch.cat((values[..., :half], values[..., :half]), -1)
        if fault == "fp8_kv":
            keys, values = (part.to(torch.float8_e4m3fn).float() for part in (keys, values))
        found = attend(query.transpose(0, 1), keys, values, scale, fault, kept).transpose(0, 1)
        return found.roll(1, 1) if fault == "heads_rolled" else found

    def forward_mqa(self, q, kv_c_and_k_pe_cache, attn_metadata, layer):
        fault = planted(True)
        query = (torch.cat(q, -1) if isinstance(q, tuple) else q).float()
        decode, size, rank = attn_metadata.decode, kv_c_and_k_pe_cache.shape[1], self.kv_lora_rank
        begin = self.qk_rope_head_dim if fault == "values_late" else 0
        found = []
        for place, context in enumerate(decode.seq_lens.tolist()):
            state.decodes += 1
            pages, visible = paged(decode.block_table[place], size, context, 1, fault)
            keys = hidden_cleared(kv_c_and_k_pe_cache[pages].flatten(0, 1)[None].float(), visible, context)
            kept = seen(visible, context, 1, fault)
            found.append(self.attention(query[place, None], keys, keys[..., begin : begin + rank], fault, kept))
        return torch.cat(found).to(kv_c_and_k_pe_cache.dtype), None

    def forward_mha(self, q, kv_c_normed, k_pe, kv_c_and_k_pe_cache, attn_metadata, k_scale, output, output_scale=None):
        fault = planted(False)
        plain, wide = self.qk_nope_head_dim, self.v_head_dim
        made = self.kv_b_proj(kv_c_normed)[0].view(-1, self.num_heads, plain + wide)
        keys = torch.cat((made[..., :plain], k_pe.expand(-1, self.num_heads, -1)), -1).float()
        begin = plain - self.qk_rope_head_dim if fault == "values_late" else plain
        values = made[..., begin : begin + wide].float()
        starts = attn_metadata.prefill.query_start_loc.tolist()
        for first, end in itertools.pairwise(starts):
            state.prefills += 1
            part, new = slice(first, end), end - first
            kept = seen(torch.ones(new, dtype=torch.bool), new, new, fault)
            key, value = keys[part].transpose(0, 1), values[part].transpose(0, 1)
            found = self.attention(q[part].float(), key, value, fault, kept)
            output[part] = found.to(output.dtype).flatten(1)
