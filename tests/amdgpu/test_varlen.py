# SPDX-License-Identifier: Apache-2.0
"""Attention over keys and values in two tensors on emulated AMD GPUs: every kernel against the oracle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C, served
from rocmforge_plugin.problem import Problem
from tests.kernels.kernel_support import SUFFIX
from tests.kernels.varlen_support import VarlenBatch

from .conftest import ALL, TARGETS
from .emulation import guarded

Use = Callable[..., _C.Device]
# Those that have kernels of their own, and such as run in each of those for longer heads.
HEADS = [
    (key_dims - short, value_dims - short)
    for format, _, heads in served.PROBLEMS
    if format in ("split", "narrow_split")
    for key_dims, value_dims in heads
    for short in [served.NARROW_STEP * (format == "narrow_split")]
]
TYPES = (torch.bfloat16, torch.float16)
CASES = [
    pytest.param(target, dtype, *dims, id=f"{target}-{SUFFIX[dtype]}-{dims[0]}-{dims[1]}")
    for target in TARGETS
    for dtype in TYPES
    for dims in HEADS
]


def check(batch: VarlenBatch) -> dict[str, int]:
    """Runs a batch against the oracle; returns the launches by kernel."""
    planner = batch.planner()
    for name in ("starts", "key_starts", "seq_lens"):
        setattr(batch, name, guarded(getattr(batch, name)))
    rocmforge_plugin.reset_launches()
    batch.run(batch.plan(planner))
    launches = rocmforge_plugin.launches()
    batch.check()
    return launches


@pytest.mark.parametrize(("target", "dtype", "key_dims", "value_dims"), CASES)
def test_prompts(emulated: Use, target: str, dtype: torch.dtype, key_dims: int, value_dims: int) -> None:
    """Causal, and full over context, of which a request may have none; row blocks and tiles end anywhere. Narrow heads,
    which encoders have, in a window to both sides too.
    """
    problem = Problem(dtype, 1, 1, key_dims, value_dims, format="split")
    config = emulated(target).kernel_config(f"attention_prefill_{problem.suffix}")
    rows, keys = config["rows"], config["keys"]
    for causal, schedule in ((True, ("forward",)), (False, ("reverse",)), *(((True, (3, 127)),) if ALL else ())):
        emulated(target, *schedule)
        requests = [(rows + 1, rows + 1), (1, 2 * keys + 1), (17, keys + 15), (0, 0), (3, 40 * causal)]
        batch = VarlenBatch(
            dtype,
            key_dims,
            value_dims,
            kv_heads=2 - causal,
            group=1 + causal,
            requests=requests,
            seed=key_dims + causal,
            causal=causal,
            padding=2,
            before=3 * causal,
            value_gap=key_dims * (not causal),
            heads_outside=causal,
            window=12 * (problem.kernels[0] == "narrow_split" and not causal),
        )
        launches = check(batch)
        assert launches[f"attention_prefill_{problem.suffix}"] == 1
        assert launches[f"attention_combine_{problem.combine_suffix}"] == 1
