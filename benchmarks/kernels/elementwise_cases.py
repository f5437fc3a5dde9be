# SPDX-License-Identifier: Apache-2.0
"""What the elementwise benchmark computes: a layer's tensors between its products and attention, and fp64 results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from rocmforge_plugin import reference

from .mla_cases import LATENT, ROPE

HEAD, BLOCK, EPS = 128, 16, 1e-5
POSITIONS = 131072
L2_BYTES = 128 << 20  # twice an H200's and more: sets of buffers are rotated until they exceed it,
MOST_SETS = 256  # or there are this many: the sets of a batch of one token stay in the L2 cache
# Kernels: what each computes from a layer's query, key and value.
ROTARY, WRITE, BOTH, BOTH_OUT, NORM = KINDS = (
    "rotary",
    "kv write",
    "rotary + write",
    "rotary + write, q out",
    "norm + rotary + write",
)
# The same of a layer with latent attention.
LATENT_WRITE, LATENT_BOTH = LATENT_KINDS = ("latent write", "rotary + latent write")
MASKS = ((8, 32, 2048, 2048), (32, 64, 8256), (1, 16384, 16384))  # scores: [..., queries, keys]


@dataclass(frozen=True)
class Model:
    """A layer's shape: which heads, how much of each is rotated, and whether pairs are neighbours (GPT-J) or halves."""

    name: str
    heads: int
    kv_heads: int
    rotary_dim: int
    interleaved: bool
    kinds: ClassVar[Sequence[str]] = KINDS


@dataclass(frozen=True)
class LatentModel:
    """A layer with latent attention: heads, what each has of elements before the ROPE that are rotated, and pairs."""

    name: str
    heads: int
    nope: int
    interleaved: bool
    kinds: ClassVar[Sequence[str]] = LATENT_KINDS


LATENT_MODELS = (LatentModel("GLM-4.7-Flash 20", 20, 192, True), LatentModel("DeepSeek-V3 128", 128, 128, True))
MODELS = (
    Model("GLM-4-9B 32/2", 32, 2, 64, True),
    Model("GLM-4.6 96/8", 96, 8, 64, False),
    Model("full rotary 32/8", 32, 8, 128, False),
)


class Batch:
    """One set of tensors of a layer for `tokens` tokens, bf16.

    qkv [tokens, (heads + 2 kv_heads) * HEAD] is what the QKV product leaves; query, key and value are views of it. The
    cache is logically [blocks, kv_heads, BLOCK, 2 * HEAD] and lies in memory token by token, as vLLM has it by default:
    key_cache and value_cache are the views [blocks, BLOCK, kv_heads, HEAD] that vLLM's own operations take.
    """

    def __init__(self, model: Model, tokens: int, device: str = "cuda", seed: int = 0) -> None:
        self.model, self.tokens = model, tokens
        generator = torch.Generator(device=device).manual_seed(seed)
        options = {"dtype": torch.bfloat16, "device": device}
        sizes = [n * HEAD for n in (model.heads, model.kv_heads, model.kv_heads)]
        self.start = torch.randn(tokens, sum(sizes), generator=generator, **options)
        self.qkv = torch.empty_like(self.start)
        self.query, self.key, self.value = self.qkv.split(sizes, dim=-1)
        self.out = torch.empty(tokens, sizes[0], **options)
        self.positions = torch.randint(0, POSITIONS, (tokens,), device=device, generator=generator)
        blocks = tokens // BLOCK + 8
        self.pages = torch.empty(blocks, BLOCK, model.kv_heads, 2 * HEAD, **options)
        self.kv_cache = self.pages.transpose(1, 2)
        self.key_cache, self.value_cache = self.pages.split(HEAD, -1)
        self.slots = torch.randperm(blocks * BLOCK, device=device, generator=generator)[:tokens]
        self.q_weight, self.k_weight = (1 + 0.1 * torch.randn(HEAD, generator=generator, **options) for _ in range(2))
        self.table = table(model.rotary_dim, device)
        self.one = torch.ones((), device=device)  # vLLM's scales of keys and values
        self.reset()

    def reset(self) -> None:
        """As before any call; NaN where a call should write."""
        self.qkv.copy_(self.start)
        self.pages.fill_(float("nan"))
        self.out.fill_(float("nan"))

    def heads(self, x: torch.Tensor) -> torch.Tensor:
        """[tokens, n * HEAD] as [tokens, n, HEAD]."""
        return x.unflatten(1, (x.shape[1] // HEAD, HEAD))

    @staticmethod
    def bytes_of(model: Model, tokens: int, kind: str) -> int:
        """Read and written at least: what changes both, what moves both, the table's rows once a token."""
        size = 2 * 2 * tokens * HEAD
        rows = 2 * tokens * model.rotary_dim
        part = model.rotary_dim / HEAD
        if kind == ROTARY:
            return int(size * (model.heads + model.kv_heads) * part + rows)
        if kind == WRITE:
            return size * 2 * model.kv_heads
        return int(size * (model.heads * (part if kind == BOTH else 1.0) + 2 * model.kv_heads) + rows)

    def expected(self, kind: str) -> dict[str, torch.Tensor]:
        """Name of each result and its fp64 value, heads apart; from `start`, whatever has been called since."""
        model = self.model
        q, k, v = (
            self.heads(x).double()
            for x in self.start.split([n * HEAD for n in (model.heads, model.kv_heads, model.kv_heads)], dim=-1)
        )
        if kind == NORM:
            q, k = reference.rms_norm(q, self.q_weight, EPS), reference.rms_norm(k, self.k_weight, EPS)
        if kind != WRITE:
            q, k = (
                reference.rotary(self.positions, x, self.table, head_size=HEAD, interleaved=model.interleaved)
                for x in (q, k)
            )
        if kind == ROTARY:
            return {"query": q, "key": k}
        stored = {"stored keys": k, "stored values": v}
        return stored if kind == WRITE else {"query": q} | stored

    def found(self, kind: str, query: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """What a call left behind, by `expected`'s names; `query` is what it returned, None if it worked in place."""
        q = self.heads(self.query if query is None else query)
        if kind == ROTARY:
            return {"query": q, "key": self.heads(self.key)}
        rows = self.pages.flatten(0, 1)[self.slots]
        stored = {"stored keys": rows[..., :HEAD], "stored values": rows[..., HEAD:]}
        return stored if kind == WRITE else {"query": q} | stored

    def error(self, kind: str, query: torch.Tensor | None) -> float:
        """Largest over the results of the error's norm over the result's; NaN where nothing was written, infinite if a
        slot was written that is not a token's.
        """
        return largest_error(self.found(kind, query), self.expected(kind), self.pages, self.slots)


class LatentBatch:
    """One set of tensors of a layer with latent attention for `tokens` tokens, bf16.

    query [tokens, heads, nope + ROPE] is what the query's product leaves, projected [tokens, LATENT + ROPE] the
    latent's; query_rope and k_rope are views of their last ROPE elements, and latent [tokens, LATENT] is what a norm
    makes of the rest of the latter. The cache is pages [blocks, BLOCK, LATENT + ROPE].
    """

    def __init__(self, model: LatentModel, tokens: int, device: str = "cuda", seed: int = 0) -> None:
        self.model, self.tokens = model, tokens
        generator = torch.Generator(device=device).manual_seed(seed)
        options = {"dtype": torch.bfloat16, "device": device}
        self.query_start = torch.randn(tokens, model.heads, model.nope + ROPE, generator=generator, **options)
        self.projected_start = torch.randn(tokens, LATENT + ROPE, generator=generator, **options)
        self.query, self.projected = torch.empty_like(self.query_start), torch.empty_like(self.projected_start)
        self.query_rope, self.k_rope = self.query[..., model.nope :], self.projected[:, None, LATENT:]
        self.latent = torch.randn(tokens, LATENT, generator=generator, **options)
        self.positions = torch.randint(0, POSITIONS, (tokens,), device=device, generator=generator)
        blocks = tokens // BLOCK + 8
        self.pages = torch.empty(blocks, BLOCK, LATENT + ROPE, **options)
        self.slots = torch.randperm(blocks * BLOCK, device=device, generator=generator)[:tokens]
        self.table = table(ROPE, device)
        self.one = torch.ones((), device=device)  # vLLM's scale of the cache
        self.reset()

    def reset(self) -> None:
        """As before any call; NaN where a call should write."""
        self.query.copy_(self.query_start)
        self.projected.copy_(self.projected_start)
        self.pages.fill_(float("nan"))

    @staticmethod
    def bytes_of(model: LatentModel, tokens: int, kind: str) -> int:
        """Read and written at least, as of a `Batch`; rotated keys are written twice, in place and to the cache."""
        size = 2 * 2 * tokens * (LATENT + ROPE)
        return size if kind == LATENT_WRITE else size + 2 * tokens * ROPE * (2 * model.heads + 1 + 1)

    def expected(self, kind: str) -> dict[str, torch.Tensor]:
        """Name of each result and its fp64 value, from what was there before any call."""
        query = self.query_start[..., self.model.nope :].double()
        key = self.projected_start[:, None, LATENT:].double()
        if kind == LATENT_BOTH:
            query, key = (
                reference.rotary(self.positions, x, self.table, head_size=ROPE, interleaved=self.model.interleaved)
                for x in (query, key)
            )
        return {"query": query, "key": key, "stored latents": self.latent.double(), "stored keys": key[:, 0]}

    def found(self) -> dict[str, torch.Tensor]:
        """What a call left behind, by `expected`'s names."""
        stored = self.pages.flatten(0, 1)[self.slots]
        rows = {"stored latents": stored[:, :LATENT], "stored keys": stored[:, LATENT:]}
        return {"query": self.query_rope, "key": self.k_rope} | rows

    def error(self, kind: str) -> float:
        """As of a `Batch`."""
        return largest_error(self.found(), self.expected(kind), self.pages, self.slots)


def largest_error(
    found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], pages: torch.Tensor, slots: torch.Tensor
) -> float:
    """Of the error's norm over the result's; NaN where nothing was written, infinite where another slot was."""
    errors = [((found[name].double() - value).norm() / value.norm()).item() for name, value in expected.items()]
    others = torch.ones(pages.shape[0] * BLOCK, dtype=torch.bool, device=pages.device)
    others[slots] = False
    if not pages.flatten(0, 1)[others].isnan().all():
        return float("inf")
    return max(errors) if all(e == e for e in errors) else float("nan")


TABLES: dict[tuple[int, str], torch.Tensor] = {}


def table(rotary_dim: int, device: str) -> torch.Tensor:
    """Cosines, then sines, [POSITIONS, rotary_dim] bf16: one for all layers, as in a model."""
    if (rotary_dim, device) not in TABLES:
        pairs = torch.arange(0, rotary_dim, 2, dtype=torch.float64, device=device) / rotary_dim
        angles = torch.arange(POSITIONS, dtype=torch.float64, device=device)[:, None] * 10000.0**-pairs
        TABLES[rotary_dim, device] = torch.cat((angles.cos(), angles.sin()), -1).to(torch.bfloat16)
    return TABLES[rotary_dim, device]


def batches(model: Model | LatentModel, tokens: int, device: str = "cuda") -> Sequence[Batch | LatentBatch]:
    """Sets that are together larger than the L2 cache."""

    def seeds(size: int) -> range:
        return range(max(1, min(MOST_SETS, -(-L2_BYTES // size))))

    if isinstance(model, LatentModel):
        size = LatentBatch.bytes_of(model, tokens, LATENT_WRITE)
        return [LatentBatch(model, tokens, device, seed) for seed in seeds(size)]
    size = 2 * tokens * (model.heads + 2 * model.kv_heads) * HEAD
    return [Batch(model, tokens, device, seed) for seed in seeds(size)]


class Mask:
    """Scores [..., queries, keys], of which each query sees its own key and those before it."""

    def __init__(self, shape: tuple[int, ...], device: str = "cuda") -> None:
        generator = torch.Generator(device=device).manual_seed(0)
        self.start = torch.randn(shape, dtype=torch.bfloat16, device=device, generator=generator)
        self.scores = self.start.clone()
        queries, keys = shape[-2:]
        self.cache_len = keys - queries
        self.future = (
            torch.arange(keys, device=device)[None, :] > torch.arange(queries, device=device)[:, None] + self.cache_len
        )
        self.bytes = 2 * self.scores.numel() // (queries * keys) * queries * (queries - 1) // 2  # written, none read

    def reset(self) -> None:
        self.scores.copy_(self.start)

    def error(self) -> float:
        """Elements that are not, bit for bit, as they should be, for each that should be -inf."""
        wrong = self.scores != self.start.masked_fill(self.future, float("-inf"))
        return wrong.sum().item() / (self.bytes // 2)
