# SPDX-License-Identifier: Apache-2.0
"""ROCMFORGE_EMULATE: an AMD GPU in the place of torch's CPU device, whose machine code is executed on this CPU.

What executes it is `amdgpu`, a package beside this one in the source tree and in no wheel. Nothing is loaded here
before a device is opened, so that whoever only words a report may ask.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rocmforge_plugin import served

VARIABLE = "ROCMFORGE_EMULATE"
COMPUTE_UNITS = 4  # a GPU has hundreds; each has its workgroups in every launch, and they take turns on few cores
ROOT = Path(__file__).resolve().parents[1]  # of the source tree, where this is one


def target(environment: Mapping[str, str] = os.environ) -> str | None:
    """The AMD target that the variable names, as it stands there; None without it."""
    return environment.get(VARIABLE) or None


def label(target: str) -> str:
    """What is said of an emulated device wherever a device is named."""
    return f"{target} code executed on the CPU (emulation, no GPU)"


def refusal(target: str, kernels: Path) -> str | None:
    """Why a target cannot be emulated with the kernels in a folder, and what would work; None if it can."""
    built = [arch for arch in served.AMD_ARCHS if (kernels / arch / "kernels.txt").is_file()]
    works = f"one of {', '.join(built)}, the AMD targets built in {kernels}" if built else "unset"
    if target not in served.AMD_ARCHS:
        return f"{VARIABLE} is {target}, which is none of rocmforge's AMD targets; it must be {works}"
    if target not in built:
        return (
            f"{VARIABLE} is {target}, which is not built in {kernels}; it must be {works}, or build it with "
            f"ROCMFORGE_TARGETS={target} python -m rocmforge_build"
        )
    if not (ROOT / "amdgpu" / "gpu.py").is_file():
        return (
            f"{VARIABLE} is {target}, but what executes AMD code, amdgpu, is part of rocmforge's source tree and not "
            f"of what is installed in {ROOT}; it must be unset, or rocmforge be installed from its source tree with "
            "pip install -e ."
        )
    return None


def library(target: str, threads: int) -> str:
    """Path of the stand-in for libamdhip64 that executes a target's code objects, here and on so many threads."""
    if str(ROOT) not in sys.path:  # an editable installation knows this package only
        sys.path.append(str(ROOT))
    gpu = importlib.import_module("amdgpu.gpu")
    path = gpu.open_gpu(target, COMPUTE_UNITS)
    gpu.schedule(threads=threads)
    return str(path)
