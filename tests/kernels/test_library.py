# SPDX-License-Identifier: Apache-2.0
"""The ops as torch knows them: schemas, shape functions, and compiled code."""

from __future__ import annotations

import pytest
import torch

from rocmforge_plugin import ops

from .kernel_support import DEVICE, cos_sin_table, generator, launched, poison, same_bits

TOKENS, HEADS, KV_HEADS, SIZE = 5, 4, 2, 64


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed)).to(DEVICE)


def arguments(name: str) -> tuple:
    positions = torch.arange(TOKENS, device=DEVICE)
    table = cos_sin_table(32, 32, torch.float32)
    query = randn(TOKENS, HEADS * SIZE)
    key, value = randn(TOKENS, KV_HEADS * SIZE, seed=1), randn(TOKENS, KV_HEADS * SIZE, seed=4)
    cache = randn(2, KV_HEADS, 16, 2 * SIZE, seed=2)
    slots = torch.arange(TOKENS, device=DEVICE) + 3
    weight = randn(SIZE, seed=3)
    kv = (key.view(TOKENS, KV_HEADS, SIZE), value.view(TOKENS, KV_HEADS, SIZE))
    return {
        "causal_mask": (randn(2, 5, 7), 1),
        "kv_write": (*kv, cache, slots),
        "latent_kv_write": (value, query[:, :SIZE], randn(2, 16, (KV_HEADS + 1) * SIZE), slots),
        "rotary": (positions, query, key, table, SIZE, True, None, False),
        "rotary_out": (positions, query, key, table, SIZE, False, None, False),
        "rotary_2d": (positions.repeat(2, 1), query, None, table, SIZE, False),
        "apply_rotary": (query.view(TOKENS, HEADS, SIZE), table[:TOKENS, :16], table[:TOKENS, 16:], False),
        "rotary_kv_write": (positions, query, key, value, table, cache, slots, True, None, False, weight, weight, 1e-5),
        "rotary_latent_kv_write": (
            positions,
            query.view(TOKENS, HEADS, SIZE),
            key[:, :SIZE],
            table,
            value,
            randn(2, 16, (KV_HEADS + 1) * SIZE),
            slots,
            True,
        ),
        "rotary_kv_write_out": (
            positions.repeat(3, 1),
            query,
            key,
            value,
            table,
            cache,
            slots,
            torch.empty_like(query),
            True,
            [4, 6, 6],
            True,
            None,
            None,
            0.0,
        ),
    }[name]


OPS = (
    "causal_mask",
    "kv_write",
    "latent_kv_write",
    "rotary",
    "rotary_out",
    "rotary_2d",
    "apply_rotary",
    "rotary_kv_write",
    "rotary_kv_write_out",
    "rotary_latent_kv_write",
)


@pytest.mark.parametrize("name", OPS)
def test_schema_says_what_is_written(name):
    """Torch runs each op and compares: mutated arguments, aliases, shapes and strides of fake results."""
    op = getattr(torch.ops.rocmforge, name).default
    torch.library.opcheck(
        op, arguments(name), test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    )


@pytest.mark.parametrize("name", OPS)
def test_runs_its_kernel_through_the_dispatcher(name):
    call = getattr(torch.ops.rocmforge, name)
    counts = launched(lambda: call(*arguments(name)))
    kernel = {
        "rotary_out": "rotary_v16",
        "rotary_2d": "rotary_v16",
        "apply_rotary": "rotary_v16",
        "rotary_kv_write": "norm_rotary_kv_write_v16",
        "rotary_kv_write_out": "mrope_kv_write_v16",
    }
    assert counts == {f"{kernel.get(name, name + '_v16')}_float": 1}


@pytest.fixture
def compiled():
    torch._dynamo.reset()
    yield lambda function: torch.compile(function, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


def test_compiled_functional_rotary(compiled):
    positions, query, key, table, *_ = arguments("rotary_out")

    def layer(positions, qkv, table):
        q, k, v = qkv.split([HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE], dim=-1)
        return ops.rotary_out(positions, q, k, table, head_size=SIZE, interleaved=True), v

    qkv = torch.cat((query, key, key), dim=-1)
    wanted = layer(positions, qkv, table)
    function = compiled(layer)
    got = function(positions, qkv, table)
    assert same_bits(got[0][0], wanted[0][0]) and same_bits(got[0][1], wanted[0][1])
    assert launched(lambda: function(positions, qkv, table)) == {"rotary_v16_float": 1}


def test_compiled_in_place_ops(compiled):
    positions, query, key, table, *_ = arguments("rotary")
    scores = randn(4, 6, 6)

    def layer(positions, query, key, table, scores):
        ops.rotary(positions, query, key, table, head_size=SIZE, interleaved=False)
        return query + 1, ops.causal_mask(scores) * 2

    expected = [tensor.clone() for tensor in (query, key, scores)]
    before = query.clone()
    wanted = layer(positions, expected[0], expected[1], table, expected[2])
    assert not same_bits(expected[0], before)
    got = compiled(layer)(positions, query, key, table, scores)
    for mine, eager in zip((query, key, scores, *got), (*expected, *wanted), strict=True):
        assert same_bits(mine, eager)


@pytest.mark.parametrize("separate", [False, True])
def test_compiled_fused_write(compiled, separate):
    positions, query, key, value, table, _, slots, *_ = arguments("rotary_kv_write")
    caches = [poison(2 * KV_HEADS * 16 * 2 * SIZE, torch.float32, 1).view(2, KV_HEADS, 16, 2 * SIZE) for _ in range(2)]

    def layer(positions, query, key, value, table, cache, slots):
        out = torch.empty_like(query) if separate else None
        ops.rotary_kv_write(positions, query, key, value, table, cache, slots, interleaved=True, query_out=out)
        return (query if out is None else out) * 2

    eager_query = query.clone()
    wanted = layer(positions, eager_query, key, value, table, caches[0], slots)
    got = compiled(layer)(positions, query, key, value, table, caches[1], slots)
    assert same_bits(got, wanted) and same_bits(query, eager_query) and same_bits(*caches)
    assert not caches[0][0, :, 3 : 3 + TOKENS].isnan().any()  # it was NaN throughout


@pytest.mark.parametrize("name", OPS)
def test_fake_tensors_need_no_device(name):
    """Shape functions never reach the kernels."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments(name)]
        assert launched(lambda: getattr(torch.ops.rocmforge, name)(*fakes)) == {}
