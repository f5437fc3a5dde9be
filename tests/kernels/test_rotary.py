# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops import checks
from rocmforge_plugin.ops.position import ROTARY

from .kernel_support import (
    DEVICE,
    DTYPES,
    SUFFIX,
    Buffer,
    Refusal,
    assert_within,
    bits,
    check_refusal,
    check_words,
    cos_sin_table,
    dtypes,
    elsewhere,
    generator,
    launched,
    row_layouts,
    same_bits,
    seeds,
)

POSITIONS = 512

# head_size, rotary_dim: GLM's half of 128, a whole head, an odd number of vectors, one pair, MLA's slice, big heads.
SHAPES = (
    (128, 64),
    (128, 128),
    (64, 64),
    (80, 40),
    (80, 80),
    (96, 24),
    (36, 18),
    (7, 6),
    (5, 2),
    (64, 32),
    (256, 64),
    (576, 64),
    (512, 512),
)


def expected(positions, x, table, **options):
    """The oracle and the naive result, in x's shape."""
    return (
        reference.rotary(positions, x, table, **options),
        reference.rotary(positions, x, table, compute=x.dtype, **options),
    )


def check_rotated(out, before, reference_and_naive, head_size, rotary_dim):
    assert_within(out, *reference_and_naive)
    plain = reference.split_heads(out, head_size)[..., rotary_dim:]
    assert same_bits(plain, reference.split_heads(before, head_size)[..., rotary_dim:])


@given(
    st.data(),
    st.integers(0, 7),
    st.integers(1, 5),
    st.integers(0, 2),
    st.sampled_from(SHAPES),
    st.booleans(),
    dtypes,
    st.booleans(),
    seeds,
)
def test_rotates_in_place(data, tokens, heads, key_heads, shape, interleaved, dtype, float_table, seed):
    head_size, rotary_dim = shape
    table = cos_sin_table(POSITIONS, rotary_dim, torch.float32 if float_table else dtype)
    positions = torch.randint(0, POSITIONS, (tokens,), generator=generator(seed)).to(DEVICE)
    buffers, before = [], []
    for count in (heads, key_heads):
        if count:
            layout = data.draw(row_layouts(tokens, count, head_size))
            buffers.append(Buffer.of(layout, dtype, seed))
            before.append(buffers[-1].fill(torch.randn(layout[0], generator=generator(seed + count)).to(dtype)))
    query, key = [buffer.view for buffer in buffers] + [None] * (2 - len(buffers))
    options: dict[str, Any] = dict(head_size=head_size, interleaved=interleaved)

    counts = launched(lambda: ops.rotary(positions, query, key, table, **options))

    assert sum(counts.values()) == (tokens > 0)
    for buffer, old in zip(buffers, before, strict=True):
        check_rotated(buffer.view, old, expected(positions, old, table, **options), head_size, rotary_dim)
        assert buffer.outside_untouched()


@given(
    st.data(),
    st.integers(0, 5),
    st.integers(1, 4),
    st.integers(0, 2),
    st.sampled_from(SHAPES),
    st.booleans(),
    dtypes,
    seeds,
)
def test_functional_twin(data, tokens, heads, key_heads, shape, interleaved, dtype, seed):
    head_size, rotary_dim = shape
    table = cos_sin_table(POSITIONS, rotary_dim, dtype)
    positions = torch.randint(0, POSITIONS, (tokens,), generator=generator(seed)).to(DEVICE)
    buffers = []
    for count in (heads, key_heads):
        if count:
            layout = data.draw(row_layouts(tokens, count, head_size))
            buffers.append(Buffer.of(layout, dtype, seed))
            buffers[-1].fill(torch.randn(layout[0], generator=generator(seed + count)).to(dtype))
    query, key = [buffer.view for buffer in buffers] + [None] * (2 - len(buffers))
    options: dict[str, Any] = dict(head_size=head_size, interleaved=interleaved)
    outs = ops.rotary_out(positions, query, key, table, **options)
    assert (outs[1] is None) == (key_heads == 0)
    for buffer, out in zip(buffers, outs, strict=False):
        assert out is not None and out.is_contiguous() and out.shape == buffer.view.shape
        check_rotated(out, buffer.view, expected(positions, buffer.view, table, **options), head_size, rotary_dim)
        assert buffer.untouched()
    ops.rotary(positions, query, key, table, **options)
    for buffer, out in zip(buffers, outs, strict=False):
        assert same_bits(buffer.view, out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_views_of_one_qkv_buffer(dtype, interleaved):
    tokens, heads, kv_heads, size = 37, 8, 2, 128
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * size, generator=generator(0)).to(dtype).to(DEVICE)
    before = qkv.clone()
    query, key, value = qkv.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    table = cos_sin_table(POSITIONS, 64, dtype)
    positions = torch.arange(tokens, device=DEVICE) + 100
    options: dict[str, Any] = dict(head_size=size, interleaved=interleaved)
    counts = launched(lambda: ops.rotary(positions, query, key, table, **options))
    assert counts == {f"rotary_v16_{SUFFIX[dtype]}": 1}
    old_query, old_key, old_value = before.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    check_rotated(query, old_query, expected(positions, old_query, table, **options), size, 64)
    check_rotated(key, old_key, expected(positions, old_key, table, **options), size, 64)
    assert same_bits(value, old_value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rope_slices_of_latent_attention(dtype):
    """MLA: the query's rope slice is strided three ways, the key's is one head inside the latent row."""
    tokens, heads = 9, 20
    full = torch.randn(tokens, heads, 256, generator=generator(1)).to(dtype).to(DEVICE)
    latent = torch.randn(tokens, 512 + 64, generator=generator(2)).to(dtype).to(DEVICE)
    old_full, old_latent = full.clone(), latent.clone()
    table = cos_sin_table(POSITIONS, 64, dtype)
    positions = torch.arange(tokens, device=DEVICE)
    options: dict[str, Any] = dict(head_size=64, interleaved=True)
    query, key = full[..., 192:], latent[:, 512:].unsqueeze(1)
    counts = launched(lambda: ops.rotary(positions, query, key, table, **options))
    assert counts == {f"rotary_v16_{SUFFIX[dtype]}": 1}
    old_query, old_key = old_full[..., 192:], old_latent[:, 512:].unsqueeze(1)
    assert_within(query, *expected(positions, old_query, table, **options))
    assert_within(key, *expected(positions, old_key, table, **options))
    assert same_bits(full[..., :192], old_full[..., :192])
    assert same_bits(latent[:, :512], old_latent[:, :512])


def test_rounds_once():
    """Every bf16 result is the nearest to the exact product of the stored inputs."""
    query = torch.randn(64, 4, 128, generator=generator(3)).to(torch.bfloat16).to(DEVICE)
    table = cos_sin_table(POSITIONS, 128, torch.bfloat16)
    positions = torch.arange(64, device=DEVICE) * 7
    exact = reference.rotary(positions, query, table, head_size=128, interleaved=False)
    ops.rotary(positions, query, None, table, head_size=128, interleaved=False)
    nearest = exact.to(torch.bfloat16)
    differ = bits(query) != bits(nearest)
    # float32 may fall on the other side of a tie that float64 sees; nothing else may differ.
    assert differ.float().mean() < 1e-3
    assert ((query.double() - exact).abs() <= (nearest.double() - exact).abs() * 1.01 + 1e-6).all()


def test_long_positions_and_a_large_batch():
    tokens = 3000
    table = cos_sin_table(65536, 32, torch.float32)
    positions = torch.randint(60000, 65536, (tokens,), generator=generator(4)).to(DEVICE)
    query = torch.randn(tokens, 3 * 64, generator=generator(5)).to(DEVICE)
    old = query.clone()
    ops.rotary(positions, query, None, table, head_size=64, interleaved=True)
    assert_within(query, *expected(positions, old, table, head_size=64, interleaved=True))


def three_rows(positions):
    return positions.repeat(3, 1)


def always(value):
    return lambda _: value


def fake(_):
    """A tensor without memory, as one that is made while torch traces."""
    with FakeTensorMode():
        return torch.empty(4, 128)


REFUSALS = [
    Refusal("query.tensor", {"query": lambda t: None}, TypeError, "query is a NoneType"),
    Refusal("query.dtype", {"query": lambda t: t.double()}, TypeError, "query is torch.float64.*bfloat16"),
    Refusal("head_size.least", {"head_size": lambda n: 0}, ValueError, "head_size is 0.*at least 1"),
    Refusal("query.shape", {"query": lambda t: t[0]}, ValueError, r"query is \[128\].*\[tokens, heads, 64\]"),
    Refusal("query.shape", {"query": lambda t: t[:, :100]}, ValueError, r"query is \[4, 100\].*\[tokens, heads, 64\]"),
    Refusal("query.shape", {"query": lambda t: t.view(4, 4, 32)}, ValueError, r"query is \[4, 4, 32\].*64"),
    Refusal("query.contiguous", {"query": lambda t: t.t().contiguous().t()}, ValueError, "stride 1"),
    Refusal("query.own", {"query": lambda t: t[:1].expand(4, -1)}, ValueError, "not an expanded one"),
    Refusal("key.tensor", {"key": lambda t: t.to("meta")}, ValueError, "key is on meta"),
    Refusal("key.dtype", {"key": lambda t: t.half()}, TypeError, "key is torch.float16.*query's dtype"),
    Refusal("key.device", {"key": elsewhere}, ValueError, "query's device"),
    Refusal("key.shape", {"key": lambda t: t[:, :60]}, ValueError, r"\[tokens, heads, 64\]"),
    Refusal("key.contiguous", {"key": lambda t: t.t().contiguous().t()}, ValueError, "stride 1"),
    Refusal("key.tokens", {"key": lambda t: t[:3]}, ValueError, "as many tokens as query, 4"),
    Refusal("key.own", {"key": lambda t: t.unsqueeze(1).expand(4, 3, 64)}, ValueError, "not an expanded one"),
    Refusal("positions.tensor", {"positions": lambda t: t.tolist()}, TypeError, "positions is a list"),
    Refusal("positions.dtype", {"positions": lambda t: t.int()}, TypeError, "positions is torch.int32.*int64"),
    Refusal("positions.device", {"positions": elsewhere}, ValueError, "query's device"),
    Refusal("positions.shape", {"positions": lambda t: t[:3]}, ValueError, r"positions is \[3\].*\[4\] or \[3, 4\]"),
    Refusal("positions.shape", {"positions": lambda t: t.expand(2, 4)}, ValueError, r"positions is \[2, 4\]"),
    Refusal("positions.contiguous", {"positions": lambda t: t.repeat_interleave(2)[::2]}, ValueError, "contiguous"),
    Refusal("cos_sin_cache.tensor", {"cos_sin_cache": lambda t: None}, TypeError, "cos_sin_cache is a NoneType"),
    Refusal("cos_sin_cache.dtype", {"cos_sin_cache": lambda t: t.half()}, TypeError, "torch.float16.*float32"),
    Refusal("cos_sin_cache.device", {"cos_sin_cache": elsewhere}, ValueError, "query's device"),
    Refusal("cos_sin_cache.shape", {"cos_sin_cache": lambda t: t[:, :31]}, ValueError, r"is \[16, 31\].*even"),
    Refusal("cos_sin_cache.shape", {"cos_sin_cache": lambda t: t.repeat(1, 3)}, ValueError, r"is \[16, 96\].*2 to 64"),
    Refusal("cos_sin_cache.shape", {"cos_sin_cache": lambda t: t[:, :0]}, ValueError, r"is \[16, 0\]"),
    Refusal("cos_sin_cache.contiguous", {"cos_sin_cache": lambda t: t.t().contiguous().t()}, ValueError, "stride 1"),
    Refusal("mrope_section.sum", {"positions": three_rows}, ValueError, "mrope_section is None.*32 / 2"),
    Refusal(
        "mrope_section.sum",
        {"positions": three_rows, "mrope_section": lambda _: [4, 4, 4]},
        ValueError,
        r"mrope_section is \[4, 4, 4\].*rotary_dim / 2, 32 / 2",
    ),
    *(
        Refusal("mrope_section.sum", {"positions": three_rows, "mrope_section": always(wrong)}, ValueError, "three")
        for wrong in ([8, 8], [20, 4, -8], ["a", 8, 8], "tch", 16)
    ),
]
MADE = [
    Refusal("query_out.tensor", {"query_out": fake}, TypeError, "query_out is a FakeTensor"),
    Refusal("key_out.tensor", {"key_out": fake}, TypeError, "key_out is a FakeTensor"),
]


def arguments_of(refusal):
    arguments = {
        "positions": torch.arange(4),
        "query": torch.zeros(4, 2 * 64),
        "key": torch.zeros(4, 64),
        "cos_sin_cache": cos_sin_table(16, 32, torch.float32),
        "head_size": 64,
        "interleaved": False,
    }
    arguments = {
        name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value for name, value in arguments.items()
    }
    return arguments | {name: change(arguments.get(name)) for name, change in refusal.changes.items()}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
@pytest.mark.parametrize("op", [ops.rotary, ops.rotary_out])
def test_refuses(op, refusal):
    if op is ops.rotary_out and refusal.condition.endswith(".own"):
        op(**arguments_of(refusal))  # it only reads them
    else:
        check_refusal(refusal, lambda: op(**arguments_of(refusal)))


@pytest.mark.parametrize("refusal", MADE, ids=lambda refusal: refusal.condition)
def test_refuses_results_without_memory(monkeypatch, refusal):
    """Where torch makes a fake tensor of what would hold the result."""
    made = [
        refusal.changes.get(name, torch.empty_like)(arguments_of(refusal)[name.removesuffix("_out")])
        for name in ("query_out", "key_out")
    ]
    monkeypatch.setattr(checks, "empty_like", lambda *_: made.pop(0))
    check_refusal(refusal, lambda: ops.rotary_out(**arguments_of(refusal._replace(changes={}))))


def test_every_condition_has_words():
    check_words("rotary", ROTARY, REFUSALS + MADE)
