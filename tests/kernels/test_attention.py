# SPDX-License-Identifier: Apache-2.0
"""Paged attention against the oracle: any lengths, pages, strides, groups, head sizes and matrix cores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rocmforge_plugin
from rocmforge_plugin.served import HEAD_SIZES

from .attention_strategies import batches
from .attention_support import CORES, ON_CPU, TYPES, Batch, launches_of
from .kernel_support import SUFFIX


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@given(data=st.data())
def test_mixed_batches(head_size: int, data: st.DataObject) -> None:
    """Prefill, chunked prefill and decode in one batch, on the target's own matrix core."""
    batch = data.draw(batches(data.draw(st.sampled_from(TYPES)), head_size))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(decode_query_len=data.draw(st.sampled_from([1, 4]))))
    assert launches_of("attention_plan") == 1
    assert launches_of("attention_decode") + launches_of("attention_prefill") >= 1
    batch.check()


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@given(data=st.data())
def test_decode(head_size: int, data: st.DataObject) -> None:
    """One new token per request: the decode kernel and its combine are all that runs."""
    batch = data.draw(batches(data.draw(st.sampled_from(TYPES)), head_size, most_new=1))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner())
    assert launches_of("attention_decode") == 1 and launches_of("attention_prefill") == 0
    batch.check()


@pytest.mark.skipif(not ON_CPU, reason="other matrix cores than the device's own exist on the CPU target only")
@pytest.mark.parametrize(("core", "dtype", "head_size"), CORES)
@given(data=st.data())
def test_matrix_cores(core: str, dtype: torch.dtype, head_size: int, data: st.DataObject) -> None:
    """Every core's index arithmetic, decode and prefill."""
    batch = data.draw(batches(dtype, head_size))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(core, data.draw(st.sampled_from([1, 4]))))
    ran = [name for name in rocmforge_plugin.launches() if name.startswith(("attention_decode", "attention_prefill"))]
    assert ran and all(name.endswith(f"_{SUFFIX[dtype]}_d{head_size}_{core}") for name in ran)
    batch.check()


@pytest.mark.parametrize(("group", "keys"), [(1, 1500), (7, 1500), (16, 1500), (24, 1500), (64, 1500), (16, 12000)])
@pytest.mark.parametrize("dtype", TYPES)
def test_long_context_is_split_and_combined(dtype: torch.dtype, group: int, keys: int) -> None:
    """One request over every workgroup: the partial results, some or many (combine.h), must be rescaled and joined."""
    batch = Batch(dtype, 128, 2, group, [(1, keys)], 16, seed=group, with_lse=True, sinks=group == 7)
    # Later keys score far higher, so that parts differ in their maxima by hundreds.
    batch.cache[..., :128] *= 1 + batch.block_table.new_tensor(range(len(batch.cache)))[:, None, None, None] % 7
    batch.cache_buffer.before = batch.cache_buffer.data.clone()
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner())
    assert launches_of("attention_combine") == 1
    batch.check()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("keys", [1, 130, 700, 3000])
def test_requests_alike(count: int, keys: int) -> None:
    """Then shares are cut where items end, and every item into as many parts."""
    for heads, new in ((1, 1), (3, 2)):
        batch = Batch(TYPES[0], 64, heads, 4, [(min(new, keys), keys)] * count, 16, seed=count)
        planner = batch.planner()
        rocmforge_plugin.reset_launches()
        batch.run(planner)
        assert launches_of("attention_plan") == 1
        assert launches_of("attention_decode") + launches_of("attention_prefill") >= 1
        batch.check()


@pytest.mark.skipif(not ON_CPU, reason="so few keys are one round on a GPU; those of AMD are emulated in tests/amdgpu")
@pytest.mark.parametrize("kv_heads", [3, 4, 6])
@pytest.mark.parametrize(("core", "dtype", "head_size"), [("", TYPES[0], 80), *CORES])
def test_long_prompts_are_done_in_rounds_of_heads(core: str, dtype: torch.dtype, head_size: int, kv_heads: int) -> None:
    """Every round walks its own heads and has parts of its own to join."""
    batch = Batch(
        dtype,
        head_size,
        kv_heads,
        2,
        [(150, 400), (1, 40), (70, 70), (64, 900)],
        16,
        seed=kv_heads,
        sinks=kv_heads == 4,
        window=100 * (kv_heads == 6),
        causal=kv_heads != 3,
        with_lse=kv_heads != 4,
    )
    planner = batch.planner(core)
    rocmforge_plugin.reset_launches()
    batch.run(planner)
    assert launches_of("attention_plan") == launches_of("attention_prefill") == 1
    batch.check()
    if core == "Mfma32x32x8" and batch.window == 0 and rocmforge_plugin.device.open_device("cpu").compute_units <= 4:
        share_heads = planner._words[8 + 6].item()  # schedule/words.h; this core has no decode, so there is one plan
        assert share_heads == {3: 3, 4: 1}[kv_heads]
