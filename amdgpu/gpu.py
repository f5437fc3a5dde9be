# SPDX-License-Identifier: Apache-2.0
"""A GPU without a GPU: a stand-in for libamdhip64 whose device memory is the process's own and whose launches execute.

``open_gpu`` returns the path of a shared library that a program may open in the place of libamdhip64. This process
decodes the kernels that it asks for; launches themselves do not come back to Python.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .decode.target import Target
from .kernel import Kernel, load
from .library import library
from .traffic import Costs, Traffic

ORDERS = {"forward": 0, "reverse": 1}
_SHUFFLED = 2
ROUNDINGS = ("nearest", "below", "above")
ADDITIONS = ("ascending", "descending", "pairwise")
_DECODE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p)

_costs: list[Costs | None] = [None]  # of all kernels, those that are still to be loaded too
_kernels: dict[tuple[int, str], Kernel] = {}  # by the address of their code object, and name


def open_gpu(target: str, compute_units: int) -> Path:
    """The stand-in, as a device of that architecture and size; a program asks for these when it opens the device.

    Raises:
        ValueError: the target is not known.
    """
    Target(target)
    lib = library()
    lib.c.amdgpu_hip_connect(_decode)
    lib.c.amdgpu_hip_device(f"{target}:sramecc+:xnack-".encode(), compute_units)
    return lib.file


def schedule(
    order: str | int = "forward",
    quantum: int = 0,
    uninitialised: bool = False,
    threads: int | None = None,
    limit: int = 1 << 31,
    counting: bool = False,
) -> None:
    """How launches run from here on.

    Args:
        order: of a workgroup's waves: "forward", "reverse", or the seed of a random one.
        quantum: instructions after which another wave goes on; 0: at barriers only.
        uninitialised: look for registers and LDS that are used before they are written, in twice the time.
        threads: host threads that share workgroups; None: as many as this process may use.
        limit: instructions of one wave after which the launch fails as one that does not end.
        counting: note what memory instructions do (`Kernel.traffic`), and time waves by the costs that were given
            (`timing`).
    """
    which = ORDERS[order] if isinstance(order, str) else _SHUFFLED
    seed = order if isinstance(order, int) else 0
    count = threads or len(os.sched_getaffinity(0))
    library().c.amdgpu_settings(which, seed, quantum, ctypes.c_uint64(limit), int(uninitialised), int(counting), count)


def arithmetic(rounding: str = "nearest", additions: str = "ascending") -> None:
    """What hardware does that documents leave open; results must not hang on it.

    Args:
        rounding: of exp, log, rcp, rsq, sqrt, sin and cos: "nearest", or one unit "below" or "above".
        additions: order within one matrix instruction or dot product: "ascending", "descending" or "pairwise".
    """
    library().c.amdgpu_arithmetic(ROUNDINGS.index(rounding), ADDITIONS.index(additions))


def capture(capturing: bool) -> None:
    """Whether streams are said to be captured; launches run all the same."""
    library().c.amdgpu_hip_capture(int(capturing))


def executed() -> dict[tuple[str, str], Counter[str]]:
    """Instructions since the last call, by (target, kernel) and mnemonic."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for kernel in _kernels.values():
        if counts := kernel.executed():
            found.setdefault((kernel.target, kernel.name), Counter()).update(counts)
    return found


def traffic() -> dict[tuple[str, str], Traffic]:
    """What counted launches did since the last call, by (target, kernel)."""
    seen = [(kernel.target, kernel.name, kernel.traffic()) for kernel in _kernels.values()]
    return {(target, name): found for target, name, found in seen if found.by_line}


def timing(costs: Costs | None) -> None:
    """What instructions cost where counted launches are timed, also of kernels yet to be loaded; None: not timed."""
    _costs[:] = [costs]
    for each in _kernels.values():
        each.time(costs)


def kernel(target: str, name: str) -> Kernel:
    """One that this process has loaded; KeyError if it has not."""
    for found in _kernels.values():
        if (found.target, found.name) == (target, name):
            return found
    raise KeyError(f"no kernel {name} of {target} has been loaded")


def _guarded(call: Callable[..., int]) -> Any:
    """Exceptions cannot cross C: they become a null pointer, and their text the driver's."""

    def guarded(*arguments: Any) -> int | None:
        try:
            return call(*arguments)
        except Exception as error:  # whatever it is, it is why the kernel cannot be had
            library().c.amdgpu_hip_error(f"{type(error).__name__}: {error}".encode())
            return None

    return _DECODE(guarded)


def _decode_kernel(file: int, size: int, base: int, name: bytes) -> int:
    key = base, name.decode()
    if key not in _kernels:
        with tempfile.NamedTemporaryFile(suffix=".co") as copy:
            copy.write(ctypes.string_at(file, size))
            copy.flush()
            _kernels[key] = load(Path(copy.name), key[1], base)
            _kernels[key].time(_costs[0])
    handle = _kernels[key].handle.value
    if handle is None:
        raise MemoryError("no memory for a kernel")
    return handle


_decode = _guarded(_decode_kernel)
