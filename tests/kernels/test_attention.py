# SPDX-License-Identifier: Apache-2.0
"""Paged attention against the oracle: any lengths, pages, strides, groups, head sizes and matrix cores."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rocmforge_plugin
from rocmforge_plugin import reference
from rocmforge_plugin.ops.attention import AttentionPlanner, paged_attention
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.served import HEAD_SIZES

from .kernel_support import DEVICE, DTYPES, SUFFIX, Buffer, generator, poison, same_bits, seeds

ON_CPU = DEVICE == "cpu"
TYPES = DTYPES if ON_CPU else DTYPES[:2]
# Cores other than the target's own, with the geometries they are built for (kernels/variants.py).
CORES = [(core, dtype, size) for core in ("Mfma16x16x32", "WmmaGfx11", "WmmaGfx12", "MmaSm80")
         for dtype, size in ((torch.float16, 64), (torch.bfloat16, 80))]
CORES += [("MmaSm90", torch.float16, 64), ("MmaSm90", torch.float16, 80), ("MmaSm90", torch.bfloat16, 256)]
CORES += [(core, dtype, 64) for core in ("Mfma32x32x8", "Mfma32x32x16") for dtype in (torch.float16, torch.bfloat16)]


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
    padding: int = 0           # query tokens behind the last request's

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
        size = (self.tokens, heads, self.head_size)
        strides = ((heads + 3) * self.head_size, self.head_size, 1)
        self.query = Buffer(size, strides, 16, self.dtype, self.seed + 1)
        self.query.fill(torch.randn(size, generator=random).to(self.dtype).to(DEVICE))
        self.out = Buffer(size, strides, 24, self.dtype, self.seed + 2)
        self.sink_logits = torch.randn(heads, generator=random).to(DEVICE) if self.sinks else None
        self.scale = self.head_size ** -0.5

    @property
    def cache(self) -> torch.Tensor:
        return self.cache_buffer.view

    def planner(self, core: str = "", decode_query_len: int = 1) -> AttentionPlanner:
        problem = Problem(self.dtype, self.kv_heads * self.group, self.kv_heads, self.head_size, self.head_size,
                          self.window, core=core)
        return AttentionPlanner(problem, DEVICE, len(self.requests), max(self.tokens, 1), decode_query_len)

    def run(self, planner: AttentionPlanner | None) -> None:
        plan = planner and planner.plan(self.starts, self.seq_lens, self.max_query_len, self.tokens)
        paged_attention(self.query.view, self.cache, self.block_table, self.seq_lens, self.starts,
                        max_query_len=self.max_query_len, scale=self.scale, out=self.out.view, window=self.window,
                        sinks=self.sink_logits, plan=plan)

    def check(self) -> None:
        # On the CPU, also for GPUs: compute-sanitizer reports hazards of cuBLAS's own kernels.
        arguments = [x.cpu() if isinstance(x, torch.Tensor) else x for x in (
            self.query.view, self.cache, self.block_table, self.seq_lens, self.starts, self.scale, self.window,
            self.sink_logits)]
        real = self.tokens - self.padding
        exact = reference.paged_attention_reference(*arguments)[:real]
        naive = reference.paged_attention_naive(*arguments)[:real]
        errors, naive_errors = self.out.view[:real].cpu().double() - exact, naive.double() - exact
        error = errors.abs().max().item()
        naive_error = naive_errors.abs().max().item()
        if exact.shape[:2].numel() < 4:
            # Of so few rows the naive version's largest error can happen to be far less than one rounding's: 1 of 13000
            # single rows had more than twice as much.
            naive_error = max(naive_error, torch.finfo(self.dtype).eps / 2 * exact.abs().max().item())
        bound = 2 * naive_error + 1e-5
        assert error <= bound, f"error {error:.3g} exceeds {bound:.3g}"  # also when either is NaN
        # The mean is no matter of luck.
        error, bound = errors.square().mean().sqrt().item(), 2 * naive_errors.square().mean().sqrt().item() + 1e-6
        assert error <= bound, f"root mean square error {error:.3g} exceeds {bound:.3g}"
        assert self.out.outside_untouched()
        assert same_bits(self.out.view[real:], self.out.before.as_strided(
            self.out.view.shape, self.out.view.stride(), self.out.view.storage_offset())[real:])
        assert self.cache_buffer.untouched() and self.query.untouched()


def launched(kernel: str) -> int:
    return sum(count for name, count in rocmforge_plugin.launches().items() if name.startswith(kernel))


# Lengths around pages (16), tiles (16 to 128 keys) and row blocks.
lengths = st.one_of(st.integers(1, 40), st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 257]))


@st.composite
def requests(draw: st.DrawFn, most_new: int) -> tuple[int, int]:
    length = draw(lengths)
    return draw(st.integers(1, min(length, most_new))), length


@st.composite
def batches(draw: st.DrawFn, dtype: torch.dtype, head_size: int, most_new: int = 70) -> Batch:
    return Batch(
        dtype, head_size, kv_heads=draw(st.integers(1, 3)), group=draw(st.sampled_from([1, 2, 3, 4, 12, 16, 24, 64])),
        requests=draw(st.lists(requests(most_new), min_size=1, max_size=5)),
        block_size=draw(st.sampled_from([16, 32, 48, 128])), seed=draw(seeds),
        window=draw(st.sampled_from([0, 0, 1, 20, 64])), sinks=draw(st.booleans()), token_major=draw(st.booleans()),
        padding=draw(st.sampled_from([0, 3])))


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@given(data=st.data())
def test_mixed_batches(head_size: int, data: st.DataObject) -> None:
    """Prefill, chunked prefill and decode in one batch, on the target's own matrix core."""
    batch = data.draw(batches(data.draw(st.sampled_from(TYPES)), head_size))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(decode_query_len=data.draw(st.sampled_from([1, 4]))))
    assert launched("attention_plan") == 1
    assert launched("attention_decode") + launched("attention_prefill") >= 1
    batch.check()


@pytest.mark.parametrize("head_size", HEAD_SIZES)
@given(data=st.data())
def test_decode(head_size: int, data: st.DataObject) -> None:
    """One new token per request: the decode kernel and its combine are all that runs."""
    batch = data.draw(batches(data.draw(st.sampled_from(TYPES)), head_size, most_new=1))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner())
    assert launched("attention_decode") == 1 and launched("attention_prefill") == 0
    batch.check()


@pytest.mark.skipif(not ON_CPU, reason="other matrix cores than the device's own exist on the CPU target only")
@pytest.mark.parametrize(("core", "dtype", "head_size"), CORES)
@given(data=st.data())
def test_matrix_cores(core: str, dtype: torch.dtype, head_size: int, data: st.DataObject) -> None:
    """Every core's index arithmetic, decode and prefill."""
    batch = data.draw(batches(dtype, head_size))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(core, data.draw(st.sampled_from([1, 4]))))
    ran = [name for name in rocmforge_plugin.launches() if name.startswith(("attention_decode", "attention_prefill"))]
    assert ran and all(name.endswith(f"_{SUFFIX[dtype]}_d{head_size}_{core}") for name in ran)
    batch.check()


@pytest.mark.parametrize(("group", "keys"), [(1, 1500), (7, 1500), (16, 1500), (24, 1500), (64, 1500), (16, 12000)])
@pytest.mark.parametrize("dtype", TYPES)
def test_long_context_is_split_and_combined(dtype: torch.dtype, group: int, keys: int) -> None:
    """One request over every workgroup: the partial results, some or many (combine.h), must be rescaled and joined."""
    batch = Batch(dtype, 128, 2, group, [(1, keys)], 16, seed=group)
    # Later keys score far higher, so that parts differ in their maxima by hundreds.
    batch.cache[..., :128] *= 1 + batch.block_table.new_tensor(range(len(batch.cache)))[:, None, None, None] % 7
    batch.cache_buffer.before = batch.cache_buffer.data.clone()
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner())
    assert launched("attention_combine") == 1
    batch.check()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("keys", [1, 130, 700, 3000])
def test_requests_alike(count: int, keys: int) -> None:
    """Then shares are cut where items end, and every item into as many parts."""
    for heads, new in ((1, 1), (3, 2)):
        batch = Batch(TYPES[0], 64, heads, 4, [(min(new, keys), keys)] * count, 16, seed=count)
        planner = batch.planner()
        rocmforge_plugin.reset_launches()
        batch.run(planner)
        assert launched("attention_plan") == 1 and launched("attention_decode") + launched("attention_prefill") >= 1
        batch.check()


@pytest.mark.skipif(not ON_CPU, reason="so few keys are one round on a GPU; those of AMD are emulated in tests/amdgpu")
@pytest.mark.parametrize("kv_heads", [3, 4, 6])
@pytest.mark.parametrize(("core", "dtype", "head_size"), [("", TYPES[0], 80), *CORES])
def test_long_prompts_are_done_in_rounds_of_heads(core: str, dtype: torch.dtype, head_size: int, kv_heads: int) -> None:
    """Every round walks its own heads and has parts of its own to join."""
    batch = Batch(dtype, head_size, kv_heads, 2, [(150, 400), (1, 40), (70, 70), (64, 900)], 16, seed=kv_heads,
                  sinks=kv_heads == 4, window=100 * (kv_heads == 6))
    planner = batch.planner(core)
    rocmforge_plugin.reset_launches()
    batch.run(planner)
    assert launched("attention_plan") == launched("attention_prefill") == 1
    batch.check()
    if core == "Mfma32x32x8" and batch.window == 0 and rocmforge_plugin.device.open_device("cpu").compute_units <= 4:
        share_heads = planner._words[8 + 6].item()  # schedule/words.h; this core has no decode, so there is one plan
        assert share_heads == {3: 3, 4: 1}[kv_heads]


@pytest.mark.parametrize("dtype", TYPES)
def test_one_plan_serves_many_calls_and_is_remade_in_place(dtype: torch.dtype) -> None:
    """Layers share a plan; the next step's plan overwrites it in the same buffers."""
    first = Batch(dtype, 64, 2, 4, [(1, 70), (20, 20), (3, 90)], 16, seed=1)
    second = Batch(dtype, 64, 2, 4, [(1, 5), (1, 200)], 16, seed=2)
    planner = AttentionPlanner(Problem(dtype, 8, 2, 64, 64), DEVICE, 3, 24)
    where = planner._words.data_ptr(), planner._workspace.data_ptr()
    for batch in (first, second, first):
        for _ in range(2):
            batch.out = Buffer(batch.out.view.shape, batch.out.view.stride(), 24, dtype, 5)
            batch.run(planner)
            batch.check()
    assert (planner._words.data_ptr(), planner._workspace.data_ptr()) == where


@pytest.mark.parametrize(("requests", "claimed"), [([(40, 48), (40, 70)], 80), ([(1, 70), (20, 20)], 60),
                                                   ([(1, 70)], 30)])
def test_where_all_queries_are_long_nothing_is_launched_for_short_ones(
        requests: list[tuple[int, int]], claimed: int) -> None:
    """So many tokens leave no room for a decode step's request; where the bound was too large one is served all the
    same."""
    batch = Batch(TYPES[0], 64, 2, 4, requests, 16, seed=4)
    longest = max(batch.max_query_len, claimed // len(requests))
    planner = AttentionPlanner(Problem(TYPES[0], 8, 2, 64, 64), DEVICE, len(requests), claimed)
    plan = planner.plan(batch.starts, batch.seq_lens, longest, claimed)
    rocmforge_plugin.reset_launches()
    paged_attention(batch.query.view, batch.cache, batch.block_table, batch.seq_lens, batch.starts,
                    max_query_len=longest, scale=batch.scale, out=batch.out.view, plan=plan)
    assert launched("attention_decode") == 0 and launched("attention_prefill") == launched("attention_combine") == 1
    batch.check()


@pytest.mark.skipif(ON_CPU, reason="needs CUDA graphs")
def test_a_graph_captured_with_long_queries_serves_short_ones() -> None:
    """A capture holds the launches for both, whatever its own batch has."""
    batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (20, 20)], 16, seed=5)
    planner = AttentionPlanner(Problem(TYPES[0], 8, 2, 64, 64), DEVICE, 2, 40)
    plan = planner.plan(batch.starts, batch.seq_lens, 20, 40)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        paged_attention(batch.query.view, batch.cache, batch.block_table, batch.seq_lens, batch.starts,
                        max_query_len=20, scale=batch.scale, out=batch.out.view, plan=plan)
    for tokens in (21, 40):
        planner.plan(batch.starts, batch.seq_lens, 20, tokens)
        batch.out.view.fill_(float("nan"))
        graph.replay()
        batch.check()


def test_launches_see_what_was_written_just_ahead() -> None:
    """Attention starts before the launch ahead of it has ended, be it the plan or what fills the block table."""
    batch = Batch(TYPES[0], 128, 2, 4, [(1, 700), (1, 40)], 16, seed=3)
    planner = batch.planner()
    tables, lengths = ((x.clone(), x.flip(0).contiguous()) for x in (batch.block_table, batch.seq_lens))
    out = torch.empty(40, *batch.out.view.shape, dtype=batch.dtype, device=DEVICE)

    def step(turn: int) -> None:
        batch.seq_lens.copy_(lengths[turn % 2])
        if turn % 4 < 2:
            batch.block_table.copy_(tables[turn % 2])
        plan = planner.plan(batch.starts, batch.seq_lens, 1, batch.tokens)
        batch.block_table.copy_(tables[turn % 2])
        if turn % 4 < 2:
            planner.plan(batch.starts, batch.seq_lens, 1, batch.tokens)
        paged_attention(batch.query.view, batch.cache, batch.block_table, batch.seq_lens, batch.starts,
                        max_query_len=1, scale=batch.scale, out=batch.out.view, plan=plan)

    for turn in range(2):
        batch.out.view.fill_(float("nan"))
        rocmforge_plugin.reset_launches()
        step(turn)
        assert launched("attention_plan") == 2 and launched("attention_decode") == launched("attention_combine") == 1
        batch.check()
        out[turn] = batch.out.view
    graph = None if ON_CPU else torch.cuda.CUDAGraph()
    with contextlib.nullcontext() if graph is None else torch.cuda.graph(graph):
        for turn in range(2, len(out)):
            step(turn)
            out[turn] = batch.out.view
    if graph is not None:
        graph.replay()
    assert all(same_bits(result, out[turn % 2]) for turn, result in enumerate(out))


def test_without_a_plan() -> None:
    """The op makes one itself."""
    batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (20, 20), (3, 90)], 16, seed=1)
    batch.run(None)
    batch.check()


def test_padding_requests_are_skipped() -> None:
    """Requests without query tokens or keys, as a padded graph has them, change nothing."""
    batch = Batch(TYPES[0], 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1, padding=2)
    empty = torch.zeros(2, dtype=torch.int32, device=DEVICE)
    batch.requests += [(0, 0), (0, 0)]
    batch.seq_lens = torch.cat((batch.seq_lens, empty))
    batch.starts = torch.cat((batch.starts, batch.starts[-1:].expand(2)))
    batch.block_table = torch.cat((batch.block_table, batch.block_table))
    batch.run(batch.planner())
    batch.check()


def test_no_tokens() -> None:
    """An empty batch launches nothing."""
    batch = Batch(TYPES[0], 64, 1, 1, [(1, 1)], 16, seed=1)
    rocmforge_plugin.reset_launches()
    empty = batch.query.view[:0]
    out = paged_attention(empty, batch.cache, batch.block_table[:0], batch.seq_lens[:0], batch.starts[:1],
                          max_query_len=0, scale=1.0)
    assert out.shape == empty.shape and rocmforge_plugin.launches() == {}


def refused(batch: Batch, **changes: object) -> tuple[tuple, dict]:
    names = ("query", "kv_cache", "block_table", "seq_lens", "query_start_loc")
    values = dict(zip(names, (batch.query.view, batch.cache, batch.block_table, batch.seq_lens, batch.starts)))
    options = {"max_query_len": batch.max_query_len, "scale": batch.scale}
    for name, value in changes.items():
        (values if name in values else options)[name] = value
    return tuple(values.values()), options


REFUSALS = [
    ("query", lambda b: b.query.view.double(), TypeError, "float64"),
    ("query", lambda b: b.query.view[:, 0], ValueError, r"\[tokens, num_heads, head_size\]"),
    ("query", lambda b: poison(b.tokens * 8 * 64 + 1, b.dtype, 0)[1:].view(b.tokens, 8, 64), ValueError, "16 bytes"),
    ("kv_cache", lambda b: b.cache[..., :64], ValueError, "block_size, 128"),
    ("kv_cache", lambda b: b.cache.to(torch.float16), TypeError, "query's dtype"),
    ("kv_cache", lambda b: b.cache[:, :, :8], ValueError, "block size 8"),
    ("kv_cache", lambda b: b.cache[0], ValueError, r"\[blocks, num_kv_heads"),
    ("kv_cache", lambda b: b.cache.to("meta"), ValueError, "query's device"),
    ("kv_cache", lambda b: b.cache.repeat(1, 1, 1, 2)[..., ::2], ValueError, "contiguous in its last"),
    ("kv_cache", lambda b: b.cache.repeat(1, 1, 1, 2)[..., 4:132], ValueError, "16 bytes"),
    ("block_table", lambda b: b.block_table.to("meta"), ValueError, "on meta"),
    ("block_table", lambda b: b.block_table[0], ValueError, "contiguous rows"),
    ("block_table", lambda b: b.block_table.repeat(1, 2)[:, ::2], ValueError, "contiguous rows"),
    ("block_table", lambda b: b.block_table.long(), TypeError, "int32"),
    ("block_table", lambda b: b.block_table[:1], ValueError, "contiguous rows"),
    ("seq_lens", lambda b: b.seq_lens.long(), TypeError, "int32"),
    ("query_start_loc", lambda b: b.starts[:-1], ValueError, r"of size \[3\]"),
    ("scale", lambda b: 0.0, ValueError, "positive"),
    ("scale", lambda b: float("nan"), ValueError, "positive"),
    ("scale", lambda b: float("inf"), ValueError, "positive"),
    ("out", lambda b: b.query.view[:, :1], ValueError, "query's shape"),
    ("out", lambda b: b.query.view.half(), TypeError, "query's dtype"),
    ("out", lambda b: b.query.view.to("meta"), ValueError, "query's device"),
    ("out", lambda b: poison(b.tokens * 8 * 128, b.dtype, 0).view(b.tokens, 8, 128)[..., ::2], ValueError, "last dim"),
    ("out", lambda b: poison(b.tokens * 8 * 68, b.dtype, 0).view(b.tokens, 8, 68)[..., :64], ValueError, "16 bytes"),
    ("sinks", lambda b: torch.zeros(8, dtype=torch.bfloat16), ValueError, r"float32 \[8\]"),
    ("sinks", lambda b: torch.zeros(7, device=DEVICE), ValueError, r"float32 \[8\]"),
    ("sinks", lambda b: torch.zeros(16, device=DEVICE)[::2], ValueError, r"float32 \[8\]"),
    ("sinks", lambda b: torch.zeros(8, device="meta"), ValueError, "on meta"),
    ("window", lambda b: -1, ValueError, "at least 0"),
    ("plan", lambda b: Batch(b.dtype, 64, 2, 2, [(1, 1), (1, 1)], 16, 1).planner().plan(
        b.starts, b.seq_lens, b.max_query_len, b.max_query_len), ValueError, "num_heads=4"),
]

if not ON_CPU:
    REFUSALS += [("kv_cache", lambda b: b.cache.cpu(), ValueError, "query's device"),
                 ("block_table", lambda b: b.block_table.cpu(), ValueError, "on cpu"),
                 ("sinks", lambda b: torch.zeros(8), ValueError, "on cpu")]


OF_THE_PLAN = ("seq_lens", "query_start_loc", "window", "plan")  # arguments that a plan given has taken already


@pytest.mark.parametrize(("argument", "value", "error", "says", "planned"), [
    pytest.param(*row, planned, id=f"{row[0]}{at}{'-planned' * planned}")
    for at, row in enumerate(REFUSALS) for planned in (False, True) if not (planned and row[0] in OF_THE_PLAN)])
def test_refusals(argument: str, value: object, error: type[Exception], says: str, planned: bool) -> None:
    """The message names the argument and what would work, with a plan or without, and nothing is launched."""
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1)
    values, options = refused(batch, **{argument: value(batch)})
    if planned:
        options["plan"] = batch.planner().plan(batch.starts, batch.seq_lens, batch.max_query_len, batch.tokens)
    rocmforge_plugin.reset_launches()
    with pytest.raises(error, match=rf"{argument}.*{says}"):
        paged_attention(*values, **options)
    assert launched("attention_decode") == 0


@pytest.mark.parametrize(("change", "says"), [
    ({"key_dims": 72, "value_dims": 72}, "head_size is 72"), ({"value_dims": 128}, "value_dims is 128 beside key_dims"),
    ({"num_heads": 65, "num_kv_heads": 1}, "num_heads is 65"), ({"num_heads": 6, "num_kv_heads": 4}, "num_heads is 6"),
    ({"num_kv_heads": 0}, "num_heads is 8 beside num_kv_heads 0"), ({"window": -1}, "window is -1"),
    ({"format": "woven"}, "format is 'woven'"), ({"score": "sung"}, "score is 'sung'"),
    ({"max_num_reqs": 0}, "max_num_reqs is 0"), ({"max_num_tokens": 0}, "max_num_tokens is 0"),
    ({"decode_query_len": 0}, "decode_query_len is 0"), ({"dtype": torch.int8}, "dtype is int8")])
def test_planner_refusals(change: dict, says: str) -> None:
    """Problems there is no kernel for are named when the planner is made."""
    problem = {"dtype": torch.bfloat16, "num_heads": 8, "num_kv_heads": 2, "key_dims": 64, "value_dims": 64}
    bounds = {"max_num_reqs": 2, "max_num_tokens": 8, "decode_query_len": 1}
    for name, value in change.items():
        (bounds if name in bounds else problem)[name] = value
    with pytest.raises((ValueError, TypeError), match=says):
        AttentionPlanner(Problem(**problem), DEVICE, **bounds)
