# SPDX-License-Identifier: Apache-2.0
"""The native library: built by the host compiler when it is first needed, kept by content, opened with ctypes."""

from __future__ import annotations

import concurrent.futures
import ctypes
import hashlib
import os
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import MappingProxyType

from rocmforge_build.cache import Cache, folder_for
from rocmforge_build.toolchain import find_cxx, host_flags

from .decode.rows import Handler

NATIVE = Path(__file__).with_name("native")
# No fusing of a multiply with an add unless the instruction does it, and no care for floating-point traps, which would
# keep loops with selections in them from becoming vector code. Registers are read as other types than they are.
FLAGS = (
    "-O2",
    "-ftree-vectorize",
    "-fvect-cost-model=dynamic",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fvisibility=default",
    "-pthread",
)


class BuildFailed(Exception):
    """The library does not compile here; the text is the compiler's."""


def path() -> Path:
    """The shared library, after building what of it is not in the cache."""
    compiler = find_cxx()
    flags = (*host_flags(), *FLAGS)
    headers = b"".join(file.read_bytes() for file in sorted(NATIVE.glob("*.h")))
    common = hashlib.sha256("\0".join((compiler.version, *flags)).encode() + headers).digest()
    sources = sorted(NATIVE.glob("*.cpp"))
    names = {s: hashlib.sha256(common + s.name.encode() + s.read_bytes()).hexdigest() + ".o" for s in sources}
    whole = hashlib.sha256("".join(names.values()).encode()).hexdigest() + ".so"

    def run(results: Cache, name: str, arguments: list[str]) -> None:
        temporary = results.temporary(Path(name).suffix)
        try:
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            done = subprocess.run(
                [compiler.path, *flags, *arguments, "-o", str(temporary)], capture_output=True, text=True
            )
            if done.returncode:
                raise BuildFailed(done.stderr[:4000])
            results.keep(name, temporary, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
        finally:
            temporary.unlink(missing_ok=True)

    with Cache(folder_for(NATIVE.parent.parent, lambda text: print(text, file=sys.stderr))) as results:
        if results.find(whole) is None:
            missing = [source for source in sources if results.find(names[source]) is None]
            with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(lambda source: run(results, names[source], ["-c", str(source)]), missing))
            run(results, whole, ["-shared", *(str(results.path(name)) for name in names.values())])
        return results.path(whole)


class Entry(ctypes.Structure):
    """The struct of that name in native/program.h."""

    _fields_ = (
        ("lanes", ctypes.c_int32),
        ("vector_registers", ctypes.c_int32),
        ("accumulators_at", ctypes.c_int32),
        ("shared_bytes", ctypes.c_int32),
        ("kernarg_bytes", ctypes.c_int32),
        ("kernarg_at", ctypes.c_int32),
        ("group_at", ctypes.c_int32 * 3),
        ("group_in_ttmp", ctypes.c_int32),
        ("shared_banks", ctypes.c_int32),
        ("line_bytes", ctypes.c_int32),
        ("hidden_at", ctypes.c_int32 * 6),
    )


class Library:
    """The open library. Functions are those of native/api.cpp and native/hip.cpp."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.c = ctypes.CDLL(str(file))
        for name in ("amdgpu_handlers", "amdgpu_launch", "amdgpu_run_alone"):
            getattr(self.c, name).restype = ctypes.c_char_p
        self.c.amdgpu_kernel.restype = ctypes.c_void_p
        self.c.amdgpu_traffic.restype = ctypes.c_uint64
        handlers = {}
        for number, line in enumerate(self.c.amdgpu_handlers().decode().splitlines()):
            name, _, types = line.partition(" ")
            results, _, sources = types.partition(":")
            handlers[name] = Handler(number, results, sources)
        self.handlers = MappingProxyType(handlers)


@cache
def library() -> Library:
    """The library, built if need be.

    Raises:
        BuildFailed: the host compiler does not take it.
        rocmforge_build.errors.BuildError: there is no host compiler.
    """
    return Library(path())
