# SPDX-License-Identifier: Apache-2.0
"""Cases of multi-head latent attention (MLA): decode from a paged latent cache, and prefill of the expanded heads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .attention_cases import L2_BYTES, spread

LATENT, ROPE = 512, 64  # elements of a cached row: the latent, which is the value as well, and the rotated key
KEY = LATENT + ROPE
NOPE = 192  # of a head of GLM-4.7-Flash before absorption, beside ROPE; it sets the scale


def causal_pairs(queries: int, keys: int) -> float:
    """Pairs of a query and a key that it sees, of queries at the end of the keys."""
    return queries * (keys - queries) + queries * (queries + 1) / 2


@dataclass(frozen=True)
class Case:
    """Decode: requests of query_len new tokens each, at the end of `lens` cached rows that all heads share."""

    name: str
    lens: tuple[int, ...]
    heads: int
    query_len: int = 1
    page: int = 64
    dtype: torch.dtype = torch.bfloat16

    @property
    def tokens(self) -> int:
        return len(self.lens) * self.query_len

    @property
    def scale(self) -> float:
        return (NOPE + ROPE) ** -0.5

    @property
    def flops(self) -> float:
        """Of both products, over the pairs that the causal mask keeps."""
        return 2.0 * self.heads * (KEY + LATENT) * sum(causal_pairs(self.query_len, n) for n in self.lens)

    @property
    def bytes(self) -> float:
        """Every cached row read once, queries read and outputs written once."""
        return self.dtype.itemsize * (KEY * sum(self.lens) + (KEY + LATENT) * self.heads * self.tokens)


@dataclass(frozen=True)
class PrefillCase:
    """Prefill: `queries` new tokens on `keys` keys, each head with its own keys and values, and log-sum-exp."""

    name: str
    queries: int
    keys: int
    heads: int
    key_dims: int
    value_dims: int
    causal: bool
    dtype: torch.dtype = torch.bfloat16

    @property
    def scale(self) -> float:
        return self.key_dims**-0.5

    @property
    def flops(self) -> float:
        pairs = causal_pairs(self.queries, self.keys) if self.causal else self.queries * self.keys
        return 2.0 * self.heads * (self.key_dims + self.value_dims) * pairs

    @property
    def bytes(self) -> float:
        """Everything once: queries and keys, values and outputs."""
        rows = self.queries + self.keys
        return self.heads * (self.dtype.itemsize * (self.key_dims + self.value_dims) * rows + 4 * self.queries)


def _decode(heads: int, *cases: tuple[str, tuple[int, ...]]) -> tuple[Case, ...]:
    return tuple(Case(f"{name} h{heads}", lens, heads) for name, lens in cases)


# 20 heads are GLM-4.7-Flash's, 10 and 5 those of a rank of two and four; 16 are DeepSeek-V2-Lite's, 64 Kimi K2's, 128
# DeepSeek-V3's.
CASES = (
    *_decode(
        20,
        ("b1 8k", (8192,)),
        ("b1 32k", (32768,)),
        ("b1 128k", (131072,)),
        ("b16 8k", (8192,) * 16),
        ("b64 4k", (4096,) * 64),
        ("b128 2k", (2048,) * 128),
        ("b32 512..32k", spread(512, 32768, 32)),
    ),
    *_decode(10, ("b16 8k", (8192,) * 16)),
    *_decode(5, ("b16 8k", (8192,) * 16)),
    Case("b16 8k h20, 2 tokens a request", (8192,) * 16, 20, query_len=2),
    *_decode(16, ("b32 4k", (4096,) * 32)),
    *_decode(64, ("b16 8k", (8192,) * 16)),
    *_decode(128, ("b1 32k", (32768,)), ("b32 4k", (4096,) * 32)),
)
AMD = Case("16 x 8192 keys, 20 heads", (8192,) * 16, 20, page=16)  # what benchmarks/amd counts and compiles Triton for
PREFILL = (
    PrefillCase("1x2k, 20 heads 256/256, causal", 2048, 2048, 20, 256, 256, True),
    PrefillCase("1x8k, 20 heads 256/256, causal", 8192, 8192, 20, 256, 256, True),
    PrefillCase("context: 2k queries on 16k keys, 20 heads 256/256, full", 2048, 16384, 20, 256, 256, False),
    PrefillCase("1x4k, 16 heads 192/128, causal", 4096, 4096, 16, 192, 128, True),
)


class Inputs:
    """One set of a decode case's tensors: as ours takes them, and `query` for peers that want both parts in a row."""

    def __init__(self, case: Case, seed: int, device: str = "cuda") -> None:
        generator = torch.Generator(device=device).manual_seed(seed)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, dtype=case.dtype, device=device, generator=generator)

        pages = [-(-n // case.page) for n in case.lens]
        order = torch.randperm(sum(pages), device=device, generator=generator).int()
        self.block_table = torch.zeros(len(pages), max(pages), dtype=torch.int32, device=device)
        for r, of_request in enumerate(order.split(pages)):
            self.block_table[r, : len(of_request)] = of_request
        self.pages = random(sum(pages), case.page, KEY)
        self.query_latent = random(case.tokens, case.heads, LATENT)
        # The end of a projection's heads, as in vLLM, hence strided.
        self.query_rope = random(case.tokens, case.heads, NOPE + ROPE)[..., NOPE:]
        self.query = torch.cat((self.query_latent, self.query_rope), -1)
        self.out = torch.full_like(self.query_latent, float("nan"))
        self.seq_lens = torch.tensor(case.lens, dtype=torch.int32, device=device)
        self.query_start = torch.arange(0, case.tokens + 1, case.query_len, dtype=torch.int32, device=device)


class PrefillInputs:
    """One set of a prefill case's tensors: values are the end of the rows that one projection makes, as in vLLM."""

    def __init__(self, case: PrefillCase, seed: int, device: str = "cuda") -> None:
        generator = torch.Generator(device=device).manual_seed(seed)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(shape, dtype=case.dtype, device=device, generator=generator)

        nope = case.key_dims - ROPE
        self.query = random(case.queries, case.heads, case.key_dims)
        self.key = random(case.keys, case.heads, case.key_dims)
        self.value = random(case.keys, case.heads, nope + case.value_dims)[..., nope:]
        self.out = torch.full((case.queries, case.heads, case.value_dims), float("nan"), device=device).to(case.dtype)
        self.lse = torch.full((case.heads, case.queries), float("nan"), device=device)
        self.query_start = torch.tensor([0, case.queries], dtype=torch.int32, device=device)
        self.key_start = torch.tensor([0, case.keys], dtype=torch.int32, device=device)
        self.seq_lens = torch.tensor([case.keys], dtype=torch.int32, device=device)


def triton_splits(longest: int, compute_units: int) -> int:
    """In how many parts vLLM's TRITON_MLA has its kernel take each request's keys."""
    return min(1 << (max(1, longest // 512) - 1).bit_length(), 2 * compute_units)


def sets_of(case: Case | PrefillCase) -> int:
    """How many sets of inputs are larger together than the L2 cache."""
    return max(1, min(16, int(-(-L2_BYTES // case.bytes))))


def _rows(case: Case, inputs: Inputs) -> Iterator[tuple[int, torch.Tensor]]:
    """A few tokens of the first and the last request, each with the cached rows that it sees."""
    for r in sorted({0, len(case.lens) - 1}):
        length = case.lens[r]
        table = inputs.block_table[r, : -(-length // case.page)].long()
        rows = inputs.pages[table].flatten(0, 1)[:length].double()
        for i in sorted({0, case.query_len - 1}):
            yield r * case.query_len + i, rows[: length - case.query_len + i + 1]


def sampled_error(case: Case, inputs: Inputs, out: torch.Tensor) -> float:
    """Norm of the error of `out` [tokens, heads, LATENT] over the norm of the result, in fp64, at a few tokens."""
    wrong = norm = 0.0
    for token, rows in _rows(case, inputs):
        scores = inputs.query[token].double() @ rows.T * case.scale
        expected = scores.softmax(-1) @ rows[:, :LATENT]
        wrong += (out[token].double() - expected).norm().item() ** 2
        norm += expected.norm().item() ** 2
    return (wrong / norm) ** 0.5


def sampled_prefill_error(
    case: PrefillCase, inputs: PrefillInputs, out: torch.Tensor, lse: torch.Tensor | None
) -> float:
    """As `sampled_error`, at a few queries; the largest error of the log-sum-exp [heads, queries] if that is more."""
    tokens = torch.tensor(sorted({0, case.queries // 3, case.queries - 1}), device=out.device)
    scores = torch.einsum("qhd,khd->hqk", inputs.query[tokens].double(), inputs.key.double()) * case.scale
    if case.causal:
        seen = case.keys - case.queries + 1 + tokens
        scores.masked_fill_(torch.arange(case.keys, device=out.device) >= seen[:, None], -torch.inf)
    expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), inputs.value.double())
    errors = [(out[tokens].double() - expected).norm() / expected.norm()]
    if lse is not None:
        errors.append((lse[:, tokens].double() - scores.logsumexp(-1)).abs().max())
    return torch.stack(errors).max().item()  # NaN if one is
