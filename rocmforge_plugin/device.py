# SPDX-License-Identifier: Apache-2.0
"""From a torch device to the runtime's device: opened once per index, with the code built for it."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

import torch

try:
    from . import _C
except ImportError as error:
    raise ImportError(
        f"rocmforge's host module cannot be loaded ({error}). In a source tree build it with "
        "`python -m rocmforge_build`; otherwise reinstall with `pip install rocmforge`."
    ) from error

Device = _C.Device
DeviceError = _C.DeviceError
DriverError = _C.DriverError

_open_devices: dict[int, Device] = {}  # by torch index, -1 the CPU
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)  # on ROCm builds of torch too; absent on CPU ones


def read_tensors_by(exchange: object | None) -> bool:
    """Lets the host module read tensors through a DLPack C exchange table, which torch has since 2.11 (five tensors in
    0.3 us), or, with None, by their attributes. Returns whether it does so through the table."""
    types = torch.bfloat16, torch.float16, torch.float32, torch.int32
    return _C.use_torch(torch.Tensor, torch.nn.Parameter, types, exchange)


read_tensors_by(getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))


def kernels_dir() -> Path:
    """Where the code objects are: in the package, or where ROCMFORGE_KERNELS points (another build of them)."""
    return Path(os.environ.get("ROCMFORGE_KERNELS") or Path(__file__).parent / "_kernels")


def of(tensor: torch.Tensor) -> Device:
    """The runtime's device for `tensor`, opened at the first call.

    Raises:
        DeviceError: no kernels are built for it, or its driver library is missing.
        TypeError: rocmforge has no kernels for that type of device.
    """
    found = _open_devices.get(tensor.get_device())
    # A meta tensor's index is the CPU's, but it has no memory to launch on.
    return open_device(tensor.device) if found is None or tensor.is_meta else found


def stream(tensor: torch.Tensor) -> int:
    """The stream torch would launch on for `tensor`, as an integer; 0 on the CPU."""
    return stream_of(tensor.get_device())


def stream_of(index: int) -> int:
    """As `stream`, for torch's index of a GPU; -1 is the CPU."""
    return _raw_stream(index) if index >= 0 else 0


def open_device(device: torch.device | str) -> Device:
    """As `of`, for a torch device. ``cuda`` without an index is the current one."""
    device = torch.device(device)
    if device.type == "cpu":
        index, kind, ordinal = -1, "cpu", 0
    elif device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        kind, ordinal = ("hip" if torch.version.hip else "cuda"), index
    else:
        raise TypeError(f"rocmforge has kernels for AMD and NVIDIA GPUs (torch's 'cuda') and the CPU, not {device}")
    found = _open_devices.get(index)
    if found is None:
        if kind == "cpu":  # what OMP_NUM_THREADS, torch.set_num_threads or vLLM's binding said until now
            _C.set_cpu_threads(torch.get_num_threads())
        found = _open_devices.setdefault(index, Device(kind, ordinal, str(kernels_dir())))
    return found


def target_of(device: torch.device) -> str:
    """The kind of kernels for a torch device, as served.py names it: "amd", "nvidia" or "cpu"."""
    if device.type == "cpu":
        return "cpu"
    return "amd" if torch.version.hip else "nvidia"


def summary(device: torch.device | str) -> str:
    """One line: the target, the device, and the kernels that are there with their element types and head sizes.

    The CPU's copies for other matrix cores, which only tests ask for, are left out.
    """
    found = open_device(device)
    variants: dict[str, tuple[dict[str, None], dict[int, None]]] = defaultdict(lambda: ({}, {}))
    for name in found.kernel_names():
        match = re.fullmatch(r"(.*?)(?:_v\d+)?_(bf16|f16|float)(?:_d(\d+))?", name)
        if match:
            types, sizes = variants[match[1]]
            types[match[2]] = None
            if match[3]:
                sizes[int(match[3])] = None
        elif not re.search(r"_(bf16|f16|float)_", name):
            variants[name]  # a kernel without variants
    listed = "; ".join(" ".join([name, *types, *(["of head", *map(str, sorted(sizes))] if sizes else [])])
                       for name, (types, sizes) in sorted(variants.items()))
    unit = "threads" if found.kind == "cpu" else "compute units"
    return f"{found.target} code on {found.name} ({found.arch}, {found.compute_units} {unit}): {listed or 'no kernels'}"


def launches() -> dict[str, int]:
    """Kernel launches so far in this process, by kernel name. A graph's launches count once, when it is captured."""
    return _C.launches()


def reset_launches() -> None:
    """Sets all counts to zero."""
    _C.reset_launches()
