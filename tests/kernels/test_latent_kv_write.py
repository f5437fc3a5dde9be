# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops.latent_cache import LATENT_KV_WRITE

from .kernel_support import (
    DEVICE,
    DTYPES,
    SUFFIX,
    Buffer,
    Refusal,
    bits,
    check_refusal,
    check_words,
    dtypes,
    elsewhere,
    generator,
    launched,
    poison,
    same_bits,
    seeds,
)
from .test_kv_write import draw_slots

# Elements of the latent and of the key's part that is rotated.
DIMS = ((512, 64), (512, 0), (256, 64), (36, 18), (8, 16), (7, 2))


@st.composite
def token_rows(draw, tokens: int, size: int):
    """(shape, strides, offset) of rows [tokens, size] inside wider ones."""
    multiple = draw(st.sampled_from((1, 4, 8)))
    return (tokens, size), (size + multiple * draw(st.integers(0, 4)), 1), multiple * draw(st.integers(0, 3))


@st.composite
def latent_caches(draw, row: int):
    """(shape, strides, offset) of a cache [blocks, block_size, row] in any physical order."""
    shape = (draw(st.integers(1, 5)), draw(st.sampled_from((1, 16, 48, 64))), row)
    multiple = draw(st.sampled_from((1, 4, 8)))
    strides, step = [0, 0, 1], row
    for dim in draw(st.permutations((0, 1))):
        step += multiple * draw(st.integers(0, 2))
        strides[dim] = step
        step *= shape[dim]
    return shape, strides, multiple * draw(st.integers(0, 2))


@given(st.data(), st.integers(0, 9), st.sampled_from(DIMS), dtypes, seeds)
def test_writes_rows_and_nothing_else(data, tokens, dims, dtype, seed):
    buffers = [Buffer.of(data.draw(token_rows(tokens, size)), dtype, seed + i) for i, size in enumerate(dims)]
    for i, buffer in enumerate(buffers):
        buffer.fill(torch.randn(buffer.view.shape, generator=generator(seed + i)).to(dtype))
    latent, rope = (buffer.view for buffer in buffers)
    if dims[1] == 0 and data.draw(st.booleans()):
        rope = None
    elif data.draw(st.booleans()):
        rope = rope[:, None]
    cache = Buffer.of(data.draw(latent_caches(sum(dims))), dtype, seed + 2)
    slots = draw_slots(data.draw(st.integers(0, tokens)), cache.view.shape[0] * cache.view.shape[1], seed)
    expected = cache.data.clone()
    view = expected.as_strided(cache.view.shape, cache.view.stride(), cache.view.storage_offset())
    view.copy_(reference.latent_kv_write(latent, rope, cache.view, slots))
    counts = launched(lambda: ops.latent_kv_write(latent, rope, cache.view, slots))
    assert sum(counts.values()) == (len(slots) > 0)
    assert same_bits(cache.data, expected) and all(buffer.untouched() for buffer in buffers)


def tensors(tokens=4, dims=(512, 64), blocks=3, block=16, dtype=torch.bfloat16):
    latent, rope = (poison(tokens * size, dtype, seed).view(tokens, size) for seed, size in enumerate(dims))
    cache = poison(blocks * block * sum(dims), dtype, 3).view(blocks, block, sum(dims))
    return latent, rope[:, None], cache, torch.arange(tokens, device=DEVICE) + 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_survive(dtype):
    latent, rope, cache, slots = tensors(dtype=dtype)  # NaN payloads: a conversion on the way would change them
    ops.latent_kv_write(latent, rope, cache, slots)
    assert same_bits(cache[0, 5:9, :512], latent) and same_bits(cache[0, 5:9, 512:], rope[:, 0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("moved", ["latent", "rope", "cache"])
@pytest.mark.parametrize(("shift", "width"), [(0, 16), (8, 8), (2, 1)])
def test_one_launch_as_wide_as_alignment_allows(dtype, moved, shift, width):
    elements = 1 if width == 1 else shift // dtype.itemsize

    def move(name, part):
        if name != moved:
            return part
        return torch.cat((part.flatten()[:elements], part.flatten()))[elements:].view(part.shape)

    latent, rope, cache, slots = tensors(dtype=dtype)
    latent, rope, cache = move("latent", latent), move("rope", rope), move("cache", cache)
    counts = launched(lambda: ops.latent_kv_write(latent, rope, cache, slots))
    assert counts == {f"latent_kv_write_v{width}_{SUFFIX[dtype]}": 1}
    assert same_bits(cache[0, 5:9], torch.cat((latent, rope[:, 0]), 1))


@pytest.mark.parametrize(("dims", "width"), [((512, 4), 8), ((4, 8), 8), ((512, 1), 1), ((3, 5), 1)])
def test_no_vector_has_elements_of_both(dims, width):
    """A row whose length allows wider vectors than where its parts meet."""
    latent, rope, cache, slots = tensors(dims=dims)
    expected = reference.latent_kv_write(latent, rope, cache, slots)
    counts = launched(lambda: ops.latent_kv_write(latent, rope, cache, slots))
    assert counts == {f"latent_kv_write_v{width}_bf16": 1}
    assert same_bits(cache, expected)


def test_empty_batches_launch_nothing():
    latent, rope, cache, slots = tensors()
    assert launched(lambda: ops.latent_kv_write(latent[:0], rope[:0], cache, slots[:0])) == {}
    assert launched(lambda: ops.latent_kv_write(latent, rope, cache, slots[:0])) == {}


def test_slots_outside_the_cache_are_padding():
    latent, rope, cache, _ = tensors(tokens=5)
    slots = torch.tensor([-1, 48, 17, -(2**40), 2**40], device=DEVICE)
    expected = reference.latent_kv_write(latent, rope, cache, slots)
    assert not same_bits(cache, expected)
    ops.latent_kv_write(latent, rope, cache, slots)
    assert same_bits(cache, expected)


def test_a_slot_that_comes_twice_holds_elements_of_its_tokens():
    latent, rope, cache, _ = tensors(tokens=7)
    slots = torch.tensor([3, 20, 3, -1, 20, 3, 8], device=DEVICE)
    rows = bits(torch.cat((latent, rope[:, 0]), 1))
    expected = bits(reference.latent_kv_write(latent, rope, cache, slots)).flatten(0, 1)
    ops.latent_kv_write(latent, rope, cache, slots)
    found = bits(cache).flatten(0, 1)
    others = torch.ones(48, dtype=torch.bool, device=DEVICE)
    for slot in (3, 20):
        others[slot] = False
        assert (rows[slots == slot] == found[slot]).any(0).all()
    assert torch.equal(found[others], expected[others])


def test_offsets_are_64_bit():
    # A cache whose last block starts 2^32 elements behind the first; on the CPU nothing between them takes memory.
    row = 576
    size = 2 * (2**32 + 16 * row)
    if DEVICE != "cpu" and torch.cuda.mem_get_info(DEVICE)[0] < size + 2**28:
        pytest.skip("9 GB of the GPU's memory are needed")
    storage = torch.UntypedStorage(size, device=DEVICE)
    cache = torch.empty(0, dtype=torch.bfloat16, device=DEVICE)
    cache.set_(storage, 0, (2, 16, row), (2**32, row, 1))
    latent, rope, _, _ = tensors(tokens=1)
    ops.latent_kv_write(latent, rope, cache, torch.tensor([16 + 3], device=DEVICE))
    assert same_bits(cache[1, 3, :512], latent[0]) and same_bits(cache[1, 3, 512:], rope[0, 0])


def strided(tensor):
    return tensor.repeat_interleave(2, -1)[..., ::2]


REFUSALS = [
    Refusal("kv_c.tensor", {"kv_c": lambda t: None}, TypeError, "kv_c is a NoneType"),
    Refusal("kv_c.dtype", {"kv_c": lambda t: t.double()}, TypeError, "kv_c is torch.float64.*bfloat16"),
    Refusal("kv_c.shape", {"kv_c": lambda t: t[:, None]}, ValueError, r"kv_c is \[4, 1, 512\].*\[tokens, L\]"),
    Refusal("kv_c.shape", {"kv_c": lambda t: t[:, :0]}, ValueError, "at least 1"),
    Refusal("kv_c.contiguous", {"kv_c": strided}, ValueError, "stride 1"),
    Refusal("k_rope.tensor", {"k_rope": lambda t: t.tolist()}, TypeError, "k_rope is a list"),
    Refusal("k_rope.dtype", {"k_rope": lambda t: t.half()}, TypeError, "k_rope is torch.float16.*bfloat16"),
    Refusal("k_rope.device", {"k_rope": elsewhere}, ValueError, "kv_c's device"),
    Refusal("k_rope.shape", {"k_rope": lambda t: t.repeat(1, 2, 1)}, ValueError, r"is \[4, 2, 64\].*\[tokens, 1, R\]"),
    Refusal("k_rope.shape", {"k_rope": lambda t: t[0, 0]}, ValueError, r"is \[64\].*\[tokens, R\]"),
    Refusal("k_rope.tokens", {"k_rope": lambda t: t[:3]}, ValueError, "as many tokens as kv_c, 4"),
    Refusal("k_rope.contiguous", {"k_rope": strided}, ValueError, "stride 1"),
    Refusal("kv_cache.tensor", {"kv_cache": lambda t: t.to("meta")}, ValueError, "kv_cache is on meta"),
    Refusal("kv_cache.dtype", {"kv_cache": lambda t: t.float()}, TypeError, "kv_cache is torch.float32.*bfloat16"),
    Refusal("kv_cache.device", {"kv_cache": elsewhere}, ValueError, "kv_c's device"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[..., :512]}, ValueError, r"\[blocks, block_size, 576\]"),
    Refusal("kv_cache.shape", {"k_rope": lambda t: None}, ValueError, r"\[blocks, block_size, 512\]"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[:, None]}, ValueError, r"is \[3, 1, 16, 576\]"),
    Refusal("kv_cache.contiguous", {"kv_cache": strided}, ValueError, "stride 1"),
    Refusal("kv_cache.own", {"kv_cache": lambda t: t[:1].expand(3, -1, -1)}, ValueError, "not an expanded one"),
    Refusal("kv_cache.slots", {"kv_cache": lambda t: t[:1].expand(1 << 27, -1, -1)}, ValueError, r"2\^31 slots"),
    Refusal("slot_mapping.tensor", {"slot_mapping": lambda t: None}, TypeError, "slot_mapping is a NoneType"),
    Refusal("slot_mapping.dtype", {"slot_mapping": lambda t: t.int()}, TypeError, "torch.int32.*int64"),
    Refusal("slot_mapping.device", {"slot_mapping": elsewhere}, ValueError, "kv_c's device"),
    Refusal("slot_mapping.shape", {"slot_mapping": lambda t: t[None]}, ValueError, r"is \[1, 4\].*\[slots\]"),
    Refusal("slot_mapping.shape", {"slot_mapping": lambda t: t.repeat(2)}, ValueError, "at most .* 4"),
    Refusal("slot_mapping.contiguous", {"slot_mapping": strided}, ValueError, "must be contiguous"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
def test_refuses(refusal):
    arguments = dict(zip(("kv_c", "k_rope", "kv_cache", "slot_mapping"), tensors(), strict=True))
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.latent_kv_write(**arguments))


def test_every_condition_has_words():
    check_words("latent_kv_write", LATENT_KV_WRITE, REFUSALS)
