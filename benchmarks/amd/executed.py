# SPDX-License-Identifier: Apache-2.0
"""Kernels executed on emulated AMD GPUs (`amdgpu`), with buffers aligned as torch's allocator aligns them on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from amdgpu import gpu
from amdgpu.traffic import Costs, Traffic
from rocmforge_plugin import _C, device, ops
from rocmforge_plugin.ops.planner import AttentionPlanner, forget_planners
from rocmforge_plugin.problem import Problem

from ..kernels import attention_cases, elementwise_cases, mla_cases
from ..kernels.attention_cases import Case, spread
from ..kernels.elementwise_cases import MODELS
from .machine_code import unit_of

ALIGNMENT = 512  # of an allocation by torch's caching allocator
LARGEST_ERROR = 5e-3  # of bfloat16 results, norm over norm


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy that begins at a multiple of ALIGNMENT, with the same strides."""
    room = torch.empty(tensor.untyped_storage().nbytes() + ALIGNMENT, dtype=torch.uint8)
    flat = room[-room.data_ptr() % ALIGNMENT :][: tensor.untyped_storage().nbytes()].view(tensor.dtype)
    return flat.as_strided(tensor.shape, tensor.stride()).copy_(tensor)


class Aligned(TorchDispatchMode):
    """Within it, whatever torch allocates is aligned as on a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = set()
        for given in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            if isinstance(given, torch.Tensor):
                known.add(given.untyped_storage().data_ptr())

        def place(result: torch.Tensor) -> torch.Tensor:
            at = result.untyped_storage().data_ptr()
            return result if at in known or at % ALIGNMENT == 0 else aligned(result)

        return tree_map_only(torch.Tensor, place, func(*args, **kwargs or {}))


@dataclass(frozen=True)
class Executed:
    """What one kernel of a case did.

    Attributes:
        instructions: executed, by mnemonic; one of a wave counts once.
        traffic: of memory; with the clocks of workgroups if costs were given.
    """

    instructions: Counter[str]
    traffic: Traffic

    @property
    def by_unit(self) -> Counter[str]:
        """Instructions by the unit that they occupy."""
        found: Counter[str] = Counter()
        for mnemonic, count in self.instructions.items():
            found[unit_of(mnemonic)] += count
        return found


def attend(case: Case) -> Callable[[], None]:
    """Attention of a batch, plan and all."""
    inputs = attention_cases.Inputs(case, 0, "cpu")
    problem = Problem(case.dtype, case.heads, case.kv_heads, case.head, case.head)
    planner = AttentionPlanner(problem, "cpu", len(case.lens), case.tokens)

    def run() -> None:
        plan = planner.plan(inputs.query_start, inputs.seq_lens, case.query_len, case.tokens)
        ops.paged_attention(
            inputs.query,
            inputs.kv_cache,
            inputs.block_table,
            inputs.seq_lens,
            inputs.query_start,
            max_query_len=case.query_len,
            scale=case.head**-0.5,
            out=inputs.out,
            plan=plan,
        )

    return run


def attend_latent(case: mla_cases.Case) -> Callable[[], None]:
    """Decode from a latent cache, plan and all."""
    inputs = mla_cases.Inputs(case, 0, "cpu")
    problem = Problem(case.dtype, case.heads, 1, mla_cases.KEY, mla_cases.LATENT, format="latent")
    planner = AttentionPlanner(problem, "cpu", len(case.lens), case.tokens, case.query_len)

    def run() -> None:
        plan = planner.plan(inputs.query_start, inputs.seq_lens, case.query_len, case.tokens)
        ops.latent_attention(
            inputs.query_latent,
            inputs.query_rope,
            inputs.pages,
            inputs.block_table,
            inputs.seq_lens,
            inputs.query_start,
            max_query_len=case.query_len,
            scale=case.scale,
            out=inputs.out,
            plan=plan,
        )
        error = mla_cases.sampled_error(case, inputs, inputs.out)
        if not error < LARGEST_ERROR:
            raise RuntimeError(f"{case.name}: the error of the result is {error:.3g}")

    return run


def write(model: elementwise_cases.Model, tokens: int, kind: str) -> Callable[[], None]:
    """Rotary embedding with the KV write, with head norms before or without; or the KV write by itself."""
    batch = elementwise_cases.Batch(model, tokens, "cpu")

    def run() -> None:
        if kind == elementwise_cases.WRITE:
            ops.kv_write(batch.heads(batch.key), batch.heads(batch.value), batch.kv_cache, batch.slots)
            return
        norm = {"q_norm_weight": batch.q_weight, "k_norm_weight": batch.k_weight}
        ops.rotary_kv_write(
            batch.positions,
            batch.query,
            batch.key,
            batch.value,
            batch.table,
            batch.kv_cache,
            batch.slots,
            interleaved=model.interleaved,
            **(norm if kind == elementwise_cases.NORM else {}),
        )

    return run


# GLM-4-9B has 32 query and 2 KV heads, GLM-4.6 has 96 and 8; 32 and 8 heads are what the Triton peer is compiled for.
PEER = {
    "decode": Case("decode, 4 x 4096 keys, 32/8 heads", (4096,) * 4, 1, 32, 8),
    "prefill": Case("prefill, 4 x 512 tokens, 32/8 heads", (512,) * 4, 512, 32, 8),
}
ATTENTION = (
    PEER["decode"],
    Case("decode, 16 x 8192 keys, 32/2 heads", (8192,) * 16, 1, 32, 2),
    Case("decode, 16 x 256 to 8192 keys, 96/8 heads", spread(256, 8192, 16), 1, 96, 8),
    Case("decode, 1 x 16384 keys, 32/2 heads, head size 64", (16384,), 1, 32, 2, 64),
    PEER["prefill"],
    Case("prefill, 1 x 2048 tokens, 32/2 heads", (2048,), 2048, 32, 2),
    Case("prefill, 2 x 300 tokens, 96/8 heads, head size 64", (300,) * 2, 300, 96, 8, 64),
)
TOKENS = 256
CASES: dict[str, Callable[[], Callable[[], None]]] = {
    **{case.name: partial(attend, case) for case in ATTENTION},
    **{
        f"{kind}, {TOKENS} tokens, {model.heads}/{model.kv_heads} heads": partial(write, model, TOKENS, kind)
        for model, kinds in (
            (MODELS[0], (elementwise_cases.BOTH, elementwise_cases.WRITE)),
            (MODELS[1], (elementwise_cases.NORM, elementwise_cases.WRITE)),
        )
        for kind in kinds
    },
}


@contextmanager
def emulated(target: str, compute_units: int) -> Iterator[None]:
    """Operations on CPU tensors run on an emulated GPU, counted, within this context."""
    before = device._open_devices.get(-1)
    library = gpu.open_gpu(target, compute_units)
    device._open_devices[-1] = _C.Device("hip", 0, str(device.kernels_dir()), str(library))
    forget_planners()  # of the device before
    gpu.schedule(counting=True)
    try:
        with Aligned():
            yield
    finally:
        gpu.schedule()
        gpu.timing(None)
        forget_planners()
        if before is None:
            del device._open_devices[-1]
        else:
            device._open_devices[-1] = before


def execute(
    prepare: Callable[[], Callable[[], None]], target: str, compute_units: int, costs: Costs | None = None
) -> dict[str, Executed]:
    """Runs what `prepare`, such as one of CASES, makes ready; what each of its kernels did, by name."""
    with emulated(target, compute_units):
        gpu.timing(costs)
        run = prepare()
        gpu.executed(), gpu.traffic()
        run()
        instructions, traffic = gpu.executed(), gpu.traffic()
    return {name: Executed(found, traffic[where, name]) for (where, name), found in instructions.items()}
