# SPDX-License-Identifier: Apache-2.0
"""The figures of benchmarks/amd/loops.py: how instructions are counted, and the bounds that the hot loops keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from amdgpu.disassembly import Line, disassemble, llvm_tool
from benchmarks.amd import built, loops, scores
from benchmarks.amd.machine_code import bits_of, figures, hot_loop, unit_of
from rocmforge_build import code_object
from rocmforge_plugin import _C
from rocmforge_plugin.device import kernels_dir
from tests.kernels.attention_support import Batch

from .emulation import EmulatedGpus


def code(*lines: str) -> list[Line]:
    words = (line.partition(" ") for line in lines)
    return [Line(4 * i, 4, 0, mnemonic, operands, None) for i, (mnemonic, _, operands) in enumerate(words)]


def test_units_and_clocks() -> None:
    """A wave64 on four-clock lanes, a wave32 on one-clock lanes, and what each matrix core multiplies."""
    body = (
        "v_exp_f32_e32 v0, v1",
        "v_pk_mul_f32 v[0:1], v[2:3], v[4:5]",
        "ds_read_b128 v[0:3], v4",
        "global_load_dwordx4 v[0:3], v[4:5], off",
        "global_load_dword v0, v[4:5], off",
        "s_waitcnt vmcnt(0)",
    )
    cdna = figures(code("v_mfma_f32_16x16x16_bf16 v[0:3], v[4:5], v[6:7], v[0:3]", *body), "gfx942")
    assert cdna.clocks == {"matrix": 16, "valu": 4, "transcendental": 16, "lds": 32}
    assert cdna.counts == {"matrix": 1, "valu": 1, "transcendental": 1, "lds": 1, "global": 2, "salu": 1, "all": 7}
    assert cdna.multiply_adds == 4096 and cdna.load_bytes == 10 and cdna.busiest == ("lds", 32)
    rdna = figures(code("v_wmma_f32_16x16x16_f16 v[0:7], v[8:15], v[16:23], v[0:7]", *body), "gfx1100")
    assert rdna.clocks == {"matrix": 32, "valu": 1, "transcendental": 4, "lds": 8}
    dots = figures(
        code(
            "v_dot2_f32_bf16 v0, v1, v2, v0",
            "v_dual_dot2acc_f32_f16 v0, v1, v2 :: v_dual_mov_b32 v3, v4",
            "v_dual_dot2acc_f32_f16 v0, v1, v2 :: v_dual_dot2acc_f32_f16 v3, v4, v5",
        ),
        "gfx1100",
    )
    assert dots.multiply_adds == 4 * 64 and dots.clocks["valu"] == 3
    assert dots.names == {"dot2_f32_bf16": 1, "dot2acc_f32_f16": 3}


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("global_load_dwordx3", 96),
        ("global_load_b64", 64),
        ("buffer_load_ushort", 16),
        ("ds_read2_b32", 64),
        ("ds_read_b64_tr_b16", 64),
        ("global_load_d16_hi_b16", 16),
        ("ds_store_2addr_stride64_b64", 128),
        ("v_add_u32", 0),
    ],
)
def test_bits_of_memory_instructions(name: str, bits: int) -> None:
    assert bits_of(name) == bits


def test_hot_loop_is_the_innermost_with_most_matrix_instructions() -> None:
    body = code("s_nop", "v_mfma_f32_16x16x16_f16", "v_nop", "s_nop", "v_nop")
    inner = Line(20, 4, 0, "s_cbranch_scc1", "", 4)
    outer = Line(24, 4, 0, "s_branch", "", 0)
    assert [i.address for i in hot_loop([*body, inner, outer])] == [4, 8, 12, 16, 20]
    with pytest.raises(ValueError, match="no loop"):
        hot_loop(body)


@pytest.mark.parametrize("target", loops.BOUNDS)
@pytest.mark.parametrize("phase", [0, 1])
def test_bounds(target: str, phase: int) -> None:
    """The busiest unit's clocks per score element and per KV token: what docs/amd_static.md shows."""
    path = built.code_object(kernels_dir(), target, loops.OURS[phase])
    if not path.exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    try:
        llvm_tool("llvm-objdump")
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    reached = loops.clocks(path, target, phase)
    assert reached <= loops.BOUNDS[target][phase]


@pytest.mark.parametrize("target", built.TARGETS)
def test_what_scores_masks_and_narrow_heads_cost(target: str) -> None:
    """The busiest unit's clocks over the plain kernel's of the same dims: docs/amd_static.md shows them."""
    if not built.code_object(kernels_dir(), target, "attention_prefill_bf16_d128_narrow").exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    try:
        llvm_tool("llvm-objdump")
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    found = scores.missed(kernels_dir(), target)
    assert not found, "\n".join(["", *found])


def test_every_kind_is_held_against_a_plain_kernel() -> None:
    """Of the same dims, and each score function and mask that is served is there."""
    found = list(scores.kinds())
    assert {kind.bound for kind in found if "capped" in kind.what} == {scores.CAPPED_BOUND}
    assert {kind.bound for kind in found if "capped" not in kind.what} == {scores.BOUND}
    assert {kind.plain for kind in found} <= built.units().keys()
    words = {word for kind in found for word in kind.what.split()}
    assert words == {"narrow", "capped", "biased", "rooted", "listed", "split"}
    names = {kind.kernel.removeprefix("attention_"): kind for kind in found}
    for target, above in scores.ABOVE.items():
        assert target in built.TARGETS and all(ratio > names[name].bound for name, ratio in above.items())


@pytest.mark.parametrize("target", loops.BOUNDS)
def test_executed_clocks_are_the_counted_ones(
    emulated: Callable[..., _C.Device], gpus: EmulatedGpus, target: str
) -> None:
    """A whole decode kernel takes the vector clocks and products that its hot loop shows, or fewer.

    Over so many keys that what comes before and after the loop is little.
    """
    emulated(target, compute_units=1)
    batch = Batch(torch.bfloat16, 128, 1, 4, [(1, 16384)], 16, seed=1)
    gpus.executed()
    batch.run(batch.planner())
    name = loops.OURS[1]
    path = built.code_object(kernels_dir(), target, name)
    executed = gpus.executed()[target, name]
    loop, _ = loops.loop_of(path, name, target, mca=False)
    tokens = loops.per_wave(path, loop, 1)  # of one wave's iteration
    vector = sum(count for mnemonic, count in executed.items() if unit_of(mnemonic) == "valu") * (
        4 if target.startswith("gfx9") else 1
    )
    assert 0 < vector / 16384 <= 1.1 * loop.clocks["valu"] / tokens
    matrix = sum(count for mnemonic, count in executed.items() if mnemonic.startswith(("v_mfma", "v_wmma")))
    assert matrix == loop.counts["matrix"] * 16384 / tokens  # no wave repeats another's; of dot products: none


def test_launch_shapes_are_read_from_the_code() -> None:
    found = sorted(kernels_dir().glob("gfx*/attention_prefill_bf16_d128.co"))
    if not found:
        pytest.skip("no code for AMD GPUs is built here: python -m rocmforge_build")
    for path in found:
        name = "attention_prefill_bf16_d128"
        config = code_object.launch_config(path, name)
        assert config.wave in (32, 64) and config.threads % config.wave == 0
        assert config.rows % 16 == 0 and config.keys % 16 == 0 and config.prefers_shared == 1 and config.early == 0
        assert name in disassemble(path)
        with pytest.raises(ValueError, match="exports no absent"):
            code_object.constant(path, "absent", 32)
