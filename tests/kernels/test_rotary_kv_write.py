# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops.position import ROTARY_KV_WRITE

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
    row_layouts,
    same_bits,
    seeds,
)
from .test_kv_write import caches, draw_slots

POSITIONS = 256
SHAPES = ((128, 64), (128, 128), (64, 32), (80, 40), (96, 96), (36, 18), (7, 6), (192, 64), (256, 128), (320, 64))


def expected(positions, x, weight, eps, table, compute, **options):
    """x [tokens, heads, head_size] normalised and rotated."""
    if weight is not None:
        x = reference.rms_norm(x, weight, eps, compute)
    return reference.rotary(positions, x, table, head_size=x.shape[-1], compute=compute, **options)


@given(
    st.data(),
    st.integers(0, 7),
    st.integers(1, 5),
    st.integers(1, 2),
    st.sampled_from(SHAPES),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    dtypes,
    seeds,
)
def test_norm_rotation_and_write(data, tokens, heads, kv_heads, shape, norm, interleaved, mrope, in_place, dtype, seed):
    size, rotary_dim = shape
    table = cos_sin_table(POSITIONS, rotary_dim, data.draw(st.sampled_from((dtype, torch.float32))))
    positions = torch.randint(0, POSITIONS, (3, tokens) if mrope else (tokens,), generator=generator(seed)).to(DEVICE)
    pairs = rotary_dim // 2
    options = dict(interleaved=interleaved)
    if mrope:
        options |= dict(
            mrope_section=[pairs // 4, pairs // 2, pairs - pairs // 4 - pairs // 2],
            mrope_interleaved=data.draw(st.booleans()),
        )
    buffers, before = [], []
    for count in (heads, kv_heads, kv_heads):
        layout = data.draw(row_layouts(tokens, count, size))
        buffers.append(Buffer.of(layout, dtype, seed))
        # Far from unit size, so that leaving the norm out shows.
        values = 3 * torch.randn(layout[0], generator=generator(seed + len(buffers)))
        before.append(reference.split_heads(buffers[-1].fill(values.to(dtype)), size))
    query, key, value = buffers
    weights = [(1 + 0.3 * torch.randn(size, generator=generator(seed + i))).to(dtype).to(DEVICE) for i in (7, 8)]
    query_weight, key_weight = weights if norm else (None, None)
    cache = Buffer.of(data.draw(caches(kv_heads, size)), dtype, seed + 9)
    blocks, _, block_size, _ = cache.view.shape
    slots = draw_slots(data.draw(st.integers(0, tokens)), blocks * block_size, seed)
    out = None
    if not in_place:
        layout = data.draw(row_layouts(tokens, heads, size))
        out = Buffer.of(layout, dtype, seed + 10)
    eps = 1e-5

    counts = launched(
        lambda: ops.rotary_kv_write(
            positions,
            query.view,
            key.view,
            value.view,
            table,
            cache.view,
            slots,
            q_norm_weight=query_weight,
            k_norm_weight=key_weight,
            eps=eps,
            query_out=out.view if out else None,
            **options,
        )
    )

    assert sum(counts.values()) == (tokens > 0)
    kernel = ("norm_" if norm else "") + ("mrope" if mrope else "rotary") + "_kv_write"
    assert all(name.startswith(f"{kernel}_v") for name in counts)
    turned = out or query
    assert_within(
        reference.split_heads(turned.view, size),
        expected(positions, before[0], query_weight, eps, table, torch.float64, **options),
        expected(positions, before[0], query_weight, eps, table, dtype, **options),
    )
    assert turned.outside_untouched() and key.untouched() and value.untouched()
    if out:
        assert query.untouched()

    oracle = expected(positions, before[1], key_weight, eps, table, torch.float64, **options)
    naive = expected(positions, before[1], key_weight, eps, table, dtype, **options)
    written = torch.zeros(blocks * block_size, dtype=torch.bool, device=DEVICE)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            written[slot] = True
            row = cache.view[slot // block_size, :, slot % block_size]
            assert_within(row[:, :size], oracle[token], naive[token])
            assert same_bits(row[:, size:], before[2][token])
    old = cache.before.as_strided(cache.view.shape, cache.view.stride(), cache.view.storage_offset())
    unused = ~written.view(blocks, block_size)
    assert same_bits(cache.view.transpose(1, 2)[unused], old.transpose(1, 2)[unused])
    assert cache.outside_untouched()


def tensors(dtype=torch.bfloat16, tokens=6, heads=4, kv_heads=2, size=128):
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * size, generator=generator(1)).to(dtype).to(DEVICE)
    query, key, value = qkv.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    cache = poison(4 * kv_heads * 16 * 2 * size, dtype, 3).view(4, kv_heads, 16, 2 * size)
    return dict(
        positions=torch.arange(tokens, device=DEVICE) + 40,
        query=query,
        key=key,
        value=value,
        cos_sin_cache=cos_sin_table(POSITIONS, 64, dtype),
        kv_cache=cache,
        slot_mapping=torch.arange(tokens, device=DEVICE) + 13,
        interleaved=True,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [False, True])
def test_one_wide_launch_for_a_qkv_buffer(dtype, norm):
    arguments = tensors(dtype)
    if norm:
        arguments |= dict(
            q_norm_weight=torch.ones(128, dtype=dtype, device=DEVICE),
            k_norm_weight=torch.ones(128, dtype=dtype, device=DEVICE),
        )
    name = ("norm_" if norm else "") + f"rotary_kv_write_v16_{SUFFIX[dtype]}"
    assert launched(lambda: ops.rotary_kv_write(**arguments)) == {name: 1}


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_ops_it_fuses(dtype):
    fused, apart = tensors(dtype), tensors(dtype)
    ops.rotary_kv_write(**fused)
    ops.rotary(
        apart["positions"], apart["query"], apart["key"], apart["cos_sin_cache"], head_size=128, interleaved=True
    )
    ops.kv_write(
        apart["key"].unflatten(1, (2, 128)),
        apart["value"].unflatten(1, (2, 128)),
        apart["kv_cache"],
        apart["slot_mapping"],
    )
    assert same_bits(fused["query"], apart["query"])
    assert not same_bits(fused["query"], tensors(dtype)["query"])
    assert same_bits(fused["kv_cache"], apart["kv_cache"])


def test_large_batch_with_norm():
    arguments = tensors(torch.float32, tokens=700, heads=12)
    arguments["positions"] = arguments["positions"] % POSITIONS
    arguments["slot_mapping"] = torch.full((700,), -1, device=DEVICE)
    arguments |= dict(
        q_norm_weight=torch.full((128,), 2.0, device=DEVICE),
        k_norm_weight=torch.full((128,), 2.0, device=DEVICE),
        eps=0.5,
    )
    before = reference.split_heads(arguments["query"].clone(), 128)
    ops.rotary_kv_write(**arguments)
    exact, naive = (
        expected(
            arguments["positions"],
            before,
            arguments["q_norm_weight"],
            0.5,
            compute=compute,
            table=arguments["cos_sin_cache"],
            interleaved=True,
        )
        for compute in (torch.float64, torch.float32)
    )
    assert_within(reference.split_heads(arguments["query"], 128), exact, naive)


def ones(size=128, dtype=torch.bfloat16):
    return torch.ones(size, dtype=dtype, device=DEVICE)


def strided(tensor):
    return tensor.repeat_interleave(2, -1)[..., ::2]


def of_rows(name):
    """What rows of heads are refused for, whichever tensor has them."""
    return [
        Refusal(f"{name}.tensor", {name: lambda t: t.to("meta")}, ValueError, "on meta"),
        Refusal(f"{name}.dtype", {name: lambda t: t.half()}, TypeError, "torch.float16.*query's dtype"),
        Refusal(f"{name}.device", {name: elsewhere}, ValueError, "query's device"),
        Refusal(f"{name}.shape", {name: lambda t: t[:, :100]}, ValueError, r"\[tokens, heads, 128\]"),
        Refusal(f"{name}.contiguous", {name: strided}, ValueError, "stride 1"),
        Refusal(f"{name}.tokens", {name: lambda t: t[:3]}, ValueError, "as many tokens as query, 6"),
        Refusal(f"{name}.heads", {name: lambda t: t[:, :128]}, ValueError, "heads, as "),
        Refusal(f"{name}.own", {name: lambda t: t[:1].expand(6, -1)}, ValueError, "not an expanded one"),
    ]


def of_results():
    """The same of query_out, which a call need not have."""

    def given(change):
        return lambda _: change(torch.empty(6, 512, dtype=torch.bfloat16, device=DEVICE))

    return [
        refusal._replace(changes={name: given(change) for name, change in refusal.changes.items()})
        for refusal in of_rows("query_out")
    ]


def of_weight(name, other):
    """What a norm's weight is refused for beside one that is right."""

    def beside(condition, change, error, says):
        changes = {name: lambda _: change(ones()), other: lambda _: ones()}
        return Refusal(f"{name}.{condition}", changes, error, says)

    return [
        Refusal(f"{name}.pair", {other: lambda _: ones()}, ValueError, f"{name} is None.*{other} is"),
        beside("tensor", lambda t: t.tolist(), TypeError, "is a list"),
        beside("dtype", lambda t: t.float(), TypeError, "is torch.float32"),
        beside("device", elsewhere, ValueError, "query's device"),
        beside("shape", lambda t: t[:64], ValueError, r"is \[64\].*\[128\]"),
        beside("shape", strided, ValueError, "contiguous"),
    ]


REFUSALS = [
    Refusal("kv_cache.tensor", {"kv_cache": lambda t: None}, TypeError, "kv_cache is a NoneType"),
    Refusal("kv_cache.dims", {"kv_cache": lambda t: t[0]}, ValueError, "block_size"),
    Refusal("kv_cache.dims", {"kv_cache": lambda t: t[..., :0]}, ValueError, "block_size"),
    Refusal("kv_cache.dtype", {"kv_cache": lambda t: t.half()}, TypeError, "kv_cache is torch.float16"),
    Refusal("kv_cache.device", {"kv_cache": elsewhere}, ValueError, "query's device"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[:, :1]}, ValueError, r"key's heads, as key is \[6, 256\]"),
    Refusal("kv_cache.contiguous", {"kv_cache": strided}, ValueError, "stride 1"),
    Refusal("kv_cache.slots", {"kv_cache": lambda t: t[:1].expand(1 << 27, -1, -1, -1)}, ValueError, r"2\^31 slots"),
    Refusal("kv_cache.own", {"kv_cache": lambda t: t[:1].expand(3, -1, -1, -1)}, ValueError, "not an expanded one"),
    Refusal("slot_mapping.tensor", {"slot_mapping": lambda t: None}, TypeError, "slot_mapping is a NoneType"),
    Refusal("slot_mapping.dtype", {"slot_mapping": lambda t: t.int()}, TypeError, "slot_mapping is torch.int32"),
    Refusal("slot_mapping.device", {"slot_mapping": elsewhere}, ValueError, "query's device"),
    Refusal("slot_mapping.shape", {"slot_mapping": lambda t: t.repeat(2)}, ValueError, "at most .* 6"),
    Refusal("slot_mapping.contiguous", {"slot_mapping": strided}, ValueError, "contiguous"),
    Refusal("query.tensor", {"query": lambda t: t.tolist()}, TypeError, "query is a list"),
    Refusal("query.dtype", {"query": lambda t: t.double()}, TypeError, "query is torch.float64"),
    *[row for row in of_rows("query") if row.condition in ("query.shape", "query.contiguous", "query.own")],
    *[row for row in of_rows("key") if row.condition not in ("key.heads", "key.own")],
    *[row for row in of_rows("value") if row.condition != "value.own"],
    *of_results(),
    Refusal("positions.tensor", {"positions": lambda t: None}, TypeError, "positions is a NoneType"),
    Refusal("positions.dtype", {"positions": lambda t: t.int()}, TypeError, "int64"),
    Refusal("positions.device", {"positions": elsewhere}, ValueError, "query's device"),
    Refusal("positions.shape", {"positions": lambda t: t[:5]}, ValueError, r"\[6\] or \[3, 6\]"),
    Refusal("positions.contiguous", {"positions": strided}, ValueError, "contiguous"),
    Refusal("cos_sin_cache.tensor", {"cos_sin_cache": lambda t: None}, TypeError, "cos_sin_cache is a NoneType"),
    Refusal("cos_sin_cache.dtype", {"cos_sin_cache": lambda t: t.int()}, TypeError, "float32 or of query's dtype"),
    Refusal("cos_sin_cache.device", {"cos_sin_cache": elsewhere}, ValueError, "query's device"),
    Refusal("cos_sin_cache.shape", {"cos_sin_cache": lambda t: t.repeat(1, 9)}, ValueError, "2 to 128"),
    Refusal("cos_sin_cache.contiguous", {"cos_sin_cache": strided}, ValueError, "stride 1"),
    Refusal(
        "mrope_section.sum",
        {"positions": lambda t: t.repeat(3, 1), "mrope_section": lambda _: (1, 2, 3)},
        ValueError,
        "three counts",
    ),
    *of_weight("q_norm_weight", "k_norm_weight"),
    *of_weight("k_norm_weight", "q_norm_weight"),
    Refusal("eps.range", {"eps": lambda _: -1e-5}, ValueError, "eps is -1e-05"),
    Refusal("eps.range", {"eps": lambda _: float("nan")}, ValueError, "eps is nan"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
def test_refuses(refusal):
    arguments = tensors()
    arguments |= {name: change(arguments.get(name)) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.rotary_kv_write(**arguments))


def test_every_condition_has_words():
    check_words("rotary_kv_write", ROTARY_KV_WRITE, REFUSALS)
