# SPDX-License-Identifier: Apache-2.0
"""Emulated AMD GPUs for these tests.

ROCMFORGE_EMULATED  ``some`` (default): every kernel, dtype and head size on every target; ``all``: with more shapes
ROCMFORGE_EMULATED_ARITHMETIC  what documents leave open (``amdgpu.gpu.arithmetic``), as ``below,pairwise``
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from amdgpu import gpu
from rocmforge_build import toolchain
from rocmforge_plugin import _C
from rocmforge_plugin.device import kernels_dir
from tests.kernels import kernel_support

from . import emulation

ALL = os.environ.get("ROCMFORGE_EMULATED", "some") == "all"
ARITHMETIC = os.environ.get("ROCMFORGE_EMULATED_ARITHMETIC", "nearest,ascending").split(",")
TARGETS = toolchain.AMD_TARGETS


@pytest.fixture(scope="session")
def gpus() -> emulation.EmulatedGpus:
    """The emulated devices of this session."""
    gpu.arithmetic(*ARITHMETIC)
    return emulation.EmulatedGpus()


@pytest.fixture
def emulated(gpus: emulation.EmulatedGpus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., _C.Device]]:
    """Called with (target, order, quantum, compute_units): CPU tensors are an emulated GPU's until the test ends.

    The poisoned buffers that the kernel tests share then end at an unmapped page.
    """
    if kernel_support.DEVICE != "cpu":
        pytest.skip("emulated GPUs work on CPU tensors: unset ROCMFORGE_TEST_DEVICE")
    poison = kernel_support.poison
    monkeypatch.setattr(kernel_support, "poison", lambda *a: emulation.guarded(poison(*a)))
    contexts = []

    def use(target: str, *schedule: Any, **more: Any) -> _C.Device:
        if not Path(kernels_dir(), target, "kernels.txt").exists():
            if toolchain.find_amd((target,))[0] is not None:
                pytest.fail(f"{target} is not built, though its compiler is here: python -m rocmforge_build")
            pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
        contexts.append(gpus.use(target, *schedule, **more))
        return contexts[-1].__enter__()

    yield use
    for context in reversed(contexts):
        context.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The oracle's matrices are small, and torch's threads only get into each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
