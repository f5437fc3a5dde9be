# SPDX-License-Identifier: Apache-2.0
"""From a torch device to the runtime's device: opened once per index, with the code built for it."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from . import emulation
from .problem import KernelName

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
    """Lets the host module read tensors through a DLPack C exchange table, or, with None, by their attributes.

    Torch has the table since 2.11; five tensors are read in 0.3 us by it. Returns whether it is used.
    """
    types = torch.bfloat16, torch.float16, torch.float32, torch.int32, torch.int64
    return _C.use_torch(torch.Tensor, torch.nn.Parameter, types, exchange)


read_tensors_by(getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))


def kernels_dir() -> Path:
    """Where the code objects are: in the package, or where ROCMFORGE_KERNELS points (another build of them)."""
    return Path(os.environ.get("ROCMFORGE_KERNELS") or Path(__file__).parent / "_kernels")


def known(index: int) -> Device | None:
    """The runtime's device with torch's index (-1: the CPU), if it is open already."""
    return _open_devices.get(index)


def stream_of(index: int) -> int:
    """The stream torch would launch on, as an integer, by its index of a GPU; 0 for -1, the CPU."""
    return _raw_stream(index) if index >= 0 else 0  # type: ignore[misc]  # None on builds that have no GPUs


def open_device(device: torch.device | str) -> Device:
    """The runtime's device for a torch device, opened at the first call. ``cuda`` without an index is the current one.

    Where ROCMFORGE_EMULATE names an AMD target, the CPU's is an emulated GPU of it.

    Raises:
        DeviceError: no kernels are built for it, its driver library is missing, or it cannot be emulated.
        TypeError: rocmforge has no kernels for that type of device.
    """
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
        emulated = emulation.target() if kind == "cpu" else None
        made = _emulated_gpu(emulated) if emulated else Device(kind, ordinal, str(kernels_dir()))
        found = _open_devices.setdefault(index, made)
    return found


def _emulated_gpu(target: str) -> Device:
    refusal = emulation.refusal(target, kernels_dir())
    if refusal:
        raise DeviceError(refusal)
    try:
        library = emulation.library(target, _C.cpu_threads())
    except Exception as error:  # whatever amdgpu needs to be built and has not
        raise DeviceError(f"{emulation.VARIABLE} is {target}, but amdgpu cannot be used: {error}") from error
    return Device("hip", 0, str(kernels_dir()), library)


def emulated() -> str | None:
    """The AMD target whose code this process executes for torch's CPU device; None where that runs the CPU's own.

    Until the device is open that is what ROCMFORGE_EMULATE names.
    """
    found = _open_devices.get(-1)
    if found is None:
        return emulation.target()
    return found.target if found.kind == "hip" else None


def emulation_label(device: torch.device) -> str | None:
    """What is said of a torch device that is an emulated GPU; None of any other."""
    target = emulated() if device.type == "cpu" else None
    return emulation.label(target) if target else None


def target_of(device: torch.device) -> str:
    """The kind of kernels for a torch device, as served.py names it: "amd", "nvidia" or "cpu"."""
    if device.type == "cpu":
        return "amd" if emulated() else "cpu"
    return "amd" if torch.version.hip else "nvidia"


def _first_number(dims: str) -> int:
    return int(dims.split("v")[0])


def summary(device: torch.device | str) -> str:
    """One line: the target, the device, and the kernels that are there with their element types and head sizes.

    The CPU's copies for other matrix cores, which only tests ask for, are left out.
    """
    found = open_device(device)
    types: dict[str, dict[str, None]] = {}  # by what the kernel computes, in the order of the index
    dims: dict[str, dict[str, None]] = {}
    for kernel in map(KernelName.parse, found.kernel_names()):
        if not kernel.core:
            types.setdefault(kernel.kernel, {}).update({kernel.element: None} if kernel.element else {})
            dims.setdefault(kernel.kernel, {}).update({kernel.dims: None} if kernel.dims else {})
    listed = "; ".join(
        " ".join([name, *types[name], *(["of head", *sorted(dims[name], key=_first_number)] if dims[name] else [])])
        for name in sorted(types)
    )
    unit = "threads" if found.kind == "cpu" else "compute units"
    size = f"{found.arch}, {found.compute_units} {unit}"
    label = emulation_label(torch.device(device))
    runs = f"{label}, {size}" if label else f"{found.target} code on {found.name} ({size})"
    return f"{runs}: {listed or 'no kernels'}"


def launches() -> dict[str, int]:
    """Kernel launches so far in this process, by kernel name. A graph's launches count once, when it is captured."""
    return _C.launches()


def reset_launches() -> None:
    """Sets all counts to zero."""
    _C.reset_launches()
