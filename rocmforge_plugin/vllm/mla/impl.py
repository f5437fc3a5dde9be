# SPDX-License-Identifier: Apache-2.0
"""One layer of latent attention: the write to the cache, and short queries' attention to it.

vLLM multiplies queries with the keys' part of kv_b_proj before `forward_mqa` and its results with the values' part
after, so that all heads attend to the latent as one KV head; prompts go through `prefill`.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonImpl, MLACommonMetadata

from rocmforge_plugin.ops import AttentionPlan, latent_attention, latent_kv_write
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.settings import plain
from rocmforge_plugin.vllm.backend.target import target
from rocmforge_plugin.vllm.mla import eligibility
from rocmforge_plugin.vllm.mla.metadata import LatentMetadata
from rocmforge_plugin.vllm.mla.prefill import forget_choice


class RocmForgeMLAImpl(MLACommonImpl[MLACommonMetadata]):
    """Latent attention of one layer; vLLM gives all arguments by name."""

    can_return_lse_for_decode: bool = True
    supports_pcp: bool = False
    supports_dcp: bool = False
    writes_cache: bool = True  # not where the layer itself rotates and writes in one launch (`position.latent`)

    def __init__(self, **arguments: Any) -> None:
        """Raises ValueError, naming the setting and what works, for what the kernels cannot do.

        vLLM's selection sees one number of a layer's dims, so they are checked again here.
        """
        reasons = eligibility.layer_refusals(plain(arguments), target())
        if reasons:
            raise ValueError(f"rocmforge cannot serve this layer of latent attention: {'; '.join(reasons)}")
        super().__init__(**arguments)
        self.supports_quant_query_input = False  # the cache has the model's dtype
        self._number = -1  # of the problem, which is known when the queries' dtype is
        forget_choice()  # vLLM asks for this layer's prefill next

    def problem(self, dtype: torch.dtype) -> Problem:
        """What this layer's short queries compute, with queries and a cache of `dtype`."""
        return eligibility.latent_problem(str(dtype), self.num_heads, self.head_size, self.kv_lora_rank)

    def do_kv_cache_update(
        self,
        kv_c_normed: torch.Tensor,
        k_pe: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
        kv_cache_dtype: str,
        k_scale: torch.Tensor,
        skip_scale: bool = False,
    ) -> None:
        """Write latents and the rotated part of the keys to their pages.

        Args:
            kv_c_normed: [tokens, kv_lora_rank], any strides but the last; may be longer than `slot_mapping`.
            k_pe: [tokens, 1, qk_rope_head_dim], as `kv_c_normed`.
            kv_cache: [blocks, block_size, head_size]; empty while vLLM profiles memory.
            slot_mapping: int64, block * block_size + offset of each written token; -1 is skipped.
            kv_cache_dtype, k_scale, skip_scale: unused (the cache has the model's dtype). vLLM 0.32 knows no
                `skip_scale`.
        """
        if self.writes_cache and kv_cache.numel():
            latent_kv_write(kv_c_normed, k_pe if k_pe.shape[-1] else None, kv_cache, slot_mapping.flatten())

    def forward_mqa(
        self,
        q: tuple[torch.Tensor, torch.Tensor] | torch.Tensor,
        kv_c_and_k_pe_cache: torch.Tensor,
        attn_metadata: MLACommonMetadata,
        layer: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention of the step's first requests to their latents.

        Args:
            q: [tokens, heads, kv_lora_rank], queries in the latent's space, and [tokens, heads, qk_rope_head_dim].
            kv_c_and_k_pe_cache: as for `do_kv_cache_update`.
            attn_metadata: of this step; its `decode` is a `LatentMetadata`.
            layer: vLLM's attention layer, unused.

        Returns:
            [tokens, heads, kv_lora_rank], and where vLLM asks for it the natural logarithm of the softmax's sum,
            float32 [tokens, heads].
        """
        if not isinstance(q, tuple):
            raise ValueError(
                f"rocmforge takes a query in two parts, not one of {list(q.shape)} {q.dtype}, as vLLM makes it for a "
                "quantized cache or decode context parallelism; use the model's dtype as --kv-cache-dtype and "
                "--decode-context-parallel-size 1"
            )
        latent, rope = q
        step: LatentMetadata = attn_metadata.decode
        plan = step.plans.get(self._number)
        if plan is None:
            plan = self._first_plan(step, latent.dtype)
        lse = None
        if self.need_to_return_lse_for_decode:
            lse = torch.empty(latent.shape[:2], dtype=torch.float32, device=latent.device)
        out = latent_attention(
            latent,
            rope if rope.shape[-1] else None,
            kv_c_and_k_pe_cache,
            step.block_table,
            step.seq_lens,
            step.query_start_loc,
            max_query_len=step.max_query_len,
            scale=self.scale,
            lse=None if lse is None else lse.t(),
            plan=plan,
        )
        return out, lse

    def _first_plan(self, step: LatentMetadata, dtype: torch.dtype) -> AttentionPlan:
        """The plan of a step whose builder did not know this layer, or this layer its number."""
        self._number, plan = step.first_plan(self.problem(dtype))
        return plan
