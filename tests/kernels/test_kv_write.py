# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops.kv_cache import WORKS

from .kernel_support import (
    DEVICE,
    DTYPES,
    SUFFIX,
    Buffer,
    Refusal,
    check_refusal,
    check_words,
    dtypes,
    elsewhere,
    generator,
    launched,
    poison,
    row_layouts,
    same_bits,
    seeds,
)


@st.composite
def caches(draw, heads: int, size: int):
    """Shape, strides and offset of a cache [blocks, heads, block_size, 2 * size] in any physical order."""
    shape = (draw(st.integers(1, 5)), heads, draw(st.sampled_from((16, 48))), 2 * size)
    multiple = draw(st.sampled_from((1, 4, 8)))
    strides, step = [0, 0, 0, 1], 2 * size
    for dim in draw(st.permutations((0, 1, 2))):
        strides[dim] = step
        step = step * shape[dim] + multiple * draw(st.integers(0, 2))
    return shape, strides, multiple * draw(st.integers(0, 2))


def draw_slots(count: int, slots: int, seed: int) -> torch.Tensor:
    """Distinct slots in random page order, some of them padding."""
    order = torch.randperm(max(slots, count), generator=generator(seed))[:count]
    order[order >= slots] = -1
    order[torch.rand(count, generator=generator(seed + 1)) < 0.2] = -1
    return order.to(DEVICE)


@given(st.data(), st.integers(0, 9), st.integers(1, 3), st.sampled_from((1, 3, 20, 64, 80, 128)), dtypes, seeds)
def test_writes_slots_and_nothing_else(data, tokens, heads, size, dtype, seed):
    key, value = (torch.randn(tokens, heads, size, generator=generator(seed + i)).to(dtype) for i in (0, 1))
    views = []
    for tensor in (key, value):
        shape, strides, offset = data.draw(row_layouts(tokens, heads, size))
        buffer = Buffer(shape, strides, offset, dtype, seed)
        buffer.fill(tensor.view(shape).to(DEVICE))
        views.append(buffer.view.unflatten(1, (heads, size)) if len(shape) == 2 else buffer.view)
    cache = Buffer.of(data.draw(caches(heads, size)), dtype, seed + 2)
    slots = draw_slots(data.draw(st.integers(0, tokens)), cache.view.shape[0] * cache.view.shape[2], seed)
    expected = cache.data.clone()
    view = expected.as_strided(cache.view.shape, cache.view.stride(), cache.view.storage_offset())
    view.copy_(reference.kv_write(key.to(DEVICE), value.to(DEVICE), cache.view, slots))
    ops.kv_write(views[0], views[1], cache.view, slots)
    assert same_bits(cache.data, expected)


def tensors(tokens=4, heads=2, size=64, blocks=3, block=16, dtype=torch.bfloat16):
    key, value = (poison(tokens * heads * size, dtype, seed).view(tokens, heads, size) for seed in (1, 2))
    cache = poison(blocks * heads * block * 2 * size, dtype, 3).view(blocks, heads, block, 2 * size)
    return key, value, cache, torch.arange(tokens, device=DEVICE) + 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_survive(dtype):
    key, value, cache, slots = tensors(dtype=dtype)  # NaN payloads: a conversion on the way would change them
    ops.kv_write(key, value, cache, slots)
    assert same_bits(cache[0, :, 5:9, :64].transpose(0, 1), key)
    assert same_bits(cache[0, :, 5:9, 64:].transpose(0, 1), value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shift", "width"), [(0, 16), (8, 8), (2, 1)])
def test_one_launch_as_wide_as_alignment_allows(dtype, shift, width):
    key, value, cache, slots = tensors(dtype=dtype)
    elements = shift // dtype.itemsize
    if width == 1:
        elements = 1
    shifted = torch.zeros(key.numel() + 16, dtype=dtype, device=DEVICE)[elements : elements + key.numel()].view(
        key.shape
    )
    assert launched(lambda: ops.kv_write(shifted, value, cache, slots)) == {f"kv_write_v{width}_{SUFFIX[dtype]}": 1}
    assert same_bits(cache[0, :, 5:9, :64].transpose(0, 1), shifted)


def test_empty_batches_launch_nothing():
    key, value, cache, slots = tensors()
    assert launched(lambda: ops.kv_write(key[:0], value[:0], cache, slots[:0])) == {}
    assert launched(lambda: ops.kv_write(key, value, cache, slots[:0])) == {}


def test_slots_outside_the_cache_are_padding():
    key, value, cache, _ = tensors(tokens=5)
    slots = torch.tensor([-1, 48, 17, -(2**40), 2**40], device=DEVICE)
    expected = reference.kv_write(key, value, cache, slots)
    assert not same_bits(cache, expected)
    ops.kv_write(key, value, cache, slots)
    assert same_bits(cache, expected)


def test_offsets_are_64_bit():
    # A cache whose last block starts 2^32 elements behind the first; on the CPU nothing between them takes memory.
    block = 2 * 64 * 16
    size = 2 * (2**32 + block)
    if DEVICE != "cpu" and torch.cuda.mem_get_info(DEVICE)[0] < size + 2**28:
        pytest.skip("9 GB of the GPU's memory are needed")
    storage = torch.UntypedStorage(size, device=DEVICE)
    cache = torch.empty(0, dtype=torch.bfloat16, device=DEVICE)
    cache.set_(storage, 0, (2, 1, 16, 128), (2**32, block, 128, 1))
    key, value, _, _ = tensors(tokens=1, heads=1)
    ops.kv_write(key, value, cache, torch.tensor([16 + 3], device=DEVICE))
    assert same_bits(cache[1, 0, 3, :64], key[0, 0]) and same_bits(cache[1, 0, 3, 64:], value[0, 0])


def freed(tensor):
    tensor.untyped_storage().resize_(0)
    return tensor


REFUSALS = [
    Refusal("key.tensor", {"key": lambda t: None}, TypeError, "key is a NoneType"),
    Refusal("key.tensor", {"key": lambda t: t.to_sparse()}, ValueError, "key is of layout torch.sparse_coo"),
    Refusal("key.tensor", {"key": freed}, ValueError, "key is without memory of its own"),
    Refusal("key.dtype", {"key": lambda t: t.double()}, TypeError, "key is torch.float64.*bfloat16"),
    Refusal("key.shape", {"key": lambda t: t.flatten(1)}, ValueError, r"key is \[4, 128\].*kv_heads, head_size"),
    Refusal(
        "key.shape",
        dict.fromkeys(("key", "value", "kv_cache"), lambda t: t[..., :0]),
        ValueError,
        r"key is \[4, 2, 0\].*head_size of at least 1",
    ),
    Refusal("key.contiguous", {"key": lambda t: t.repeat_interleave(2, -1)[..., ::2]}, ValueError, "stride 1"),
    Refusal("value.tensor", {"value": lambda t: t.tolist()}, TypeError, "value is a list"),
    Refusal(
        "value.shape", {"value": lambda t: t[:, :1]}, ValueError, r"value is \[4, 1, 64\].*key's shape, \[4, 2, 64\]"
    ),
    Refusal("value.dtype", {"value": lambda t: t.half()}, TypeError, "value is torch.float16.*bfloat16"),
    Refusal("value.device", {"value": elsewhere}, ValueError, "key's device"),
    Refusal(
        "value.contiguous",
        {"value": lambda t: t.transpose(0, 2).contiguous().transpose(0, 2)},
        ValueError,
        "contiguous in its last dimension",
    ),
    Refusal("kv_cache.tensor", {"kv_cache": lambda t: t.to("meta")}, ValueError, "kv_cache is on meta"),
    Refusal("kv_cache.dtype", {"kv_cache": lambda t: t.float()}, TypeError, "kv_cache is torch.float32.*bfloat16"),
    Refusal("kv_cache.device", {"kv_cache": elsewhere}, ValueError, "key's device"),
    Refusal(
        "kv_cache.shape",
        {"kv_cache": lambda t: t[:, :1]},
        ValueError,
        r"kv_cache is \[3, 1, 16, 128\].*\[blocks, 2, block_size, 2 \* 64\]",
    ),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[..., :64]}, ValueError, r"2 \* 64\]"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[0]}, ValueError, "blocks"),
    Refusal(
        "kv_cache.contiguous",
        {"kv_cache": lambda t: t.repeat_interleave(2, -1)[..., ::2]},
        ValueError,
        "contiguous in its last",
    ),
    Refusal("kv_cache.own", {"kv_cache": lambda t: t[:1].expand(3, -1, -1, -1)}, ValueError, "not an expanded one"),
    Refusal(
        "kv_cache.slots",
        {"kv_cache": lambda t: t[:1].expand(1 << 27, -1, -1, -1)},
        ValueError,
        r"fewer than 2\^31 slots",
    ),
    Refusal("slot_mapping.tensor", {"slot_mapping": lambda t: t.to("meta")}, ValueError, "slot_mapping is on meta"),
    Refusal("slot_mapping.dtype", {"slot_mapping": lambda t: t.int()}, TypeError, "torch.int32.*int64"),
    Refusal("slot_mapping.device", {"slot_mapping": elsewhere}, ValueError, "key's device"),
    Refusal("slot_mapping.shape", {"slot_mapping": lambda t: t[None]}, ValueError, r"is \[1, 4\].*\[slots\]"),
    Refusal("slot_mapping.shape", {"slot_mapping": lambda t: t.repeat(2)}, ValueError, "at most .* 4"),
    Refusal(
        "slot_mapping.contiguous",
        {"slot_mapping": lambda t: t.repeat_interleave(2)[::2]},
        ValueError,
        "must be contiguous",
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
def test_refuses(refusal):
    arguments = dict(zip(("key", "value", "kv_cache", "slot_mapping"), tensors(), strict=True))
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.kv_write(**arguments))


def test_every_condition_has_words():
    check_words("kv_write", WORKS, REFUSALS)
