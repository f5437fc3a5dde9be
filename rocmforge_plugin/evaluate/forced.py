# SPDX-License-Identifier: Apache-2.0
"""A vLLM logits processor that makes a request decode a given continuation, token by token.

vLLM takes log-probabilities from the raw logits before processors run, so what comes back is what the model thought
of each forced token on the real decode path. In a server:

    vllm serve MODEL --logits-processors rocmforge_plugin.evaluate.forced:ForcedTokens
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

#: Key of SamplingParams.extra_args (`vllm_xargs` over HTTP): the token ids to decode.
KEY = "rocmforge_forced"


class ForcedTokens(AdapterLogitsProcessor):
    """Requests that carry KEY produce exactly those tokens; all others are left alone."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises ValueError unless the ids are a list of integers that the request can hold."""
        ids = (sampling_params.extra_args or {}).get(KEY)
        if ids is None:
            return
        if not isinstance(ids, list) or not all(isinstance(i, int) and i >= 0 for i in ids):
            raise ValueError(f"{KEY} must be a list of token ids, got {ids!r}")
        if sampling_params.max_tokens is None or sampling_params.max_tokens > len(ids):
            raise ValueError(f"{KEY} has {len(ids)} tokens; set max_tokens to at most that")

    def is_argmax_invariant(self) -> bool:
        """Forcing changes what greedy sampling picks."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Callable[..., torch.Tensor] | None:
        """The processor of one request, or None where nothing is forced."""
        ids: list[int] | None = (params.extra_args or {}).get(KEY)
        if ids is None:
            return None

        def force(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            kept = ids[min(len(output_ids), len(ids) - 1)]
            forced = torch.full_like(logits, float("-inf"))
            forced[kept] = 0.0
            return forced

        return force


def request(ids: list[int], v2_runner: bool, **more: Any) -> SamplingParams:
    """Sampling parameters that decode `ids` and report each one's log-probability and the best token's.

    v2_runner: vLLM's newer runner has its own forcing (`trace replay`), which needs `enable_trace_replay`.
    """
    common: dict[str, Any] = {"max_tokens": len(ids), "temperature": 0.0, "logprobs": 1, "detokenize": False, **more}
    if v2_runner:
        return SamplingParams(trace_decode_token_ids=list(ids), **common)
    return SamplingParams(ignore_eos=True, extra_args={KEY: list(ids)}, **common)
