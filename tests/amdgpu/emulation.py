# SPDX-License-Identifier: Apache-2.0
"""The product's own path, from ``rocmforge_plugin.ops`` to hipModuleLaunchKernel, on emulated AMD GPUs.

A stand-in for libamdhip64 (emulated_hip.cpp) hands each code object that the runtime loads, and each launch with the
bytes of its argument, to an instruction-level emulator; device memory is host memory. Nothing between Python's
operations and the machine code is replaced: variants, grids and arguments are what the C++ host code chooses.

The emulator stands outside of this repository and is found through two variables:

TINYGRAD_PATH   a source checkout of github.com/tinygrad/tinygrad, whose AMD emulator executes single instructions
                (tested with commit a9069c177, August 2026)
AMDGPU_TOOLS    the folder of the launcher around it, with amdrun.py in it: it loads code objects, runs the waves of a
                workgroup, and has its own matrix, cross-lane and memory instructions where tinygrad's are wrong

LDS and registers start as NaN in every float type, waves may be run in any order, and every access is checked against
the memory that is there. What is not shown: time, caches, a missing s_waitcnt, memory order between workgroups, the
last bit of v_exp_f32 and v_rcp_f32, and the order of additions within one matrix instruction.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import mmap
import os
import re
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rocmforge_plugin import _C, device
from rocmforge_plugin.ops import attention

SOURCE = Path(__file__).with_name("emulated_hip.cpp")
COMPUTE_UNITS = 2  # few, so that small batches are cut across workgroups and a launch stays short
_POINTER = ctypes.POINTER(ctypes.c_size_t)
_LOAD = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, _POINTER)
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p, _POINTER)
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_void_p)
)


def missing() -> str | None:
    """Why there is no emulator here, as a sentence; None if there is one."""
    for name, what, file in (
        ("TINYGRAD_PATH", "a source checkout of github.com/tinygrad/tinygrad", "test/mockgpu/amd/emu.py"),
        ("AMDGPU_TOOLS", "the folder of the launcher around tinygrad's AMD emulator", "amdrun.py"),
    ):
        path = os.environ.get(name)
        if not path:
            return f"no emulated AMD GPU: {name} is not set; it must name {what}"
        if not Path(path, file).is_file():
            return f"no emulated AMD GPU: {name}={path} has no {file}; it must name {what}"
    return None


@functools.cache
def _kernel_class() -> Any:
    """The launcher's AmdKernel, disassembling a code object once for its kernels while they are in use."""
    if os.environ["AMDGPU_TOOLS"] not in sys.path:
        sys.path.append(os.environ["AMDGPU_TOOLS"])
    amdrun: Any = importlib.import_module("amdrun")
    amdrun.CodeObject = functools.lru_cache(maxsize=8)(amdrun.CodeObject)

    def run_eight_bytes(wave: Any, instruction: Any, kernel: Any) -> None:
        raw, call, arguments = kernel.eight_bytes[instruction.addr]
        wave.pc = ctypes.addressof(raw)  # a function reads its operands' numbers where the program counter points
        call(*(wave.run.buf[i] for i in arguments))

    class Kernel(amdrun.AmdKernel):
        """Where tinygrad's instructions are not the hardware's.

        global_load and global_store take any address on the hardware (amdhsa runs in unaligned access mode, and clang
        merges neighbouring 2-byte stores, as of the mask's first slot, counting on it), but the emulator rounds it
        down to its width, by which the mask of bfloat16 and float16 showed as shifted by an element. The launcher's
        own flat_load and flat_store, which copy bytes, stand in for them.

        16-bit instructions in their 4-byte form have no upper halves to name on gfx9, but the emulator takes v128 and
        up for the upper halves of v0 and up, as on gfx11. With v_cvt_f16_f32_e32 v132, v137 unexecuted, rows of float16
        attention came out as NaN on gfx90a and gfx942, and only there. Such instructions run in their 8-byte form.

        Two names differ from llvm-objdump's, which the launcher would refuse: v_accvgpr_*_b32 are v_accvgpr_*, and
        v_fma_mix* of gfx906 and later have the opcodes of the older v_mad_mix*, under which name the emulator has
        them; it adds without fusing, one rounding of the product more than the hardware.
        """

        def _decode(self) -> None:
            self.eight_bytes: dict[int, tuple[Any, Any, list[int]]] = {}  # by address
            super()._decode()

        def _own(self, instruction: Any, slot: Any) -> bool:
            if instruction.mnemonic.startswith(("global_load_", "global_store_")):
                name = instruction.mnemonic.replace("global_", "flat_", 1)
                instruction = instruction._replace(mnemonic=name)
            return super()._own(instruction, slot)

        def _fill(self, pc: int) -> None:
            instruction = self.instructions.get(pc - self.base)
            if instruction is None or not self.arch.startswith("gfx9") or not _upper_half(instruction):
                super()._fill(pc)
                return
            raw = _as_vop3(self.co.read(instruction.addr, 4))
            function, arguments = self._emulated(instruction, instruction.mnemonic, raw, self._text(pc))
            name = instruction.mnemonic + " of v128 and up"
            self.instructions[instruction.addr] = instruction._replace(mnemonic=name)
            call = ctypes.CFUNCTYPE(None, *[ctypes.c_uint64] * len(arguments))(function)
            self.eight_bytes[instruction.addr] = (ctypes.create_string_buffer(raw + bytes(8)), call, arguments)
            amdrun.OWN[name] = run_eight_bytes
            slot = self.slots[instruction.addr // 4]
            slot.size, slot.kind = instruction.size, amdrun.CALLBACK

        def _function(self, slot: Any, instruction: Any, mnemonic: str, raw: bytes, pc: int) -> None:
            if mnemonic in ("v_accvgpr_read_b32", "v_accvgpr_write_b32"):
                mnemonic = mnemonic.removesuffix("_b32")
            elif mnemonic.startswith("v_fma_mix") and self.arch.startswith("gfx9"):
                mnemonic = mnemonic.replace("v_fma_", "v_mad_")
            super()._function(slot, instruction, mnemonic, raw, pc)

    return Kernel


@functools.lru_cache(maxsize=32)  # a kernel takes 10 MB here, and there are a thousand
def _kernel(path: str, name: str) -> Any:
    """One kernel of a code object, ready to run."""
    return _kernel_class()(path, name)


def _upper_half(instruction: Any) -> bool:
    """Whether the emulator mistakes an operand for an upper half: see _kernel_class."""
    registers = re.findall(r"\bv(\d+)", instruction.operands)
    sixteen = re.match(r"v_\w*[fiub]16", instruction.mnemonic)
    return instruction.size == 4 and sixteen is not None and any(int(r) >= 128 for r in registers)


def _as_vop3(raw: bytes) -> bytes:
    """A VOP1, VOP2 or VOPC instruction of gfx9, without a literal, in the VOP3 encoding."""
    (word,) = struct.unpack("<I", raw)
    source0, source1 = word & 0x1FF, (word >> 9 & 0xFF) | 0x100
    if word >> 25 == 0x3F:  # VOP1
        opcode, to, sources = 0x140 + (word >> 9 & 0xFF), word >> 17 & 0xFF, source0
    elif word >> 25 == 0x3E:  # VOPC, to vcc
        opcode, to, sources = word >> 17 & 0xFF, 106, source0 | source1 << 9
    else:
        opcode, to, sources = 0x100 + (word >> 25 & 0x3F), word >> 17 & 0xFF, source0 | source1 << 9
    return struct.pack("<II", 0xD0000000 | opcode << 16 | to, sources)


def _elf_size(image: int) -> int:
    """Length of the ELF file at an address: its section headers are its end."""
    header = ctypes.string_at(image, 64)
    (sections,) = struct.unpack_from("<Q", header, 40)
    size, count = struct.unpack_from("<HH", header, 58)
    return sections + size * count


class EmulatedGpus:
    """Devices of any built target, opened at the first use and kept.

    Attributes:
        order: order in which the waves of a workgroup run: "forward", "reverse" or a seed.
        quantum: instructions after which another wave goes on; 0: at barriers only.
        instructions: executed so far, by (target, kernel) and mnemonic.
    """

    def __init__(self, library: Path) -> None:
        self.order: str | int = "forward"
        self.quantum = 0
        self.instructions: dict[tuple[str, str], Counter[str]] = {}
        self._path = str(library)
        self._library = ctypes.CDLL(self._path)
        self._folder = tempfile.TemporaryDirectory()
        self._modules: list[Path] = []
        self._functions: list[tuple[str, str]] = []
        self._devices: dict[tuple[str, int], _C.Device] = {}
        self._callbacks = (
            _LOAD(self._guard(self._load)),
            _FUNCTION(self._guard(self._function)),
            _LAUNCH(self._guard(self._launch)),
        )
        self._library.emulated_connect(*self._callbacks)

    def _guard(self, call: Callable[..., None]) -> Callable[..., int]:
        """Exceptions cannot cross C: they become an error code, whose text is the exception's."""

        def guarded(*arguments: Any) -> int:
            try:
                call(*arguments)
            except Exception as error:  # whatever the emulator raises is the launch's failure
                self._library.emulated_error(f"{type(error).__name__}: {error}".encode())
                return 719
            return 0

        return guarded

    def _load(self, image: int, module: Any) -> None:
        path = Path(self._folder.name, f"{len(self._modules)}.co")
        path.write_bytes(ctypes.string_at(image, _elf_size(image)))
        self._modules.append(path)
        module[0] = len(self._modules)

    def _function(self, module: int, name: bytes, function: Any) -> None:
        self._functions.append((str(self._modules[module - 1]), name.decode()))
        function[0] = len(self._functions)

    def _launch(self, function: int, dims: Any, params: Any) -> None:
        kernel = _kernel(*self._functions[function - 1])
        (argument,) = [a for a in kernel.meta[".args"] if not a[".value_kind"].startswith("hidden_")]
        result = kernel.launch(
            tuple(dims[:3]),
            tuple(dims[3:6]),
            [ctypes.string_at(params[0], argument[".size"])],
            lds_dynamic=dims[6],
            order=self.order,
            quantum=self.quantum,
        )
        self.instructions.setdefault((kernel.arch, kernel.name), Counter()).update(result.by_mnemonic)

    def open(self, target: str, compute_units: int = COMPUTE_UNITS) -> _C.Device:
        """The emulated device of a target, such as gfx942."""
        key = target, compute_units
        if key not in self._devices:
            self._library.emulated_device(f"{target}:sramecc+:xnack-".encode(), compute_units)
            self._devices[key] = _C.Device("hip", 0, str(device.kernels_dir()), self._path)
        return self._devices[key]

    def capture(self, capturing: bool) -> None:
        """Whether streams are said to be captured; launches run all the same."""
        self._library.emulated_capture(int(capturing))

    @contextmanager
    def use(
        self, target: str, order: str | int = "forward", quantum: int = 0, compute_units: int = COMPUTE_UNITS
    ) -> Iterator[_C.Device]:
        """Operations on CPU tensors run on the emulated device of `target` within this context."""
        before = device._open_devices.get(-1)
        device._open_devices[-1] = self.open(target, compute_units)
        attention.forget_planners()  # it holds planners of the device before
        self.order, self.quantum = order, quantum
        try:
            yield device._open_devices[-1]
        finally:
            attention.forget_planners()
            if before is None:
                del device._open_devices[-1]
            else:
                device._open_devices[-1] = before


def guarded(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy that ends (but for less than 16 bytes) at a page that no access survives.

    The emulator reports such an access with its instruction, as the failure of the launch.
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
