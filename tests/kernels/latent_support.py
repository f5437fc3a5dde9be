# SPDX-License-Identifier: Apache-2.0
"""A batch over a paged cache of latents for the tests of attention, and what its output must be."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import torch

from kernels import variants
from rocmforge_plugin import reference, served
from rocmforge_plugin.ops.latent import latent_attention
from rocmforge_plugin.ops.planner import AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import KernelName, Problem

from .attention_support import check_lse, check_results
from .kernel_support import DEVICE, SUFFIX, Buffer, generator

Dims = tuple[int, int]  # of a key, and of its value
DIMS: tuple[Dims, ...] = next(heads for format, _, heads in served.PROBLEMS if format == "latent")
MAP_NORESERVE = 0x4000  # of Linux; Python 3.13 names it
NOPE = 192  # of a query's head before absorption: its rotated part is a slice behind so many


def cores() -> list[tuple[str, torch.dtype, Dims]]:
    """Cores other than the target's own that are built for latents, with types and dims."""
    found = []
    for unit in variants.UNITS:
        parts = KernelName.parse(unit.kernels[0])
        if parts.kernel == "attention_prefill" and parts.kind == "latent" and parts.core:
            key_dims, _, value_dims = parts.dims.partition("v")
            dtype = next(dtype for dtype, suffix in SUFFIX.items() if suffix == parts.element)
            found.append((parts.core, dtype, (int(key_dims), int(value_dims or key_dims))))
    return found


def untouched_memory(elements: int, dtype: torch.dtype) -> torch.Tensor:
    """On the CPU only what is written takes memory."""
    if DEVICE != "cpu":
        return torch.empty(elements, dtype=dtype, device=DEVICE)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    return torch.frombuffer(mmap.mmap(-1, elements * dtype.itemsize, flags=flags), dtype=dtype)


@dataclass
class LatentBatch:
    """Requests of (new tokens, all tokens) over a cache whose unused slots are NaN, as is what lies between rows."""

    dtype: torch.dtype
    dims: Dims
    heads: int
    requests: list[tuple[int, int]]
    block_size: int
    seed: int
    causal: bool = True
    with_lse: bool = True
    padding: int = 0  # query tokens behind the last request's
    slot_gap: int = 0  # elements between rows of the cache, and more between its blocks
    block_gap: int = 0
    heads_outside: bool = False  # of the queries' latents, as a product over heads makes them: [heads, tokens, dims]

    def __post_init__(self) -> None:
        random = generator(self.seed)
        key_dims, value_dims = self.dims
        pages = [-(-length // self.block_size) for _, length in self.requests]
        order = torch.randperm(sum(pages) + 2, generator=random)
        row = key_dims + self.slot_gap
        strides = (self.block_size * row + self.block_gap, row, 1)
        self.cache_buffer = Buffer((len(order), self.block_size, key_dims), strides, 8, self.dtype, self.seed)
        # Pages a request does not have are named all the same: reading them would show as NaN.
        self.block_table = torch.full((len(self.requests), max(pages) + 1), int(order[-1]), dtype=torch.int32)
        of_requests = order[: sum(pages)].split(pages)
        for request, (_, length) in enumerate(self.requests):
            self.block_table[request, : pages[request]] = of_requests[request]
            for page, block in enumerate(of_requests[request].tolist()):
                used = min(self.block_size, length - page * self.block_size)
                values = torch.randn(used, key_dims, generator=random)
                self.cache_buffer.view[block, :used] = values.to(self.dtype).to(DEVICE)
        self.keep()
        self.block_table = self.block_table.to(DEVICE)
        lengths = [new for new, _ in self.requests]
        self.starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(DEVICE)
        self.seq_lens = torch.tensor([length for _, length in self.requests], dtype=torch.int32, device=DEVICE)
        self.tokens = sum(lengths) + self.padding
        self.max_query_len = max(lengths)
        size = (self.tokens, self.heads, value_dims)
        rows = ((self.heads + 3) * value_dims, value_dims, 1)
        outside = (value_dims, (self.tokens + 1) * value_dims, 1)
        self.query = Buffer(size, outside if self.heads_outside else rows, 16, self.dtype, self.seed + 1)
        self.query.fill(torch.randn(size, generator=random).to(self.dtype).to(DEVICE))
        self.rope = None
        if key_dims > value_dims:
            head = NOPE + key_dims - value_dims
            part = (self.tokens, self.heads, key_dims - value_dims)
            self.rope = Buffer(part, (self.heads * head, head, 1), NOPE, self.dtype, self.seed + 2)
            self.rope.fill(torch.randn(part, generator=random).to(self.dtype).to(DEVICE))
        self.out = Buffer(size, rows, 24, self.dtype, self.seed + 3)
        sums = (1, self.heads + 3) if self.seed % 2 else (self.tokens + 5, 1)
        self.lse = Buffer((self.heads, self.tokens), sums, 3, torch.float32, self.seed + 4) if self.with_lse else None
        self.scale = key_dims**-0.5

    @property
    def cache(self) -> torch.Tensor:
        return self.cache_buffer.view

    def keep(self) -> None:
        """What the cache holds now is what it must hold in the end."""
        self.cache_buffer.before = self.cache_buffer.data.clone()

    def problem(self, core: str = "") -> Problem:
        return Problem(self.dtype, self.heads, 1, *self.dims, format="latent", core=core)

    def planner(self, core: str = "", decode_query_len: int = 1) -> AttentionPlanner:
        return AttentionPlanner(self.problem(core), DEVICE, len(self.requests), max(self.tokens, 1), decode_query_len)

    def plan(self, planner: AttentionPlanner) -> AttentionPlan:
        return planner.plan(self.starts, self.seq_lens, self.max_query_len, self.tokens, self.causal)

    def run(self, plan: AttentionPlanner | AttentionPlan | None) -> None:
        """With the planner's plan for it, one that there is already, or without."""
        latent_attention(
            self.query.view,
            None if self.rope is None else self.rope.view,
            self.cache,
            self.block_table,
            self.seq_lens,
            self.starts,
            max_query_len=self.max_query_len,
            scale=self.scale,
            out=self.out.view,
            causal=self.causal,
            lse=None if self.lse is None else self.lse.view,
            plan=self.plan(plan) if isinstance(plan, AttentionPlanner) else plan,
        )

    def reference(self, compute: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Results and logarithms of sums, of the requests' tokens; on the CPU, also for GPUs."""
        real = self.tokens - self.padding
        lse = torch.zeros(self.heads, self.tokens, dtype=compute)
        rope = None if self.rope is None else self.rope.view.cpu()
        cache, table, lens, starts = (x.cpu() for x in (self.cache, self.block_table, self.seq_lens, self.starts))
        out = reference.latent_attention_reference(
            self.query.view.cpu(), rope, cache, table, lens, starts, self.scale, self.causal, compute, lse
        )
        return out[:real], lse[:, :real]

    def check(self) -> None:
        exact, lse = self.reference(torch.float64)
        check_results(self.out, exact, self.reference(self.dtype)[0])
        if self.lse is not None:
            check_lse(self.lse, lse)
        assert self.cache_buffer.untouched() and self.query.untouched()
        assert self.rope is None or self.rope.untouched()
