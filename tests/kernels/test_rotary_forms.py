# SPDX-License-Identifier: Apache-2.0
"""M-RoPE, per-token cosines (vision encoders) and two-dimensional positions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops import checks
from rocmforge_plugin.ops.position import APPLY_ROTARY, ROTARY, ROTARY_2D

from .kernel_support import (
    DEVICE,
    DTYPES,
    SUFFIX,
    Buffer,
    Refusal,
    assert_within,
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

POSITIONS = 256


@st.composite
def sections(draw):
    """(rotary_dim, section): GLM-4.1V's, GLM-OCR's, and any."""
    known = draw(st.sampled_from((None, (64, (8, 12, 12)), (128, (16, 24, 24)))))
    if known:
        return known
    parts = [draw(st.integers(0, 12)) for _ in range(3)]
    parts[draw(st.integers(0, 2))] += 1
    return 2 * sum(parts), tuple(parts)


@given(st.data(), st.integers(1, 6), sections(), st.booleans(), st.booleans(), dtypes, st.booleans(), seeds)
def test_sections(data, tokens, section, mrope_interleaved, interleaved, dtype, float_table, seed):
    rotary_dim, counts = section
    head_size = rotary_dim + data.draw(st.sampled_from((0, 8, 3)))
    table = cos_sin_table(POSITIONS, rotary_dim, torch.float32 if float_table else dtype)
    # A view of a longer buffer, as vLLM slices its persistent positions.
    positions = torch.randint(0, POSITIONS, (3, tokens + 2), generator=generator(seed)).to(DEVICE)[:, :tokens]
    options = dict(
        head_size=head_size, interleaved=interleaved, mrope_section=list(counts), mrope_interleaved=mrope_interleaved
    )
    layout = data.draw(row_layouts(tokens, 2, head_size))
    query = Buffer.of(layout, dtype, seed)
    old = query.fill(torch.randn(layout[0], generator=generator(seed + 1)).to(dtype))
    key = torch.randn(tokens, head_size, generator=generator(seed + 2)).to(dtype).to(DEVICE)
    old_key = key.clone()
    functional = ops.rotary_out(positions, query.view, key, table, **options)
    ops.rotary(positions, query.view, key, table, **options)
    for out, before in ((query.view, old), (key, old_key)):
        assert_within(
            out,
            reference.rotary(positions, before, table, **options),
            reference.rotary(positions, before, table, compute=dtype, **options),
        )
    assert same_bits(functional[0], query.view) and same_bits(functional[1], key)
    assert query.outside_untouched()


def test_equal_axes_are_one_position():
    table = cos_sin_table(POSITIONS, 64, torch.float32)
    positions = torch.arange(5, device=DEVICE) + 7
    query = torch.randn(5, 4 * 128, generator=generator(0)).to(DEVICE)
    for mrope_interleaved in (False, True):
        one, three = query.clone(), query.clone()
        ops.rotary(positions, one, None, table, head_size=128, interleaved=True)
        ops.rotary(
            positions.repeat(3, 1),
            three,
            None,
            table,
            head_size=128,
            interleaved=True,
            mrope_section=(8, 12, 12),
            mrope_interleaved=mrope_interleaved,
        )
        assert same_bits(one, three) and not same_bits(one, query)


@given(
    st.data(),
    st.integers(0, 3),
    st.integers(0, 6),
    st.integers(1, 3),
    st.sampled_from((64, 128, 80, 72, 6)),
    st.booleans(),
    dtypes,
    seeds,
)
def test_cosines_per_token(data, batch, sequence, heads, head_size, interleaved, dtype, seed):
    """As a vision encoder calls it: cos and sin are halves of a table, x a strided view; batch 0 means none."""
    rotary_dim = data.draw(st.sampled_from((head_size, head_size // 2 // 2 * 2)))
    table = cos_sin_table(max(sequence, 1), rotary_dim, data.draw(st.sampled_from((dtype, torch.float32))))[:sequence]
    cos, sin = table.chunk(2, dim=-1)
    shape = (max(batch, 1), sequence, heads, head_size)
    layout = data.draw(st.sampled_from(("dense", "qkv", "batch inside")))
    wide = torch.randn(shape[0], sequence, 3 * heads, head_size, generator=generator(seed)).to(dtype).to(DEVICE)
    x = wide[:, :, heads : 2 * heads]
    if layout == "dense":
        x = x.contiguous()
    elif layout == "batch inside":
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    if batch == 0:
        x = x[0]
    before = wide.clone()
    out = ops.apply_rotary(x, cos, sin, interleaved=interleaved)
    assert out.shape == x.shape and out.dtype == x.dtype and same_bits(wide, before)
    flat = x.reshape(-1, heads, head_size)
    cos, sin = (part.repeat(shape[0], 1) for part in (cos, sin))
    assert_within(
        out.reshape(flat.shape),
        reference.rotate(flat, cos, sin, interleaved),
        reference.rotate(flat, cos, sin, interleaved, compute=dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_vision_is_one_wide_launch(dtype):
    x = torch.randn(2, 33, 16, 64, generator=generator(0)).to(dtype).to(DEVICE)
    cos, sin = cos_sin_table(33, 64, torch.float32).chunk(2, dim=-1)
    assert launched(lambda: ops.apply_rotary(x, cos, sin)) == {f"rotary_v16_{SUFFIX[dtype]}": 1}
    assert launched(lambda: ops.apply_rotary(x[:, :0], cos[:0], sin[:0])) == {}


@given(
    st.data(), st.integers(0, 5), st.integers(1, 3), st.sampled_from((128, 64, 32, 12, 4)), st.booleans(), dtypes, seeds
)
def test_two_dimensional_positions(data, tokens, heads, head_size, interleaved, dtype, seed):
    table = cos_sin_table(POSITIONS, head_size // 2, dtype)
    positions = torch.randint(0, POSITIONS, (2, tokens), generator=generator(seed)).to(DEVICE)
    buffers, before = [], []
    for count in (heads, 1):
        layout = data.draw(row_layouts(tokens, count, head_size))
        buffers.append(Buffer.of(layout, dtype, seed))
        before.append(buffers[-1].fill(torch.randn(layout[0], generator=generator(seed + count)).to(dtype)))
    options = dict(head_size=head_size, interleaved=interleaved)
    counts = launched(lambda: ops.rotary_2d(positions, buffers[0].view, buffers[1].view, table, **options))
    assert sum(counts.values()) == (tokens > 0)
    for buffer, old in zip(buffers, before, strict=True):
        assert_within(
            buffer.view,
            reference.rotary_2d(positions, old, table, **options),
            reference.rotary_2d(positions, old, table, compute=dtype, **options),
        )
        assert buffer.outside_untouched()


def chatglm_apply(query, key, cos, sin, positions):
    """ChatGLM-6B's own formulation (apply_rotary_pos_emb_index of its modeling file), from its description: cos and sin
    [max, 1, rotary] doubled over the halves, x [sequence, batch, heads, rotary].
    """

    def half_turned(x):
        return torch.cat((-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]), dim=-1)

    cos, sin = (part[positions].unsqueeze(2) for part in (cos, sin))  # [sequence, batch, 1, rotary]
    return query * cos + half_turned(query) * sin, key * cos + half_turned(key) * sin


def test_two_dimensional_positions_as_chatglm_computes_them():
    """A prompt of 6 tokens with the mask token at 4, then 3 generated ones: positions stop, block positions count."""
    sequence, heads, size = 9, 4, 64
    places = torch.tensor([0, 1, 2, 3, 4, 5, 4, 4, 4], device=DEVICE)
    blocks = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2, 3], device=DEVICE)
    query, key = (torch.randn(sequence, heads, size, generator=generator(i)).to(DEVICE) for i in (1, 2))
    table = cos_sin_table(32, size // 2, torch.float32)
    cos, sin = (part.repeat(1, 2) for part in table.chunk(2, dim=-1))
    halves = []
    for index, row in enumerate((places, blocks)):
        half_query, half_key = (x.chunk(2, dim=-1)[index].unsqueeze(1) for x in (query, key))
        turned = chatglm_apply(half_query, half_key, cos, sin, row.unsqueeze(1))
        halves.append([part.squeeze(1) for part in turned])
    wanted = [torch.cat(parts, dim=-1) for parts in zip(*halves, strict=True)]
    ops.rotary_2d(torch.stack((places, blocks)), query, key, table, head_size=size)
    torch.testing.assert_close(query, wanted[0])
    torch.testing.assert_close(key, wanted[1])


REFUSALS = [
    Refusal("x.tensor", {"x": lambda t: t.to_sparse()}, ValueError, "x is of layout torch.sparse_coo"),
    Refusal("x.dtype", {"x": lambda t: t.double()}, TypeError, "x is torch.float64"),
    Refusal("x.shape", {"x": lambda t: t[0, 0]}, ValueError, r"x is \[3, 16\].*\[sequence, heads"),
    Refusal("x.shape", {"x": lambda t: t[..., :0]}, ValueError, "x is "),
    Refusal("x.contiguous", {"x": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3)}, ValueError, "stride 1"),
    Refusal("cos.tensor", {"cos": lambda t: None}, TypeError, "cos is a NoneType"),
    Refusal("cos.dtype", {"cos": lambda t: t.half()}, TypeError, "cos is torch.float16.*float32"),
    Refusal("cos.device", {"cos": elsewhere}, ValueError, "x's device"),
    Refusal("cos.shape", {"cos": lambda t: t[:4]}, ValueError, r"cos is \[4, 8\].*x is \[2, 5, 3, 16\]"),
    Refusal("cos.shape", {"cos": lambda t: t.repeat(1, 2)}, ValueError, "rotary_dim <= head_size"),
    Refusal("cos.contiguous", {"cos": lambda t: t.t().contiguous().t()}, ValueError, "stride 1"),
    Refusal("sin.tensor", {"sin": lambda t: t.to("meta")}, ValueError, "sin is on meta"),
    Refusal("sin.dtype", {"sin": lambda t: t.int()}, TypeError, "sin is torch.int32"),
    Refusal("sin.device", {"sin": elsewhere}, ValueError, "x's device"),
    Refusal("sin.shape", {"sin": lambda t: t[None]}, ValueError, "sin is "),
    Refusal("sin.contiguous", {"sin": lambda t: t.t().contiguous().t()}, ValueError, "stride 1"),
    Refusal("sin.like_cos", {"sin": lambda t: t[:, :4]}, ValueError, r"sin is \[5, 4\].*like cos, \[5, 8\]"),
    Refusal("sin.like_cos", {"x": lambda t: t.half(), "sin": lambda t: t.half()}, ValueError, "like cos.*float32"),
]
TWO_AXES = [
    Refusal(
        "positions.shape", {"positions": lambda t: t.repeat(2, 1)[:3]}, ValueError, r"positions is \[3, 5\].*\[2, 5\]"
    ),
    Refusal("positions.shape", {"positions": lambda t: t[0]}, ValueError, r"positions is \[5\].*\[2, 5\]"),
    Refusal(
        "cos_sin_cache.shape",
        {"cos_sin_cache": lambda t: t[:, :4]},
        ValueError,
        r"\[max_position, 16 / 2\], half a head",
    ),
    Refusal(
        "cos_sin_cache.shape",
        {"cos_sin_cache": lambda t: t[:, :5], "query": lambda t: t[..., :10], "head_size": lambda n: 10},
        ValueError,
        "even number",
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
def test_refuses(refusal):
    arguments = {
        "x": torch.zeros(2, 5, 3, 16, device=DEVICE),
        "cos": torch.ones(5, 8, device=DEVICE),
        "sin": torch.ones(5, 8, device=DEVICE),
    }
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.apply_rotary(**arguments))


@pytest.mark.parametrize("refusal", TWO_AXES, ids=lambda refusal: refusal.condition)
def test_two_axes_refuse(refusal):
    arguments = {
        "positions": torch.zeros(2, 5, dtype=torch.int64, device=DEVICE),
        "key": None,
        "head_size": 16,
        "query": torch.zeros(5, 3, 16, device=DEVICE),
        "cos_sin_cache": torch.ones(5, 8, device=DEVICE),
    }
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.rotary_2d(**arguments))


MADE = Refusal("out.tensor", {}, ValueError, "out is on meta")


def test_refuses_a_result_without_memory(monkeypatch):
    x, table = torch.zeros(5, 3, 16, device=DEVICE), torch.ones(5, 8, device=DEVICE)
    monkeypatch.setattr(checks, "empty_like", lambda *_: x.to("meta"))
    check_refusal(MADE, lambda: ops.apply_rotary(x, table, table))


def test_every_condition_has_words():
    check_words("apply_rotary", APPLY_ROTARY, [*REFUSALS, MADE])
    assert ROTARY_2D.keys() == ROTARY.keys()
