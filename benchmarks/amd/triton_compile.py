# SPDX-License-Identifier: Apache-2.0
"""Compiles Triton kernels for AMD GPUs as one of vLLM's functions would launch them. No GPU is needed.

Needs vLLM and triton (tested: 0.32 and 3.9.0). vLLM's CPU build brings no triton: put one on PYTHONPATH, from
`pip install --no-deps --target DIR triton==3.9.0`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # vLLM then takes triton without a driver

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vllm import platforms

platforms.vllm_version_matches_substr = lambda text: False  # its CPU build turns off a triton without a CPU backend

TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.int32: "i32"}


class Launch(NamedTuple):
    """What vLLM launches: a kernel, its grid, and its arguments by name, compile options among them."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]

    @property
    def options(self) -> dict[str, Any]:
        """Of the compiler."""
        parameters = {parameter.name for parameter in self.kernel.params}
        return {"num_warps": 4} | {name: value for name, value in self.arguments.items() if name not in parameters}


class _Recorder:
    """Stands in for a kernel."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **named: Any) -> None:
            names = (parameter.name for parameter in self.kernel.params)
            self.launches.append(Launch(self.kernel, grid, dict(zip(names, arguments, strict=False)) | named))

        return launch


def launches(module: ModuleType, kernels: Sequence[str], call: Callable[[], object]) -> list[Launch]:
    """What `call` launches of a module's kernels, which do not run.

    Raises:
        RuntimeError: it launches none.
    """
    found: list[Launch] = []
    real = {name: getattr(module, name) for name in kernels}
    try:
        for name, kernel in real.items():
            setattr(module, name, _Recorder(kernel, found))
        call()
    finally:
        for name, kernel in real.items():
            setattr(module, name, kernel)
    if not found:
        raise RuntimeError(f"vLLM launched none of {', '.join(kernels)}")
    return found


def source(launch: Launch, large: Sequence[str] = ()) -> ASTSource:
    """The kernel with its arguments specialised as Triton's launcher does for HIP.

    `large` names pointers into storage of 2 GiB or more, for which Triton does not use buffer loads.
    """
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        name = parameter.name
        value = launch.arguments.get(name, parameter.default if parameter.has_default else None)
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = "*" + TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
            if name not in large:
                attributes[(index,)].append(["tt.pointer_range", 32])
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i64" if "int64" in str(parameter.annotation) else "i32"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(launch.kernel, signature, constants, attributes)


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


def write(launch: Launch, target: str, path: Path, large: Sequence[str] = ()) -> None:
    """A code object, and beside it a .json that says how vLLM launches it."""
    gpu = GPUTarget("hip", target, 64 if target.startswith("gfx9") else 32)
    compiled = source(launch, large)
    built = triton.compile(compiled, target=gpu, options=launch.options)
    path.write_bytes(built.asm["hsaco"])
    described_launch = {
        "kernel": built.metadata.name,
        "grid": [*launch.grid, 1, 1][:3],
        "threads": launch.options["num_warps"] * gpu.warp_size,
        "shared": built.metadata.shared,
        "arguments": described(compiled, launch.arguments),
    }
    path.with_suffix(".json").write_text(json.dumps(described_launch, indent=1) + "\n")
    print(f"{path}: triton {triton.__version__}", flush=True)
