# SPDX-License-Identifier: Apache-2.0
"""Bounds on what the hot kernels do to LDS and caches, executed whole; and the model of time over them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from amdgpu import gpu
from benchmarks.amd import counters, executed, model
from benchmarks.amd.cards import CARDS, Card
from benchmarks.amd.executed import Executed
from benchmarks.kernels import attention_cases, elementwise_cases
from rocmforge_build import toolchain
from rocmforge_plugin.device import kernels_dir

UNITS = 8
DECODE, PREFILL, WRITE = "decode", "prefill", "write"
CASES = {
    DECODE: lambda: executed.attend(attention_cases.Case("", (1000, 3000), 1, 32, 2)),
    PREFILL: lambda: executed.attend(attention_cases.Case("", (200, 200), 200, 16, 2)),
    WRITE: lambda: executed.write(elementwise_cases.MODELS[1], 33, elementwise_cases.NORM),
}
FIRST = counters.first_cards()


@cache
def done(target: str, case: str, units: int = UNITS) -> dict[str, Executed]:
    """What a case's kernels did, timed as on the target's card."""
    if not (kernels_dir() / target / "kernels.txt").exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    torch.set_num_threads(1)
    return executed.execute(CASES[case], target, units, model.costs(FIRST[target]))
