# SPDX-License-Identifier: Apache-2.0
"""The product's own path, from ``rocmforge_plugin.ops`` to hipModuleLaunchKernel, on emulated AMD GPUs.

A stand-in for libamdhip64 (``amdgpu``) takes each code object that the runtime loads, and executes each launch; device
memory is host memory. Nothing between Python's operations and the machine code is replaced: variants, grids and
arguments are what the C++ host code chooses. What is checked, and what is not shown, ``amdgpu/README.md`` says.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from amdgpu import gpu
from rocmforge_plugin import _C, device
from rocmforge_plugin.ops.planner import forget_planners

COMPUTE_UNITS = 2  # few, so that small batches are cut across workgroups and a launch stays short


class EmulatedGpus:
    """Devices of any built target, opened at the first use and kept."""

    def __init__(self) -> None:
        self._devices: dict[tuple[str, int], _C.Device] = {}

    def executed(self) -> dict[tuple[str, str], Counter[str]]:
        """Instructions since the last call, by (target, kernel) and mnemonic."""
        return gpu.executed()

    def open(self, target: str, compute_units: int = COMPUTE_UNITS) -> _C.Device:
        """The emulated device of a target, such as gfx942."""
        key = target, compute_units
        if key not in self._devices:
            library = gpu.open_gpu(target, compute_units)
            self._devices[key] = _C.Device("hip", 0, str(device.kernels_dir()), str(library))
        return self._devices[key]

    def capture(self, capturing: bool) -> None:
        """Whether streams are said to be captured; launches run all the same."""
        gpu.capture(capturing)

    @contextmanager
    def use(
        self, target: str, order: str | int = "forward", quantum: int = 0, compute_units: int = COMPUTE_UNITS
    ) -> Iterator[_C.Device]:
        """Operations on CPU tensors run on the emulated device of `target` within this context."""
        before = device._open_devices.get(-1)
        device._open_devices[-1] = self.open(target, compute_units)
        forget_planners()  # it holds planners of the device before
        gpu.schedule(order, quantum)
        try:
            yield device._open_devices[-1]
        finally:
            forget_planners()
            if before is None:
                del device._open_devices[-1]
            else:
                device._open_devices[-1] = before


def guarded(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that ends (but for less than 16 bytes) at a page that no access survives.

    The executor reports such an access with its instruction, as the failure of the launch.
    """
    page = mmap.PAGESIZE
    size = -(-max(tensor.numel() * tensor.element_size(), 1) // 16) * 16
    pages = -(-size // page) * page
    memory = mmap.mmap(-1, pages + page)
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=pages - size)  # keeps `memory`
    flat.copy_(tensor.flatten())
    after = flat.data_ptr() + size
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(after), ctypes.c_size_t(page), 0):
        raise OSError("mprotect failed")
    return flat.view(tensor.shape)
