# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops.latent_cache import ROTARY_LATENT_KV_WRITE

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
    poison,
    same_bits,
    seeds,
)
from .test_kv_write import draw_slots
from .test_latent_kv_write import latent_caches, strided, token_rows

POSITIONS = 256
# Elements of the latent, of the key's part behind it, and how many of the latter are rotated.
DIMS = ((512, 64, 64), (256, 64, 64), (128, 32, 32), (512, 64, 32), (36, 18, 18), (7, 6, 4))


def yarn_table(rotary_dim: int, dtype: torch.dtype) -> torch.Tensor:
    """Cosines and sines that are larger than 1, as models with YaRN have them: their factor is in the table."""
    return (1.27 * cos_sin_table(POSITIONS, rotary_dim, torch.float64)).to(dtype)


@st.composite
def query_slices(draw, tokens: int, heads: int, size: int):
    """(shape, strides, offset) of the last `size` elements of each head of a wider query."""
    multiple = draw(st.sampled_from((1, 4, 8)))
    before = multiple * draw(st.integers(0, 3))
    head = before + size + multiple * draw(st.integers(0, 1))
    return (tokens, heads, size), (heads * head + multiple * draw(st.integers(0, 2)), head, 1), before


@given(st.data(), st.integers(0, 7), st.integers(0, 5), st.sampled_from(DIMS), st.booleans(), dtypes, seeds)
def test_rotates_in_place_and_writes(data, tokens, heads, dims, interleaved, dtype, seed):
    latent_dims, rope_dims, rotary_dim = dims
    table = yarn_table(rotary_dim, data.draw(st.sampled_from((dtype, torch.float32))))
    positions = torch.randint(0, POSITIONS, (tokens,), generator=generator(seed)).to(DEVICE)
    layouts = (query_slices(tokens, heads, rope_dims), token_rows(tokens, rope_dims), token_rows(tokens, latent_dims))
    buffers = [Buffer.of(data.draw(layout), dtype, seed + i) for i, layout in enumerate(layouts)]
    before = [
        buffer.fill((3 * torch.randn(buffer.view.shape, generator=generator(seed + i))).to(dtype))
        for i, buffer in enumerate(buffers)
    ]
    query, key, latent = buffers
    cache = Buffer.of(data.draw(latent_caches(latent_dims + rope_dims)), dtype, seed + 9)
    blocks, block_size, _ = cache.view.shape
    slots = draw_slots(data.draw(st.integers(0, tokens)), blocks * block_size, seed)
    old = cache.view.clone()

    counts = launched(
        lambda: ops.rotary_latent_kv_write(
            positions,
            query.view,
            key.view[:, None] if seed % 2 else key.view,
            table,
            latent.view,
            cache.view,
            slots,
            interleaved=interleaved,
        )
    )

    assert sum(counts.values()) == (tokens > 0)
    assert all(name.startswith("rotary_latent_kv_write_v") for name in counts)
    for buffer, rows in ((query, before[0]), (key, before[1][:, None])):
        assert_within(
            buffer.view.view_as(rows) if buffer is query else buffer.view[:, None],
            *(
                reference.rotary(positions, rows, table, head_size=rope_dims, interleaved=interleaved, compute=compute)
                for compute in (torch.float64, dtype)
            ),
        )
        assert same_bits(buffer.view[..., rotary_dim:], rows.view_as(buffer.view)[..., rotary_dim:])
        assert buffer.outside_untouched()
    assert latent.untouched()
    # The cache holds the very bits of the key that was rotated in place.
    assert same_bits(cache.view, reference.latent_kv_write(latent.view, key.view, old, slots))
    assert cache.outside_untouched()


def tensors(dtype=torch.bfloat16, tokens=6, heads=20, dims=(512, 64), blocks=4):
    """As GLM-4.7-Flash has them: the query's last 64 of 256 elements a head, latents, and keys behind other latents."""
    latent_dims, rope_dims = dims
    query = torch.randn(tokens, heads, 192 + rope_dims, generator=generator(1)).to(dtype).to(DEVICE)
    projected = torch.randn(tokens, latent_dims + rope_dims, generator=generator(2)).to(dtype).to(DEVICE)
    return dict(
        positions=torch.arange(tokens, device=DEVICE) + 40,
        query_rope=query[..., 192:],
        k_rope=projected[:, None, latent_dims:],
        cos_sin_cache=yarn_table(rope_dims, dtype),
        kv_c=torch.randn(tokens, latent_dims, generator=generator(3)).to(dtype).to(DEVICE),
        kv_cache=poison(blocks * 16 * sum(dims), dtype, 3).view(blocks, 16, sum(dims)),
        slot_mapping=torch.arange(tokens, device=DEVICE) + 13,
        interleaved=True,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_wide_launch_for_slices_of_projections(dtype):
    arguments = tensors(dtype)
    name = f"rotary_latent_kv_write_v16_{SUFFIX[dtype]}"
    assert launched(lambda: ops.rotary_latent_kv_write(**arguments)) == {name: 1}


@pytest.mark.parametrize("part", ["query_rope", "k_rope", "kv_c", "kv_cache", "cos_sin_cache"])
@pytest.mark.parametrize(("shift", "width"), [(4, 8), (1, 1)])
def test_as_wide_as_alignment_allows(part, shift, width):
    arguments, apart = tensors(), tensors()
    moved = arguments[part]
    shift = (
        shift // 2 if part == "cos_sin_cache" and width == 8 else shift
    )  # of which a lane reads half as much at once
    wider = torch.zeros(moved.numel() + 16, dtype=moved.dtype, device=DEVICE)
    arguments[part] = wider[shift : shift + moved.numel()].view(moved.shape).copy_(moved)
    counts = launched(lambda: ops.rotary_latent_kv_write(**arguments))
    assert counts == {f"rotary_latent_kv_write_v{width}_bf16": 1}
    ops.rotary_latent_kv_write(**apart)
    for name in ("query_rope", "k_rope", "kv_cache"):
        assert same_bits(arguments[name], apart[name])


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_same_as_rotary_then_write(dtype, interleaved):
    fused, apart = tensors(dtype) | {"interleaved": interleaved}, tensors(dtype)
    ops.rotary_latent_kv_write(**fused)
    ops.rotary(
        apart["positions"],
        apart["query_rope"],
        apart["k_rope"],
        apart["cos_sin_cache"],
        head_size=64,
        interleaved=interleaved,
    )
    ops.latent_kv_write(apart["kv_c"], apart["k_rope"], apart["kv_cache"], apart["slot_mapping"])
    for name in ("query_rope", "k_rope", "kv_cache"):
        assert same_bits(fused[name], apart[name])
    assert not same_bits(fused["query_rope"], tensors(dtype)["query_rope"])


@pytest.mark.parametrize("heads", [1, 5, 128])
def test_large_batch(heads):
    arguments = tensors(torch.float32, tokens=300, heads=heads, blocks=20)
    arguments["positions"] = arguments["positions"] % POSITIONS
    arguments["slot_mapping"] = torch.arange(299, -1, -1, device=DEVICE)
    before = arguments["query_rope"].clone()
    ops.rotary_latent_kv_write(**arguments)
    exact, naive = (
        reference.rotary(
            arguments["positions"], before, arguments["cos_sin_cache"], head_size=64, interleaved=True, compute=compute
        )
        for compute in (torch.float64, torch.float32)
    )
    assert_within(arguments["query_rope"], exact, naive)
    written = arguments["kv_cache"].flatten(0, 1)[:300].flip(0)
    assert same_bits(written, torch.cat((arguments["kv_c"], arguments["k_rope"][:, 0]), 1))


def test_empty_batches_launch_nothing():
    arguments = tensors(tokens=0)
    assert launched(lambda: ops.rotary_latent_kv_write(**arguments)) == {}


def of_rows(name):
    """What tensors behind the first are refused for."""
    return [
        Refusal(f"{name}.tensor", {name: lambda t: t.to("meta")}, ValueError, "on meta"),
        Refusal(f"{name}.dtype", {name: lambda t: t.half()}, TypeError, "torch.float16.*query_rope's dtype"),
        Refusal(f"{name}.device", {name: elsewhere}, ValueError, "query_rope's device"),
        Refusal(f"{name}.tokens", {name: lambda t: t[:3]}, ValueError, "as many tokens as query_rope, 6"),
        Refusal(f"{name}.contiguous", {name: strided}, ValueError, "stride 1"),
    ]


REFUSALS = [
    Refusal("query_rope.tensor", {"query_rope": lambda t: None}, TypeError, "query_rope is a NoneType"),
    Refusal("query_rope.dtype", {"query_rope": lambda t: t.double()}, TypeError, "query_rope is torch.float64"),
    Refusal("query_rope.shape", {"query_rope": lambda t: t.flatten(1)}, ValueError, r"\[tokens, heads, R\]"),
    Refusal("query_rope.shape", {"query_rope": lambda t: t[..., :0]}, ValueError, "at least 1"),
    Refusal("query_rope.contiguous", {"query_rope": strided}, ValueError, "stride 1"),
    Refusal("query_rope.own", {"query_rope": lambda t: t[:, :1].expand(-1, 20, -1)}, ValueError, "not an expanded one"),
    *of_rows("k_rope"),
    Refusal("k_rope.tensor", {"k_rope": lambda t: None}, TypeError, "k_rope is a NoneType"),
    Refusal("k_rope.shape", {"k_rope": lambda t: t[..., :32]}, ValueError, r"\[6, 1, 32\].*\[tokens, 64\] or"),
    Refusal("k_rope.shape", {"k_rope": lambda t: t.repeat(1, 2, 1)}, ValueError, r"\[tokens, 1, 64\]"),
    Refusal("k_rope.own", {"k_rope": lambda t: t[:1].expand(6, -1, -1)}, ValueError, "not an expanded one"),
    *of_rows("kv_c"),
    Refusal("kv_c.shape", {"kv_c": lambda t: t[:, None]}, ValueError, r"kv_c is \[6, 1, 512\].*\[tokens, L\]"),
    Refusal("kv_c.shape", {"kv_c": lambda t: t[:, :0]}, ValueError, "at least 1"),
    Refusal("kv_cache.tensor", {"kv_cache": lambda t: None}, TypeError, "kv_cache is a NoneType"),
    Refusal("kv_cache.dtype", {"kv_cache": lambda t: t.half()}, TypeError, "kv_cache is torch.float16"),
    Refusal("kv_cache.device", {"kv_cache": elsewhere}, ValueError, "query_rope's device"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[..., :512]}, ValueError, r"\[blocks, block_size, 576\]"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[None]}, ValueError, r"is \[1, 4, 16, 576\]"),
    Refusal("kv_cache.contiguous", {"kv_cache": strided}, ValueError, "stride 1"),
    Refusal("kv_cache.slots", {"kv_cache": lambda t: t[:1].expand(1 << 27, -1, -1)}, ValueError, r"2\^31 slots"),
    Refusal("kv_cache.own", {"kv_cache": lambda t: t[:1].expand(3, -1, -1)}, ValueError, "not an expanded one"),
    Refusal("slot_mapping.tensor", {"slot_mapping": lambda t: None}, TypeError, "slot_mapping is a NoneType"),
    Refusal("slot_mapping.dtype", {"slot_mapping": lambda t: t.int()}, TypeError, "slot_mapping is torch.int32"),
    Refusal("slot_mapping.device", {"slot_mapping": elsewhere}, ValueError, "query_rope's device"),
    Refusal("slot_mapping.shape", {"slot_mapping": lambda t: t.repeat(2)}, ValueError, "at most .* 6"),
    Refusal("slot_mapping.contiguous", {"slot_mapping": strided}, ValueError, "contiguous"),
    Refusal("positions.tensor", {"positions": lambda t: None}, TypeError, "positions is a NoneType"),
    Refusal("positions.dtype", {"positions": lambda t: t.int()}, TypeError, "int64"),
    Refusal("positions.device", {"positions": elsewhere}, ValueError, "query_rope's device"),
    Refusal("positions.shape", {"positions": lambda t: t[:5]}, ValueError, r"\[6\], one for each"),
    Refusal("positions.shape", {"positions": lambda t: t.repeat(3, 1)}, ValueError, r"\[3, 6\].*\[6\]"),
    Refusal("positions.contiguous", {"positions": strided}, ValueError, "contiguous"),
    Refusal("cos_sin_cache.tensor", {"cos_sin_cache": lambda t: None}, TypeError, "cos_sin_cache is a NoneType"),
    Refusal(
        "cos_sin_cache.dtype", {"cos_sin_cache": lambda t: t.half()}, TypeError, "float32 or of query_rope's dtype"
    ),
    Refusal("cos_sin_cache.device", {"cos_sin_cache": elsewhere}, ValueError, "query_rope's device"),
    Refusal("cos_sin_cache.shape", {"cos_sin_cache": lambda t: t.repeat(1, 2)}, ValueError, "2 to 64"),
    Refusal("cos_sin_cache.shape", {"cos_sin_cache": lambda t: t[:, :5]}, ValueError, "even"),
    Refusal("cos_sin_cache.contiguous", {"cos_sin_cache": strided}, ValueError, "stride 1"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
def test_refuses(refusal):
    arguments = tensors()
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.rotary_latent_kv_write(**arguments))


def test_every_condition_has_words():
    check_words("rotary_latent_kv_write", ROTARY_LATENT_KV_WRITE, REFUSALS)
