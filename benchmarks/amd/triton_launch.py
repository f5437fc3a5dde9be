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

from ..kernels import mla_cases
from ..kernels.attention_cases import Case, Inputs, sampled_error
from .executed import LARGEST_ERROR, Aligned, Executed

_PACKED = {"i32": "<i", "i64": "<q", "fp32": "<f"}
_POINTED = {"*bf16": torch.bfloat16, "*fp32": torch.float32, "*i32": torch.int32}
Tensors = dict[str, torch.Tensor]  # by the name of the kernel's argument


def resources(path: Path) -> Resources:
    """As the launch needs them: Triton's LDS is asked for when it is launched."""
    shared = json.loads(path.with_suffix(".json").read_text())["shared"]
    return replace(code_object.read(path)[0], lds=shared)


def execute(path: Path, case: Case, costs: Costs | None = None) -> Executed:
    """Runs unified attention of a case as vLLM launches it.

    Raises:
        DecodeError, ValueError: the code has something that cannot be executed, such as scratch memory.
        RuntimeError: the results are wrong.
    """
    with Aligned():
        inputs = Inputs(case, 0, "cpu")
        cache = inputs.pages.unflatten(-1, (2, case.head)).permute(0, 3, 1, 2, 4).contiguous()
        tensors = {
            "query_ptr": inputs.query,
            "key_cache_ptr": cache[:, 0],
            "value_cache_ptr": cache[:, 1],
            "seq_lens_ptr": inputs.seq_lens,
            "rswa_prefix_lens_ptr": inputs.seq_lens,
            "query_start_len_ptr": inputs.query_start,
        }
        done = _launch(path, tensors, {"block_tables_ptr": inputs.block_table}, costs)
    if "segm_output_ptr" in tensors:
        _join(tensors)
    inputs.out = tensors["output_ptr"]
    _check(path, sampled_error(case, inputs))
    return done


def execute_latent(folder: Path, target: str, size: str, costs: Costs | None = None) -> list[Executed]:
    """Runs both stages of mla_cases.AMD's decode as vLLM launches them, with the code for one size of the cache.

    Raises:
        As `execute`.
    """
    paths = [folder / f"{target}_latent{stage}_{size}.co" for stage in (1, 2)]
    with Aligned():
        inputs = mla_cases.Inputs(mla_cases.AMD, 0, "cpu")
        rows = inputs.pages[:, :, None]
        one = torch.ones(1)
        tensors = {
            "Q": inputs.query,
            "K_Buffer": rows,
            "V_Buffer": rows[..., : mla_cases.LATENT],
            "B_Seqlen": inputs.seq_lens,
            "k_scale": one,
            "v_scale": one,
            "o": inputs.out,
        }
        done = [_launch(paths[0], tensors, {"Req_to_tokens": inputs.block_table}, costs)]
        tensors["Mid_O"] = tensors["Att_Out"]
        done.append(_launch(paths[1], tensors, {}, costs))
    _check(paths[0], mla_cases.sampled_error(mla_cases.AMD, inputs, inputs.out))
    return done


def _check(path: Path, error: float) -> None:
    if not error < LARGEST_ERROR:
        raise RuntimeError(f"{path}: the error of the result is {error:.3g}")


def _launch(path: Path, tensors: Tensors, tables: Tensors, costs: Costs | None) -> Executed:
    """Runs a kernel on these tensors, and on zeros where it takes others, which join them.

    The first columns of an argument in `tables` are given; the kernel was compiled for more.
    """
    launch = json.loads(path.with_suffix(".json").read_text())
    kernel = load(path, launch["kernel"])
    for argument in launch["arguments"]:
        name, shape = argument["name"], argument.get("shape")
        if shape is None:
            continue
        if name not in tensors:
            tensors[name] = torch.zeros(shape, dtype=_POINTED[argument["type"]])
        if name in tables:
            tensors[name][:, : tables[name].shape[1]] = tables[name]
        if list(tensors[name].stride()) != argument["strides"] or list(tensors[name].shape[1:]) != shape[1:]:
            raise ValueError(f"{path}: {name} was compiled for {argument}, not for {list(tensors[name].shape)}")
    arguments = [_packed(argument, tensors) for argument in launch["arguments"]]
    arguments += [bytes(8)] * 2  # scratch memory of Triton's own, which these kernels have none of
    gpu.schedule(counting=True)
    kernel.time(costs)
    try:
        kernel.launch(launch["grid"], (launch["threads"], 1, 1), arguments, launch["shared"])
    finally:
        gpu.schedule()
    return Executed(kernel.executed(), kernel.traffic())


def _packed(argument: dict[str, Any], tensors: Tensors) -> bytes:
    if argument["type"] in _POINTED:
        return struct.pack("<Q", tensors[argument["name"]].data_ptr())
    return struct.pack(_PACKED[argument["type"]], argument["value"])


def _join(tensors: Tensors) -> None:
    """What vLLM's next kernel does with the parts of decode."""
    most = tensors["segm_max_ptr"]
    weight = (most - most.amax(-1, keepdim=True)).exp()
    total = (tensors["segm_expsum_ptr"] * weight).sum(-1, keepdim=True)
    tensors["output_ptr"].copy_((tensors["segm_output_ptr"] * weight[..., None]).sum(-2) / total)
