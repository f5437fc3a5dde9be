# SPDX-License-Identifier: Apache-2.0
"""What the elementwise benchmark computes: a layer's tensors between QKV product and attention, and fp64 results."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rocmforge_plugin import reference

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
MASKS = ((8, 32, 2048, 2048), (32, 64, 8256), (1, 16384, 16384))  # scores: [..., queries, keys]


@dataclass(frozen=True)
class Model:
    """A layer's shape: which heads, how much of each is rotated, and whether pairs are neighbours (GPT-J) or halves."""

    name: str
    heads: int
    kv_heads: int
    rotary_dim: int
    interleaved: bool


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
        found = self.found(kind, query)
        errors = [
            ((found[name].double() - value).norm() / value.norm()).item() for name, value in self.expected(kind).items()
        ]
        others = torch.ones(self.pages.shape[0] * BLOCK, dtype=torch.bool, device=self.pages.device)
        others[self.slots] = False
        if not self.pages.flatten(0, 1)[others].isnan().all():
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


def batches(model: Model, tokens: int, device: str = "cuda") -> list[Batch]:
    """Sets that are together larger than the L2 cache."""
    size = 2 * tokens * (model.heads + 2 * model.kv_heads) * HEAD
    return [Batch(model, tokens, device, seed) for seed in range(max(1, min(MOST_SETS, -(-L2_BYTES // size))))]


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
