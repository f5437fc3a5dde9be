# SPDX-License-Identifier: Apache-2.0
"""Which kind of device vLLM runs on, and whether this build has kernels for it."""
from __future__ import annotations

from vllm.platforms import current_platform

from rocmforge_plugin.vllm.backend.eligibility import OTHER_BACKEND, ROCM_ARCHS


def target() -> str:
    """"amd", "nvidia" or "cpu", after vLLM's platform.

    Raises ValueError on a platform that rocmforge has no kernels for.
    """
    if current_platform.is_rocm():
        return "amd"
    if current_platform.is_cuda():
        return "nvidia"
    if current_platform.is_cpu():
        return "cpu"
    raise ValueError(f"rocmforge has kernels for AMD and NVIDIA GPUs and the CPU, not for {current_platform}; "
                     f"{OTHER_BACKEND}")


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


def device_refusals() -> list[str]:
    """Why the current device cannot run rocmforge's kernels: no compiled module, or no code for its architecture."""
    try:
        from rocmforge_plugin import _C, device
    except ImportError as error:
        return [str(error)]
    kind = target()
    if kind == "cpu":
        name, runs = "the CPU", ["cpu"]
    elif kind == "amd":
        archs = rocm_archs()
        runs = [code for arch in archs for code in _C.amd_targets(_C.parse_amd_arch(arch)[0])]
        name = " or ".join(archs)
    else:
        capability = current_platform.get_device_capability()
        name = f"sm_{capability.major}{capability.minor}"
        runs = _C.cuda_targets(capability.major, capability.minor)
    folder = device.kernels_dir()
    built = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if any(code in built for code in runs):
        return []
    return [f"this build of rocmforge has no kernels for {name}; it has: {', '.join(built) or 'none'}. "
            f"Build them with ROCMFORGE_TARGETS={runs[0] if runs else name} python -m rocmforge_build, or "
            f"{OTHER_BACKEND}"]
