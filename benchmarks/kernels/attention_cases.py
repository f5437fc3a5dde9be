# SPDX-License-Identifier: Apache-2.0
"""Attention cases of the benchmarks: batches of requests over a paged cache with randomly placed pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BLOCK = 16
L2_BYTES = 128 << 20  # twice an H200's: inputs are rotated until they exceed it


@dataclass(frozen=True)
class Case:
    """Requests of query_len new tokens each, at the end of `lens` keys."""

    name: str
    lens: tuple[int, ...]
    query_len: int
    heads: int
    kv_heads: int
    head: int = 128
    dtype: torch.dtype = torch.bfloat16

    @property
    def tokens(self) -> int:
        return len(self.lens) * self.query_len

    @property
    def flops(self) -> float:
        """Of both products, over the pairs that the causal mask keeps."""
        pairs = sum(
            self.query_len * (n - self.query_len) + self.query_len * (self.query_len + 1) / 2 for n in self.lens
        )
        return 4.0 * self.heads * self.head * pairs

    @property
    def bytes(self) -> float:
        """Every key and value read once, queries read and outputs written once."""
        size = self.dtype.itemsize
        return size * self.head * (2 * self.kv_heads * sum(self.lens) + 2 * self.heads * self.tokens)

    @property
    def is_prefill(self) -> bool:
        return self.query_len > 16


def spread(low: int, high: int, count: int) -> tuple[int, ...]:
    return tuple(low + (high - low) * i // (count - 1) for i in range(count))


CASES = (
    Case("decode b1 ctx8k 32/2", (8192,), 1, 32, 2),
    Case("decode b1 ctx128k 32/2", (131072,), 1, 32, 2),
    Case("decode b16 ctx8k 32/2", (8192,) * 16, 1, 32, 2),
    Case("decode b128 ctx4k 32/2", (4096,) * 128, 1, 32, 2),
    Case("decode b64 256..16k 96/8", spread(256, 16384, 64), 1, 96, 8),
    Case("decode b256 ctx2k 96/8", (2048,) * 256, 1, 96, 8),
    Case("decode b32 ctx8k 32/8", (8192,) * 32, 1, 32, 8),
    Case("spec verify 4 tokens b32 ctx8k 96/8", (8192,) * 32, 4, 96, 8),
    Case("prefill 1x2k 32/2", (2048,), 2048, 32, 2),
    Case("prefill 1x16k 32/2", (16384,), 16384, 32, 2),
    Case("prefill 8x2k 32/8", (2048,) * 8, 2048, 32, 8),
    Case("chunked 2k on 32k 96/8", (32768,), 2048, 96, 8),
)


# Series of cases in which one thing grows, for the plots: names are the values on the x axis.
SWEEPS: dict[str, tuple[Case, ...]] = {
    "batch": tuple(Case(f"batch {n}", (4096,) * n, 1, 32, 2) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
    "context": tuple(Case(f"context {n}", (n,) * 8, 1, 32, 8) for n in (128, 512, 2048, 8192, 32768, 131072, 262144)),
    "head size": tuple(Case(f"head size {d}", (4096,) * 32, 1, 32, 8, d) for d in (64, 80, 96, 128, 192, 256)),
    "head size, prefill": tuple(
        Case(f"prefill, head size {d}", (2048,) * 4, 2048, 32, 8, d) for d in (64, 80, 96, 128, 192, 256)
    ),
    "float16": tuple(
        Case(f"float16 {name}", lens, length, 32, 8, 128, torch.float16)
        for name, lens, length in (
            ("decode b32 ctx8k", (8192,) * 32, 1),
            ("decode b64 256..16k", spread(256, 16384, 64), 1),
            ("prefill 1x16k", (16384,), 16384),
            ("prefill 8x2k", (2048,) * 8, 2048),
        )
    ),
}


class Inputs:
    """One set of a case's tensors on a device."""

    def __init__(self, case: Case, seed: int, device: str = "cuda") -> None:
        generator = torch.Generator(device=device).manual_seed(seed)
        pages = [-(-n // BLOCK) for n in case.lens]
        total = sum(pages)
        order = torch.randperm(total, device=device, generator=generator).int()
        self.block_table = torch.zeros(len(pages), max(pages), dtype=torch.int32, device=device)
        at = 0
        for r, count in enumerate(pages):
            self.block_table[r, :count] = order[at : at + count]
            at += count
        # Token-major pages, as vLLM lays them out by default; the kernels take strides.
        self.pages = torch.randn(
            total, BLOCK, case.kv_heads, 2 * case.head, dtype=case.dtype, device=device, generator=generator
        )
        self.kv_cache = self.pages.transpose(1, 2)
        self.query = torch.randn(
            case.tokens, case.heads, case.head, dtype=case.dtype, device=device, generator=generator
        )
        self.out = torch.full_like(self.query, float("nan"))
        self.seq_lens = torch.tensor(case.lens, dtype=torch.int32, device=device)
        self.query_start = torch.arange(0, case.tokens + 1, case.query_len, dtype=torch.int32, device=device)


def input_sets(case: Case) -> list[Inputs]:
    return [Inputs(case, seed) for seed in range(max(1, min(16, int(-(-L2_BYTES // case.bytes)))))]


def sampled_error(case: Case, inputs: Inputs) -> float:
    """Norm of the error over the norm of the result, in fp64, at a few tokens of the first and last request."""
    wrong = norm = 0.0
    group = case.heads // case.kv_heads
    for r in {0, len(case.lens) - 1}:
        length = case.lens[r]
        table = inputs.block_table[r, : -(-length // BLOCK)].long()
        rows = inputs.pages[table].flatten(0, 1)[:length].double()
        for i in sorted({0, case.query_len // 3, case.query_len - 1}):
            token = r * case.query_len + i
            keys = length - case.query_len + i + 1
            k, v = (part.repeat_interleave(group, 1) for part in rows[:keys].split(case.head, -1))
            scores = torch.einsum("hd,khd->hk", inputs.query[token].double(), k) * case.head**-0.5
            expected = torch.einsum("hk,khd->hd", scores.softmax(-1), v)
            wrong += (inputs.out[token].double() - expected).norm().item() ** 2
            norm += expected.norm().item() ** 2
    return (wrong / norm) ** 0.5
