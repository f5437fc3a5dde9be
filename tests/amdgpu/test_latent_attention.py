# SPDX-License-Identifier: Apache-2.0
"""Latent attention on emulated AMD GPUs: every kernel of every built code object against the oracle.

The rule is that of the kernel tests: at most twice the error of doing it naively in the same dtype, plus 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C
from tests.kernels.kernel_support import SUFFIX
from tests.kernels.latent_support import DIMS, Dims, LatentBatch

from .conftest import ALL, TARGETS
from .emulation import EmulatedGpus, guarded

Use = Callable[..., _C.Device]
TYPES = (torch.bfloat16, torch.float16)
CASES = [
    pytest.param(target, dtype, dims, id=f"{target}-{SUFFIX[dtype]}-{dims[0]}")
    for target in TARGETS
    for dtype in TYPES
    for dims in DIMS
]


def check(batch: LatentBatch, decode_query_len: int = 1) -> dict[str, int]:
    """Runs a batch against the oracle; returns the launches by kernel, without dtype and dims."""
    for name in ("block_table", "seq_lens", "starts"):
        setattr(batch, name, guarded(getattr(batch, name)))
    planner = batch.planner(decode_query_len=decode_query_len)
    rocmforge_plugin.reset_launches()
    batch.run(planner)
    launches = rocmforge_plugin.launches()
    batch.check()
    suffix = f"_{batch.problem().suffix}"
    return {name.removesuffix(suffix): count for name, count in launches.items()}


def rows_and_keys(device: _C.Device, kernel: str, dtype: torch.dtype, dims: Dims) -> tuple[int, int]:
    problem = LatentBatch(dtype, dims, 1, [(1, 1)], 16, 1).problem()
    config = device.kernel_config(f"attention_{kernel}_{problem.suffix}")
    return config["rows"], config["keys"]


@pytest.mark.parametrize(("target", "dtype", "dims"), CASES)
def test_decode(emulated: Use, target: str, dtype: torch.dtype, dims: Dims) -> None:
    """One token per request, by each decode kernel, lengths round the edges of tiles and pages."""
    device = emulated(target)
    most = 0
    for kernel in ("decode1", "decode2", "decode4"):
        rows, keys = rows_and_keys(device, kernel, dtype, dims)
        if rows <= most:
            continue  # the variant before has as many rows: this one is never chosen
        lengths = [1, keys - 1, keys, keys + 1, 2 * keys + 17]
        for heads in (most + 1, most + 4, rows - 1, rows) if ALL else (most + 4, rows):
            batch = LatentBatch(
                dtype,
                dims,
                heads,
                [(1, length) for length in lengths],
                (16, 48)[heads % 2],
                seed=heads,
                with_lse=heads % 4 == 0,
                slot_gap=8 * (rows > 16),
                padding=heads % 3,
                heads_outside=rows > 16,
            )
            launches = check(batch)
            assert launches[f"attention_{kernel}"] == 1 and "attention_prefill" not in launches
        most = rows


@pytest.mark.parametrize(("target", "dtype", "dims"), CASES)
def test_several_tokens_a_step(emulated: Use, target: str, dtype: torch.dtype, dims: Dims) -> None:
    """Drafts that are verified: as many tokens as the largest decode kernel has rows for, and fewer."""
    device = emulated(target, order="reverse")
    kernel = max(("decode1", "decode2", "decode4"), key=lambda name: rows_and_keys(device, name, dtype, dims)[0])
    rows, keys = rows_and_keys(device, kernel, dtype, dims)
    for heads in (5, 10, 16) if ALL else (10,):
        new = rows // heads
        requests = [(new, keys + 3), (max(new - 1, 1), 2 * keys), (1, 33), (1, 1)]
        launches = check(LatentBatch(dtype, dims, heads, requests, 16, seed=rows + heads), new)
        assert launches[f"attention_{kernel}"] == 1, launches


@pytest.mark.parametrize(("target", "dtype", "dims"), CASES)
def test_prefill(emulated: Use, target: str, dtype: torch.dtype, dims: Dims) -> None:
    """Prompts, chunks of prompts and decode in one batch, with row blocks and tiles that end anywhere."""
    rows, keys = rows_and_keys(emulated(target), "prefill", dtype, dims)
    # Waves that run from barrier to barrier, in either order, are as far apart as barriers let them be.
    more = [(128, True, ("forward",)), (20, True, (3, 127))] if ALL else []
    for heads, causal, schedule in (*more, (20, True, ("reverse",)), (5, False, ("forward",))):
        emulated(target, *schedule)
        tokens = -(-rows // heads) + 1  # one more than a row block holds
        requests = [(tokens, tokens), (max(tokens - 1, 1), keys + 40), (1, 2 * keys + 1)]
        batch = LatentBatch(
            dtype,
            dims,
            heads,
            requests,
            16,
            seed=heads,
            causal=causal,
            padding=2,
            block_gap=8 * (heads == 5),
            heads_outside=heads == 20,
        )
        assert check(batch)["attention_prefill"] == 1


@pytest.mark.parametrize(("target", "dtype", "dims"), CASES)
def test_parts_are_joined(emulated: Use, target: str, dtype: torch.dtype, dims: Dims) -> None:
    """One request over every workgroup; maxima of its parts differ by hundreds, so a missing rescale shows."""
    for compute_units, order, heads, length in ((2, "reverse", 5, 300), (7, "forward", 20, 900)):
        emulated(target, order, compute_units=compute_units)
        batch = LatentBatch(dtype, dims, heads, [(1, length)], 16, seed=heads)
        page = torch.arange(len(batch.cache))[:, None, None] % 7
        query = batch.query.view.clone()
        query[..., 0] = 40
        batch.query.fill(query)
        batch.cache[..., :1] = (5 * page).to(dtype)
        batch.keep()
        assert check(batch)[f"attention_combine_{SUFFIX[dtype]}_d{dims[1]}"] == 1


@pytest.mark.parametrize("target", TARGETS)
def test_matrix_cores_do_the_products(emulated: Use, gpus: EmulatedGpus, target: str) -> None:
    """The target's own matrix instruction was executed, as often as scores and results need and not much more."""
    emulated(target, compute_units=1)
    gpus.executed()
    batch = LatentBatch(torch.bfloat16, (576, 512), 16, [(1, 512)], 16, seed=3)
    check(batch)
    (executed,) = (done for (_, name), done in gpus.executed().items() if name.startswith("attention_decode1"))
    matrix = {name: count for name, count in executed.items() if name.startswith(("v_mfma", "v_wmma"))}
    assert len(matrix) == 1 and ("wmma" in next(iter(matrix))) == (not target.startswith("gfx9"))
    depth = 32 if target == "gfx950" else 16
    products = 16 * 512 * (576 + 512)
    assert products <= sum(matrix.values()) * 16 * 16 * depth <= 1.3 * products
