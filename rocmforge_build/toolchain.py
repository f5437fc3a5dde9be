# SPDX-License-Identifier: Apache-2.0
"""Finds the compilers and knows each one's flags.

Environment: ROCMFORGE_CXX, ROCMFORGE_HIPCC and ROCMFORGE_NVCC name compilers to use instead of the ones found.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rocmforge_plugin import served

from .errors import BuildError

AMD_TARGETS = served.AMD_ARCHS
NVIDIA_TARGETS = served.NVIDIA_ARCHS
ALL_TARGETS = ("cpu", *AMD_TARGETS, *NVIDIA_TARGETS)

_CLANG_MAJORS = range(26, 18, -1)
# Those that kernels/matrix/select.h has a matrix core for. The compiler's own names for families do not tell:
# gfx1250 is __GFX12__ as RDNA 4 is, and has none of its matrix instructions.
_AMD_WITH_CORE = re.compile(
    "gfx90a|gfx942|gfx950|gfx9-4-generic|gfx11[05][0-9a-f]|gfx11-generic|gfx120[0-9a-f]|gfx12-generic"
)
# Variables by which a user changes what a compiler makes.
_STEERING = (
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "CCC_OVERRIDE_OPTIONS",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
    "HIPCC_COMPILE_FLAGS_APPEND",
)
_LEAST_SM = 80  # whose matrix instructions kernels/matrix/mma_sm80.h uses


def family(target: str) -> str:
    """``cpu``, ``amd`` or ``nvidia``, from a target's name; raises BuildError for what there are no kernels for."""
    if target == "cpu":
        return "cpu"
    if re.fullmatch(r"gfx[0-9a-f]+|gfx[0-9]+(-[0-9]+)?-generic", target):
        if not _AMD_WITH_CORE.fullmatch(target):
            raise BuildError(
                f"{target} cannot be built: kernels/matrix has no matrix core for it. There is one for "
                f"{', '.join(AMD_TARGETS)}, their siblings gfx110x, gfx115x and gfx120x, and "
                "gfx9-4-generic, gfx11-generic and gfx12-generic"
            )
        return "amd"
    if number := re.fullmatch(r"sm_([0-9]+)[af]?", target):
        if int(number[1]) < _LEAST_SM:
            raise BuildError(f"{target} cannot be built: the kernels need the matrix instructions of sm_{_LEAST_SM}")
        return "nvidia"
    raise BuildError(f"unknown target {target!r}: use cpu, gfxNNN, sm_NN or all")


@dataclass(frozen=True)
class Compiler:
    """A compiler that was found, and what makes its output differ from another's."""

    path: str
    version: str

    def command(self, target: str) -> tuple[str, ...]:
        """The call for one kernel source on `target`, without the source and the output."""
        return (self.path, *kernel_flags(target))


def kernel_flags(target: str) -> tuple[str, ...]:
    """Flags for kernel sources."""
    kind = family(target)
    if kind == "cpu":
        return ("-x", "c++", "-DRF_TARGET_CPU", *host_flags(), "-O3", "-c")
    if kind == "nvidia":
        # sm_90's warpgroup products are in its architecture-specific feature set only.
        arch = "sm_90a" if target == "sm_90" else target
        return ("-x", "cu", "-cubin", f"-arch={arch}", "-std=c++20", "-O3", "--expt-relaxed-constexpr")
    # Code object version 5 is what ROCm 6.0 and everything since loads; a generic target exists from version 6 on.
    # No xnack or sramecc in the name: such code runs with these on or off.
    version = 6 if target.endswith("-generic") else 5
    return (
        "-x",
        "hip",
        f"--offload-arch={target}",
        "--cuda-device-only",
        "--no-gpu-bundle-output",
        "-nogpuinc",
        "-nogpulib",
        f"-mcode-object-version={version}",
        "-O3",
        "-std=c++20",
    )


def define_flags(target: str, defines: Mapping[str, str | int]) -> tuple[str, ...]:
    """A unit's defines as flags of `target`'s compiler. nvcc takes a bare comma for the start of another define."""
    comma = r"\," if family(target) == "nvidia" else ","
    return tuple(f"-D{name}={value}".replace(",", comma) for name, value in defines.items())


def host_flags() -> tuple[str, ...]:
    """Flags that every host object takes. The CPU library asks for AVX2, FMA and F16C (x86-64-v3) on x86."""
    arch = ("-march=x86-64-v3",) if platform.machine() in ("x86_64", "AMD64") else ()
    return ("-std=c++20", "-fPIC", "-fvisibility=hidden", *arch)


def find_cxx() -> Compiler:
    """The host compiler (C++20); raises BuildError if there is none."""
    tried = []
    for name in _candidates("ROCMFORGE_CXX", [os.environ.get("CXX", ""), "g++", *_clangs("clang++")]):
        path = shutil.which(name)
        if path is None:
            tried.append(f"{name}: not found")
            continue
        problem = _probe((path, "-std=c++20", "-c", "-x", "c++"), "#include <atomic>\nint f() { return 0; }\n", ".o")
        if problem is None:
            return Compiler(path, _version(path))
        tried.append(f"{path}: {problem}")
    raise BuildError("no C++20 compiler (install g++ 10 or newer, or set ROCMFORGE_CXX): " + "; ".join(tried))


def find_amd(targets: tuple[str, ...]) -> tuple[Compiler | None, dict[str, str]]:
    """The compiler that can do most of `targets`, and for each target it cannot do, why."""
    best: Compiler | None = None
    missing = (
        "no clang with the AMDGPU backend and lld was found (install ROCm, or clang-20 and lld-20 or newer, or "
        "set ROCMFORGE_HIPCC)"
    )
    best_reasons = dict.fromkeys(targets, missing)
    for name in _candidates("ROCMFORGE_HIPCC", list(_amd_names())):
        path = shutil.which(name)
        if path is None:
            continue
        compiler = Compiler(path, _version(path))
        reasons = {}
        for target in targets:
            source = 'extern "C" __attribute__((global)) void probe(int* p) { *p = 1; }\n'
            problem = _probe(compiler.command(target), source, ".co")
            if problem is not None:
                reasons[target] = f"{path}: {problem}"
        if best is None or len(reasons) < len(best_reasons):
            best, best_reasons = compiler, reasons
        if not reasons:
            break
    return best, best_reasons


def find_nvidia(targets: tuple[str, ...]) -> tuple[Compiler | None, dict[str, str]]:
    """As find_amd, for nvcc."""
    missing = dict.fromkeys(targets, "no nvcc was found (install the CUDA toolkit 12 or newer, or set ROCMFORGE_NVCC)")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    for name in _candidates("ROCMFORGE_NVCC", ["nvcc", f"{home}/bin/nvcc"]):
        path = shutil.which(name)
        if path is None:
            continue
        compiler = Compiler(path, _version(path))
        reasons = {}
        for target in targets:
            problem = _probe(compiler.command(target), "__global__ void probe(int* p) { *p = 1; }\n", ".cubin")
            if problem is not None:
                reasons[target] = f"{path}: {problem}"
        return compiler, reasons
    return None, missing


def _candidates(variable: str, found: list[str]) -> list[str]:
    chosen = os.environ.get(variable)
    if chosen:
        if shutil.which(chosen) is None:
            raise BuildError(f"{variable}={chosen}: no such program")
        return [chosen]
    return [name for name in found if name]


def _clangs(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{major}" for major in _CLANG_MAJORS)


def _amd_names() -> Iterator[str]:
    for home in (os.environ.get("ROCM_PATH"), os.environ.get("ROCM_HOME"), "/opt/rocm"):
        if home:
            yield f"{home}/lib/llvm/bin/clang++"
            yield f"{home}/llvm/bin/clang++"
    yield "amdclang++"
    yield from (f"clang++-{major}" for major in _CLANG_MAJORS)
    yield "clang++"
    yield "hipcc"


def _version(path: str) -> str:
    """Tells compilers apart by what they are, not by where they are installed or how they were called."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()
    lines = [
        line.removeprefix(Path(path).name)
        for line in said.splitlines()
        if not line.startswith(("InstalledDir:", "Configuration file:"))
    ]
    set_here = [f"{name}={os.environ[name]}" for name in _STEERING if os.environ.get(name)]
    return "\n".join([f"{Path(path).stat().st_size} bytes", *lines, *set_here])


def _probe(command: tuple[str, ...], source: str, suffix: str) -> str | None:
    """Compiles and links a line; returns None, or the first line of what the compiler said."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.cpp")
        path.write_text(source)
        call = [*command, str(path), "-o", str(path.with_suffix(suffix))]
        done = subprocess.run(call, capture_output=True, text=True)
        if done.returncode == 0:
            return None
        words = (done.stderr + done.stdout).strip().splitlines()
        errors = [line for line in words if "error" in line.lower()]
        return (errors or words or [f"exit status {done.returncode}"])[0]
