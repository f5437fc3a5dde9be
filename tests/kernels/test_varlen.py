# SPDX-License-Identifier: Apache-2.0
"""Attention over keys and values in two tensors: any lengths, strides and groups, full and causal, on every core."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rocmforge_plugin
from kernels import variants
from rocmforge_plugin import served
from rocmforge_plugin.ops.planner import PLAN
from rocmforge_plugin.ops.varlen import RUN, varlen_attention

from .attention_support import ON_CPU, TYPES, Batch, launches_of
from .kernel_support import DEVICE, SUFFIX, Refusal, check_refusal, check_words, elsewhere, poison, seeds
from .varlen_support import VarlenBatch

HEADS = next(heads for format, _, heads in served.PROBLEMS if format == "split")
ALIKE = [(size, size) for size in range(served.LEAST_HEAD, 257, served.NARROW_STEP)]  # also in kernels for longer ones
CORES = [
    (core, dtype, dims)
    for core, element, *dims in variants.SPLIT_CORE_UNITS
    for dtype, suffix in SUFFIX.items()
    if suffix == element
]
lengths = st.one_of(st.integers(0, 40), st.sampled_from([0, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257]))


@st.composite
def batches(draw: st.DrawFn, dtype: torch.dtype, key_dims: int, value_dims: int) -> VarlenBatch:
    requests = [(draw(st.integers(1, 70)), draw(lengths.filter(bool)))]
    each, together = [draw(st.booleans())], draw(st.sampled_from([True, True, False]))
    for _ in range(draw(st.integers(0, 4))):
        each.append(each[0] if together else draw(st.booleans()))
        keys = draw(lengths)
        # Where it is causal a request without keys is padding; one may have more queries than keys all the same.
        requests.append((draw(st.integers(0, 70 if keys or not each[-1] else 0)), keys))
    return VarlenBatch(
        dtype,
        key_dims,
        value_dims,
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.sampled_from([1, 1, 2, 5, 64])),
        requests=requests,
        seed=draw(seeds),
        causal=each if len(set(each)) > 1 else each[0],
        with_lse=draw(st.booleans()),
        window=draw(st.sampled_from([0, 0, 1, 9, 64])),
        padding=draw(st.sampled_from([0, 3])),
        before=draw(st.sampled_from([0, 5])),
        behind=draw(st.sampled_from([0, 5])),
        value_gap=draw(st.sampled_from([0, 8, 128])),
        heads_outside=draw(st.booleans()),
    )


@pytest.mark.parametrize(("key_dims", "value_dims"), HEADS)
@given(data=st.data())
def test_batches(key_dims: int, value_dims: int, data: st.DataObject) -> None:
    """Prompts of any lengths; one kernel serves them all."""
    check(data.draw(batches(data.draw(st.sampled_from(TYPES)), key_dims, value_dims)))


def check(batch: VarlenBatch) -> None:
    plan = batch.plan(batch.planner())
    rocmforge_plugin.reset_launches()
    batch.run(plan)
    assert launches_of("attention_prefill") == launches_of(f"attention_prefill_{batch.problem.suffix}") == 1
    assert launches_of("attention_decode") == 0
    batch.check()


@given(data=st.data())
def test_heads_of_any_dims(data: st.DataObject) -> None:
    """Of keys and values alike: multiples of 8, with windows to one side or both."""
    check(data.draw(batches(data.draw(st.sampled_from(TYPES)), *data.draw(st.sampled_from(ALIKE)))))


@pytest.mark.parametrize("dims", ALIKE, ids=lambda dims: str(dims[0]))
def test_every_head_size(dims: tuple[int, int]) -> None:
    """As encoders have them: fused projections' slices, in full or in a window to both sides."""
    dtype = TYPES[dims[0] // 8 % 2]
    for window in (0, 12):
        batch = VarlenBatch(
            dtype, *dims, 2, 2, [(50, 50), (1, 1), (33, 33)], dims[0], False, value_gap=16, window=window
        )
        check(batch)


@pytest.mark.skipif(not ON_CPU, reason="other matrix cores than the device's own exist on the CPU target only")
@pytest.mark.parametrize(("core", "dtype", "dims"), CORES)
@given(data=st.data())
def test_matrix_cores(core: str, dtype: torch.dtype, dims: list[int], data: st.DataObject) -> None:
    """Every feed, and every core's index arithmetic where keys and values differ in their dims."""
    batch = data.draw(batches(dtype, *dims))
    batch.run(batch.plan(batch.planner(core)))
    batch.check()


@pytest.mark.parametrize("causal", [False, True])
def test_parts_are_joined(causal: bool) -> None:
    """Items that several workgroups share: combine writes the results, and the logarithms of their sums."""
    batch = VarlenBatch(TYPES[0], 192, 128, 2, 1, [(3, 1500), (70, 900)], 5, causal, value_gap=128)
    # Later keys score far higher, so that parts differ in their maxima by hundreds.
    batch.key.view[:] *= 1 + torch.arange(len(batch.key.view), device=DEVICE)[:, None, None] // 100 % 7
    batch.key.before = batch.key.data.clone()
    rocmforge_plugin.reset_launches()
    batch.run(batch.plan(batch.planner()))
    assert launches_of("attention_combine") == 1
    batch.check()


def test_requests_without_keys() -> None:
    """Some or all: of full attention they are zero, and -inf; of causal attention padding."""
    for requests in ([(5, 0), (70, 40), (1, 0), (300, 0)], [(5, 0), (70, 0)], [(0, 0), (1, 0)]):
        batch = VarlenBatch(TYPES[0], 128, 128, 2, 1, requests, 1, causal=False)
        batch.run(batch.plan(batch.planner()))
        batch.check()
    batch = VarlenBatch(TYPES[0], 128, 128, 2, 1, [(5, 0), (70, 0)], 1, causal=True)
    batch.run(batch.plan(batch.planner()))
    assert batch.out.untouched() and batch.lse is not None and batch.lse.untouched()


def test_one_plan_serves_many_calls() -> None:
    """Layers share a plan; their tensors need not lie where the first one's did."""
    first, second = (
        VarlenBatch(TYPES[0], 96, 64, 2, 2, [(20, 70), (33, 33)], seed, value_gap=seed * 8) for seed in (1, 2)
    )
    planner = first.planner()
    plan = first.plan(planner)
    rocmforge_plugin.reset_launches()
    for batch in (first, second):
        batch.run(plan)
        batch.check()
    assert launches_of("attention_plan") == 0 and launches_of("attention_prefill") == 2


def test_without_a_plan() -> None:
    """The op makes one itself, and its own output."""
    batch = VarlenBatch(TYPES[0], 256, 256, 2, 1, [(20, 70), (33, 33), (1, 5)], 3, causal=False)
    batch.run(None)
    batch.check()
    out = varlen_attention(
        batch.query.view,
        batch.key.view,
        batch.value.view,
        batch.starts,
        batch.key_starts,
        batch.seq_lens,
        max_query_len=batch.max_query_len,
        scale=batch.scale,
        causal=False,
    )
    assert torch.equal(out, batch.out.view)


def test_no_tokens() -> None:
    """An empty batch launches nothing."""
    batch = VarlenBatch(TYPES[0], 96, 64, 1, 1, [(1, 1)], 1)
    rocmforge_plugin.reset_launches()
    out = varlen_attention(
        batch.query.view[:0],
        batch.key.view,
        batch.value.view,
        batch.starts[:1],
        batch.key_starts[:1],
        batch.seq_lens[:0],
        max_query_len=0,
        scale=1.0,
        causal=True,
    )
    assert out.shape == (0, 1, 64) and rocmforge_plugin.launches() == {}


def joined(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Results over different keys as those over all: each by its share of the exponentials' sum."""
    outs, sums = (torch.stack([part[i].double().cpu() for part in parts]) for i in (0, 1))
    weights = torch.softmax(sums, dim=0).transpose(1, 2)[..., None]  # [part, tokens, heads, 1]
    return (weights * outs).sum(0)


@pytest.mark.parametrize("dtype", TYPES)
def test_halves_of_the_keys_are_joined_by_their_sums(dtype: torch.dtype) -> None:
    """New tokens over themselves, causal, and over their context, full: together causal attention over all keys.

    Some requests have no context, and one's context comes from a paged cache.
    """
    new, context = [40, 1, 17], [50, 0, 129]
    together = [(n, n + c) for n, c in zip(new, context, strict=True)]
    whole = VarlenBatch(dtype, 128, 128, 2, 3, together, 7, causal=True, with_lse=False)
    own, earlier = (
        VarlenBatch(dtype, 128, 128, 2, 3, list(zip(new, keys, strict=True)), 7, causal)
        for keys, causal in ((new, True), (context, False))
    )
    pages = Batch(dtype, 128, 2, 3, list(zip(new, context, strict=True)), 16, 7, causal=False, with_lse=True)
    for part in (own, earlier):
        part.query.fill(whole.query.view)
    pages.query.fill(whole.query.view)
    for request, (n, c) in enumerate(zip(new, context, strict=True)):
        first = int(whole.key_starts[request])
        for name in ("key", "value"):
            source = getattr(whole, name).view[first : first + c + n]
            for part, rows in ((earlier, source[:c]), (own, source[c:])):
                at = int(part.key_starts[request])
                getattr(part, name).view[at : at + len(rows)] = rows
            for key in range(c):
                page = pages.cache[int(pages.block_table[request, key // 16]), :, key % 16]
                page[:, 128 * (name == "value") :][:, :128] = source[key]
    for part in (own, earlier):
        part.run(part.plan(part.planner()))
    pages.run(pages.planner())
    exact, naive = (whole.reference(compute)[0] for compute in (torch.float64, dtype))
    for context_part in (earlier, pages):
        assert own.lse is not None and context_part.lse is not None
        came = joined([(own.out.view, own.lse.view), (context_part.out.view, context_part.lse.view)])
        bound = 2 * (naive.double() - exact).abs().max() + torch.finfo(dtype).eps * exact.abs().max()
        assert (came - exact).abs().max() <= bound


def a_batch() -> VarlenBatch:
    return VarlenBatch(torch.bfloat16, 192, 128, 2, 2, [(3, 7), (1, 2)], 1)


def strided(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.repeat_interleave(2, -1)[..., ::2]


def narrow(tensor: torch.Tensor) -> torch.Tensor:
    """In rows that begin at odd multiples of 8 bytes."""
    size = tensor.shape[-1] + 4
    return poison(tensor[..., 0].numel() * size, tensor.dtype, 0).view(*tensor.shape[:-1], size)[..., :-4]


TENSORS = [
    *(
        Refusal(f"{name}.tensor", {name: lambda t: t.to_sparse()}, ValueError, "of layout torch.sparse_coo")
        for name in ("query", "key", "value", "out", "lse", "key_start_loc", "seq_lens")
    ),
    *(
        Refusal(f"{name}.device", {name: elsewhere}, ValueError, "query's device")
        for name in ("key", "value", "out", "lse", "key_start_loc")
    ),
    *(
        Refusal(f"{name}.dtype", {name: lambda t: t.half()}, TypeError, "torch.float16.*query's dtype")
        for name in ("key", "value", "out")
    ),
    *(Refusal(f"{name}.aligned", {name: strided}, ValueError, "contiguous in its") for name in ("key", "value", "out")),
    *(Refusal(f"{name}.aligned", {name: narrow}, ValueError, "16 bytes") for name in ("query", "key", "value", "out")),
    Refusal("query.dtype", {"query": lambda t: t.double()}, TypeError, "torch.float64"),
    Refusal("query.shape", {"query": lambda t: t[:, 0]}, ValueError, r"\[tokens, "),
    Refusal("key.shape", {"key": lambda t: t[..., :128]}, ValueError, r"\[key tokens, 2, 192\]"),
    Refusal("key.most", {"key": lambda t: t[:1].expand(1 << 31, 2, 192)}, ValueError, r"fewer than 2\^31"),
    Refusal("value.shape", {"value": lambda t: t[..., :64]}, ValueError, r"\[key tokens, 2, 128\]"),
    Refusal("value.shape", {"value": lambda t: t[1:]}, ValueError, r"as key is \[9, 2, 192\]"),
    Refusal("out.shape", {"out": lambda t: t[..., :64]}, ValueError, r"num_heads, 128\], as query is \[4, 4, 192\]"),
    Refusal("lse.dtype", {"lse": lambda t: t.half()}, TypeError, "float32"),
    Refusal("lse.shape", {"lse": lambda t: t.T[:2]}, ValueError, r"\[num_heads, tokens\]"),
    Refusal("lse.own", {"lse": lambda t: t[:, :1].expand(4, 4)}, ValueError, "expanded"),
    Refusal("key_start_loc.dtype", {"key_start_loc": lambda t: t.long()}, TypeError, "int32"),
    Refusal("key_start_loc.shape", {"key_start_loc": lambda t: t[:-1]}, ValueError, r"\[requests \+ 1\]"),
    Refusal("key_start_loc.contiguous", {"key_start_loc": strided}, ValueError, "contiguous"),
    Refusal("scale.range", {"scale": lambda _: -1.0}, ValueError, "positive"),
]
OF_THE_PLAN = [
    Refusal("query.device", {"query": elsewhere}, ValueError, "as the plan is"),
    Refusal("causal.plan", {"causal": lambda _: False}, ValueError, "causal is False; it must be True"),
    Refusal("window.plan", {"window": lambda _: 5}, ValueError, "window is 5; it must be 0, as the plan has it"),
    Refusal("max_query_len.plan", {"max_query_len": lambda _: 4}, ValueError, "at most 3"),
    Refusal("seq_lens.plan", {"seq_lens": lambda t: t[:1]}, ValueError, "of 2 requests"),
    Refusal(
        "plan.op",
        {"plan": lambda _: paged_plan()},
        ValueError,
        "varlen_attention: plan is for paged_attention; it must be for varlen_attention",
    ),
]


def paged_plan() -> Any:
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70)], 16, seed=1)
    return batch.planner().plan(batch.starts, batch.seq_lens, 1, 1)


def arguments_of(batch: VarlenBatch) -> dict[str, Any]:
    assert batch.lse is not None
    return {
        "query": batch.query.view,
        "key": batch.key.view,
        "value": batch.value.view,
        "query_start_loc": batch.starts,
        "key_start_loc": batch.key_starts,
        "seq_lens": batch.seq_lens,
        "max_query_len": batch.max_query_len,
        "scale": batch.scale,
        "causal": True,
        "window": 0,
        "out": batch.out.view,
        "lse": batch.lse.view,
    }


@pytest.mark.parametrize("refusal", TENSORS + OF_THE_PLAN, ids=lambda refusal: refusal.condition)
def test_what_is_refused(refusal: Refusal) -> None:
    batch = a_batch()
    arguments = arguments_of(batch) | {"plan": batch.plan(batch.planner())}
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: varlen_attention(**arguments))


def test_every_condition_has_words() -> None:
    check_words("varlen_attention", RUN, TENSORS + OF_THE_PLAN)
    assert not set(RUN) & set(PLAN)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"query": lambda t: None}, TypeError, "query is a NoneType"),
        ({"query": lambda t: t[:, 0]}, ValueError, r"query is .*\[tokens, num_heads, key dims\]"),
        ({"key": lambda t: t[0]}, ValueError, r"key is .*\[key tokens, num_kv_heads, key dims\]"),
        ({"key": lambda t: t[:, :0]}, ValueError, "num_heads is 4 beside num_kv_heads 0"),
        ({"value": lambda t: t[0]}, ValueError, r"value is .*\[key tokens, num_kv_heads, value dims\]"),
        ({"value": lambda t: t[..., :96]}, ValueError, "of query, key and value: value_dims is 96 beside key_dims 192"),
        ({"seq_lens": lambda t: t[:, None]}, ValueError, r"seq_lens is \[2, 1\].*\[requests\]"),
        ({"query_start_loc": lambda t: t[:-1]}, ValueError, r"query_start_loc is \[2\].*\[requests \+ 1\]"),
        ({"max_query_len": lambda _: -1}, ValueError, "max_query_len is -1"),
        *(
            (refusal.changes, refusal.error, refusal.says)
            for refusal in TENSORS
            if refusal.condition.split(".")[0] in ("out", "lse", "key_start_loc") and ".device" not in refusal.condition
        ),
    ],
)
def test_what_is_refused_without_a_plan(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    arguments = arguments_of(a_batch())
    arguments |= {name: change(arguments[name]) for name, change in changes.items()}
    rocmforge_plugin.reset_launches()
    with pytest.raises(error, match=says):
        varlen_attention(**arguments)
    assert rocmforge_plugin.launches() == {}
