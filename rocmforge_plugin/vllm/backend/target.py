# SPDX-License-Identifier: Apache-2.0
"""Which kind of device vLLM runs on, and whether this build has kernels for it."""

from __future__ import annotations

from vllm.platforms import current_platform

from rocmforge_plugin import emulation
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.eligibility import OTHER_BACKEND

# The architectures of served.AMD_ARCHS, by the helper of vllm.platforms.rocm that recognises them.
ROCM_ARCHS = {
    "on_gfx90a": ("gfx90a",),
    "on_gfx942": ("gfx942",),
    "on_gfx950": ("gfx950",),
    "on_gfx1100": ("gfx1100",),
    "on_gfx1151": ("gfx1151",),
    "on_rdna4": ("gfx1200", "gfx1201"),
}


def target() -> str:
    """After vLLM's platform: "amd", "nvidia" or "cpu"; on its CPU platform "amd" too, where that GPU is emulated.

    Raises ValueError on a platform that rocmforge has no kernels for.
    """
    if current_platform.is_rocm():
        return "amd"
    if current_platform.is_cuda():
        return "nvidia"
    if current_platform.is_cpu():
        return "amd" if emulation.target() else "cpu"
    raise ValueError(
        f"rocmforge has kernels for AMD and NVIDIA GPUs and the CPU, not for {current_platform}; {OTHER_BACKEND}"
    )


def rocm_archs() -> list[str]:
    """Architecture names the current AMD GPU may have, most often one, without initialising the device.

    vLLM's helpers tell the listed architectures; any other is asked of the device itself.
    """
    from vllm.platforms import rocm

    found = [arch for helper, archs in ROCM_ARCHS.items() if getattr(rocm, helper)() for arch in archs]
    if found:
        return found
    import torch

    return [torch.cuda.get_device_properties(torch.cuda.current_device()).gcnArchName]


def device_refusals(problem: Problem | None = None) -> list[str]:
    """Why the current device cannot run rocmforge's kernels: no compiled module, or no code for its architecture.

    Where a problem is given, also that this code has no kernels for it.
    """
    try:
        from rocmforge_plugin import _C, device
    except ImportError as error:
        return [str(error)]
    folder = device.kernels_dir()
    kind, emulated = target(), emulation.target()
    if emulated:
        refusal = _not_emulated_here(emulated) or emulation.refusal(emulated, folder)
        if refusal:
            return [refusal]
        name, runs = emulation.label(emulated), [emulated]
    elif kind == "cpu":
        name, runs = "the CPU", ["cpu"]
    elif kind == "amd":
        archs = rocm_archs()
        runs = [code for arch in archs for code in _C.amd_targets(_C.parse_amd_arch(arch)[0])]
        name = " or ".join(archs)
    else:
        capability = current_platform.get_device_capability()
        name = f"sm_{capability.major}{capability.minor}"
        runs = _C.cuda_targets(capability.major, capability.minor)
    built = sorted(index.parent.name for index in folder.glob("*/kernels.txt"))
    code = next((code for code in runs if code in built), None)
    if code is None:
        return [_not_built(f"kernels for {name}; it has: {', '.join(built) or 'none'}", runs[0] if runs else name)]
    kernels = (folder / code / "kernels.txt").read_text().split()
    missing = [kernel for kernel in kernels_of(problem) if kernel not in kernels] if problem is not None else []
    return [_not_built(f"{' and no '.join(missing)} for {name}", code)] if missing else []


def _not_emulated_here(emulated: str) -> str | None:
    """Why this vLLM cannot run on an emulated GPU, if it cannot."""
    if current_platform.is_cpu():
        return None
    return (
        f"{emulation.VARIABLE} is {emulated}, which is executed on the CPU, but this vLLM runs on "
        f"{current_platform.device_name}; it must be unset, or vLLM be a CPU build"
    )


def _not_built(what: str, code: str) -> str:
    build = f"ROCMFORGE_TARGETS={code} python -m rocmforge_build"
    return f"this build of rocmforge has no {what}. Build them with {build}, or {OTHER_BACKEND}"


def kernels_of(problem: Problem) -> list[str]:
    """The names of the kernels without which a problem cannot be served; what decode kernels there are is a choice."""
    return [
        "attention_plan_listed" if problem.listed else "attention_plan",
        f"attention_prefill_{problem.suffix}",
        f"attention_combine_{problem.combine_suffix}",
    ]
