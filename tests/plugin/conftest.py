# SPDX-License-Identifier: Apache-2.0
"""vLLM's own ROCm platform with a GPU's answers made up: its gcnArchName, and which code objects are built."""

import importlib
import sys
import types

import pytest
import torch

from rocmforge_plugin import served
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm import selection
from rocmforge_plugin.vllm.backend import target

# Of every problem that is served on AMD's GPUs.
KERNELS = [
    name
    for dtype in served.DTYPES["amd"]
    for mask, table in (("windowed", served.PROBLEMS), ("ranges", served.LISTED_PROBLEMS))
    for format, score, heads in table
    for key_dims, value_dims in heads
    for name in target.kernels_of(Problem(dtype, 1, 1, key_dims, value_dims, format=format, score=score, mask=mask))
]


@pytest.fixture
def rocm(monkeypatch, tmp_path):
    """Function: RocmPlatform of an architecture, adopted, with code built for `built` (default: the architecture)."""
    monkeypatch.setenv("ROCMFORGE_KERNELS", str(tmp_path))
    for name in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)

    def become(gcn_arch, built=None):
        for folder in built if built is not None else [gcn_arch.split(":")[0]]:
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "kernels.txt").write_text("\n".join(KERNELS))
        device = types.SimpleNamespace(gcnArchName=gcn_arch, multi_processor_count=64)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: device)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        sys.modules.pop("vllm.platforms.rocm", None)
        # It loads vllm._C, beside which a CPU build's library for another instruction set ends the process.
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "vllm._C", None)
            module = importlib.import_module("vllm.platforms.rocm")
        platform = module.RocmPlatform()
        selection.adopt(platform)
        monkeypatch.setattr(target, "current_platform", platform)
        return platform

    yield become
    sys.modules.pop("vllm.platforms.rocm", None)
