# SPDX-License-Identifier: Apache-2.0
"""What attention and its plans refuse: in words that name the argument, before anything is launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C, device, served
from rocmforge_plugin.ops.attention import RUN, paged_attention
from rocmforge_plugin.ops.planner import PLAN, AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import Problem

from .attention_support import Batch, launches_of
from .kernel_support import DEVICE, SUFFIX, Refusal, check_refusal, check_words, elsewhere, poison


def a_batch(**options: Any) -> Batch:
    return Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1, **options)


def arguments_of(batch: Batch) -> dict[str, Any]:
    return {
        "query": batch.query.view,
        "kv_cache": batch.cache,
        "block_table": batch.block_table,
        "seq_lens": batch.seq_lens,
        "query_start_loc": batch.starts,
        "out": batch.out.view,
        "sinks": None,
        "ranges": None,
        "soft_cap": batch.soft_cap,
        "alibi_slopes": batch.slopes,
        "lse": torch.zeros(8, 2, device=DEVICE),
        "causal": True,
        "scale": batch.scale,
        "window": 0,
        "max_query_len": 1,
    }


def wide(size: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Of a batch's shape, as a view of rows of `size` elements."""
    return lambda x: poison(x[..., 0].numel() * size, x.dtype, 0).view(*x.shape[:-1], size)[..., : x.shape[-1]]


def strided(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.repeat_interleave(2, -1)[..., ::2]


def floats(*shape: int, **options: Any) -> Callable[[object], torch.Tensor]:
    return lambda _: torch.zeros(*shape, **({"device": DEVICE} | options))


TENSORS = [
    *(
        Refusal(f"{name}.tensor", {name: lambda t: t.to_sparse()}, ValueError, "of layout torch.sparse_coo")
        for name in ("query", "kv_cache", "out", "block_table", "seq_lens")
    ),
    Refusal("sinks.tensor", {"sinks": lambda _: 1.0}, TypeError, "sinks is a float"),
    Refusal("query.dtype", {"query": lambda t: t.double()}, TypeError, "torch.float64"),
    Refusal("query.shape", {"query": lambda t: t[:, 0]}, ValueError, r"\[tokens, "),
    Refusal(
        "query.aligned",
        {"query": lambda t: poison(t.numel() + 1, t.dtype, 0)[1:].view(t.shape)},
        ValueError,
        "at address .*16 bytes",
    ),
    Refusal("query.aligned", {"query": wide(68)}, ValueError, "16 bytes"),
    Refusal("query.aligned", {"query": strided}, ValueError, "contiguous in its last"),
    Refusal("kv_cache.dtype", {"kv_cache": lambda t: t.half()}, TypeError, "torch.float16.*query's dtype"),
    Refusal("kv_cache.device", {"kv_cache": elsewhere}, ValueError, "query's device"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[..., :64]}, ValueError, r"\[blocks, 2, block_size, 128\]"),
    Refusal("kv_cache.block_size", {"kv_cache": lambda t: t[:, :, :8]}, ValueError, "block size that 16 divides"),
    Refusal("kv_cache.block_size", {"kv_cache": lambda t: t[:, :, :0]}, ValueError, "block size that 16 divides"),
    Refusal("kv_cache.aligned", {"kv_cache": strided}, ValueError, "contiguous in its last"),
    Refusal("kv_cache.aligned", {"kv_cache": lambda t: t.repeat(1, 1, 1, 2)[..., 4:132]}, ValueError, "16 bytes"),
    Refusal("out.dtype", {"out": lambda t: t.half()}, TypeError, "query's dtype"),
    Refusal("out.device", {"out": elsewhere}, ValueError, "query's device"),
    Refusal("out.shape", {"out": lambda t: t[:, :1]}, ValueError, r"num_heads, 64\], as query is \[2, 8, 64\]"),
    Refusal("out.shape", {"out": lambda t: t[:1]}, ValueError, "out is "),
    Refusal("out.aligned", {"out": wide(68)}, ValueError, "16 bytes"),
    Refusal("block_table.dtype", {"block_table": lambda t: t.long()}, TypeError, "int32"),
    Refusal("block_table.device", {"block_table": elsewhere}, ValueError, "query's device"),
    Refusal("block_table.shape", {"block_table": lambda t: t[0]}, ValueError, r"\[requests, blocks\]"),
    Refusal("block_table.shape", {"block_table": lambda t: t[:1]}, ValueError, r"as seq_lens is \[2\]"),
    Refusal("block_table.contiguous", {"block_table": strided}, ValueError, "contiguous rows"),
    Refusal("scale.range", {"scale": lambda _: 0.0}, ValueError, "positive"),
    Refusal("scale.range", {"scale": lambda _: float("nan")}, ValueError, "scale is nan"),
    Refusal("scale.range", {"scale": lambda _: float("inf")}, ValueError, "finite"),
    Refusal("sinks.dtype", {"sinks": floats(8, dtype=torch.bfloat16)}, TypeError, "float32"),
    Refusal("sinks.device", {"sinks": lambda _: elsewhere(floats(8)(None))}, ValueError, "query's device"),
    Refusal("sinks.shape", {"sinks": floats(7)}, ValueError, r"sinks is \[7\].*\[8\]"),
    Refusal("sinks.shape", {"sinks": floats(8, 1)}, ValueError, r"\[8\]"),
    Refusal("sinks.contiguous", {"sinks": lambda _: strided(floats(8)(None))}, ValueError, "contiguous"),
    Refusal("lse.tensor", {"lse": lambda t: t.tolist()}, TypeError, "lse is a list"),
    Refusal("lse.dtype", {"lse": lambda t: t.half()}, TypeError, "torch.float16; it must be float32"),
    Refusal("lse.device", {"lse": elsewhere}, ValueError, "query's device"),
    Refusal("lse.shape", {"lse": lambda t: t.T}, ValueError, r"\[num_heads, tokens\], as query is \[2, 8, 64\]"),
    Refusal("lse.shape", {"lse": lambda t: t[0]}, ValueError, r"\[num_heads, tokens\]"),
    Refusal("lse.own", {"lse": lambda t: t[:, :1].expand(8, 2)}, ValueError, "expanded"),
    Refusal("soft_cap.range", {"soft_cap": lambda _: -1.0}, ValueError, "soft_cap is -1.0; .*at least 0"),
    Refusal("soft_cap.range", {"soft_cap": lambda _: float("inf")}, ValueError, "finite"),
    Refusal("soft_cap.range", {"soft_cap": lambda _: float("nan")}, ValueError, "soft_cap is nan"),
]
# Of a batch with slopes.
SLOPES = [
    Refusal("alibi_slopes.tensor", {"alibi_slopes": lambda t: t.tolist()}, TypeError, "alibi_slopes is a list"),
    Refusal("alibi_slopes.dtype", {"alibi_slopes": lambda t: t.half()}, TypeError, "torch.float16; .*float32"),
    Refusal("alibi_slopes.device", {"alibi_slopes": elsewhere}, ValueError, "query's device"),
    Refusal(
        "alibi_slopes.shape", {"alibi_slopes": lambda t: t[:7]}, ValueError, r"\[7\].*\[8\], one for each query head"
    ),
    Refusal("alibi_slopes.shape", {"alibi_slopes": lambda t: t[:, None]}, ValueError, r"\[8\]"),
    Refusal("alibi_slopes.contiguous", {"alibi_slopes": strided}, ValueError, "contiguous"),
]


def varlen_plan() -> AttentionPlan:
    """Of a format whose rows are as long as those of the batch's cache, which would pass for it."""
    batch = a_batch()
    planner = AttentionPlanner(Problem(torch.bfloat16, 8, 2, 128, 128, format="split"), DEVICE, 2, 2)
    return planner.plan(batch.starts, batch.seq_lens, 1, 2)


def each(*shape: int, dtype: torch.dtype = torch.int32) -> Callable[[object], torch.Tensor]:
    """What says of each request whether it is causal."""
    return lambda _: torch.ones(*shape, dtype=dtype, device=DEVICE)


# What does not agree with the plan that was made for a call.
OF_THE_PLAN = [
    Refusal(
        "plan.op",
        {"plan": lambda _: varlen_plan()},
        ValueError,
        "paged_attention: plan is for varlen_attention; it must be for paged_attention",
    ),
    Refusal("query.device", {"query": elsewhere}, ValueError, "as the plan is"),
    Refusal("query.shape", {"query": lambda t: t[:, :4]}, ValueError, r"\[tokens, 8, 64\], as the plan has it"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[:, :1]}, ValueError, r"\[blocks, 2, block_size, 128\]"),
    Refusal("seq_lens.plan", {"seq_lens": lambda t: t[:, None]}, ValueError, "of 2 requests, as the plan is"),
    Refusal("seq_lens.plan", {"seq_lens": lambda t: t[:1]}, ValueError, "of 2 requests, as the plan is"),
    Refusal("causal.plan", {"causal": lambda _: False}, ValueError, "causal is False; it must be True, as the plan"),
    Refusal(
        "causal.plan",
        {"causal": lambda _: torch.ones(2, dtype=torch.int32, device=DEVICE)},
        ValueError,
        r"causal is \[2\].*; it must be True, as the plan has it",
    ),
    Refusal(
        "soft_cap.plan",
        {"soft_cap": lambda _: 30.0},
        ValueError,
        "soft_cap is 30.0; it must be what the plan is for: scores that are plain",
    ),
    Refusal(
        "alibi_slopes.plan",
        {"alibi_slopes": floats(8)},
        ValueError,
        r"alibi_slopes is \[8\].*; it must be what the plan is for: scores that are plain",
    ),
    Refusal("window.plan", {"window": lambda _: 5}, ValueError, "window is 5; it must be 0, as the plan has it"),
    Refusal("max_query_len.plan", {"max_query_len": lambda _: 2}, ValueError, "at most 1, as the plan has it"),
]


@pytest.mark.parametrize("refusal", TENSORS + OF_THE_PLAN + SLOPES, ids=lambda refusal: refusal.condition)
def test_with_a_plan(refusal: Refusal) -> None:
    batch = a_batch(alibi="biased" if refusal in SLOPES else "")
    arguments = arguments_of(batch)
    arguments["plan"] = batch.planner().plan(batch.starts, batch.seq_lens, 1, batch.tokens)
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: paged_attention(**arguments))


def test_every_condition_has_words() -> None:
    check_words("paged_attention", RUN, TENSORS + OF_THE_PLAN + SLOPES)


@pytest.mark.parametrize(
    ("options", "changes", "says"),
    [
        ({"soft_cap": 20.0}, {"soft_cap": 0.0}, "soft_cap is 0.0; it must be .* capped"),
        ({"alibi": "biased"}, {"alibi_slopes": None}, "alibi_slopes is None; it must be .* biased"),
        ({"alibi": "rooted"}, {"alibi_slopes": None}, "alibi_slopes is None; it must be .* rooted"),
        ({"alibi": "rooted"}, {"soft_cap": 1.0}, "soft_cap is 1.0; it must be .* rooted"),
    ],
)
def test_what_the_plans_scores_need(options: dict[str, Any], changes: dict[str, Any], says: str) -> None:
    batch = a_batch(**options)
    plan = batch.planner().plan(batch.starts, batch.seq_lens, 1, batch.tokens)
    with pytest.raises(ValueError, match=says):
        paged_attention(**arguments_of(batch) | changes, plan=plan)


PLANS = [
    Refusal(
        "num_tokens.bounds",
        {"num_tokens": lambda _: 3},
        ValueError,
        "num_tokens is 3; it must be 0 to max_num_tokens, 2",
    ),
    Refusal("num_tokens.bounds", {"num_tokens": lambda _: -1}, ValueError, "num_tokens is -1"),
    Refusal("max_query_len.least", {"max_query_len": lambda _: -1}, ValueError, "max_query_len is -1"),
    Refusal(
        "causal.type", {"causal": lambda _: 1}, ValueError, "causal is 1; it must be True, False or an int32 tensor"
    ),
    Refusal("causal.type", {"causal": lambda _: [1, 0]}, ValueError, "causal is .1, 0.; it must be"),
    *(
        Refusal("causal.requests", {"causal": wrong}, ValueError, rf"int32 \[requests\] on {DEVICE}.*seq_lens is \[2\]")
        for wrong in (each(2, dtype=torch.int64), each(3), each(2, 1), lambda _: strided(each(2)(None)))
    ),
    Refusal("ranges.tensor", {"ranges": lambda t: t.tolist()}, TypeError, "ranges is a list"),
    *(
        Refusal("ranges.shape", {"ranges": wrong}, ValueError, rf"int32 \[requests, ranges, 2\] on {DEVICE}.*is \[2\]")
        for wrong in (lambda t: t.long(), lambda t: t[:1], lambda t: t[..., 0], lambda t: t.repeat(1, 1, 2))
    ),
    Refusal("ranges.contiguous", {"ranges": strided}, ValueError, "contiguous in its last two"),
    Refusal("ranges.contiguous", {"ranges": lambda t: t.repeat(1, 2, 1)[:, ::2]}, ValueError, "contiguous"),
    Refusal("seq_lens.tensor", {"seq_lens": lambda t: None}, TypeError, "seq_lens is a NoneType"),
    Refusal("seq_lens.dtype", {"seq_lens": lambda t: t.float()}, TypeError, "torch.float32.*int32"),
    Refusal("seq_lens.device", {"seq_lens": elsewhere}, ValueError, f"on {DEVICE}"),
    Refusal("seq_lens.dims", {"seq_lens": lambda t: t[:, None]}, ValueError, r"seq_lens is \[2, 1\].*\[requests\]"),
    Refusal("seq_lens.contiguous", {"seq_lens": strided}, ValueError, "contiguous"),
    Refusal(
        "seq_lens.bounds",
        {"seq_lens": lambda t: t.repeat(2)[:3]},
        ValueError,
        r"seq_lens is \[3\].*of 1 to max_num_reqs, 2, requests",
    ),
    Refusal("seq_lens.bounds", {"seq_lens": lambda t: t[:0]}, ValueError, r"seq_lens is \[0\]"),
    Refusal("query_start_loc.tensor", {"query_start_loc": lambda t: t.tolist()}, TypeError, "is a list"),
    Refusal("query_start_loc.tensor", {"query_start_loc": lambda t: t.to("meta")}, ValueError, "is on meta"),
    Refusal("query_start_loc.dtype", {"query_start_loc": lambda t: t.long()}, TypeError, "torch.int64.*int32"),
    Refusal("query_start_loc.device", {"query_start_loc": elsewhere}, ValueError, f"on {DEVICE}"),
    Refusal(
        "query_start_loc.shape",
        {"query_start_loc": lambda t: t[:2]},
        ValueError,
        r"query_start_loc is \[2\].*\[requests \+ 1\], as seq_lens is \[2\]",
    ),
    Refusal("query_start_loc.contiguous", {"query_start_loc": strided}, ValueError, "contiguous"),
]


# Of a plan for a mask without ranges.
WINDOWS = [Refusal("ranges.mask", {}, ValueError, "must be None for a problem whose mask is 'windowed'")]


@pytest.mark.parametrize("refusal", PLANS + WINDOWS, ids=lambda refusal: refusal.condition)
def test_plans(refusal: Refusal) -> None:
    batch = a_batch(ranges=None if refusal in WINDOWS else [[], []])
    arguments = {"query_start_loc": batch.starts, "seq_lens": batch.seq_lens, "max_query_len": 1, "num_tokens": 2}
    arguments |= {"causal": True, "ranges": torch.zeros(2, 2, 2, dtype=torch.int32, device=DEVICE)}
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    batch.window = 7
    planner = batch.planner()
    check_refusal(refusal, lambda: planner.plan(**arguments))


def test_every_condition_of_a_plan_has_words() -> None:
    check_words("AttentionPlanner.plan", PLAN, PLANS + WINDOWS)


# Without a plan the first three tensors say what the planner is for; the rest is as with one.
UNPLANNED = [
    ({"query": lambda t: None}, TypeError, "query is a NoneType"),
    ({"query": lambda t: t[:, 0]}, ValueError, r"query is .*\[tokens, num_heads, head_size\]"),
    ({"query": lambda t: t.double()}, TypeError, "query.*dtype is float64"),
    ({"query": lambda t: t[..., :16]}, ValueError, "query.*head_size is 16"),
    ({"kv_cache": lambda t: t[0]}, ValueError, r"kv_cache is .*\[blocks, num_kv_heads"),
    ({"kv_cache": lambda t: t[:, :0]}, ValueError, "kv_cache.*num_heads is 8 beside num_kv_heads 0"),
    ({"kv_cache": lambda t: t.to("meta")}, ValueError, "kv_cache is on meta"),
    ({"seq_lens": lambda t: t[:, None]}, ValueError, r"seq_lens is \[2, 1\].*\[requests\]"),
    ({"seq_lens": lambda t: t.long()}, TypeError, "seq_lens is torch.int64.*int32"),
    ({"query_start_loc": lambda t: t[:-1]}, ValueError, r"query_start_loc is \[2\].*\[requests \+ 1\]"),
    ({"query_start_loc": lambda t: None}, TypeError, "query_start_loc is a NoneType"),
    ({"window": lambda _: -1}, ValueError, "window is -1; it must be at least 0"),
    ({"max_query_len": lambda _: -1}, ValueError, "max_query_len is -1"),
    ({"soft_cap": lambda _: -1.0}, ValueError, "soft_cap is -1.0; .*at least 0"),
    ({"soft_cap": lambda _: float("nan")}, ValueError, "soft_cap is nan"),
    ({"soft_cap": lambda _: 1.0, "alibi_slopes": floats(8)}, ValueError, "alibi_slopes is .*scores that are capped"),
    ({"alibi_slopes": floats(7)}, ValueError, r"alibi_slopes is \[7\].*\[8\]"),
    ({"alibi_slopes": floats(8, dtype=torch.float16)}, TypeError, "alibi_slopes is torch.float16"),
    ({"causal": lambda _: None}, ValueError, "causal is None; it must be True, False or an int32 tensor"),
    ({"causal": floats(2)}, ValueError, r"causal is \[2\].*int32 \[requests\]"),
    ({"ranges": floats(2, 1, 2)}, ValueError, r"ranges is \[2, 1, 2\].*int32 \[requests, ranges, 2\]"),
    *(
        (refusal.changes, refusal.error, refusal.says)
        for refusal in TENSORS
        if refusal.condition.split(".")[0] in ("kv_cache", "out", "block_table", "scale", "sinks")
    ),
]


@pytest.mark.parametrize(("changes", "error", "says"), UNPLANNED, ids=lambda x: x if isinstance(x, str) else "")
def test_without_a_plan(changes: dict[str, Callable[[Any], object]], error: type[Exception], says: str) -> None:
    """Not even the plan is launched."""
    arguments = arguments_of(a_batch())
    arguments |= {name: change(arguments[name]) for name, change in changes.items()}
    rocmforge_plugin.reset_launches()
    device.read_tensors_by(None)  # where `elsewhere` is seen
    try:
        with pytest.raises(error, match=says):
            paged_attention(**arguments)
    finally:
        device.read_tensors_by(getattr(torch.Tensor, "__dlpack_c_exchange_api__", None))
    assert rocmforge_plugin.launches() == {}


@pytest.mark.parametrize("planned", [False, True])
def test_a_query_that_is_none_and_no_out(planned: bool) -> None:
    batch = a_batch()
    arguments = arguments_of(batch) | {"query": None, "out": None}
    plan = batch.planner().plan(batch.starts, batch.seq_lens, 1, batch.tokens) if planned else None
    with pytest.raises(TypeError, match="query is a NoneType"):
        paged_attention(**arguments, plan=plan)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("name", ["kv_cache", "block_table", "out", "query"])
def test_tensors_of_the_cpu(name: str) -> None:
    batch = a_batch()
    arguments = arguments_of(batch)
    plan = batch.planner().plan(batch.starts, batch.seq_lens, 1, batch.tokens)
    arguments[name] = arguments[name].cpu()
    with pytest.raises(ValueError, match=f"{name} is on cpu"):
        paged_attention(**arguments, plan=plan)
    assert launches_of("attention_decode") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key_dims": 68, "value_dims": 68}, "head_size is 68; it must be a multiple of 8 from 32 to 256, or 512"),
        ({"key_dims": 24, "value_dims": 24}, "head_size is 24; it must be a multiple of 8 from 32"),
        ({"key_dims": 264, "value_dims": 264}, "head_size is 264; it must be a multiple of 8 from 32 to 256, or 512"),
        ({"key_dims": 512, "value_dims": 512, "score": "capped"}, "head_size is 512; it must be .* from 32 to 256$"),
        ({"key_dims": 136, "value_dims": 136, "score": "biased"}, "head_size is 136; it must be .* from 32 to 128$"),
        ({"mask": "torn"}, "mask is 'torn'; it must be one of windowed, ranges, clamped_ranges"),
        ({"mask": "ranges", "score": "biased"}, "score is 'biased'; it must be one of plain, capped"),
        ({"mask": "ranges", "format": "split"}, "mask is 'ranges'; it must be 'windowed' for the split format"),
        ({"format": "narrow"}, "format is 'narrow'; it must be one of joined, latent, split$"),
        ({"value_dims": 128}, "value_dims is 128 beside key_dims"),
        ({"num_heads": 129, "num_kv_heads": 1}, "num_heads is 129"),
        ({"num_heads": 6, "num_kv_heads": 4}, "num_heads is 6"),
        ({"num_kv_heads": 0}, "num_heads is 8 beside num_kv_heads 0"),
        ({"window": -1}, "window is -1"),
        ({"window": 1 << 31}, r"window is 2147483648; it must be at least 0 and less than 2\^31"),
        ({"format": "woven"}, "format is 'woven'"),
        ({"score": "sung"}, "score is 'sung'"),
        ({"max_num_reqs": 0}, "max_num_reqs is 0"),
        ({"max_num_tokens": 0}, "max_num_tokens is 0"),
        ({"decode_query_len": 0}, "decode_query_len is 0"),
        ({"dtype": torch.int8}, "dtype is int8"),
    ],
)
def test_planners(change: dict[str, Any], says: str) -> None:
    """Problems there is no kernel for are named when the planner is made."""
    problem = {"dtype": torch.bfloat16, "num_heads": 8, "num_kv_heads": 2, "key_dims": 64, "value_dims": 64}
    bounds: dict[str, Any] = {"max_num_reqs": 2, "max_num_tokens": 8, "decode_query_len": 1}
    for name, value in change.items():
        (bounds if name in bounds else problem)[name] = value
    with pytest.raises((ValueError, TypeError), match=f"AttentionPlanner: {says}"):
        AttentionPlanner(Problem(**problem), DEVICE, **bounds)


def test_cores_are_the_cpus() -> None:
    problem = Problem("bfloat16", 8, 2, 64, 64, core="MmaSm80")
    assert [refusal.field for refusal in problem.refusals("amd")] == ["core"]
    assert problem.refusals("cpu") == []


def test_the_host_module_agrees_with_what_is_served() -> None:
    assert _C.block_multiple == served.BLOCK_MULTIPLE
    assert list(served.ELEMENTS.values()) == list(SUFFIX.values())
    known: dict[str, Any] = {"key_dims": 64, "value_dims": 64, "kv_heads": 1, "group": 1, "window": 0}
    known |= {"listed": False, "clamped": False, "capped": False, "sloped": False, "partial_dims": 64}
    for op, element, says in (("paged_attention", "f8", "element is f8"), ("kv_write", "bf16", "op is kv_write")):
        with pytest.raises(ValueError, match=says):
            _C.Problem(op=op, element=element, **known, suffix="", combine_suffix="")
