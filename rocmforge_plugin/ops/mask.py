# SPDX-License-Identifier: Apache-2.0
"""The causal mask on materialised scores."""

from __future__ import annotations

import torch

from .. import _C, device
from . import checks

_MAX_BATCH_DIMS = 6  # kMaskBatchDims
_OP = "causal_mask"


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
    kind = checks.element(_OP, "scores", scores)
    if scores.dim() < 2:
        checks.fail(_OP, "scores", checks.shape_of(scores), "[..., queries, keys]")
    if cache_len < 0:
        checks.fail(_OP, "cache_len", cache_len, "0 or more: the number of keys before the first query")
    shape, stride = scores.shape, scores.stride()
    if scores.numel() == 0:
        return scores
    if any(size > 1 and step == 0 for size, step in zip(shape, stride)):
        checks.fail(_OP, "scores", checks.shape_of(scores),
                    "a tensor of its own, not an expanded one, since it is written")
    if shape[-1] >= 1 << 31 or scores.numel() // shape[-1] >= 1 << 31:
        checks.fail(_OP, "scores", checks.shape_of(scores), "fewer than 2^31 keys and fewer than 2^31 rows")
    sizes, steps = _merge(shape[:-2], stride[:-2])
    if len(sizes) > _MAX_BATCH_DIMS:
        checks.fail(_OP, "scores", checks.shape_of(scores),
                    f"of at most {_MAX_BATCH_DIMS} leading dimensions that cannot be merged")
    _C.causal_mask(device.of(scores), device.stream(scores), kind, scores.data_ptr(),
                   (shape[-2], shape[-1], stride[-2], stride[-1]), sizes, steps, min(cache_len, shape[-1]))
    return scores


def _merge(shape: torch.Size, stride: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Sizes and strides, the last dimension first, with every dimension merged that continues the one before it."""
    sizes: list[int] = []
    steps: list[int] = []
    for size, step in zip(reversed(shape), reversed(stride)):
        if size == 1:
            continue
        if sizes and step == steps[-1] * sizes[-1]:
            sizes[-1] *= size
        else:
            sizes.append(size)
            steps.append(step)
    return sizes, steps
