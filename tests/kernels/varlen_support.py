# SPDX-License-Identifier: Apache-2.0
"""A batch of prompts for the tests of attention over keys and values in two tensors, and what its output must be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from rocmforge_plugin import reference
from rocmforge_plugin.ops.planner import AttentionPlan, AttentionPlanner
from rocmforge_plugin.ops.varlen import varlen_attention
from rocmforge_plugin.problem import Problem

from .attention_support import check_lse, check_results
from .kernel_support import DEVICE, Buffer, generator


@dataclass
class VarlenBatch:
    """Requests of (query tokens, keys); key tokens of no request are NaN, as is what lies between rows."""

    dtype: torch.dtype
    key_dims: int
    value_dims: int
    kv_heads: int
    group: int
    requests: list[tuple[int, int]]
    seed: int
    causal: bool | list[bool] = True  # of all requests, or of each
    with_lse: bool = True
    padding: int = 0  # query tokens behind the last request's
    before: int = 0  # key tokens before the first request's, and behind the last one's
    behind: int = 0
    value_gap: int = 0  # elements between a head's values and the next one's, as where keys and values are projected
    heads_outside: bool = False  # of keys: [heads, tokens, dims] in memory
    window: int = 0

    def __post_init__(self) -> None:
        random = generator(self.seed)
        self.starts = self._starts([new for new, _ in self.requests], 0)
        self.key_starts = self._starts([keys for _, keys in self.requests], self.before)
        self.seq_lens = self.key_starts.diff()
        real, first, last = int(self.starts[-1]), self.before, int(self.key_starts[-1])
        self.tokens, keys = real + self.padding, last + self.behind
        self.max_query_len = max(new for new, _ in self.requests)
        heads = self.kv_heads * self.group
        size, rows = (self.tokens, heads, self.key_dims), ((heads + 1) * self.key_dims, self.key_dims, 1)
        self.query = Buffer(size, rows, 16, self.dtype, self.seed)
        self.query.fill(torch.randn(size, generator=random).to(self.dtype).to(DEVICE))
        size = keys, self.kv_heads, self.key_dims
        rows = (self.key_dims, (keys + 2) * self.key_dims, 1)
        if not self.heads_outside:
            rows = ((self.kv_heads * self.key_dims) + 8, self.key_dims, 1)
        self.key = self._filled(size, rows, 8, first, last, random)
        size = keys, self.kv_heads, self.value_dims
        head = self.value_dims + self.value_gap
        self.value = self._filled(size, (self.kv_heads * head, head, 1), 8, first, last, random)
        size = self.tokens, heads, self.value_dims
        self.out = Buffer(size, ((heads + 2) * self.value_dims, self.value_dims, 1), 24, self.dtype, self.seed + 2)
        sums = (1, heads + 3) if self.seed % 2 else (self.tokens + 5, 1)
        self.lse = Buffer((heads, self.tokens), sums, 3, torch.float32, self.seed + 3) if self.with_lse else None
        self.scale = self.key_dims**-0.5

    @staticmethod
    def _starts(lengths: list[int], first: int) -> torch.Tensor:
        return torch.tensor([first, *lengths]).cumsum(0).to(torch.int32).to(DEVICE)

    def _filled(
        self,
        size: tuple[int, int, int],
        strides: tuple[int, int, int],
        offset: int,
        first: int,
        last: int,
        random: torch.Generator,
    ) -> Buffer:
        buffer = Buffer(size, strides, offset, self.dtype, self.seed + size[2])
        rows = torch.randn(last - first, *size[1:], generator=random)
        buffer.view[first:last] = rows.to(self.dtype).to(DEVICE)
        buffer.before = buffer.data.clone()
        return buffer

    @property
    def problem(self) -> Problem:
        heads, dims = self.kv_heads * self.group, (self.key_dims, self.value_dims)
        return Problem(self.dtype, heads, self.kv_heads, *dims, self.window, format="split")

    @cached_property
    def causal_given(self) -> bool | torch.Tensor:
        """As the op takes it."""
        if isinstance(self.causal, bool):
            return self.causal
        return torch.tensor(self.causal, dtype=torch.int32, device=DEVICE)

    def planner(self, core: str = "") -> AttentionPlanner:
        return AttentionPlanner(replace(self.problem, core=core), DEVICE, len(self.requests), max(self.tokens, 1))

    def plan(self, planner: AttentionPlanner) -> AttentionPlan:
        return planner.plan(self.starts, self.seq_lens, self.max_query_len, self.tokens, self.causal_given)

    def run(self, plan: AttentionPlan | None) -> None:
        varlen_attention(
            self.query.view,
            self.key.view,
            self.value.view,
            self.starts,
            self.key_starts,
            self.seq_lens,
            max_query_len=self.max_query_len,
            scale=self.scale,
            causal=self.causal_given,
            window=self.window,
            out=self.out.view,
            lse=None if self.lse is None else self.lse.view,
            plan=plan,
        )

    def reference(self, compute: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Results and logarithms of sums of all requests' tokens."""
        query, key, value = (buffer.view.cpu() for buffer in (self.query, self.key, self.value))
        out, lse = reference.varlen_attention_reference(
            query,
            key,
            value,
            self.starts.cpu(),
            self.key_starts.cpu(),
            self.scale,
            self.causal if isinstance(self.causal, bool) else torch.tensor(self.causal),
            compute,
            self.window,
        )
        real = self.tokens - self.padding
        return out[:real], lse[:, :real]

    def check(self) -> None:
        exact, lse = self.reference(torch.float64)
        check_results(self.out, exact, self.reference(self.dtype)[0])
        if self.lse is not None:
            check_lse(self.lse, lse)
        assert self.query.untouched() and self.key.untouched() and self.value.untouched()
