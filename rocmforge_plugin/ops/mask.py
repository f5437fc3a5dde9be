# SPDX-License-Identifier: Apache-2.0
"""The causal mask on materialised scores."""

from __future__ import annotations

import torch

from .. import _C
from . import checks

WORKS: checks.Works = {
    "scores.dtype": checks.ANY_ELEMENT,
    "scores.shape": "[..., queries, keys]",
    "cache_len.least": "0 or more: the number of keys before the first query",
    "scores.size": "of fewer than 2^31 keys and fewer than 2^31 rows",
    "scores.batch_dims": f"of at most {_C.mask_batch_dims} leading dimensions that cannot be merged",
}


def causal_mask(scores: torch.Tensor, cache_len: int = 0) -> torch.Tensor:
    """Sets the scores of future keys to -inf, in place, and returns `scores`.

    Key ``j`` is kept for query ``i`` iff ``j <= i + cache_len``. Kept elements are neither read nor written, and the
    work grows with the number of masked elements only.

    Args:
        scores: [..., queries, keys], float32, float16 or bfloat16, any strides; no two elements may share memory.
            Leading dimensions are free, but at most six must be left when those that can be viewed as one are merged.
        cache_len: keys before the first query, at least 0.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if torch.compiler.is_compiling():
        torch.ops.rocmforge.causal_mask(scores, cache_len)
        return scores
    failed = _C.causal_mask(*checks.place("causal_mask", "scores", scores), scores, cache_len)
    if failed:
        checks.refuse("causal_mask", failed, WORKS, {"scores": scores, "cache_len": cache_len})
    return scores
