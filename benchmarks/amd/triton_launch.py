# SPDX-License-Identifier: Apache-2.0
"""Executes the code objects that triton_peer.py wrote, on the inputs that rocmforge's kernels get. Needs no triton."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from amdgpu import gpu
from amdgpu.kernel import load
from amdgpu.traffic import Costs
from rocmforge_build import code_object
from rocmforge_build.code_object import Resources

from ..kernels.attention_cases import Case, Inputs, sampled_error
from .executed import Aligned, Executed

KERNEL = "kernel_unified_attention"
LARGEST_ERROR = 5e-3  # of bfloat16 results, norm over norm
_PACKED = {"i32": "<i", "i64": "<q", "fp32": "<f"}
_POINTED = {"*bf16": torch.bfloat16, "*fp32": torch.float32, "*i32": torch.int32}


def resources(path: Path) -> Resources:
    """As the launch needs them: Triton's LDS is asked for when it is launched."""
    shared = json.loads(path.with_suffix(".json").read_text())["shared"]
    return replace(code_object.read(path)[0], lds=shared)


def execute(path: Path, case: Case, costs: Costs | None = None) -> Executed:
    """Runs a case as vLLM launches it.

    Raises:
        DecodeError, ValueError: the code has something that cannot be executed, such as scratch memory.
        RuntimeError: the results are wrong.
    """
    launch = json.loads(path.with_suffix(".json").read_text())
    kernel = load(path, KERNEL)
    gpu.schedule(counting=True)
    kernel.time(costs)
    try:
        with Aligned():
            inputs = Inputs(case, 0, "cpu")
            tensors = _tensors(case, inputs, launch)
            arguments = [_packed(argument, tensors) for argument in launch["arguments"]]
            arguments += [bytes(8)] * 2  # scratch memory of Triton's own, which this kernel has none of
            kernel.launch(launch["grid"], (launch["threads"], 1, 1), arguments, launch["shared"])
    finally:
        gpu.schedule()
    if "segm_output_ptr" in tensors:
        _join(tensors)
    inputs.out = tensors["output_ptr"]
    error = sampled_error(case, inputs)
    if not error < LARGEST_ERROR:
        raise RuntimeError(f"{path}: the error of the result is {error:.3g}")
    return Executed(kernel.executed(), kernel.traffic())


def _tensors(case: Case, inputs: Inputs, launch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """By the name of the kernel's argument."""
    cache = inputs.pages.unflatten(-1, (2, case.head)).permute(0, 3, 1, 2, 4).contiguous()
    known = {
        "query_ptr": inputs.query,
        "key_cache_ptr": cache[:, 0],
        "value_cache_ptr": cache[:, 1],
        "seq_lens_ptr": inputs.seq_lens,
        "rswa_prefix_lens_ptr": inputs.seq_lens,
        "query_start_len_ptr": inputs.query_start,
    }
    for argument in launch["arguments"]:
        name, shape = argument["name"], argument.get("shape")
        if shape is None:
            continue
        if name not in known:
            known[name] = torch.zeros(shape, dtype=_POINTED[argument["type"]])
        if name == "block_tables_ptr":
            known[name][:, : inputs.block_table.shape[1]] = inputs.block_table
        if list(known[name].stride()) != argument["strides"] or list(known[name].shape[1:]) != shape[1:]:
            raise ValueError(f"{name} was compiled for {argument}, not for {case.name}")
    return known


def _packed(argument: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bytes:
    if argument["type"] in _POINTED:
        return struct.pack("<Q", tensors[argument["name"]].data_ptr())
    return struct.pack(_PACKED[argument["type"]], argument["value"])


def _join(tensors: dict[str, torch.Tensor]) -> None:
    """What vLLM's next kernel does with the parts of decode."""
    most = tensors["segm_max_ptr"]
    weight = (most - most.amax(-1, keepdim=True)).exp()
    total = (tensors["segm_expsum_ptr"] * weight).sum(-1, keepdim=True)
    tensors["output_ptr"].copy_((tensors["segm_output_ptr"] * weight[..., None]).sum(-2) / total)
