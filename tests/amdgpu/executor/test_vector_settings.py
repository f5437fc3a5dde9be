# SPDX-License-Identifier: Apache-2.0
"""What documents leave open is a setting: how transcendental results are rounded, and the order of additions.

And the steps of a division give the exact quotient, whatever the setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from amdgpu import gpu, single
from amdgpu.decode.target import Target
from tests.amdgpu.conftest import ARITHMETIC

from . import exact, expected_transcendental, values
from .exact import HALF, SINGLE, Float
from .expected_transcendental import above, below, doubles
from .instructions import Within


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """As they were, afterwards."""
    yield
    gpu.arithmetic(*ARITHMETIC)


def singles(count: int, rng: np.random.Generator) -> np.ndarray:
    """Of all sizes, and the special ones."""
    bits = rng.integers(0, 1 << 32, count, np.uint32)
    usual = (rng.standard_normal(count) * 8).astype(np.float32).view(np.uint32)
    special = np.array(values.SINGLES, np.uint32)[np.arange(count) % len(values.SINGLES)]
    return np.choose(rng.integers(0, 3, count), [bits, usual, special]).astype(np.uint32)


@pytest.mark.parametrize(("rounding", "judge"), [("below", below), ("above", above)])
@pytest.mark.parametrize("name", sorted(expected_transcendental.expected(below)))
def test_the_neighbour_on_the_other_side(name: str, rounding: str, judge: expected_transcendental.Judge) -> None:
    """Results that are exact stay."""
    gpu.arithmetic(rounding)
    expected = expected_transcendental.expected(judge)[name]
    format_ = HALF if name.endswith("f16") else SINGLE
    rng = np.random.default_rng(5)
    for target in ("gfx942", "gfx1201"):
        halves = ".l" if format_ is HALF and target == "gfx1201" else ""
        for _ in range(4):
            state = single.State(Target(target).lanes)
            state.v[0] = singles(state.v.shape[1], rng)
            sources = [int(x) & (1 << format_.bits) - 1 for x in state.v[0]]
            single.run(f"{name} v1{halves}, v0{halves}", target, state)
            for bits, got in zip(sources, state.v[1], strict=True):
                wanted = expected(Float(format_, bits))
                if isinstance(wanted, Within):
                    assert wanted.holds(int(got)), f"{name} {rounding} of {bits:#x}: {int(got):#x}, expected {wanted}"
                else:
                    found = Float(format_, int(got))
                    assert found == wanted or (found.nan and wanted.nan), f"{name} of {bits:#x}: {int(got):#x}"


@pytest.mark.parametrize("rounding", ["below", "nearest", "above"])
def test_exact_results_are_given_in_every_setting(rounding: str) -> None:
    gpu.arithmetic(rounding)
    state = single.State(64)
    powers = np.float32(2) ** np.arange(-32, 32, dtype=np.float32)
    state.v[0] = np.arange(-32, 32, dtype=np.float32).view(np.uint32)
    state.v[1] = powers.view(np.uint32)
    state.v[2] = (powers * powers).view(np.uint32)
    single.run(
        "v_exp_f32 v3, v0\nv_log_f32 v4, v1\nv_rcp_f32 v5, v1\nv_sqrt_f32 v6, v2\nv_rsq_f32 v7, v2", "gfx942", state
    )
    f = state.v.view(np.float32)
    assert (f[3] == powers).all()
    assert (f[4] == f[0]).all()
    assert (f[5] == 1 / powers).all()
    assert (f[6] == powers).all()
    assert (f[7] == 1 / powers).all()


@pytest.mark.parametrize("rounding", ["below", "above"])
def test_doubles_are_rough(rounding: str) -> None:
    """By 2**28 last places, of the 2**29 that documents allow."""
    gpu.arithmetic(rounding)
    state = single.State(64)
    numbers = np.exp(np.random.default_rng(3).standard_normal(64) * 9)
    state.v[0:2] = numbers.view(np.uint32).reshape(64, 2).T
    names = ("rcp", "rsq", "sqrt")
    single.run(
        "\n".join(f"v_{name}_f64 v[{2 + 2 * n}:{3 + 2 * n}], v[0:1]" for n, name in enumerate(names)), "gfx942", state
    )
    for n, name in enumerate(names):
        results = np.ascontiguousarray(state.v[2 + 2 * n : 4 + 2 * n].T).view(np.float64)[:, 0]
        rough, close = doubles(1 << 29)[f"v_{name}_f64"], doubles(1 << 20)[f"v_{name}_f64"]
        for x, got in zip(numbers, results, strict=True):
            bits = int(np.float64(got).view(np.uint64))
            source = exact.number(Fraction(float(x)), exact.DOUBLE)
            assert rough(source).holds(bits)
            assert not close(source).holds(bits)


@pytest.mark.parametrize(
    ("target", "text", "one", "factors", "square", "small"),
    [
        ("gfx942", "v_dot2_f32_f16 v2, v0, v1, v2", 0x3C00, (0x7000, 0x6C00), 0x4C000000, 0x39800000),
        ("gfx942", "v_dot2c_f32_f16 v2, v0, v1", 0x3C00, (0x7000, 0x6C00), 0x4C000000, 0x39800000),
        ("gfx1100", "v_dot2_f32_bf16 v2, v0, v1, v2", 0x3F80, (0x4600, 0x4580), 0x4C000000, 0x39800000),
        ("gfx1100", "v_dot2_f16_f16 v2.l, v0, v1, v2.l", 0x3C00, (0x5800, 0x5400), 0x7000, 0x0C00),
        ("gfx1100", "v_dot2_bf16_bf16 v2.l, v0, v1, v2.l", 0x3F80, (0x4200, 0x4180), 0x4400, 0x3980),
    ],
)
def test_order_of_additions(
    target: str, text: str, one: int, factors: tuple[int, int], square: int, small: int
) -> None:
    """What is left of something small says what came together first; `square` is the product of `factors`."""

    def result(order: str, low: tuple[int, int], addend: int) -> int:
        gpu.arithmetic("nearest", order)
        state = single.State(Target(target).lanes)
        state.v[0] = low[0] | factors[0] << 16
        state.v[1] = low[1] | (factors[1] | 0x8000) << 16
        state.v[2] = addend
        single.run(text, target, state)
        return int(state.v[2, 0])

    # 1 * 1, then a product of -square; the addend is square.
    left = one if ".l" in text else 0x3F800000
    orders = ("ascending", "descending", "pairwise")
    assert [result(order, (one, one), square) for order in orders] == [0, left, 0]
    # Products of square and -square, and an addend that is lost in either.
    assert [result(order, factors, small) for order in orders] == [0, 0, small]


def test_sums_of_four_in_each_order() -> None:
    """fp8: products 2^15, -2^15, 2^-11, 2^-11 and the addend 2^-13."""
    found = {}
    for order in ("ascending", "descending", "pairwise"):
        gpu.arithmetic("nearest", order)
        state = single.State(32)
        state.v[0] = 0x78 | 0x78 << 8 | 0x10 << 16 | 0x10 << 24  # 2^8, 2^8, 2^-5, 2^-5
        state.v[1] = 0x70 | 0xF0 << 8 | 0x08 << 16 | 0x08 << 24  # 2^7, -2^7, 2^-6, 2^-6
        state.v[2] = np.float32(2.0**-13).view(np.uint32)
        single.run("v_dot4_f32_fp8_fp8 v3, v0, v1, v2", "gfx1201", state)
        found[order] = float(state.v[3].view(np.float32)[0])
    assert found == {"ascending": 2.0**-10, "descending": 2.0**-9, "pairwise": 2.0**-10 + 2.0**-13}


DIVIDE = """
v_div_scale_f32 v2, {none}, v1, v1, v0
v_div_scale_f32 v3, {vcc}, v0, v1, v0
v_rcp_f32 v4, v2
v_fma_f32 v5, -v2, v4, 1.0
v_fma_f32 v4, v5, v4, v4
v_mul_f32 v5, v3, v4
v_fma_f32 v6, -v2, v5, v3
v_fma_f32 v5, v6, v4, v5
v_fma_f32 v2, -v2, v5, v3
v_div_fmas_f32 v2, v2, v4, v5
v_div_fixup_f32 v7, v2, v1, v0
"""


@pytest.mark.parametrize("rounding", ["below", "nearest", "above"])
@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_quotients_of_floats(target: str, rounding: str) -> None:
    """The sequence that compilers emit, over all sizes: exact, however v_rcp_f32 is rounded.

    But for denominators right below a power of two, where only the nearest reciprocal leads to the nearest quotient.
    """
    gpu.arithmetic(rounding)
    rng = np.random.default_rng(11)
    wave64 = Target(target).lanes == 64
    text = DIVIDE.format(none="s[20:21]" if wave64 else "s20", vcc="vcc" if wave64 else "vcc_lo")
    for turn in range(200):
        state = single.State(Target(target).lanes)
        for at in range(2):
            state.v[at] = singles(state.v.shape[1], rng)
            if turn % 2:  # quotients that are denormal or nearly too large
                exponent = rng.integers(0, 255, state.v.shape[1]).astype(np.uint32)
                state.v[at] = state.v[at] & np.uint32(0x807FFFFF) | exponent << np.uint32(23)
        a, b = state.v[0].view(np.float32).copy(), state.v[1].view(np.float32).copy()
        single.run(text, target, state)
        with np.errstate(all="ignore"):
            wanted = a / b
        got = state.v[7].view(np.float32)
        right = (got.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(got) & np.isnan(wanted))
        if rounding != "nearest":
            right |= b.view(np.uint32) & np.uint32(0x7FFFFF) == 0x7FFFFF
        if not right.all():
            lane = int(np.argmin(right))
            raise AssertionError(f"{a[lane]!r} / {b[lane]!r}: {got[lane]!r}, expected {wanted[lane]!r}")


DIVIDE_DOUBLES = """
v_div_scale_f64 v[4:5], {none}, v[2:3], v[2:3], v[0:1]
v_rcp_f64 v[6:7], v[4:5]
v_fma_f64 v[8:9], -v[4:5], v[6:7], 1.0
v_fma_f64 v[6:7], v[6:7], v[8:9], v[6:7]
v_fma_f64 v[8:9], -v[4:5], v[6:7], 1.0
v_fma_f64 v[6:7], v[6:7], v[8:9], v[6:7]
v_div_scale_f64 v[8:9], {vcc}, v[0:1], v[2:3], v[0:1]
v_mul_f64 v[10:11], v[8:9], v[6:7]
v_fma_f64 v[4:5], -v[4:5], v[10:11], v[8:9]
v_div_fmas_f64 v[4:5], v[4:5], v[6:7], v[10:11]
v_div_fixup_f64 v[12:13], v[4:5], v[2:3], v[0:1]
"""


@pytest.mark.parametrize("rounding", ["below", "nearest", "above"])
def test_quotients_of_doubles(rounding: str) -> None:
    gpu.arithmetic(rounding)
    rng = np.random.default_rng(12)
    text = DIVIDE_DOUBLES.format(none="s[20:21]", vcc="vcc")
    for turn in range(200):
        state = single.State(64)
        for at in (0, 2):
            bits = rng.integers(0, (1 << 64) - 1, 64, np.uint64, endpoint=True)
            special = np.array(values.DOUBLES, np.uint64)[rng.integers(0, len(values.DOUBLES), 64)]
            bits = np.where(rng.random(64) < 0.2 * (turn % 2), special, bits)
            state.v[at], state.v[at + 1] = bits & np.uint64(0xFFFFFFFF), bits >> np.uint64(32)
        pairs = [np.ascontiguousarray(state.v[at : at + 2].T).view(np.float64)[:, 0] for at in (0, 2)]
        single.run(text, "gfx942", state)
        with np.errstate(all="ignore"):
            wanted = pairs[0] / pairs[1]
        got = np.ascontiguousarray(state.v[12:14].T).view(np.float64)[:, 0]
        right = (got.view(np.uint64) == wanted.view(np.uint64)) | (np.isnan(got) & np.isnan(wanted))
        if rounding != "nearest":
            right |= pairs[1].view(np.uint64) & np.uint64(0xFFFFFFFFFFFFF) == 0xFFFFFFFFFFFFF
        if not right.all():
            lane = int(np.argmin(right))
            a, b = pairs[0][lane], pairs[1][lane]
            raise AssertionError(f"{a!r} / {b!r}: {got[lane]!r}, expected {wanted[lane]!r}")
