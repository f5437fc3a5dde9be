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
        assert parts.element in served.ELEMENTS.values() or name.startswith("attention_plan")


@pytest.mark.parametrize(
    ("suffix", "problem"),
    [
        ("bf16_d128", Problem("torch.bfloat16", 8, 2, 128, 128)),
        ("f16_d64_MmaSm80", Problem("float16", 8, 2, 64, 64, core="MmaSm80")),
        ("bf16_d576v512_latent", Problem("bfloat16", 128, 1, 576, 512, format="latent")),
        ("float_d80_woven_capped_Wmma", Problem("float32", 1, 1, 80, 80, 7, "woven", "capped", core="Wmma")),
        # Of heads without kernels of their own those for longer ones.
        ("bf16_d128_narrow", Problem("bfloat16", 8, 2, 40, 40)),
        ("f16_d128_narrow_split", Problem("float16", 8, 2, 104, 104, format="split")),
        ("bf16_d128_narrow_capped", Problem("bfloat16", 8, 2, 64, 64, score="capped")),
        ("bf16_d128_narrow_rooted", Problem("bfloat16", 8, 2, 32, 32, score="rooted")),
        ("bf16_d256_narrow_listed", Problem("bfloat16", 8, 2, 200, 200, mask="ranges")),
        ("bf16_d512_listed", Problem("bfloat16", 8, 2, 512, 512, mask="clamped_ranges")),
        ("f16_d256_narrow_capped_listed", Problem("float16", 8, 2, 64, 64, 7, score="capped", mask="ranges")),
    ],
)
def test_suffixes(suffix: str, problem: Problem) -> None:
    assert problem.suffix == suffix
    name = KernelName.parse(f"attention_decode2_{suffix}")
    element, dims, *kinds = suffix.removesuffix(f"_{problem.core}").split("_")
    assert name == KernelName("attention_decode2", "", element, dims[1:], "_".join(kinds), problem.core)


USUAL = {narrow: format for format, narrow in served.NARROW.items()}
TABLES = (("windowed", served.PROBLEMS), ("ranges", served.LISTED_PROBLEMS))


def problems(target: str) -> list[Problem]:
    """One for each kernel: of narrow formats with heads one step short."""
    return [
        Problem(
            dtype, 8, 2, key_dims - short, value_dims - short, format=USUAL.get(format, format), score=score, mask=mask
        )
        for dtype in served.DTYPES[target]
        for mask, table in TABLES
        for format, score, heads in table
        for key_dims, value_dims in heads
        for short in [served.NARROW_STEP * (format in USUAL)]
    ]


def test_every_kernel_has_a_problem() -> None:
    """What is built is what problems ask for, by every name, and no more."""
    asked = {problem.suffix for problem in problems("cpu")}
    built = {
        unit.name.removeprefix("attention_prefill_")
        for unit in variants.UNITS
        if unit.name.startswith("attention_prefill_") and not KernelName.parse(unit.name).core
    }
    assert asked == built


@pytest.mark.parametrize("mask", served.MASKS)
@pytest.mark.parametrize("score", ["plain", "capped", "biased", "rooted"])
@pytest.mark.parametrize("format", ["joined", "split"])
def test_heads_run_in_the_shortest_kernels_that_hold_them(format: str, score: str, mask: str) -> None:
    """Or are refused with what works: of each score's and mask's heads the multiples of 8 from 32 on."""
    table = dict(TABLES)["ranges" if served.MASKS[mask] else "windowed"]
    own, narrow = (
        [dims[0] for found, of, heads in table if (found, of) == (name, score) for dims in heads if len(set(dims)) == 1]
        for name in (format, served.NARROW[format])
    )
    for size in range(8, 600, 4):
        problem = Problem("bfloat16", 8, 2, size, size, 9, format, score, mask)
        longer = [dims for dims in narrow if dims >= size]
        if size in own:
            assert problem.kernels == (format, size, size) and not problem.refusals("amd")
        elif size % 8 == 0 and size >= 32 and longer:
            assert problem.kernels == (served.NARROW[format], longer[0], longer[0]) and not problem.refusals("amd")
        elif own or narrow:
            (refusal,) = problem.refusals("amd")
            assert refusal.field == "head_size" and refusal.came == size
            assert f"from 32 to {max(narrow)}" in refusal.works and (512 not in own or ", or 512" in refusal.works)
        else:
            (refusal,) = problem.refusals("amd")
            assert refusal.field in ("score", "mask")


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
    bad = Problem("int8", 7, 2, 264, 264, window=-1, core="Wmma")
    assert [refusal.field for refusal in bad.refusals("amd")] == ["dtype", "head_size", "num_heads", "window", "core"]
