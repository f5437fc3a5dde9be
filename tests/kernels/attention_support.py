# SPDX-License-Identifier: Apache-2.0
"""A paged batch for the tests of attention, and what its output must be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

import rocmforge_plugin
from kernels import variants
from rocmforge_plugin import reference
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import Problem

from .kernel_support import DEVICE, DTYPES, SUFFIX, Buffer, generator, same_bits

ON_CPU = DEVICE == "cpu"
TYPES = DTYPES if ON_CPU else DTYPES[:2]
# Cores other than the target's own, with the types and head sizes they are built for.
CORES = [
    (core, dtype, size)
    for core, element, size in [
        *variants.CORE_UNITS,
        *((core, element, 64) for core in variants.WIDE_CORES for element in variants.HALVES),
    ]
    for dtype, suffix in SUFFIX.items()
    if suffix == element
]


@dataclass
class Batch:
    """Requests of (new tokens, all tokens) over a cache whose unused slots are NaN."""

    dtype: torch.dtype
    head_size: int
    kv_heads: int
    group: int
    requests: list[tuple[int, int]]
    block_size: int
    seed: int
    window: int = 0
    sinks: bool = False
    token_major: bool = False  # physical order of the cache: [blocks, block_size, heads, row]
    padding: int = 0  # query tokens behind the last request's
    causal: bool | list[bool] = True  # of all requests, or of each
    with_lse: bool = False
    soft_cap: float = 0.0
    alibi: str = ""  # or biased, or rooted: what slopes are of
    ranges: list[list[tuple[int, int]]] | None = None  # of each request
    clamped: bool = False

    def __post_init__(self) -> None:
        random = generator(self.seed)
        pages = [-(-length // self.block_size) for _, length in self.requests]
        order = torch.randperm(sum(pages) + 2, generator=random)
        blocks = len(order)
        row = 2 * self.head_size
        shape = (blocks, self.kv_heads, self.block_size, row)
        if self.token_major:
            strides = (self.block_size * self.kv_heads * row, row, self.kv_heads * row, 1)
        else:
            strides = (self.kv_heads * self.block_size * row, self.block_size * row, row, 1)
        self.cache_buffer = Buffer(shape, strides, 8, self.dtype, self.seed)
        # Pages a request does not have are named all the same: reading them would show as NaN.
        self.block_table = torch.full((len(self.requests), max(pages) + 1), int(order[-1]), dtype=torch.int32)
        at = 0
        for request, (_, length) in enumerate(self.requests):
            for page in range(pages[request]):
                block = int(order[at])
                at += 1
                self.block_table[request, page] = block
                used = min(self.block_size, length - page * self.block_size)
                values = torch.randn(self.kv_heads, used, row, generator=random)
                self.cache_buffer.view[block, :, :used] = values.to(self.dtype).to(DEVICE)
        self.cache_buffer.before = self.cache_buffer.data.clone()
        self.block_table = self.block_table.to(DEVICE)
        lengths = [new for new, _ in self.requests]
        self.starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=DEVICE)
        self.seq_lens = torch.tensor([length for _, length in self.requests], dtype=torch.int32, device=DEVICE)
        self.tokens = sum(lengths) + self.padding
        self.max_query_len = max(lengths)
        heads = self.kv_heads * self.group
        # Queries and output lie in wider rows, as views of a fused QKV projection do.
        size, rows = (self.tokens, heads, self.head_size), ((heads + 3) * self.head_size, self.head_size, 1)
        self.query = Buffer(size, rows, 16, self.dtype, self.seed + 1)
        # A cap that scores do not come near would show nothing.
        spread = 1 + self.soft_cap / 2
        self.query.fill((spread * torch.randn(size, generator=random)).to(self.dtype).to(DEVICE))
        self.out = Buffer(size, rows, 24, self.dtype, self.seed + 2)
        sums = (1, heads + 3) if self.seed % 2 else (self.tokens + 5, 1)
        self.lse = Buffer((heads, self.tokens), sums, 3, torch.float32, self.seed + 3) if self.with_lse else None
        self.sink_logits = torch.randn(heads, generator=random).to(DEVICE) if self.sinks else None
        # Of every head another one, in any order, so that one head's are not another's.
        order = torch.randperm(heads, generator=random)
        self.slopes = (0.6 * 2 ** (-6.0 * order / heads)).to(DEVICE) if self.alibi else None
        self.scale = self.head_size**-0.5

    @property
    def cache(self) -> torch.Tensor:
        return self.cache_buffer.view

    @property
    def problem(self) -> Problem:
        return Problem(
            self.dtype,
            self.kv_heads * self.group,
            self.kv_heads,
            self.head_size,
            self.head_size,
            self.window,
            score="capped" if self.soft_cap else self.alibi or "plain",
            mask="windowed" if self.ranges is None else "clamped_ranges" if self.clamped else "ranges",
        )

    @cached_property
    def causal_given(self) -> bool | torch.Tensor:
        """As the op takes it."""
        if isinstance(self.causal, bool):
            return self.causal
        return torch.tensor(self.causal, dtype=torch.int32, device=DEVICE)

    @cached_property
    def ranges_given(self) -> torch.Tensor | None:
        """As the op takes them, in rows that are longer than the longest list."""
        if self.ranges is None:
            return None
        most = max(map(len, self.ranges))
        given = torch.full((len(self.ranges), most + 2, 2), 1 << 20, dtype=torch.int32)[:, :most]
        for request, listed in enumerate(self.ranges):
            given[request] = torch.tensor([*listed, *[(0, 0)] * (most - len(listed))], dtype=torch.int32).view(most, 2)
        return given.to(DEVICE)

    def planner(self, core: str = "", decode_query_len: int = 1) -> AttentionPlanner:
        problem = replace(self.problem, core=core)
        return AttentionPlanner(problem, DEVICE, len(self.requests), max(self.tokens, 1), decode_query_len)

    def plan(self, planner: AttentionPlanner) -> AttentionPlan:
        of = self.starts, self.seq_lens, self.max_query_len, self.tokens
        return planner.plan(*of, self.causal_given, self.ranges_given)

    def run(self, planner: AttentionPlanner | None) -> None:
        self.run_with(None if planner is None else self.plan(planner))

    def run_with(self, plan: AttentionPlan | None) -> None:
        paged_attention(
            self.query.view,
            self.cache,
            self.block_table,
            self.seq_lens,
            self.starts,
            max_query_len=self.max_query_len,
            scale=self.scale,
            out=self.out.view,
            window=self.window,
            sinks=self.sink_logits,
            soft_cap=self.soft_cap,
            alibi_slopes=self.slopes,
            alibi_sqrt=self.alibi == "rooted",
            causal=self.causal_given,
            ranges=self.ranges_given,
            ranges_clamped=self.clamped,
            lse=None if self.lse is None else self.lse.view,
            plan=plan,
        )

    def check(self) -> None:
        # On the CPU, also for GPUs: compute-sanitizer reports hazards of cuBLAS's own kernels.
        tensors = self.query.view, self.cache, self.block_table, self.seq_lens, self.starts
        options: dict[str, Any] = {
            "scale": self.scale,
            "window": self.window,
            "sinks": None if self.sink_logits is None else self.sink_logits.cpu(),
            "soft_cap": self.soft_cap,
            "alibi_slopes": None if self.slopes is None else self.slopes.cpu(),
            "alibi_sqrt": self.alibi == "rooted",
            "causal": self.causal if isinstance(self.causal, bool) else torch.tensor(self.causal),
            "ranges": None if self.ranges_given is None else self.ranges_given.cpu(),
            "ranges_clamped": self.clamped,
        }
        arguments = [x.cpu() for x in tensors]
        real = self.tokens - self.padding
        lse = torch.zeros(self.kv_heads * self.group, self.tokens, dtype=torch.float64)
        exact = reference.paged_attention_reference(*arguments, **options | {"lse": lse})
        naive = reference.paged_attention_naive(*arguments, **options)
        check_results(self.out, exact[:real], naive[:real])
        if self.lse is not None:
            check_lse(self.lse, lse[:, :real])
        assert self.cache_buffer.untouched() and self.query.untouched()


def check_results(out: Buffer, exact: torch.Tensor, naive: torch.Tensor) -> None:
    """Results of as many tokens as there are exact ones, by FlashAttention's rule; nothing else is written."""
    real = len(exact)
    errors, naive_errors = out.view[:real].cpu().double() - exact, naive.double() - exact
    error = errors.abs().max().item()
    naive_error = naive_errors.abs().max().item()
    if exact.shape[:2].numel() < 4:
        # Of so few rows the naive version's largest error can happen to be far less than one rounding's: 1 of 13000
        # single rows had more than twice as much.
        naive_error = max(naive_error, torch.finfo(out.view.dtype).eps / 2 * exact.abs().max().item())
    bound = 2 * naive_error + 1e-5
    assert error <= bound, f"error {error:.3g} exceeds {bound:.3g}"  # also when either is NaN
    # The mean is no matter of luck.
    error, bound = errors.square().mean().sqrt().item(), 2 * naive_errors.square().mean().sqrt().item() + 1e-6
    assert error <= bound, f"root mean square error {error:.3g} exceeds {bound:.3g}"
    assert out.outside_untouched()
    assert same_bits(out.view[real:], out.view_before[real:])


def check_lse(lse: Buffer, exact: torch.Tensor) -> None:
    """Logarithms of sums, of as many tokens as there are exact ones; sums are fp32 and of unrounded probabilities."""
    real = exact.shape[1]
    came = lse.view[:, :real].cpu().double()
    assert torch.equal(came.isneginf(), exact.isneginf())
    error = (came - exact)[~exact.isneginf()].abs()
    bound = 1e-5 * (1 + exact[~exact.isneginf()].abs())
    assert (error <= bound).all(), f"error {error.max().item():.3g} of a logarithm"
    assert lse.outside_untouched()
    assert same_bits(lse.view[:, real:], lse.view_before[:, real:])


def launches_of(kernel: str) -> int:
    """Launches of the kernels whose names begin so."""
    return sum(count for name, count in rocmforge_plugin.launches().items() if name.startswith(kernel))
