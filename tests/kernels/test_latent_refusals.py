# SPDX-License-Identifier: Apache-2.0
"""What latent attention refuses: in words that name the argument, before anything is launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import device
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.latent import RUN, latent_attention
from rocmforge_plugin.ops.planner import AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import Problem

from .attention_support import Batch, launches_of
from .kernel_support import DEVICE, TABLE, Refusal, check_refusal, check_words, elsewhere, poison
from .latent_support import LatentBatch


def a_batch() -> LatentBatch:
    return LatentBatch(torch.bfloat16, (576, 512), 20, [(1, 70), (1, 20)], 16, seed=1)


def arguments_of(batch: LatentBatch) -> dict[str, Any]:
    assert batch.lse is not None
    return {
        "query_latent": batch.query.view,
        "query_rope": None if batch.rope is None else batch.rope.view,
        "kv_cache": batch.cache,
        "block_table": batch.block_table,
        "seq_lens": batch.seq_lens,
        "query_start_loc": batch.starts,
        "out": batch.out.view,
        "lse": batch.lse.view,
        "causal": True,
        "scale": batch.scale,
        "max_query_len": 1,
    }


def strided(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.repeat_interleave(2, -1)[..., ::2]


def narrow(tensor: torch.Tensor) -> torch.Tensor:
    """In rows that begin at odd multiples of 8 bytes."""
    size = tensor.shape[-1] + 4
    return poison(tensor[..., 0].numel() * size, tensor.dtype, 0).view(*tensor.shape[:-1], size)[..., :-4]


def shifted(tensor: torch.Tensor) -> torch.Tensor:
    """At an address that is an odd multiple of 2 bytes."""
    return poison(tensor.numel() + 1, tensor.dtype, 0)[1:].view(tensor.shape)


def paged_plan() -> AttentionPlan:
    """Of two requests, whose cache has rows as long as those of the latents."""
    planner = AttentionPlanner(Problem(torch.bfloat16, 20, 1, 64, 64), DEVICE, 2, 2)
    batch = a_batch()
    return planner.plan(batch.starts, batch.seq_lens, 1, 2)


TENSORS = [
    *(
        Refusal(f"{name}.tensor", {name: lambda t: t.to_sparse()}, ValueError, "of layout torch.sparse_coo")
        for name in ("query_latent", "query_rope", "kv_cache", "out", "block_table", "seq_lens")
    ),
    *(
        Refusal(f"{name}.device", {name: elsewhere}, ValueError, "query_latent's device")
        for name in ("kv_cache", "out", "lse", "block_table")
    ),
    *(
        Refusal(f"{name}.aligned", {name: change}, ValueError, says)
        for name in ("query_latent", "query_rope", "kv_cache", "out")
        for change, says in ((strided, "contiguous in its last"), (narrow, "16 bytes"), (shifted, "at address .*16"))
    ),
    Refusal("query_latent.dtype", {"query_latent": lambda t: t.double()}, TypeError, "torch.float64"),
    Refusal("query_latent.shape", {"query_latent": lambda t: t[:, 0]}, ValueError, r"\[tokens, "),
    Refusal("query_rope.given", {"query_rope": lambda t: None}, ValueError, "None; it must be a tensor where a key"),
    Refusal("query_rope.tensor", {"query_rope": lambda t: t.tolist()}, TypeError, "query_rope is a list"),
    Refusal("query_rope.dtype", {"query_rope": lambda t: t.half()}, TypeError, "torch.float16.*bfloat16"),
    Refusal("query_rope.device", {"query_rope": elsewhere}, ValueError, "query_rope is on "),
    Refusal("query_rope.shape", {"query_rope": lambda t: t[..., :32]}, ValueError, r"\[tokens, num_heads, 64\]"),
    Refusal("query_rope.shape", {"query_rope": lambda t: t[:1]}, ValueError, r"as query_latent is \[2, 20, 512\]"),
    Refusal("query_rope.shape", {"query_rope": lambda t: t[:, :1]}, ValueError, r"as query_latent is \[2, 20, 512\]"),
    Refusal("query_rope.shape", {"query_rope": lambda t: t[:, 0]}, ValueError, r"query_rope is \[2, 64\]"),
    Refusal("kv_cache.dtype", {"kv_cache": lambda t: t.half()}, TypeError, "torch.float16.*query_latent's dtype"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[:, None]}, ValueError, r"\[blocks, block_size, 576\]"),
    Refusal("kv_cache.shape", {"kv_cache": lambda t: t[..., :512]}, ValueError, r"\[blocks, block_size, 576\]"),
    Refusal("kv_cache.block_size", {"kv_cache": lambda t: t[:, :8]}, ValueError, "block size that 16 divides"),
    Refusal("kv_cache.block_size", {"kv_cache": lambda t: t[:, :0]}, ValueError, "block size that 16 divides"),
    Refusal("out.dtype", {"out": lambda t: t.half()}, TypeError, "query_latent's dtype"),
    Refusal("out.shape", {"out": lambda t: t[:, :1]}, ValueError, r"num_heads, 512\], as query.* is \[2, 20, 512\]"),
    Refusal("out.shape", {"out": lambda t: t[:1]}, ValueError, "out is "),
    Refusal("block_table.dtype", {"block_table": lambda t: t.long()}, TypeError, "int32"),
    Refusal("block_table.shape", {"block_table": lambda t: t[0]}, ValueError, r"\[requests, blocks\]"),
    Refusal("block_table.shape", {"block_table": lambda t: t[:1]}, ValueError, r"as seq_lens is \[2\]"),
    Refusal("block_table.contiguous", {"block_table": strided}, ValueError, "contiguous rows"),
    Refusal("scale.range", {"scale": lambda _: 0.0}, ValueError, "positive"),
    Refusal("scale.range", {"scale": lambda _: float("nan")}, ValueError, "scale is nan"),
    Refusal("lse.tensor", {"lse": lambda t: t.tolist()}, TypeError, "lse is a list"),
    Refusal("lse.dtype", {"lse": lambda t: t.half()}, TypeError, "torch.float16; it must be float32"),
    Refusal("lse.shape", {"lse": lambda t: t.T}, ValueError, r"\[num_heads, tokens\], as query.* is \[2, 20, 512\]"),
    Refusal("lse.shape", {"lse": lambda t: t[0]}, ValueError, r"\[num_heads, tokens\]"),
    Refusal("lse.own", {"lse": lambda t: t[:, :1].expand(20, 2)}, ValueError, "expanded"),
]
# What does not agree with the plan that was made for a call.
OF_THE_PLAN = [
    Refusal(
        "plan.op",
        {"plan": lambda _: paged_plan()},
        ValueError,
        "latent_attention: plan is for paged_attention; it must be for latent_attention",
    ),
    Refusal("query_latent.device", {"query_latent": elsewhere}, ValueError, "as the plan is"),
    Refusal(
        "query_latent.shape", {"query_latent": lambda t: t[:, :4]}, ValueError, r"\[tokens, 20, 512\], as the plan"
    ),
    Refusal("query_latent.shape", {"query_latent": lambda t: t[..., :256]}, ValueError, r"\[tokens, 20, 512\]"),
    Refusal("seq_lens.plan", {"seq_lens": lambda t: t[:, None]}, ValueError, "of 2 requests, as the plan is"),
    Refusal("seq_lens.plan", {"seq_lens": lambda t: t[:1]}, ValueError, "of 2 requests, as the plan is"),
    Refusal("causal.plan", {"causal": lambda _: False}, ValueError, "causal is False; it must be True, as the plan"),
    Refusal("max_query_len.plan", {"max_query_len": lambda _: 2}, ValueError, "at most 1, as the plan has it"),
]


@pytest.mark.parametrize("refusal", TENSORS + OF_THE_PLAN, ids=lambda refusal: refusal.condition)
def test_with_a_plan(refusal: Refusal) -> None:
    batch = a_batch()
    arguments = arguments_of(batch) | {"plan": batch.plan(batch.planner())}
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: latent_attention(**arguments))


def test_every_condition_has_words() -> None:
    check_words("latent_attention", RUN, TENSORS + OF_THE_PLAN)


def test_a_rope_free_query_has_one_part() -> None:
    batch = LatentBatch(torch.bfloat16, (512, 512), 20, [(1, 70), (1, 20)], 16, seed=1)
    arguments = arguments_of(batch) | {"plan": batch.plan(batch.planner()), "query_rope": batch.query.view}
    refusal = Refusal("query_rope.given", {}, ValueError, "a tensor where a key has more elements .*, else None")
    check_refusal(refusal, lambda: latent_attention(**arguments))


def test_paged_attention_refuses_a_plan_of_latents() -> None:
    """Though its tensors would pass for the plan's."""
    batch = Batch(torch.bfloat16, 256, 1, 4, [(1, 70), (1, 20)], 16, seed=1)
    planner = AttentionPlanner(Problem(torch.bfloat16, 4, 1, 512, 512, format="latent"), DEVICE, 2, 2)
    plan = planner.plan(batch.starts, batch.seq_lens, 1, 2)
    tensors = batch.query.view, batch.cache, batch.block_table, batch.seq_lens, batch.starts
    refusal = Refusal(
        "plan.op", {}, ValueError, "paged_attention: plan is for latent_attention; it must be for paged_attention"
    )
    check_refusal(refusal, lambda: paged_attention(*tensors, max_query_len=1, scale=1.0, plan=plan))


# Without a plan the tensors say what the planner is for; the rest is as with one.
UNPLANNED = [
    ({"query_latent": lambda t: None}, TypeError, "query_latent is a NoneType"),
    ({"query_latent": lambda t: t[:, 0]}, ValueError, r"query_latent is .*\[tokens, num_heads, L\]"),
    ({"query_latent": lambda t: t.double()}, TypeError, "query_latent.*dtype is float64"),
    ({"query_latent": lambda t: t[..., :256]}, ValueError, "query_latent and kv_cache: value_dims is 256 beside .*576"),
    ({"query_latent": lambda t: t[:, :1].expand(2, 129, 512)}, ValueError, "num_heads is 129 beside num_kv_heads 1"),
    ({"kv_cache": lambda t: t[0]}, ValueError, r"kv_cache is .*\[blocks, block_size, L \+ R\]"),
    ({"kv_cache": lambda t: t[..., :520]}, ValueError, "value_dims is 512 beside key_dims 520; it must be one of 512"),
    ({"kv_cache": lambda t: t.to("meta")}, ValueError, "kv_cache is on meta"),
    ({"seq_lens": lambda t: t[:, None]}, ValueError, r"seq_lens is \[2, 1\].*\[requests\]"),
    ({"seq_lens": lambda t: t.long()}, TypeError, "seq_lens is torch.int64.*int32"),
    ({"query_start_loc": lambda t: t[:-1]}, ValueError, r"query_start_loc is \[2\].*\[requests \+ 1\]"),
    ({"query_start_loc": lambda t: None}, TypeError, "query_start_loc is a NoneType"),
    ({"max_query_len": lambda _: -1}, ValueError, "max_query_len is -1"),
    *(
        (refusal.changes, refusal.error, refusal.says)
        for refusal in TENSORS
        if refusal.condition.split(".")[0] in ("query_rope", "out", "block_table", "scale", "lse")
        or refusal.condition in ("kv_cache.dtype", "kv_cache.block_size", "kv_cache.aligned")
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
            latent_attention(**arguments)
    finally:
        device.read_tensors_by(TABLE)
    assert rocmforge_plugin.launches() == {}


@pytest.mark.parametrize("planned", [False, True])
def test_a_query_that_is_none_and_no_out(planned: bool) -> None:
    batch = a_batch()
    arguments = arguments_of(batch) | {"query_latent": None, "out": None}
    plan = batch.plan(batch.planner()) if planned else None
    with pytest.raises(TypeError, match="query_latent is a NoneType"):
        latent_attention(**arguments, plan=plan)


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize("name", ["kv_cache", "block_table", "out", "query_latent", "query_rope"])
def test_tensors_of_the_cpu(name: str) -> None:
    batch = a_batch()
    arguments = arguments_of(batch) | {"plan": batch.plan(batch.planner())}
    arguments[name] = arguments[name].cpu()
    with pytest.raises(ValueError, match=f"{name} is on cpu"):
        latent_attention(**arguments)
    assert launches_of("attention_decode") == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"key_dims": 640}, "value_dims is 512 beside key_dims 640; it must be one of 512 beside 576, "),
        ({"key_dims": 576, "value_dims": 576}, "head_size is 576; it must be 512"),
        ({"num_heads": 129}, "num_heads is 129 beside num_kv_heads 1; it must be 1 to 128 times"),
        ({"score": "sung"}, "score is 'sung'; it must be one of plain"),
        ({"dtype": "int8"}, "dtype is int8"),
    ],
)
def test_planners(change: dict[str, Any], says: str) -> None:
    """Problems there is no kernel for are named when the planner is made."""
    problem = {"dtype": torch.bfloat16, "num_heads": 20, "num_kv_heads": 1, "key_dims": 576, "value_dims": 512}
    with pytest.raises((ValueError, TypeError), match=f"AttentionPlanner: {says}"):
        AttentionPlanner(Problem(**problem | change, format="latent"), DEVICE, 2, 8)
