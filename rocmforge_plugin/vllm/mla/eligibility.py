# SPDX-License-Identifier: Apache-2.0
"""What of latent attention the kernels can serve, as tables in the style of those for dense layers.

Neither vLLM nor torch is imported. A latent is one row for all heads: kv_lora_rank elements, which are the value too,
and qk_rope_head_dim elements behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rocmforge_plugin import served
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.eligibility import (
    EITHER,
    KV_CACHE_DTYPE,
    ONE_RANK,
    OTHER_BACKEND,
    Rule,
    attn_type,
    flag,
    off,
    problem_refusals,
    rule_refusals,
    whatever,
)


def heads_of(format: str) -> tuple[tuple[int, int], ...]:
    """The (key dims, value dims) that have kernels for a format."""
    return next((heads for name, _, heads in served.PROBLEMS if name == format), ())


LATENTS = dict(heads_of("latent"))  # head_size -> kv_lora_rank
PREFILLS = heads_of("split")  # (qk_nope_head_dim + qk_rope_head_dim, v_head_dim)
SPARSE = "sparse latent attention, as of GLM-5 and DeepSeek-V3.2"
ATTN_TYPE = attn_type("decoder")
# Of a layer, what its problems are made of.
PROBLEM = ("dtype", "num_heads", "num_kv_heads")


def _one_of(served_here: Iterable[object]) -> str:
    return f"it must be one of {', '.join(map(str, served_here))}, or {OTHER_BACKEND}"


# The fields of vLLM's AttentionSelectorConfig, 0.32 and 0.33.
SELECTION = (
    *EITHER,
    # vLLM reads contexts in chunks whose lengths depend on the batch.
    flag("use_batch_invariant", "batch-invariant mode", "unset VLLM_BATCH_INVARIANT, or " + OTHER_BACKEND),
    ATTN_TYPE,
    flag("use_mm_prefix", "bidirectional attention over multimodal spans"),
    flag("use_non_causal", "non-causal decoder attention"),
    Rule(
        "head_size",
        lambda value, asked: value in LATENTS,
        "a latent of {value} elements (head_size, which is kv_lora_rank + qk_rope_head_dim) has no kernel",
        _one_of(LATENTS),
    ),
    Rule("use_mla", lambda value, asked: bool(value), "dense attention (use_mla={value}) is not served by this class"),
    flag("use_dcp", "decode context parallelism over latents", ONE_RANK),
    flag("use_sparse", SPARSE),
    flag("has_sliding_window", "a sliding window over latents"),
    flag("has_sink", "attention sinks beside latents"),
)
PREFILL = Rule(
    "prefill",
    lambda value, asked: value in PREFILLS,
    "prefill with heads of {value} elements (qk_nope_head_dim + qk_rope_head_dim, v_head_dim) has no kernel",
    _one_of(PREFILLS),
)
# The arguments of a layer's implementation.
LAYER = (
    Rule("head_size", whatever, ""),  # together with kv_lora_rank:
    Rule(
        "latent",
        lambda value, asked: value in LATENTS.items(),
        "a latent of {value} elements (kv_lora_rank + qk_rope_head_dim, kv_lora_rank) has no kernel",
        _one_of(LATENTS.items()),
    ),
    PREFILL,
    Rule("alibi_slopes", off, "ALiBi (alibi_slopes) is not supported"),
    flag("sliding_window", "a sliding window over latents"),
    KV_CACHE_DTYPE,
    flag("logits_soft_cap", "a soft cap on attention logits"),
    ATTN_TYPE,
    Rule(
        "kv_sharing_target_layer_name", off, "another layer's latents (kv_sharing_target_layer_name) are not supported"
    ),
    Rule("indexer", off, SPARSE + " (indexer) is not supported"),
    Rule("q_pad_num_heads", off, "padding query heads (q_pad_num_heads={value}) is not supported"),
    *(Rule(given, whatever, "") for given in ("scale", "q_lora_rank", "kv_b_proj")),
)


def latent_problem(dtype: str, num_heads: int, head_size: int, kv_lora_rank: int) -> Problem:
    """What decodes compute: all heads attend to one row a token."""
    return Problem(dtype, num_heads, 1, head_size, kv_lora_rank, format="latent")


def prefill_problem(dtype: str, num_heads: int, qk_head_dim: int, v_head_dim: int) -> Problem:
    """What prompts compute: each head has keys and values of its own."""
    return Problem(dtype, num_heads, num_heads, qk_head_dim, v_head_dim, format="split")


def selection_refusals(settings: Mapping[str, Any], target: str) -> list[str]:
    """Reasons why a layer cannot be served on `target` ("amd", "nvidia" or "cpu"), empty when it can.

    Args:
        settings: fields of vLLM's selector, dtypes as names, and num_heads; what is unknown is refused when it is set.
        target: "amd", "nvidia" or "cpu".
    """
    found = rule_refusals(settings, target, SELECTION, PROBLEM)
    head_size = settings.get("head_size")
    if head_size not in LATENTS:  # of which nothing else can be said
        return found
    return problem_refusals(known_problem(settings, target), target) + found


def known_problem(settings: Mapping[str, Any], target: str) -> Problem:
    """The problem of a head size that is served; what is not told is taken to be served."""
    dtype = settings.get("dtype") or served.DTYPES[target][0]
    head_size = settings["head_size"]
    return latent_problem(dtype, settings.get("num_heads") or 1, head_size, LATENTS[head_size])


def layer_refusals(arguments: Mapping[str, Any], target: str) -> list[str]:
    """Reasons why an implementation's arguments cannot be served; they name the layer's heads in full.

    Args:
        arguments: as vLLM's MLA layer gives them by name.
        target: "amd", "nvidia" or "cpu".
    """
    given = dict(arguments)
    dims = {name: given.pop(name) for name in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")}
    given["latent"] = (given["head_size"], dims["kv_lora_rank"])
    given["prefill"] = (given.pop("qk_head_dim"), dims["v_head_dim"])
    found = rule_refusals(given, target, LAYER, PROBLEM)
    if given["latent"] not in LATENTS.items():  # of which nothing else can be said
        return found
    return (
        problem_refusals(latent_problem(served.DTYPES[target][0], given["num_heads"], *given["latent"]), target) + found
    )


def prefill_refusals(dtype: str, heads: tuple[int, int], target: str) -> list[str]:
    """Reasons why prompts of a model with heads (qk_nope_head_dim + qk_rope_head_dim, v_head_dim) cannot be served."""
    found = rule_refusals({"prefill": heads}, target, (PREFILL,), ())
    return found or problem_refusals(prefill_problem(dtype, 1, *heads), target)
