# SPDX-License-Identifier: Apache-2.0
"""Every operation against its reference on this machine's device, and the memory bandwidth that decoding reaches.

Small enough for a minute on any GPU. A case passes when its largest error is at most twice that of the same computation
done naively in the same dtype, when it wrote nothing it should not have, and when a kernel was launched for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch

import rocmforge_plugin
from rocmforge_plugin import ops, reference, served
from rocmforge_plugin.device import emulation_label, target_of
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem

BLOCK = served.BLOCK_MULTIPLE
HEADS = ((32, 2), (8, 8), (4, 2), (6, 2), (12, 1), (4, 4), (5, 1))  # query and KV heads, one pair for each head size


@dataclass
class Case:
    """One check: `run` returns (what came out, what should have, what doing it naively gives)."""

    name: str
    run: Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@dataclass
class Batch:
    """A paged batch whose unused slots hold NaN."""

    query: torch.Tensor
    cache: torch.Tensor
    block_table: torch.Tensor
    seq_lens: torch.Tensor
    query_start_loc: torch.Tensor

    def arguments(self) -> tuple[torch.Tensor, ...]:
        """As the operation and its reference take them."""
        return self.query, self.cache, self.block_table, self.seq_lens, self.query_start_loc


def make_batch(
    requests: list[tuple[int, int]],
    heads: int,
    kv_heads: int,
    head_size: int,
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
) -> Batch:
    """A batch of (query length, context length with the queries) requests on pages in random order."""
    generator = torch.Generator().manual_seed(seed)
    pages = [-(-length // BLOCK) for _, length in requests]
    order = torch.randperm(sum(pages) + 1, generator=generator).tolist()
    cache = torch.full((len(order), kv_heads, BLOCK, 2 * head_size), float("nan"), dtype=dtype)
    table = torch.zeros(len(requests), max(pages), dtype=torch.int32)
    for row, (_, length) in enumerate(requests):
        for page in range(pages[row]):
            block = order.pop()
            table[row, page] = block
            filled = min(BLOCK, length - page * BLOCK)
            cache[block, :, :filled] = torch.randn(kv_heads, filled, 2 * head_size, generator=generator).to(dtype)
    starts = torch.tensor([0, *(query for query, _ in requests)]).cumsum(0).to(torch.int32)
    query = torch.randn(int(starts[-1]), heads, head_size, generator=generator).to(dtype)
    lengths = torch.tensor([length for _, length in requests], dtype=torch.int32)
    return Batch(*(part.to(device) for part in (query, cache, table, lengths, starts)))


def prepare(batch: Batch, *, window: int = 0, sinks: torch.Tensor | None = None) -> Callable[[], torch.Tensor]:
    """Plan the batch once; the function returned runs attention into an output that held NaN before."""
    tokens, heads, head_size = batch.query.shape
    longest = int((batch.query_start_loc[1:] - batch.query_start_loc[:-1]).max())
    problem = Problem(batch.query.dtype, heads, batch.cache.shape[1], head_size, head_size, window)
    planner = AttentionPlanner(problem, batch.query.device, len(batch.seq_lens), tokens)
    plan = planner.plan(batch.query_start_loc, batch.seq_lens, longest, tokens)
    out = torch.full_like(batch.query, float("nan"))

    def attend() -> torch.Tensor:
        paged_attention(
            *batch.arguments(),
            max_query_len=longest,
            scale=head_size**-0.5,
            out=out,
            window=window,
            sinks=sinks,
            plan=plan,
        )
        return out

    return attend


def _attention(
    requests: list[tuple[int, int]],
    heads: int,
    kv_heads: int,
    head_size: int,
    dtype: torch.dtype,
    device: torch.device,
    window: int = 0,
    sinks: bool = False,
) -> Callable[[], tuple[torch.Tensor, ...]]:
    def run() -> tuple[torch.Tensor, ...]:
        batch = make_batch(requests, heads, kv_heads, head_size, dtype, device)
        sink = torch.linspace(-2, 2, heads, device=device) if sinks else None
        known = {"scale": head_size**-0.5, "window": window, "sinks": sink}
        return (
            prepare(batch, window=window, sinks=sink)(),
            reference.paged_attention_reference(*batch.arguments(), **known),
            reference.paged_attention_naive(*batch.arguments(), **known),
        )

    return run


# Of the third request's tokens the middle ones, and some that it has not as yet; and the fourth's all.
RANGES = [[(0, 0), (0, 0)], [(3, 9), (0, 0)], [(70, 90), (98, 110)], [(0, 29), (0, 0)]]
# What attention can be asked for beside a window and sinks, as its op and the reference take it, and the heads' dims.
KINDS: dict[str, tuple[int, dict[str, Any]]] = {
    "short heads": (40, {}),
    "heads between": (104, {"window": 20}),
    "soft cap": (128, {"soft_cap": 2.0}),
    "soft cap in a window": (64, {"soft_cap": 2.0, "window": 20}),
    "ALiBi": (64, {"alibi_slopes": True}),
    "ALiBi of the distance's root": (128, {"alibi_slopes": True, "alibi_sqrt": True}),
    "window to both sides": (80, {"window": 20, "causal": False}),
    "causal by request": (128, {"causal": [True, False, False, True]}),
    "ranges": (128, {"window": 20, "ranges": RANGES}),
    "ranges in a window": (256, {"window": 20, "ranges": RANGES, "ranges_clamped": True}),
    "ranges of long heads": (512, {"ranges": RANGES}),
    "soft cap in ranges": (256, {"soft_cap": 2.0, "ranges": RANGES}),
}


def _kind(
    head_size: int, options: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, ...]:
    batch = make_batch([(1, 300), (3, 10), (40, 100), (30, 30)], 6, 2, head_size, dtype, device)
    known: dict[str, Any] = {"scale": head_size**-0.5, **options}
    if "alibi_slopes" in options:
        known["alibi_slopes"] = 2.0 ** -torch.arange(1, 7, device=device)
    for name in ("causal", "ranges"):
        if isinstance(options.get(name), list):
            known[name] = torch.tensor(options[name], dtype=torch.int32, device=device)
    out = torch.full_like(batch.query, float("nan"))
    paged_attention(*batch.arguments(), max_query_len=40, out=out, **known)
    return (
        out,
        reference.paged_attention_reference(*batch.arguments(), **known),
        reference.paged_attention_naive(*batch.arguments(), **known),
    )


def _mask(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    scores = torch.randn(2, 3, 17, 50, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    expected = reference.causal_mask(scores, 33)
    return ops.causal_mask(scores.clone(), 33), expected, expected


def _rotary(dtype: torch.dtype, device: torch.device, interleaved: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(33, 8 * 128, generator=generator).to(device, dtype)
    angles = torch.arange(512)[:, None] * 10000.0 ** (-torch.arange(32) / 32)
    table = torch.cat((angles.cos(), angles.sin()), dim=1).to(device, dtype)
    positions = torch.randint(0, 512, (33,), generator=generator).to(device)
    exact, naive = (
        reference.rotary(positions, query, table, head_size=128, interleaved=interleaved, compute=compute)
        for compute in (torch.float64, dtype)
    )
    out = query.clone()
    ops.rotary(positions, out, None, table, head_size=128, interleaved=interleaved)
    return out, exact, naive


def _kv_write(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    key, value = (torch.randn(20, 2, 128, generator=generator).to(device, dtype) for _ in range(2))
    slots = torch.randperm(6 * BLOCK, generator=generator)[:20]
    slots[[3, 11]] = -1
    cache = torch.full((6, 2, BLOCK, 256), 7.0, device=device, dtype=dtype)
    expected = reference.kv_write(key, value, cache, slots)
    ops.kv_write(key, value, cache, slots.to(device))
    return cache, expected, expected


def _latent_kv_write(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(20, 576, generator=generator).to(device, dtype)
    slots = torch.randperm(6 * BLOCK, generator=generator)[:20]
    slots[[3, 11]] = -1
    cache = torch.full((6, BLOCK, 576), 7.0, device=device, dtype=dtype)
    latent, rope = rows.split([512, 64], -1)
    expected = reference.latent_kv_write(latent, rope, cache, slots)
    ops.latent_kv_write(latent, rope, cache, slots.to(device))
    return cache, expected, expected


def _varlen(
    dims: tuple[int, int], causal: bool, window: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, ...]:
    key_dims, value_dims = dims
    generator = torch.Generator().manual_seed(5)
    # Values lie behind what keys are made of, as a projection leaves both. A request has no keys.
    new, lengths = [40, 17, 3], [40, 33, 40 * causal]
    starts, key_starts = (torch.tensor([0, *n]).cumsum(0).to(device, torch.int32) for n in (new, lengths))
    query = torch.randn(sum(new), 4, key_dims, generator=generator).to(device, dtype)
    rows = torch.randn(sum(lengths), 4, 2 * key_dims + value_dims, generator=generator).to(device, dtype)
    tensors = query, rows[..., :key_dims], rows[..., 2 * key_dims :], starts, key_starts
    scale = key_dims**-0.5
    out = torch.full((sum(new), 4, value_dims), float("nan"), device=device, dtype=dtype)
    known: dict[str, Any] = {"scale": scale, "causal": causal, "window": window}
    ops.varlen_attention(*tensors, key_starts.diff(), max_query_len=40, out=out, **known)
    exact, naive = (
        reference.varlen_attention_reference(*tensors, **known, compute=compute)[0]
        for compute in (torch.float64, dtype)
    )
    return out, exact, naive


def _latent(dims: tuple[int, int], heads: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    key_dims, value_dims = dims
    # Decode, drafts to verify, a chunk of a prompt. A row of the cache is as long as a key and a value of half as many.
    batch = make_batch([(1, 300), (3, 50), (40, 100), (1, 1)], 1, 1, key_dims // 2, dtype, device)
    cache, tokens = batch.cache[:, 0], len(batch.query)
    query = torch.randn(tokens, heads, key_dims, generator=torch.Generator().manual_seed(6)).to(device, dtype)
    rope = query[..., value_dims:] if key_dims > value_dims else None
    tensors = query[..., :value_dims], rope, cache, batch.block_table, batch.seq_lens, batch.query_start_loc
    scale = key_dims**-0.5
    out = torch.full((tokens, heads, value_dims), float("nan"), device=device, dtype=dtype)
    ops.latent_attention(*tensors, max_query_len=40, scale=scale, out=out)
    exact, naive = (
        reference.latent_attention_reference(*tensors, scale, compute=compute) for compute in (torch.float64, dtype)
    )
    return out, exact, naive


def cases(device: torch.device) -> Iterator[Case]:
    """Every check of this device's dtypes."""
    for short in served.DTYPES[target_of(device)]:
        dtype: torch.dtype = getattr(torch, short)
        yield Case(f"causal mask {short}", partial(_mask, dtype, device))
        for interleaved in (False, True):
            pairs = "GPT-J" if interleaved else "NeoX"
            yield Case(f"rotary {pairs} {short}", partial(_rotary, dtype, device, interleaved))
        yield Case(f"KV write {short}", partial(_kv_write, dtype, device))
        yield Case(f"latent KV write {short}", partial(_latent_kv_write, dtype, device))
        for head_size, (heads, kv_heads) in zip((128, *served.HEAD_SIZES), cycle(HEADS)):
            shape = f"{heads}/{kv_heads} x {head_size} {short}"
            fixed = (heads, kv_heads, head_size, dtype, device)
            yield Case(f"attention decode {shape}", _attention([(1, n) for n in (1, 15, 16, 17, 300)], *fixed))
            yield Case(f"attention prefill {shape}", _attention([(33, 33), (70, 70)], *fixed))
            yield Case(f"attention mixed {shape}", _attention([(1, 70), (40, 100), (1, 1), (3, 50)], *fixed))
        fixed = (8, 2, 64, dtype, device)
        yield Case(f"attention window {short}", _attention([(1, 200), (40, 100)], *fixed, window=50))
        dims_of = {format: heads for format, _, heads in served.PROBLEMS}
        for dims, heads in zip(dims_of["latent"], cycle((20, 16, 128))):
            shape = f"{heads} x {dims[0]}/{dims[1]} {short}"
            yield Case(f"latent attention {shape}", partial(_latent, dims, heads, dtype, device))
        for dims, causal in zip(dims_of["split"], cycle((True, False))):
            shape = f"{'causal' if causal else 'full'} {dims[0]}/{dims[1]} {short}"
            yield Case(f"varlen attention {shape}", partial(_varlen, dims, causal, 0, dtype, device))
        for size in (40, 72, 88, 104, 200):  # vision encoders': in kernels for longer ones
            shape = f"in a window to both sides {size} {short}"
            yield Case(f"varlen attention {shape}", partial(_varlen, (size, size), False, 12, dtype, device))
        for kind, (head_size, options) in KINDS.items():
            yield Case(f"attention of {kind} {short}", partial(_kind, head_size, options, dtype, device))
        yield Case(f"attention sinks {short}", _attention([(1, 200), (40, 100)], *fixed, sinks=True))


def check(case: Case) -> str | None:
    """What is wrong with a case, None when it passes."""
    before = sum(rocmforge_plugin.launches().values())
    out, exact, naive = case.run()
    if sum(rocmforge_plugin.launches().values()) == before:
        return "no kernel was launched"
    out, exact, naive = (part.double() for part in (out, exact, naive))
    same = out == exact  # infinities of a mask, and whatever else is exact
    error = (out - exact).abs().masked_fill(same, 0)
    bound = 2 * (naive - exact).abs().masked_fill(naive == exact, 0).max() + 1e-5
    # A NaN is not at most the bound.
    if not bool(error.max() <= bound):
        return f"largest error {error.max():.3g}, allowed {bound:.3g}"
    return None


def decode_bandwidth(device: torch.device) -> tuple[float, float]:
    """GB/s on a GPU: keys and values that a decode step reads, and a plain copy; each the best of several runs."""
    requests, length, heads, kv_heads, head_size = 16, 8192, 32, 2, 128
    blocks = requests * length // BLOCK
    cache = torch.randn(blocks, kv_heads, BLOCK, 2 * head_size, device=device).to(torch.bfloat16)
    batch = Batch(
        torch.randn(requests, heads, head_size, device=device).to(torch.bfloat16),
        cache,
        torch.randperm(blocks, device=device).to(torch.int32).view(requests, -1),
        torch.full((requests,), length, dtype=torch.int32, device=device),
        torch.arange(requests + 1, dtype=torch.int32, device=device),
    )
    copied = torch.empty_like(cache)
    size = cache.numel() * cache.element_size()
    return (size / best_seconds(prepare(batch)) / 1e9, 2 * size / best_seconds(lambda: copied.copy_(cache)) / 1e9)


def best_seconds(run: Callable[[], object], times: int = 20) -> float:
    """Shortest time of `run` on the GPU's clock."""
    run()
    best = float("inf")
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return best


def run(device: torch.device, say: Callable[[str], None] = print) -> int:
    """Run everything, print one line a case; the number of cases that failed."""
    say(rocmforge_plugin.summary(device))
    failed = total = 0
    for case in cases(device):
        total += 1
        wrong = check(case)
        failed += wrong is not None
        say(f"{'ok  ' if wrong is None else 'FAIL'} {case.name}{'' if wrong is None else ': ' + wrong}")
    if device.type != "cpu":  # the CPU target shows results, not speed
        reached, copy = decode_bandwidth(device)
        say(f"decode reads keys and values at {reached:.1f} GB/s; a plain copy moves {copy:.1f} GB/s")
    label = emulation_label(device)
    say(f"{total - failed} of {total} cases passed{f': {label}' if label else ''}")
    return failed
