# SPDX-License-Identifier: Apache-2.0
"""Problems and the names of kernels: what is spelled is read back, and what is served is there."""

from __future__ import annotations

import pytest

from kernels import variants
from rocmforge_plugin import _C, served
from rocmforge_plugin.device import open_device
from rocmforge_plugin.ops.planner import AttentionPlanner, native_problem
from rocmforge_plugin.problem import KernelName, Problem

from .attention_support import ON_CPU
from .kernel_support import DEVICE

NAMES = [name for unit in variants.UNITS for name in unit.kernels]


def test_names_are_read_back() -> None:
    assert len(NAMES) > 100
    for name in NAMES:
        parts = KernelName.parse(name)
        spelled = (
            parts.kernel,
            parts.width and f"v{parts.width}",
            parts.element,
            parts.dims and f"d{parts.dims}",
            parts.kind,
            parts.core,
        )
        assert "_".join(part for part in spelled if part) == name
        assert parts.element in served.ELEMENTS.values() or name == "attention_plan"


@pytest.mark.parametrize(
    ("suffix", "problem"),
    [
        ("bf16_d128", Problem("torch.bfloat16", 8, 2, 128, 128)),
        ("f16_d64_MmaSm80", Problem("float16", 8, 2, 64, 64, core="MmaSm80")),
        ("bf16_d576v512_latent", Problem("bfloat16", 128, 1, 576, 512, format="latent")),
        ("float_d80_woven_capped_Wmma", Problem("float32", 1, 1, 80, 80, 7, "woven", "capped", "Wmma")),
    ],
)
def test_suffixes(suffix: str, problem: Problem) -> None:
    assert problem.suffix == suffix
    name = KernelName.parse(f"attention_decode2_{suffix}")
    kinds = [kind for kind in (problem.format, problem.score) if kind not in ("joined", "plain")]
    assert name == KernelName(
        "attention_decode2", "", served.ELEMENTS[problem.dtype], suffix.split("_")[1][1:], "_".join(kinds), problem.core
    )


def problems(target: str) -> list[Problem]:
    return [
        Problem(dtype, 8, 2, key_dims, value_dims, format=format, score=score)
        for dtype in served.DTYPES[target]
        for format, score, heads in served.PROBLEMS
        for key_dims, value_dims in heads
    ]


@pytest.mark.parametrize("problem", problems("cpu" if ON_CPU else "nvidia"), ids=lambda problem: problem.suffix)
def test_what_is_served_is_there(problem: Problem) -> None:
    device = open_device(DEVICE)
    planner = AttentionPlanner(problem, DEVICE, 1, 1)
    assert planner.row_elements >= max(problem.key_dims, problem.value_dims)
    decode = () if problem.format in served.PREFILL_ONLY else ("decode1", "decode2", "decode4")
    rows = [device.kernel_config(f"attention_{kernel}_{problem.suffix}")["rows"] for kernel in decode]
    assert _C.decode_rows(device, native_problem(problem)) == max(rows, default=0)


@pytest.mark.parametrize("target", served.DTYPES)
def test_every_problem_served_has_no_refusal(target: str) -> None:
    assert problems(target)
    for problem in problems(target):
        assert problem.refusals(target) == []


def test_every_refusal_is_listed() -> None:
    """Not only the first."""
    bad = Problem("int8", 7, 2, 72, 72, window=-1, core="Wmma")
    assert [refusal.field for refusal in bad.refusals("amd")] == ["dtype", "head_size", "num_heads", "window", "core"]
