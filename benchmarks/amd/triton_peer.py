# SPDX-License-Identifier: Apache-2.0
"""Compiles vLLM's Triton unified attention for AMD GPUs, as vLLM would launch it. No GPU is needed.

    python -m benchmarks.amd.triton_peer OUT

writes OUT/<target>_<prefill|decode>_<small|large>.co for bfloat16, head size 128, 32 query and 8 KV heads, pages of 16
tokens: what `loops --triton OUT` and `counters --triton OUT` compare with, and beside each a .json that says how vLLM
launches it (triton_launch.py). The launch is taken from vLLM's own function, whose kernel is replaced by one that notes
its arguments. "small": the KV cache is below 2 GiB, for which Triton uses buffer
loads; "large": it is not.

Needs vLLM and triton (tested: 0.32 and 3.9.0). vLLM's CPU build brings no triton: put one on PYTHONPATH, from
`pip install --no-deps --target DIR triton==3.9.0`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # vLLM then takes triton without a driver

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vllm import platforms

platforms.vllm_version_matches_substr = lambda text: False  # its CPU build turns off a triton without a CPU backend

from vllm.v1.attention.ops import triton_unified_attention as unified  # noqa: E402

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1200", "gfx1201")
HEADS, KV_HEADS, HEAD, PAGE, SEGMENTS = 32, 8, 128, 16, 16
TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32"}


class Noted(Exception):
    """Carries the grid and the arguments of the launch."""


class Recorder:
    """Stands in for the kernel."""

    def __getitem__(self, grid: Any) -> Any:
        def launch(**arguments: Any) -> None:
            raise Noted(grid, arguments)

        return launch


def launch_arguments(decode: bool, large: bool) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Grid and arguments that vLLM passes for a batch of 4 decoding requests, or of 4 prompts of 512 tokens."""
    query_len = 1 if decode else 512
    tokens, blocks = 4 * query_len, (40000 if large else 1024)

    def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    cache = meta(blocks, 2, PAGE, KV_HEADS, HEAD)
    segments = (tokens, HEADS, SEGMENTS)
    kernel, unified.kernel_unified_attention = unified.kernel_unified_attention, Recorder()
    try:
        unified.unified_attention(
            q=meta(tokens, HEADS, HEAD),
            k=cache[:, 0],
            v=cache[:, 1],
            out=meta(tokens, HEADS, HEAD),
            cu_seqlens_q=meta(5, dtype=torch.int32),
            max_seqlen_q=query_len,
            seqused_k=meta(4, dtype=torch.int32),
            max_seqlen_k=4096,
            softmax_scale=HEAD**-0.5,
            causal=True,
            window_size=(-1, -1),
            block_table=meta(4, 256, dtype=torch.int32),
            softcap=0,
            q_descale=None,
            k_descale=None,
            v_descale=None,
            seq_threshold_3D=128,
            num_par_softmax_segments=SEGMENTS,
            softmax_segm_output=meta(*segments, HEAD, dtype=torch.float32),
            softmax_segm_max=meta(*segments, dtype=torch.float32),
            softmax_segm_expsum=meta(*segments, dtype=torch.float32),
        )
    except Noted as noted:
        return noted.args
    finally:
        unified.kernel_unified_attention = kernel
    raise RuntimeError("vLLM launched no unified attention")


def described(source: ASTSource, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """The arguments that the compiled kernel takes, in their order; of tensors what they look like."""
    found: list[dict[str, Any]] = []
    for name, kind in source.signature.items():
        value = arguments.get(name)
        if kind == "constexpr":
            continue
        if isinstance(value, torch.Tensor):
            found.append({"name": name, "type": kind, "shape": list(value.shape), "strides": list(value.stride())})
        else:
            found.append({"name": name, "type": kind, "value": value})
    return found


def source(arguments: dict[str, Any], large: bool) -> ASTSource:
    """The kernel with its arguments specialised as Triton's launcher does for HIP."""
    signature, constants, attributes = {}, {}, {}
    kernel = unified.kernel_unified_attention
    for index, parameter in enumerate(kernel.params):
        name = parameter.name
        value = arguments.get(name, parameter.default if parameter.has_default else None)
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
            if not (large and name in ("key_cache_ptr", "value_cache_ptr")):
                attributes[(index,)].append(["tt.pointer_range", 32])
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i64" if "int64" in str(parameter.annotation) else "i32"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def main(out: Path) -> None:
    """Writes a code object for each target, phase and size of the cache."""
    out.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        gpu = GPUTarget("hip", target, 64 if target.startswith("gfx9") else 32)
        for phase in ("prefill", "decode"):
            for size in ("small", "large"):
                grid, arguments = launch_arguments(phase == "decode", size == "large")
                compiled = source(arguments, size == "large")
                built = triton.compile(compiled, target=gpu, options={"num_warps": 4})
                path = out / f"{target}_{phase}_{size}.co"
                path.write_bytes(built.asm["hsaco"])
                launch = {
                    "grid": [*grid, 1][:3],
                    "threads": 4 * gpu.warp_size,
                    "shared": built.metadata.shared,
                    "arguments": described(compiled, arguments),
                }
                path.with_suffix(".json").write_text(json.dumps(launch, indent=1) + "\n")
                print(
                    f"{path}: tile {arguments['TILE_SIZE']} keys, {arguments['BLOCK_M']} rows, triton "
                    f"{triton.__version__}",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
