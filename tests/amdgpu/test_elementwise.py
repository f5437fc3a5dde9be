# SPDX-License-Identifier: Apache-2.0
"""Mask, cache and position kernels on emulated AMD GPUs: every name of the instantiation table is launched."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rocmforge_build import driver, units
from rocmforge_plugin import _C, ops, reference
from rocmforge_plugin.problem import KernelName
from tests.kernels.kernel_support import SUFFIX, Buffer, assert_within, cos_sin_table, generator, launched, same_bits

from .conftest import TARGETS
from .emulation import guarded

Use = Callable[..., _C.Device]
DTYPES = {name: dtype for dtype, name in SUFFIX.items()}
KERNELS = [
    kernel
    for unit in units.load_units(driver.ROOT)
    if "amd" in unit.targets
    for kernel in unit.kernels
    if not kernel.startswith("attention")
]


CASES = [(target, kernel) for target in TARGETS for kernel in KERNELS]


def apart(kernel: str) -> tuple[str, int, torch.dtype]:
    """(operation, elements that an address lies past a 16-byte boundary, dtype)."""
    name = KernelName.parse(kernel)
    dtype = DTYPES[name.element]
    return name.kernel, {"16": 0, "8": 8 // dtype.itemsize, "1": 1}[name.width], dtype


def rows(tokens: int, heads: int, size: int, shift: int, dtype: torch.dtype, seed: int) -> Buffer:
    """Random rows [tokens, heads, size] inside wider poisoned ones, `shift` elements past a boundary."""
    buffer = Buffer((tokens, heads, size), ((heads + 1) * size, size, 1), shift, dtype, seed)
    buffer.fill((3 * torch.randn(tokens, heads, size, generator=generator(seed))).to(dtype))
    return buffer


@pytest.mark.parametrize(("target", "kernel"), [case for case in CASES if "mask" in case[1]])
def test_causal_mask(emulated: Use, target: str, kernel: str) -> None:
    emulated(target)
    _, narrow, dtype = apart(kernel)
    step = 2 if narrow else 1  # the narrow kernel is for columns that are not neighbours
    for queries, keys, cache_len in ((2, 72, 0), (7, 37, 3), (40, 41, 16), (80, 24, 0), (3, 1300, 9)):
        strides = (queries * keys * step + 5, keys * step, step)
        buffer = Buffer((2, queries, keys), strides, queries % 8, dtype, queries)
        expected = buffer.data.clone()
        view = expected.as_strided((2, queries, keys), strides, queries % 8)
        view.copy_(reference.causal_mask(view, cache_len))
        assert launched(lambda: ops.causal_mask(buffer.view, cache_len)) == {kernel: 1}
        assert same_bits(buffer.data, expected)


@pytest.mark.parametrize(("target", "kernel"), [case for case in CASES if case[1].startswith("kv_write")])
def test_kv_write(emulated: Use, target: str, kernel: str) -> None:
    emulated(target)
    _, shift, dtype = apart(kernel)
    for tokens, heads, size in ((1, 1, 64), (5, 3, 80), (9, 2, 256)):
        key, value = (rows(tokens, heads, size, shift, dtype, seed) for seed in (1, 2))
        cache = Buffer((3, heads, 16, 2 * size), (heads * 32 * size, 32 * size, 2 * size, 1), 16, dtype, 3)
        slots = torch.randperm(48, generator=generator(tokens))[:tokens]
        slots[tokens // 2] = -1 if tokens > 1 else 47
        expected = cache.data.clone()
        view = expected.as_strided(cache.view.shape, cache.view.stride(), 16)
        view.copy_(reference.kv_write(key.view, value.view, cache.view, slots))
        assert launched(lambda: ops.kv_write(key.view, value.view, cache.view, guarded(slots))) == {kernel: 1}
        assert same_bits(cache.data, expected)


@pytest.mark.parametrize(("target", "kernel"), [case for case in CASES if case[1].startswith("latent_kv_write")])
def test_latent_kv_write(emulated: Use, target: str, kernel: str) -> None:
    emulated(target)
    _, shift, dtype = apart(kernel)
    for tokens, latent_dims, rope_dims in ((1, 512, 64), (9, 512, 0), (5, 256, 64)):
        row = latent_dims + rope_dims
        latent, rope = (rows(tokens, 1, size, shift, dtype, size).view for size in (latent_dims, rope_dims))
        cache = Buffer((3, 16, row), (16 * row + 64, row, 1), 16, dtype, 3)
        slots = torch.randperm(48, generator=generator(tokens))[:tokens]
        slots[tokens // 2] = -1 if tokens > 1 else 47
        expected = cache.data.clone()
        view = expected.as_strided(cache.view.shape, cache.view.stride(), 16)
        view.copy_(reference.latent_kv_write(latent[:, 0], rope, cache.view, slots))
        call = functools.partial(ops.latent_kv_write, latent[:, 0], rope, cache.view, guarded(slots))
        assert launched(call) == {kernel: 1}
        assert same_bits(cache.data, expected)


@pytest.mark.parametrize(("target", "kernel"), [case for case in CASES if re.match("rotary_v|mrope_v", case[1])])
@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(emulated: Use, target: str, kernel: str, interleaved: bool) -> None:
    emulated(target)
    operation, shift, dtype = apart(kernel)
    for tokens, size, rotary_dim in ((1, 64, 64), (5, 128, 64), (3, 192, 192)):
        table = guarded(cos_sin_table(64, rotary_dim, (dtype, torch.float32)[size == 128]))
        options: dict[str, Any] = dict(head_size=size, interleaved=interleaved)
        positions = torch.randint(0, 64, (3, tokens) if operation == "mrope" else (tokens,), generator=generator(size))
        if operation == "mrope":
            sections = [rotary_dim // 4, rotary_dim // 8, rotary_dim // 8]
            options |= dict(mrope_section=sections, mrope_interleaved=size == 192)
        query, key = (rows(tokens, heads, size, shift, dtype, heads) for heads in (4, 1))
        before = [buffer.view.clone() for buffer in (query, key)]
        call = functools.partial(ops.rotary, guarded(positions), query.view, key.view, table, **options)
        assert launched(call) == {kernel: 1}
        for buffer, old in zip((query, key), before, strict=True):
            assert_within(
                buffer.view,
                reference.rotary(positions, old, table, **options),
                reference.rotary(positions, old, table, compute=dtype, **options),
            )
            assert same_bits(buffer.view[..., rotary_dim:], old[..., rotary_dim:]) and buffer.outside_untouched()


@pytest.mark.parametrize(
    ("target", "kernel"), [case for case in CASES if re.search("(rotary|mrope)_kv_write", case[1])]
)
def test_rotary_kv_write(emulated: Use, target: str, kernel: str) -> None:
    operation, shift, dtype = apart(kernel)
    emulated(target)
    for tokens, size, rotary_dim, interleaved in ((1, 64, 32, True), (6, 128, 64, False), (3, 256, 256, True)):
        table = guarded(cos_sin_table(64, rotary_dim, dtype))
        options: dict[str, Any] = dict(interleaved=interleaved)
        positions = torch.randint(0, 64, (3, tokens) if "mrope" in operation else (tokens,), generator=generator(size))
        if "mrope" in operation:
            options |= dict(mrope_section=[rotary_dim // 4, rotary_dim // 8, rotary_dim // 8], mrope_interleaved=False)
        query, key, value = (rows(tokens, heads, size, shift, dtype, heads) for heads in (4, 2, 2))
        before = [buffer.view.clone() for buffer in (query, key)]
        weights = [guarded((1 + 0.3 * torch.randn(size, generator=generator(i))).to(dtype)) for i in (7, 8)]
        norm = dict(q_norm_weight=weights[0], k_norm_weight=weights[1]) if operation.startswith("norm") else {}
        cache = Buffer((3, 2, 16, 2 * size), (64 * size, 32 * size, 2 * size, 1), 16, dtype, 3)
        slots = torch.randperm(48, generator=generator(tokens))[:tokens]
        unwritten = tokens - 1 if tokens > 1 else None
        if unwritten:
            slots[unwritten] = -1
        call = functools.partial(
            ops.rotary_kv_write,
            guarded(positions),
            query.view,
            key.view,
            value.view,
            table,
            cache.view,
            guarded(slots),
            **norm,
            **options,
        )
        assert launched(call) == {kernel: 1}
        turned = []
        for old, weight in zip(before, weights, strict=True):
            for compute in (torch.float64, dtype):
                x = reference.rms_norm(old, weight, 1e-5, compute) if norm else old
                turned.append(reference.rotary(positions, x, table, head_size=size, compute=compute, **options))
        assert_within(query.view, *turned[:2])
        assert query.outside_untouched() and key.untouched() and value.untouched()
        old_cache = cache.before.as_strided(cache.view.shape, cache.view.stride(), 16)
        for slot in range(48):
            row, found = cache.view[slot // 16, :, slot % 16], (slots == slot).nonzero()
            if len(found):
                assert_within(row[:, :size], turned[2][found[0, 0]], turned[3][found[0, 0]])
                assert same_bits(row[:, size:], value.view[found[0, 0]])
            else:
                assert same_bits(row, old_cache[slot // 16, :, slot % 16])
        assert cache.outside_untouched()


@pytest.mark.parametrize(("target", "kernel"), [case for case in CASES if "rotary_latent" in case[1]])
def test_rotary_latent_kv_write(emulated: Use, target: str, kernel: str) -> None:
    _, shift, dtype = apart(kernel)
    emulated(target)
    for tokens, heads, latent_dims, rope_dims, interleaved in ((1, 20, 512, 64, True), (6, 5, 256, 32, False)):
        table = guarded(1.3 * cos_sin_table(64, rope_dims, torch.float32)).to((torch.float32, dtype)[heads == 5])
        positions = torch.randint(0, 64, (tokens,), generator=generator(heads))
        query, key, latent = (
            rows(tokens, count, size, shift, dtype, size + count)
            for count, size in ((heads, rope_dims), (1, rope_dims), (1, latent_dims))
        )
        before = [buffer.view.clone() for buffer in (query, key)]
        row = latent_dims + rope_dims
        cache = Buffer((3, 16, row), (16 * row + 64, row, 1), 16, dtype, 3)
        slots = torch.randperm(48, generator=generator(tokens))[:tokens]
        if tokens > 1:
            slots[2] = -1
        old = cache.view.clone()
        call = functools.partial(
            ops.rotary_latent_kv_write,
            guarded(positions),
            query.view,
            key.view,
            guarded(table),
            latent.view[:, 0],
            cache.view,
            guarded(slots),
            interleaved=interleaved,
        )
        assert launched(call) == {kernel: 1}
        for buffer, x in zip((query, key), before, strict=True):
            turned = functools.partial(
                reference.rotary, positions, x, table, head_size=rope_dims, interleaved=interleaved
            )
            assert_within(buffer.view, turned(), turned(compute=dtype))
            assert buffer.outside_untouched()
        assert same_bits(cache.view, reference.latent_kv_write(latent.view[:, 0], key.view, old, slots))
        assert latent.untouched() and cache.outside_untouched()


@pytest.mark.parametrize("target", TARGETS)
def test_other_positions(emulated: Use, target: str) -> None:
    """Two positions a token, and cosines given per token: modes of the same kernels."""
    emulated(target)
    x = torch.randn(5, 2, 64, generator=generator(1))
    positions = torch.randint(0, 64, (2, 5), generator=generator(2))
    table = guarded(cos_sin_table(64, 32, torch.float32))
    turned = guarded(x)
    ops.rotary_2d(guarded(positions), turned, None, table, head_size=64)
    assert_within(
        turned,
        reference.rotary_2d(positions, x, table, head_size=64),
        reference.rotary_2d(positions, x, table, head_size=64, compute=torch.float32),
    )
    cos, sin = (guarded(part.contiguous()) for part in cos_sin_table(5, 48, torch.float32).chunk(2, -1))
    assert_within(
        ops.apply_rotary(guarded(x), cos, sin, interleaved=True),
        reference.rotate(x, cos, sin, True),
        reference.rotate(x, cos, sin, True, torch.float32),
    )
