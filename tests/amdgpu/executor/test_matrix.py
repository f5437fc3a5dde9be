# SPDX-License-Identifier: Apache-2.0
"""MFMA and WMMA against exact products."""

from __future__ import annotations

import numpy as np
import pytest

from amdgpu import gpu, single
from amdgpu.kernel import ExecutionError

from . import handlers
from .matrix_cases import CASES, ORDERS, Case, case, decode, encode, width

A, B, C, D = 8, 40, 80, 120  # where the operands are


def test_every_handler_has_a_case() -> None:
    assert handlers.names("v_mfma_.*|v_wmma_.*") == {found.handler for found in CASES}


def registers(found: Case, which: int, at: int, file: str = "v") -> str:
    if which < 2:
        count = found.elements * width(found.kinds[which]) // 32
    else:
        packed = 2 if found.generation == 12 and width(found.kinds[2]) == 16 else 1
        count = found.results // packed
    return handlers.span(at, count, file)


def text(found: Case, d: int = D, c: str | None = None, a: int = A, b: int = B) -> str:
    c = registers(found, 2, C) if c is None else c
    signs = ""
    if "iu8" in found.mnemonic:
        signs = f" neg_lo:[{int(found.kinds[0] == 'i8')},{int(found.kinds[1] == 'i8')},0]"
    operands = (registers(found, 2, d), registers(found, 0, a), registers(found, 1, b), c)
    return f"{found.mnemonic} {', '.join(operands)}{signs}"


def put(state: single.State, at: int, values: np.ndarray) -> None:
    state.v[at : at + len(values)] = values


def product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return a.astype(np.int64) @ b + c


@pytest.mark.parametrize("found", CASES, ids=lambda c: f"{c.target}-{c.mnemonic}-{'-'.join(c.kinds)}")
def test_products(found: Case) -> None:
    """D apart from C, D as C, D over A, and a constant for C."""
    random = np.random.default_rng(12)
    constant = "0" if found.kinds[2] == "bf16" else "-16" if found.kinds[2] == "i32" else "2.0"
    for d, fixed in ((D, None), (C, None), (A, None), (B, None), (D, constant)):
        a, b, c = found.numbers(random)
        state = handlers.state(found.target, int(random.integers(1000)))
        put(state, A, found.operand(0, a))
        put(state, B, found.operand(1, b))
        put(state, C, found.accumulator(c, state.v[C:]))
        if fixed is not None:
            c = np.full_like(c, int(float(fixed)))
        expected = state.v.copy()
        put_result = found.accumulator(product(a, b, c), expected[d:])
        expected[d : d + len(put_result)] = put_result
        single.run(text(found, d, fixed), found.target, state)
        assert (state.v == expected).all(), (d, fixed)


@pytest.mark.parametrize("result", ["f16", "bf16"])
def test_results_in_upper_halves(result: str) -> None:
    found = case(f"v_wmma_{result}_16x16x16_{result}")
    a, b, c = found.numbers(np.random.default_rng(13))
    state = handlers.state(found.target)
    put(state, A, found.operand(0, a))
    put(state, B, found.operand(1, b))
    put(state, C, found.accumulator(c, state.v[C:], high=True))
    expected = state.v.copy()
    put_result = found.accumulator(product(a, b, c), expected[D:], high=True)
    expected[D : D + len(put_result)] = put_result
    single.run(text(found) + " op_sel:[0,0,1]", found.target, state)
    assert (state.v == expected).all()


def test_accumulation_registers() -> None:
    found = case("v_mfma_f32_16x16x16_f16")
    a, b, c = found.numbers(np.random.default_rng(14))
    state = handlers.state(found.target)
    put(state, 256 + A, found.operand(0, a))
    put(state, B, found.operand(1, b))
    put(state, 256 + C, found.accumulator(c, state.v))
    expected = state.v.copy()
    expected[256 + C : 256 + C + 4] = found.accumulator(product(a, b, c), expected)
    single.run("v_mfma_f32_16x16x16_f16 a[80:83], a[8:9], v[40:41], a[80:83]", found.target, state)
    assert (state.v == expected).all()


def test_lanes_that_are_off() -> None:
    """MFMA does not look at EXEC; what WMMA does then is not known."""
    found = case("v_mfma_f32_16x16x16_bf16")
    a, b, c = found.numbers(np.random.default_rng(15))
    state = handlers.state(found.target)
    put(state, A, found.operand(0, a))
    put(state, B, found.operand(1, b))
    put(state, C, found.accumulator(c, state.v))
    state.exec = 5
    single.run(text(found), found.target, state)
    assert (state.v[D : D + 4] == found.accumulator(product(a, b, c), state.v)).all()
    for handler in ("v_wmma_f32_16x16x16_f16", "v_wmma_f32_16x16x16_f16_gfx12"):
        state = handlers.state(case(handler).target)
        state.exec = 5
        with pytest.raises(ExecutionError, match="with lanes off in EXEC is not modelled"):
            single.run(text(case(handler)), case(handler).target, state)


@pytest.mark.parametrize(("operand", "name"), [(A, "v11"), (B, "v43")])
def test_rdna_3_needs_copies(operand: int, name: str) -> None:
    found = case("v_wmma_f32_16x16x16_f16")
    a, b, _ = found.numbers(np.random.default_rng(16))
    state = handlers.state(found.target)
    put(state, A, found.operand(0, a))
    put(state, B, found.operand(1, b))
    state.v[operand + 3, 21] ^= 1
    with pytest.raises(ExecutionError, match=f"wave 0: lane 21 does not hold lane 5's copy of {name}"):
        single.run(text(found), found.target, state)


@pytest.mark.parametrize("modifier", ["neg_lo:[1,0,0]", "neg_hi:[0,1,0]", "neg_lo:[0,0,1]"])
@pytest.mark.parametrize("handler", ["v_wmma_f32_16x16x16_f16", "v_wmma_f32_16x16x16_f16_gfx12"])
def test_changed_signs_are_refused(handler: str, modifier: str) -> None:
    found = case(handler)
    state = handlers.state(found.target)
    state.v[:] = 0
    with pytest.raises(ExecutionError, match="with neg_lo or neg_hi is not modelled"):
        single.run(f"{text(found)} {modifier}", found.target, state)


@pytest.mark.parametrize("handler", ["v_wmma_bf16_16x16x16_bf16", "v_wmma_bf16_16x16x16_bf16_gfx12"])
def test_constants_of_bf16_are_refused(handler: str) -> None:
    found = case(handler)
    state = handlers.state(found.target)
    state.v[:] = 0
    with pytest.raises(ExecutionError, match="with a constant for C is not modelled"):
        single.run(text(found, c="1.0"), found.target, state)


@pytest.mark.parametrize(
    "handler",
    [
        "v_mfma_f32_16x16x32_fp8_bf8_fnuz",
        "v_mfma_f32_16x16x32_bf8_fp8_fnuz",
        "v_mfma_f32_32x32x16_fp8_bf8",
        "v_mfma_f32_32x32x16_bf8_fp8",
        "v_wmma_f32_16x16x16_fp8_bf8_gfx12",
        "v_wmma_f32_16x16x16_bf8_fp8_gfx12",
    ],
)
def test_all_numbers_of_8_bits(handler: str) -> None:
    """Each code once as an element of A, at some k, times 1."""
    found = case(handler)
    kind = found.kinds[0]
    codes, one = np.arange(256), int(encode(found.kinds[1], np.ones(1))[0])
    for first in range(0, 256, found.m):
        state = handlers.state(found.target)
        state.v[A : A + 32] = state.v[B : B + 32] = 0
        k = first // found.m % found.k
        for lane in range(found.lanes):
            for e in range(found.elements):
                _, row, at = found.place(lane, e)
                if at == k:
                    state.v[A + e // 4, lane] |= int(codes[first + row]) << 8 * (e % 4)
                    state.v[B + e // 4, lane] |= one << 8 * (e % 4)
        single.run(text(found, c="0"), found.target, state)
        values = np.broadcast_to(decode(kind, codes[first : first + found.m])[:, None], (1, found.m, found.m))
        with np.errstate(invalid="ignore"):
            expected = found.accumulator(values, state.v).view(np.float32)
        result = state.v[D : D + len(expected)].view(np.float32)
        assert np.array_equal(result, expected, equal_nan=True), first


FLUSHES = {
    ("gfx90a", "v_mfma_f32_16x16x16f16"): True,
    ("gfx90a", "v_mfma_f32_32x32x8bf16_1k"): True,
    ("gfx90a", "v_mfma_f32_32x32x4bf16"): True,
    ("gfx942", "v_mfma_f32_16x16x16_f16"): False,
    ("gfx942", "v_mfma_f32_32x32x8_bf16"): False,
}


@pytest.mark.parametrize(("target", "handler"), FLUSHES)
def test_denormals(target: str, handler: str) -> None:
    """Of A and B, of C and of the result; MI200 makes them 0, later targets keep them."""
    found, flushes = case(handler), FLUSHES[target, handler]
    kind, shape = found.kinds[0], (1, found.m, found.k)
    least = {"f16": 2.0**-24, "bf16": 2.0**-133}[kind]
    normal = {"f16": 2.0**-14, "bf16": 2.0**-126}[kind]
    for a, b, c, kept in (
        (least, 1, 0, least),
        (1, -least, 0, -least),
        (normal, 1, 0, normal),
        (0, 0, 2.0**-140, 2.0**-140),
        (0, 0, 2.0**-126, 2.0**-126),
        (*((normal, 2.0**-10, 0, 2.0**-24) if kind == "f16" else (normal, 2.0**-10, 0, 2.0**-136)),),
    ):
        x, y = np.zeros(shape), np.zeros(shape).transpose(0, 2, 1)
        x[:, :, 3], y[:, 3, :] = a, b
        state = handlers.state(target)
        put(state, A, found.operand(0, x))
        put(state, B, found.operand(1, y))
        put(state, C, found.accumulator(np.full((1, found.m, found.m), c), state.v))
        single.run(text(found), target, state)
        denormal = least in (a, -b) or 0 < abs(kept) < 2.0**-126
        expected = 0.0 if flushes and denormal else kept
        result = state.v[D : D + found.results].view(np.float32)
        assert (result == np.float32(expected)).all(), (a, b, c)


@pytest.mark.parametrize(
    "handler",
    [
        "v_mfma_f32_16x16x16_f16",
        "v_mfma_f32_32x32x16_bf16",
        "v_wmma_f32_16x16x16_f16_gfx12",
        "v_mfma_f32_4x4x4_16b_f16",
    ],
)
def test_orders_of_additions(handler: str) -> None:
    """Each order gives its own rounding errors, to the last bit."""
    found, random = case(handler), np.random.default_rng(17)
    kind = found.kinds[0]
    shape = (found.blocks, found.m, found.k)
    a = decode(kind, encode(kind, random.normal(size=shape)))
    b = decode(kind, encode(kind, random.normal(size=shape))).transpose(0, 2, 1)
    c = random.normal(size=(found.blocks, found.m, found.m)).astype(np.float32)
    products = np.einsum("nik,nkj->knij", a.astype(np.float64), b)
    results = {}
    for order, add in ORDERS.items():
        state = handlers.state(found.target)
        put(state, A, found.operand(0, a))
        put(state, B, found.operand(1, b))
        put(state, C, found.accumulator(c, state.v))
        gpu.arithmetic(additions=order)
        try:
            single.run(text(found), found.target, state)
        finally:
            gpu.arithmetic()
        results[order] = state.v[D : D + found.results].copy()
        assert (results[order] == found.accumulator(add(products, c), state.v)).all(), order
    assert len({result.tobytes() for result in results.values()}) == 3


def test_infinities_and_nan() -> None:
    """Of 16-bit floats: a NaN where 0 meets infinity, and infinity elsewhere."""
    for handler in ("v_mfma_f32_16x16x16_f16", "v_mfma_f32_16x16x16_bf16", "v_wmma_f32_16x16x16_f16"):
        found = case(handler)
        a, b = np.ones((1, 16, 16)), np.ones((1, 16, 16))
        a[0, 3, 5], b[0, 5, 7] = np.inf, 0
        state = handlers.state(found.target)
        put(state, A, found.operand(0, a))
        put(state, B, found.operand(1, b))
        with np.errstate(invalid="ignore"):
            expected = found.accumulator(a @ b, state.v).view(np.float32)
        single.run(text(found, c="0"), found.target, state)
        assert np.array_equal(state.v[D : D + found.results].view(np.float32), expected, equal_nan=True)
