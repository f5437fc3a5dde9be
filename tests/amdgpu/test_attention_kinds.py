# SPDX-License-Identifier: Apache-2.0
"""Every score, mask and length of heads of paged attention on emulated AMD GPUs, against the oracle.

What plain heads of usual lengths show of schedules and shapes is in test_attention.py; here is what differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C, served
from tests.kernels.attention_support import Batch
from tests.kernels.kernel_support import SUFFIX

from .conftest import ALL, TARGETS
from .emulation import guarded

Use = Callable[..., _C.Device]
TYPES = (torch.bfloat16, torch.float16)


class Kind(NamedTuple):
    """What a batch is asked for beside its requests."""

    head: int
    score: str = "plain"
    mask: str = "windowed"

    def batch(self, dtype: torch.dtype, requests: list[tuple[int, int]], group: int, seed: int, **more: Any) -> Batch:
        """With ranges that end anywhere, that a request has not as yet, and that all of its new tokens are in."""
        ranges = [[(total - new // 2 - 9, total - new // 2), (total - 1, total + 5)] for new, total in requests]
        return Batch(
            dtype,
            self.head,
            1 + group % 2,
            group,
            [(new, total) for new, total in requests],
            16,
            seed,
            soft_cap=5.0 * (self.score == "capped"),
            alibi=self.score if self.score in ("biased", "rooted") else "",
            ranges=None if self.mask == "windowed" else [[(max(a, 0), b) for a, b in pair] for pair in ranges],
            clamped=self.mask == "clamped_ranges",
            **more,
        )


KINDS = (
    *(Kind(head) for head in (40, 72, 104, 200, 512)),
    *(Kind(head, "capped") for head in (64, 128, 256)),
    *(Kind(head, "biased") for head in (64, 120)),
    *(Kind(head, "rooted") for head in (48, 128)),
    *(Kind(head, mask="ranges") for head in (64, 256, 512)),
    Kind(128, mask="clamped_ranges"),
    Kind(256, "capped", "ranges"),
    Kind(64, "capped", "clamped_ranges"),
)
CASES = [
    pytest.param(target, kind, dtype, id=f"{target}-{kind.head}-{kind.score}-{kind.mask}-{SUFFIX[dtype]}")
    for target in TARGETS
    for number, kind in enumerate(KINDS)
    for dtype in (TYPES if ALL else (TYPES[number % 2],))
]


def test_every_kernel_is_here() -> None:
    """But those of plain attention of usual heads, which test_attention.py has."""
    found = {kind.batch(TYPES[0], [(1, 1)], 1, 0).problem.suffix for kind in KINDS}
    wanted = {
        "_".join(part for part in ("bf16", f"d{size}", format, score, listed) if part not in ("joined", "plain", ""))
        for table, listed in ((served.PROBLEMS, ""), (served.LISTED_PROBLEMS, "listed"))
        for format, score, heads in table
        for size, _ in heads
        if format == "narrow" or (format == "joined" and size > 256)
    }
    assert found == wanted


def check(batch: Batch, decode_query_len: int = 1) -> dict[str, int]:
    """Runs a batch against the oracle; returns the launches by kernel, without the problem's name."""
    for name in ("block_table", "seq_lens", "starts"):
        setattr(batch, name, guarded(getattr(batch, name)))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(decode_query_len=decode_query_len))
    launches = rocmforge_plugin.launches()
    batch.check()
    return {name.removesuffix(f"_{batch.problem.suffix}"): count for name, count in launches.items()}


def rows_and_keys(device: _C.Device, kernel: str, kind: Kind, dtype: torch.dtype) -> tuple[int, int]:
    config = device.kernel_config(f"attention_{kernel}_{kind.batch(dtype, [(1, 1)], 1, 0).problem.suffix}")
    return config["rows"], config["keys"]


@pytest.mark.parametrize(("target", "kind", "dtype"), CASES)
def test_decode(emulated: Use, target: str, kind: Kind, dtype: torch.dtype) -> None:
    """One token a request and several, in the kernels for few rows and for many."""
    device = emulated(target)
    most = 0
    for kernel in ("decode1", "decode2", "decode4"):
        rows, keys = rows_and_keys(device, kernel, kind, dtype)
        if rows <= most:
            continue  # never chosen
        most, group = rows, min(6, rows)
        tokens = rows // group
        requests = [(1, 1), (tokens, keys + 7), (1, 2 * keys + 17), (max(tokens - 1, 1), keys)]
        window = 20 * (kernel == "decode1")
        batch = kind.batch(dtype, requests, group, rows, window=window, sinks=True, with_lse=True)
        assert check(batch, tokens)[f"attention_{kernel}"] == 1


@pytest.mark.parametrize(("target", "kind", "dtype"), CASES)
def test_prefill(emulated: Use, target: str, kind: Kind, dtype: torch.dtype) -> None:
    """Prompts, chunks of prompts and decode in one batch; some causal and some not, in a window to both sides."""
    rows, keys = rows_and_keys(emulated(target), "prefill", kind, dtype)
    for group, window, schedule in ((4, 0, "forward"), (3, 30, "reverse")):
        emulated(target, schedule)
        tokens = -(-rows // group) + 1  # one more than a row block holds
        requests = [(tokens, tokens), (17, keys + 40), (1, 2 * keys + 1)]
        causal = True if group == 4 else [False, True, False]
        more = {"window": window, "causal": causal, "sinks": group == 3, "with_lse": group == 4, "padding": 2}
        launches = check(kind.batch(dtype, requests, group, group, **more))
        assert launches["attention_prefill"] == 1
