# SPDX-License-Identifier: Apache-2.0
"""Paged attention on emulated AMD GPUs: every kernel of every built code object against the oracle.

The rule is that of the kernel tests: at most twice the error of doing it naively in the same dtype, plus 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.served import HEAD_SIZES
from tests.kernels.attention_support import Batch
from tests.kernels.kernel_support import SUFFIX

from .conftest import ALL, TARGETS
from .emulation import EmulatedGpus, guarded

Use = Callable[..., _C.Device]
TYPES = (torch.bfloat16, torch.float16)
UNITS = [(dtype, head) for dtype in TYPES for head in HEAD_SIZES]
CASES = [
    pytest.param(target, *unit, id=f"{target}-{SUFFIX[unit[0]]}-{unit[1]}") for target in TARGETS for unit in UNITS
]


def check(batch: Batch, decode_query_len: int = 1) -> dict[str, int]:
    """Runs a batch against the oracle; returns the launches by kernel, without dtype and head size."""
    for name in ("block_table", "seq_lens", "starts"):
        setattr(batch, name, guarded(getattr(batch, name)))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(decode_query_len=decode_query_len))
    launches = rocmforge_plugin.launches()
    batch.check()
    suffix = f"_{SUFFIX[batch.dtype]}_d{batch.head_size}"
    return {name.removesuffix(suffix): count for name, count in launches.items()}


def rows_and_keys(device: _C.Device, kernel: str, dtype: torch.dtype, head: int) -> tuple[int, int]:
    config = device.kernel_config(f"attention_{kernel}_{SUFFIX[dtype]}_d{head}")
    return config["rows"], config["keys"]


@pytest.mark.parametrize(("target", "dtype", "head"), CASES)
def test_decode(emulated: Use, target: str, dtype: torch.dtype, head: int) -> None:
    """One token per request, lengths round the edges of tiles and pages, every small ratio of heads."""
    device = emulated(target)
    rows, keys = rows_and_keys(device, "decode1", dtype, head)
    more_rows = rows_and_keys(device, "decode2", dtype, head)[0]
    lengths = [1, keys - 1, keys, keys + 1, 2 * keys + 17]
    for group in (1, 2, 3, 4, 5, 6, 7, 8, rows, more_rows) if ALL else (1, 4, 7):
        batch = Batch(
            dtype,
            head,
            1 + group % 2,
            group,
            [(1, length) for length in lengths],
            (16, 48)[group % 2],
            seed=group,
            window=(0, 20)[group == 5],
            sinks=group % 3 == 1,
            token_major=group > 3,
            padding=group % 4,
            with_lse=group % 3 == 1,
        )
        launches = check(batch)
        kernel = "attention_decode1" if group <= rows else "attention_decode2"
        assert launches[kernel] == 1 and "attention_prefill" not in launches


@pytest.mark.parametrize(("target", "dtype", "head"), CASES)
def test_several_tokens_a_step(emulated: Use, target: str, dtype: torch.dtype, head: int) -> None:
    """Speculative decoding, and ratios of heads that take more than one matrix tile of rows."""
    device = emulated(target, order="reverse")
    most = rows_and_keys(device, "decode1", dtype, head)[0]
    for kernel in ("decode1", "decode2", "decode4"):
        rows, keys = rows_and_keys(device, kernel, dtype, head)
        if kernel != "decode1" and rows <= most:
            continue  # the variant before has as many rows: this one is never chosen
        for group in (min(8, rows), min(12, rows), rows) if ALL else (min(12, rows),):
            tokens = max(rows // group, 1)
            requests = [(tokens, keys + 3), (max(tokens - 1, 1), 2 * keys), (1, 33), (1, 1)]
            launches = check(Batch(dtype, head, 2, group, requests, 16, seed=rows + group, sinks=group == 12), tokens)
            assert launches[f"attention_{kernel}"] == 1, launches
        most = rows


@pytest.mark.parametrize(("target", "dtype", "head"), CASES)
def test_prefill(emulated: Use, target: str, dtype: torch.dtype, head: int) -> None:
    """Prompts, chunks of prompts and decode in one batch, with row blocks and tiles that end anywhere; and all of them
    over context without a mask, of which one request has none.
    """
    rows, keys = rows_and_keys(emulated(target), "prefill", dtype, head)
    # Waves that run from barrier to barrier, in either order, are as far apart as barriers let them be.
    more = [(1, 0, ("forward",)), (8, 70, ("reverse",)), (8, 0, (3, 127))] if ALL else []
    full = [(2, 0, ("reverse",))] if ALL or dtype == TYPES[0] else []
    for group, window, schedule in (*more, *full, (4, 0, ("forward",)), (3, 40, ("reverse",))):
        emulated(target, *schedule)
        tokens = -(-rows // group) + 1  # one more than a row block holds
        requests = [(tokens, tokens), (17, keys + 40), (1, 2 * keys + 1), (keys - 1, keys + 15)]
        if group == 2:
            requests[1:3] = [(5, 0), (1, 0)]
        batch = Batch(
            dtype,
            head,
            1 + group % 2,
            group,
            requests,
            16,
            seed=group,
            window=window,
            sinks=window > 0,
            token_major=group == 4,
            padding=2,
            causal=group != 2,
            with_lse=group != 3,
        )
        launches = check(batch)
        assert launches["attention_prefill"] == 1
        assert sum(count for name, count in launches.items() if name.startswith("attention_decode")) == 1


@pytest.mark.parametrize(("target", "dtype", "head"), CASES)
def test_parts_are_joined(emulated: Use, target: str, dtype: torch.dtype, head: int) -> None:
    """One request over every workgroup; maxima of its parts differ by hundreds, so a missing rescale shows.

    On 2 compute units there are up to four parts, which a group of lanes joins; on 7, groups share more of them, and a
    workgroup does several rows; on 40, there are so many parts of the one head that workgroups share a row.
    """
    for compute_units, order, heads, group, length in (
        (2, "reverse", 1, 4, 900),
        (7, "forward", 2, 16, 3600),
        (40, "reverse", 1, 2, 19000),
    ):
        emulated(target, order, compute_units=compute_units)
        batch = Batch(dtype, head, heads, group, [(1, length)], 16, seed=head)
        batch.cache[..., :head] *= 1 + batch.block_table.new_tensor(range(len(batch.cache)))[:, None, None, None] % 7
        batch.cache_buffer.before = batch.cache_buffer.data.clone()
        assert check(batch)["attention_combine"] == 1


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("target", TARGETS)
def test_more_requests_than_the_plan_has_threads(emulated: Use, target: str, order: str) -> None:
    """The plan's scan takes several passes; some requests are padding."""
    emulated(target, order)
    requests = [(1, 1 + i % 3) for i in range(260)]
    batch = Batch(torch.bfloat16, 64, 1, 4, requests, 16, seed=1)
    batch.seq_lens[5] = 0  # padding: its token is left alone
    expected = batch.out.view[5].clone()
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner())
    assert torch.equal(batch.out.view[5].view(torch.int16), expected.view(torch.int16))
    batch.out.view[5] = 0
    batch.check()


@pytest.mark.parametrize("capturing", [False, True])
def test_long_queries_leave_the_decode_launches_to_graphs(emulated: Use, gpus: EmulatedGpus, capturing: bool) -> None:
    """A capture holds them, with nothing to do, for what its replays bring."""
    emulated(TARGETS[0])
    gpus.capture(capturing)
    try:
        launches = check(Batch(torch.bfloat16, 64, 1, 4, [(40, 48)], 16, seed=2))
    finally:
        gpus.capture(False)
    assert launches["attention_prefill"] == 1 and launches["attention_combine"] == 1 + capturing
    assert sum(count for name, count in launches.items() if "decode" in name) == capturing


@pytest.mark.parametrize(
    "requests",
    [[8192], [8000], [8192] * 16, [8192] * 130, [512] * 40, [100] * 3, [256 + 97 * i for i in range(64)]],
    ids=lambda r: f"{len(r)}x{r[0]}",
)
@pytest.mark.parametrize("target", TARGETS)
def test_no_share_is_larger_than_need_be(emulated: Use, target: str, requests: list[int]) -> None:
    """On as many compute units as an MI300X has: all workgroups wait for the largest share."""
    units, heads, gap, least = 304, 2, 5, 2  # kItemGap, kLeastShare
    config = emulated(target, compute_units=units).kernel_config("attention_decode1_bf16_d128")
    planner = AttentionPlanner(Problem(torch.bfloat16, 4 * heads, heads, 128, 128), "cpu", len(requests), len(requests))
    seq_lens = guarded(torch.tensor(requests, dtype=torch.int32))
    rocmforge_plugin.reset_launches()
    planner.plan(guarded(torch.arange(len(requests) + 1, dtype=torch.int32)), seq_lens, 1, len(requests))
    assert rocmforge_plugin.launches() == {"attention_plan": 1}
    workgroups = units * config["blocks_per_unit"]
    shares = planner._words[8:].view(-1, 8)[:workgroups, 0]  # schedule/words.h; a share begins with its tiles
    tiles = [-(-n // config["keys"]) for n in requests]
    assert heads * sum(tiles) <= shares.sum() <= heads * (sum(tiles) + gap * len(tiles))
    assert shares.max() <= max(least, -(-heads * (sum(tiles) + gap * len(tiles)) // workgroups))


CORES = {
    "gfx90a": "v_mfma_f32_16x16x16bf16_1k",
    "gfx942": "v_mfma_f32_16x16x16_bf16",
    "gfx950": "v_mfma_f32_16x16x32_bf16",
}


@pytest.mark.parametrize("target", TARGETS)
def test_matrix_cores_do_the_products(emulated: Use, gpus: EmulatedGpus, target: str) -> None:
    """The target's own matrix instruction was executed, at least as often as the visible scores need."""
    emulated(target)
    gpus.executed()
    check(Batch(torch.bfloat16, 128, 2, 4, [(40, 48)], 16, seed=3))
    executed = gpus.executed()[target, "attention_prefill_bf16_d128"]
    core = CORES.get(target, "v_wmma_f32_16x16x16_bf16")
    matrix = {name: count for name, count in executed.items() if name.startswith(("v_mfma", "v_wmma"))}
    assert set(matrix) == {core}
    depth = 32 if target == "gfx950" else 16
    scores = sum(9 + token for token in range(40)) * 2 * 4  # of 2 KV heads with 4 query heads each
    assert matrix[core] * 16 * 16 * depth >= 2 * scores * 128  # QK^T and PV
