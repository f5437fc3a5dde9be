# SPDX-License-Identifier: Apache-2.0
"""Layers, builders and steps of latent attention as vLLM makes them, without an engine; and what they must compute."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.kv_cache_interface import MLAAttentionSpec

from rocmforge_plugin.reference import attend
from rocmforge_plugin.vllm.mla.builder import RocmForgeMLAMetadataBuilder
from rocmforge_plugin.vllm.mla.impl import RocmForgeMLAImpl
from rocmforge_plugin.vllm.mla.prefill import RocmForgeMLAPrefill

from .batches import BLOCK, batch

NAME, SCALE, MAX_LEN = "model.layers.0.self_attn.attn", 0.07, 64


class Dims(NamedTuple):
    """Of a layer."""

    heads: int = 5
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 192
    qk_rope_head_dim: int = 64
    v_head_dim: int = 256

    @property
    def head_size(self) -> int:
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


FLASH = Dims()  # GLM-4.7-Flash at tensor parallel size 4


def layer(dims: Dims = FLASH, **changes: Any) -> RocmForgeMLAImpl:
    """An implementation, by the arguments that vLLM's layer gives."""
    arguments = {
        "num_heads": dims.heads,
        "head_size": dims.head_size,
        "scale": SCALE,
        "num_kv_heads": 1,
        "alibi_slopes": None,
        "sliding_window": None,
        "kv_cache_dtype": "auto",
        "logits_soft_cap": None,
        "attn_type": "decoder",
        "kv_sharing_target_layer_name": None,
        "q_lora_rank": 64,
        "kv_lora_rank": dims.kv_lora_rank,
        "qk_nope_head_dim": dims.qk_nope_head_dim,
        "qk_rope_head_dim": dims.qk_rope_head_dim,
        "qk_head_dim": dims.qk_head_dim,
        "v_head_dim": dims.v_head_dim,
        "kv_b_proj": torch.nn.Identity(),
        "indexer": None,
    }
    with set_current_vllm_config(VllmConfig()):
        return RocmForgeMLAImpl(**(arguments | changes))


def builder(dims: Dims = FLASH, drafted: int = 0, max_num_seqs: int = 4, max_num_batched_tokens: int = 64) -> Any:
    """A builder of one layer's metadata, in fp32; context comes in chunks of at most 8 * MAX_LEN tokens."""
    config: Any = SimpleNamespace(
        scheduler_config=SimpleNamespace(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens),
        cache_config=SimpleNamespace(block_size=BLOCK, cache_dtype="auto"),
        attention_config=SimpleNamespace(use_prefill_query_quantization=False),
        parallel_config=SimpleNamespace(
            prefill_context_parallel_size=1, decode_context_parallel_size=1, cp_kv_cache_interleave_size=1
        ),
        speculative_config=SimpleNamespace(num_speculative_tokens=drafted, method="ngram", parallel_drafting=False)
        if drafted
        else None,
        model_config=SimpleNamespace(
            dtype=torch.float32,
            max_model_len=MAX_LEN,
            get_num_attention_heads=lambda parallel: dims.heads,
            get_head_size=lambda: dims.head_size,
        ),
        compilation_config=SimpleNamespace(static_forward_context={}),
        use_v2_model_runner=True,
    )
    prefill = RocmForgeMLAPrefill(
        num_heads=dims.heads,
        scale=SCALE,
        kv_lora_rank=dims.kv_lora_rank,
        qk_nope_head_dim=dims.qk_nope_head_dim,
        qk_rope_head_dim=dims.qk_rope_head_dim,
        v_head_dim=dims.v_head_dim,
        vllm_config=config,
    )
    config.compilation_config.static_forward_context[NAME] = SimpleNamespace(
        q_lora_rank=64, prefill_backend=prefill, num_heads=dims.heads, **dims._asdict()
    )
    spec = MLAAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=dims.head_size, dtype=torch.float32)
    return RocmForgeMLAMetadataBuilder(spec, [NAME], config, torch.device("cpu"))


def step(lengths: list[int], queries: list[int], pages: int) -> CommonAttentionMetadata:
    """As `batches.batch`, decodes first."""
    common = batch(lengths, queries, pages)
    return common.replace(seq_lens_cpu_upper_bound=common.seq_lens.clone())


def cache(pages: int, dims: Dims = FLASH) -> torch.Tensor:
    """Random latents, on pages that are a part of wider memory, as where several layers share it."""
    return torch.randn(pages, 2 * BLOCK * dims.head_size)[:, : BLOCK * dims.head_size].view(pages, BLOCK, -1)


def queries_of(tokens: int, dims: Dims = FLASH) -> tuple[torch.Tensor, torch.Tensor]:
    """Absorbed queries, and their rotated parts, which are slices of wider rows."""
    wide = torch.randn(tokens, dims.heads, dims.qk_head_dim)
    return torch.randn(tokens, dims.heads, dims.kv_lora_rank), wide[..., dims.qk_nope_head_dim :]


def latent_reference(
    q: tuple[torch.Tensor, torch.Tensor], pages: torch.Tensor, common: CommonAttentionMetadata, requests: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Results of the step's first requests in fp64, and the logarithms of their softmax's sums, [tokens, heads]."""
    query, rank = torch.cat(q, dim=-1), q[0].shape[-1]
    results, sums = [], []
    for request in range(requests):
        begin, end = common.query_start_loc[request : request + 2].tolist()
        length = int(common.seq_lens[request])
        rows = pages[common.block_table_tensor[request].long()].flatten(0, 1)[:length, None]
        out, lse = attend(query[begin:end], rows, rows[..., :rank], SCALE)
        results.append(out)
        sums.append(lse.t())
    return torch.cat(results), torch.cat(sums)
