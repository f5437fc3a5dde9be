# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference

from .kernel_support import (DEVICE, DTYPES, SUFFIX, Buffer, assert_within, bits, cos_sin_table, dtypes, generator,
                            launched, row_layouts, same_bits, seeds)

POSITIONS = 512

# head_size, rotary_dim: GLM's half of 128, a whole head, an odd number of vectors, one pair, MLA's slice, big heads.
SHAPES = ((128, 64), (128, 128), (64, 64), (80, 40), (80, 80), (96, 24), (36, 18), (7, 6), (5, 2), (64, 32), (256, 64),
          (576, 64), (512, 512))


def expected(positions, x, table, **options):
    """The oracle and the naive result, in x's shape."""
    return (reference.rotary(positions, x, table, **options),
            reference.rotary(positions, x, table, compute=x.dtype, **options))


def check_rotated(out, before, reference_and_naive, head_size, rotary_dim):
    assert_within(out, *reference_and_naive)
    plain = reference.split_heads(out, head_size)[..., rotary_dim:]
    assert same_bits(plain, reference.split_heads(before, head_size)[..., rotary_dim:])


@given(st.data(), st.integers(0, 7), st.integers(1, 5), st.integers(0, 2), st.sampled_from(SHAPES), st.booleans(),
       dtypes, st.booleans(), seeds)
def test_rotates_in_place(data, tokens, heads, key_heads, shape, interleaved, dtype, float_table, seed):
    head_size, rotary_dim = shape
    table = cos_sin_table(POSITIONS, rotary_dim, torch.float32 if float_table else dtype)
    positions = torch.randint(0, POSITIONS, (tokens,), generator=generator(seed)).to(DEVICE)
    buffers, before = [], []
    for count in (heads, key_heads):
        if count:
            layout = data.draw(row_layouts(tokens, count, head_size))
            buffers.append(Buffer(*layout, dtype, seed))
            before.append(buffers[-1].fill(torch.randn(layout[0], generator=generator(seed + count)).to(dtype)))
    views = [buffer.view for buffer in buffers] + [None] * (2 - len(buffers))
    options = dict(head_size=head_size, interleaved=interleaved)

    counts = launched(lambda: ops.rotary(positions, *views, table, **options))

    assert sum(counts.values()) == (tokens > 0)
    for buffer, old in zip(buffers, before):
        check_rotated(buffer.view, old, expected(positions, old, table, **options), head_size, rotary_dim)
        assert buffer.outside_untouched()


@given(st.data(), st.integers(0, 5), st.integers(1, 4), st.integers(0, 2), st.sampled_from(SHAPES), st.booleans(),
       dtypes, seeds)
def test_functional_twin(data, tokens, heads, key_heads, shape, interleaved, dtype, seed):
    head_size, rotary_dim = shape
    table = cos_sin_table(POSITIONS, rotary_dim, dtype)
    positions = torch.randint(0, POSITIONS, (tokens,), generator=generator(seed)).to(DEVICE)
    buffers = []
    for count in (heads, key_heads):
        if count:
            layout = data.draw(row_layouts(tokens, count, head_size))
            buffers.append(Buffer(*layout, dtype, seed))
            buffers[-1].fill(torch.randn(layout[0], generator=generator(seed + count)).to(dtype))
    views = [buffer.view for buffer in buffers] + [None] * (2 - len(buffers))
    options = dict(head_size=head_size, interleaved=interleaved)
    outs = ops.rotary_out(positions, *views, table, **options)
    assert (outs[1] is None) == (key_heads == 0)
    for buffer, out in zip(buffers, outs):
        assert out.is_contiguous() and out.shape == buffer.view.shape
        check_rotated(out, buffer.view, expected(positions, buffer.view, table, **options), head_size, rotary_dim)
        assert buffer.untouched()
    ops.rotary(positions, *views, table, **options)
    for buffer, out in zip(buffers, outs):
        assert same_bits(buffer.view, out)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("interleaved", (False, True))
def test_views_of_one_qkv_buffer(dtype, interleaved):
    tokens, heads, kv_heads, size = 37, 8, 2, 128
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * size, generator=generator(0)).to(dtype).to(DEVICE)
    before = qkv.clone()
    query, key, value = qkv.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    table = cos_sin_table(POSITIONS, 64, dtype)
    positions = torch.arange(tokens, device=DEVICE) + 100
    options = dict(head_size=size, interleaved=interleaved)
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
    options = dict(head_size=64, interleaved=True)
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


def refuse(call=None, **changes):
    arguments = {"positions": torch.arange(4), "query": torch.zeros(4, 2 * 64), "key": torch.zeros(4, 64),
                 "cos_sin_cache": cos_sin_table(16, 32, torch.float32), "head_size": 64, "interleaved": False}
    arguments = {name: value.to(DEVICE) if isinstance(value, torch.Tensor) else value
                 for name, value in arguments.items()}
    arguments.update({name: change(arguments.get(name)) for name, change in changes.items()})
    (call or ops.rotary)(**arguments)


REFUSALS = {
    "query dtype": (dict(query=lambda t: t.double()), TypeError, "query is torch.float64.*bfloat16"),
    "query rank": (dict(query=lambda t: t[0]), ValueError, "positions is .*query's tokens"),
    "query width": (dict(query=lambda t: t[:, :100]), ValueError, r"query is \[4, 100\].*\[tokens, heads, 64\]"),
    "query head size": (dict(query=lambda t: t.view(4, 4, 32)), ValueError, r"query is \[4, 4, 32\].*64"),
    "query strided": (dict(query=lambda t: t.t().contiguous().t()), ValueError, "query is .*stride 1"),
    "query expanded": (dict(query=lambda t: t[:1].expand(4, -1)), ValueError, "query is .*not an expanded one"),
    "key dtype": (dict(key=lambda t: t.half()), TypeError, "key is torch.float16.*query's dtype"),
    "key tokens": (dict(key=lambda t: t[:3]), ValueError, "key is .*as many tokens as query, 4"),
    "key device": (dict(key=lambda t: t.to("meta")), ValueError, "key is on meta.*query's device"),
    "key heads expanded": (dict(key=lambda t: t.unsqueeze(1).expand(4, 3, 64)), ValueError, "key is .*expanded"),
    "positions dtype": (dict(positions=lambda t: t.int()), TypeError, "positions is torch.int32.*int64"),
    "positions length": (dict(positions=lambda t: t[:3]), ValueError, r"positions is \[3\].*\[4\] or \[3, 4\]"),
    "positions strided": (dict(positions=lambda t: t.repeat_interleave(2)[::2]), ValueError,
                          "positions is .*contiguous"),
    "positions of two rows": (dict(positions=lambda t: t.expand(2, 4)), ValueError, r"positions is \[2, 4\]"),
    "table odd": (dict(cos_sin_cache=lambda t: t[:, :31]), ValueError, r"cos_sin_cache is \[16, 31\].*even"),
    "table too wide": (dict(cos_sin_cache=lambda t: t.repeat(1, 3)), ValueError,
                       r"cos_sin_cache is \[16, 96\].*2 to 64"),
    "table empty": (dict(cos_sin_cache=lambda t: t[:, :0]), ValueError, "cos_sin_cache is"),
    "table dtype": (dict(cos_sin_cache=lambda t: t.half()), TypeError, "cos_sin_cache is torch.float16.*float32"),
    "table strided": (dict(cos_sin_cache=lambda t: t.t().contiguous().t()), ValueError, "cos_sin_cache is .*stride 1"),
    "sections missing": (dict(positions=lambda t: t.repeat(3, 1)), ValueError, "mrope_section is None.*16"),
    "sections short": (dict(positions=lambda t: t.repeat(3, 1), mrope_section=lambda _: [4, 4, 4]), ValueError,
                       r"mrope_section is \[4, 4, 4\].*rotary_dim / 2, 16"),
    "two sections": (dict(positions=lambda t: t.repeat(3, 1), mrope_section=lambda _: [8, 8]), ValueError,
                     "mrope_section is .*three counts"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    changes, error, message = REFUSALS[name]
    with pytest.raises(error, match=message):
        refuse(**changes)
    if name not in ("query expanded", "key heads expanded"):  # the functional twin only reads them
        with pytest.raises(error, match=message):
            refuse(ops.rotary_out, **changes)
