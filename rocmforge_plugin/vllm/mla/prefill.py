# SPDX-License-Identifier: Apache-2.0
"""Prompts of latent attention: plain attention over keys and values that vLLM makes of latents.

New tokens attend to each other, causally. Where a request has context in the cache, vLLM gathers it into its workspace
by chunks, makes keys and values of each, and joins the results by their log-sum-exps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from vllm.v1.attention.backends.mla.prefill import selector
from vllm.v1.attention.backends.mla.prefill.base import MLAPrefillBackend

from rocmforge_plugin import served
from rocmforge_plugin.ops import AttentionPlan, AttentionPlanner, varlen_attention
from rocmforge_plugin.vllm import NAME
from rocmforge_plugin.vllm.backend.settings import plain
from rocmforge_plugin.vllm.backend.target import device_refusals, target
from rocmforge_plugin.vllm.mla import eligibility


def forget_choice() -> None:
    """Makes vLLM choose the prefill of the next layer anew.

    It remembers a choice by dtype and dims alone, so that one made for a model of another backend in this process would
    stand for ours, and ours for theirs.
    """
    selector._auto_select_mla_prefill_backend.cache_clear()


@dataclass(frozen=True)
class _Batch:
    """Requests whose queries and keys lie one after the other, and their plan."""

    query_start_loc: torch.Tensor
    key_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    max_query_len: int
    causal: bool
    plan: AttentionPlan


class RocmForgeMLAPrefill(MLAPrefillBackend):
    """Prefill through rocmforge's kernels; vLLM clones one for each metadata builder, which prepares it every step."""

    supported_dtypes: ClassVar[list[torch.dtype]] = [getattr(torch, name) for name in served.ELEMENTS]

    @staticmethod
    def get_name() -> str:
        return NAME

    @classmethod
    def validate_configuration(cls, device_capability: Any, selector_config: Any) -> list[str]:
        """Reasons why a model's prompts cannot be served here, empty when they can; the capability is ignored."""
        dims, kind = selector_config.mla_dimensions, target()
        dtype = plain({"dtype": selector_config.dtype})["dtype"]
        heads = (dims.qk_nope_head_dim + dims.qk_rope_head_dim, dims.v_head_dim)
        if not any(heads):  # the configuration calls them something else; the layer itself is asked as well
            heads = eligibility.PREFILLS[0]
        reasons = eligibility.prefill_refusals(dtype, heads, kind)
        return reasons + device_refusals(None if reasons else eligibility.prefill_problem(dtype, 1, *heads))

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._planners: list[AttentionPlanner] = []  # of the new tokens, then of each chunk of context
        self._new_tokens: _Batch | None = None
        self._chunks: list[_Batch] = []
        forget_choice()

    def supports_out(self) -> bool:
        return True

    def make_planner(self, device: torch.device) -> AttentionPlanner:
        """One more planner, with the memory for a plan; the first has the memory for partial results of all."""
        scheduler = self.vllm_config.scheduler_config
        problem = eligibility.prefill_problem(
            str(self.vllm_config.model_config.dtype),
            self.num_heads,
            self.qk_nope_head_dim + self.qk_rope_head_dim,
            self.v_head_dim,
        )
        made = AttentionPlanner(
            problem,
            device,
            scheduler.max_num_seqs,
            scheduler.max_num_batched_tokens,
            beside=self._planners[0] if self._planners else None,
        )
        self._planners.append(made)
        return made

    def prepare_metadata(self, prefill_metadata: Any) -> None:
        """Plans a step's prompts, by a launch for their new tokens and one for each chunk of their context."""
        super().prepare_metadata(prefill_metadata)
        tokens = int(prefill_metadata.query_lens_cpu.sum())
        starts = prefill_metadata.query_start_loc
        self._new_tokens = self._plan(0, starts, starts, prefill_metadata.max_query_len, tokens, True)
        context = prefill_metadata.chunked_context
        self._chunks = [
            self._plan(
                1 + chunk.index,
                chunk.query_start_loc,
                chunk.cu_seq_lens,
                chunk.max_query_len,
                chunk.token_slice.stop - chunk.token_slice.start,
                False,
            )
            for chunk in (context.chunks if context is not None else ())
        ]

    def run_prefill_new_tokens(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        return_softmax_lse: bool,
        out: torch.Tensor | None = None,
        output_scale: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Causal attention of the new tokens to each other.

        Args:
            q, k: [tokens, heads, qk_head_dim].
            v: [tokens, heads, v_head_dim], a part of wider rows.
            return_softmax_lse: whether the log-sum-exp is wanted too.
            out: a tensor for the result, [tokens, heads, v_head_dim]; None makes one.
            output_scale: of a quantized output, which `supports_quant_output` does not offer.

        Returns:
            The result, and if it is wanted the log-sum-exp, float32 [heads, tokens], natural.
        """
        if output_scale is not None:
            raise ValueError(
                "rocmforge does not quantize attention outputs; "
                "set compilation_config.pass_config.fuse_attn_quant=false"
            )
        lse = _lse_of(q) if return_softmax_lse else None
        result = self._run(self._new_tokens, q, k, v, out, lse)
        return result if lse is None else (result, lse)

    def run_prefill_context_chunk(
        self, chunk: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention of a chunk's requests to all of its keys; as above, with the log-sum-exp."""
        lse = _lse_of(q)
        return self._run(self._chunks[chunk.index], q, k, v, out, lse), lse

    def _plan(
        self,
        number: int,
        query_start_loc: torch.Tensor,
        key_start_loc: torch.Tensor,
        max_query_len: int,
        tokens: int,
        causal: bool,
    ) -> _Batch:
        """A plan in the buffers of the planner with that number, so that a step's plans stand side by side."""
        while len(self._planners) <= number:
            self.make_planner(query_start_loc.device)
        seq_lens = key_start_loc[1:] - key_start_loc[:-1]
        plan = self._planners[number].plan(query_start_loc, seq_lens, max_query_len, tokens, causal)
        return _Batch(query_start_loc, key_start_loc, seq_lens, max_query_len, causal, plan)

    def _run(
        self,
        batch: _Batch | None,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor | None,
        lse: torch.Tensor | None,
    ) -> torch.Tensor:
        if batch is None:
            raise RuntimeError("this MLA prefill was run without a step; call prepare_metadata first")
        return varlen_attention(
            q,
            k,
            v,
            batch.query_start_loc,
            batch.key_start_loc,
            batch.seq_lens,
            max_query_len=batch.max_query_len,
            scale=self.scale,
            causal=batch.causal,
            out=out,
            lse=lse,
            plan=batch.plan,
        )


def _lse_of(q: torch.Tensor) -> torch.Tensor:
    """Room for the log-sum-exp of each head of each query token."""
    return torch.empty(q.shape[1], q.shape[0], dtype=torch.float32, device=q.device)
