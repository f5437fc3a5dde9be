# SPDX-License-Identifier: Apache-2.0
"""What the attention kernels can serve, as one table, and the function that turns a configuration into reasons.

Which heads and dtypes have kernels is asked of the layer's problem; the table is about all else that vLLM may ask for.
Neither vLLM nor torch is imported, so it can be read and tested anywhere. A reason names the setting, the value that
came and what works instead; an empty list means that rocmforge serves the layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from rocmforge_plugin import served
from rocmforge_plugin.problem import Problem

KV_CACHE_DTYPES = ("auto", "float16", "bfloat16")
OTHER_BACKEND = "leave out --attention-backend and vLLM picks a backend that does"
IMAGE_SPANS = "images whose tokens see each other (use_mm_prefix)"
TEXT_ALONE = "--limit-mm-per-prompt be 0 of each kind, which leaves the model its text, or "
# Settings that say what the problem is, and what its fields are called there where they are called otherwise.
PROBLEM = ("dtype", "head_size", "head_size_v", "num_heads", "num_kv_heads", "alibi_slopes", "use_alibi_sqrt")
NAMES = {"dtype": "--dtype", "value_dims": "head_size_v"}
# The scores of a problem that are not plain, in words.
SCORES = {
    "capped": "a soft cap on attention logits (logits_soft_cap)",
    "biased": "ALiBi (alibi_slopes)",
    "rooted": "square-root ALiBi (use_alibi_sqrt)",
}


def head_sizes(score: str = "plain") -> tuple[int, ...]:
    """Those with kernels for a score, whether of their own or for longer heads."""
    heads = [(format, size) for format, found, sizes in served.PROBLEMS if found == score for size, _ in sizes]
    most = max((size for format, size in heads if format == served.NARROW["joined"]), default=0)
    longer = sorted(size for format, size in heads if format == "joined" and size > most)
    return (*range(served.LEAST_HEAD, most + 1, served.NARROW_STEP), *longer)


def head_sizes_text(score: str = "plain") -> str:
    """The same in words."""
    sizes = head_sizes(score)
    most = max(size for size in sizes if size - served.NARROW_STEP in sizes)
    step = f"multiples of {served.NARROW_STEP} from {served.LEAST_HEAD} to {most}"
    return ", and ".join((step, *(str(size) for size in sizes if size > most)))


HEAD_SIZES = head_sizes()


class Asked(NamedTuple):
    """What beside a setting decides on it."""

    target: str  # "amd", "nvidia" or "cpu"
    dtype: str | None = None  # of the model, where it is known


@dataclass(frozen=True)
class Rule:
    """One setting: which values are served, and what to say of the others.

    `reason` and `instead` are format strings over `value`, `dtype` and `target`.
    """

    setting: str
    accepts: Callable[[Any, Asked], bool]
    reason: str
    instead: str | Callable[[Asked], str] = OTHER_BACKEND

    def refusal(self, value: Any, asked: Asked) -> str | None:
        """The reason why `value` is not served, or None."""
        if self.accepts(value, asked):
            return None
        instead = self.instead if isinstance(self.instead, str) else self.instead(asked)
        return f"{self.reason}; {instead}".format(value=value, **asked._asdict())


def off(value: Any, asked: Asked) -> bool:
    """Accepts a setting that is not set."""
    return value is None or (isinstance(value, (int, float)) and not value)


def whatever(value: Any, asked: Asked) -> bool:
    """Accepts any value."""
    return True


def flag(setting: str, what: str, instead: str = OTHER_BACKEND) -> Rule:
    """A setting that must be off, and what it is about."""
    return Rule(setting, off, f"{what} ({setting}={{value}}) is not supported", instead)


def _kv_cache_dtype_is_served(value: Any, asked: Asked) -> bool:
    return value in (None, "auto", *((asked.dtype,) if asked.dtype else KV_CACHE_DTYPES))


def _kv_cache_dtype_instead(asked: Asked) -> str:
    # "auto" is not named: a checkpoint that declares a quantized cache turns it into one.
    if asked.dtype is None:
        return "use the model's dtype"
    return f"use --kv-cache-dtype {asked.dtype}" if asked.dtype in KV_CACHE_DTYPES else OTHER_BACKEND


KV_CACHE_DTYPE = Rule(
    "kv_cache_dtype",
    _kv_cache_dtype_is_served,
    "KV cache dtype {value} (--kv-cache-dtype, or what the checkpoint declares) is not supported",
    _kv_cache_dtype_instead,
)
# Of vLLM's names, and what they are called in words.
ATTN_TYPES = {
    "decoder": "decoder self-attention",
    "encoder_decoder": "cross attention to an encoder's keys",
    "encoder_only": "self-attention of encoders",
    "encoder": "that of encoders beside a decoder",
}
# Those of whole sequences, which keep no cache: all tokens of a request see each other.
ENCODERS = ("encoder_only", "encoder")


def attn_type(*types: str) -> Rule:
    """Which of ATTN_TYPES a class serves."""
    return Rule(
        "attn_type",
        lambda value, asked: value in types,
        "attention type {value} (attn_type) is not supported",
        f"rocmforge serves {' and '.join(ATTN_TYPES[one] for one in types)} here; {OTHER_BACKEND}",
    )


ATTN_TYPE = attn_type(*ATTN_TYPES)
BLOCK_SIZE = Rule(
    "block_size",
    lambda value, asked: value is None or (value > 0 and value % served.BLOCK_MULTIPLE == 0),
    "KV block size {value} (--block-size) is not supported",
    f"use a multiple of {served.BLOCK_MULTIPLE}",
)

# What decides alike for both kinds of attention, dense and latent (`mla.eligibility`).
EITHER = (
    KV_CACHE_DTYPE,
    BLOCK_SIZE,
    flag("use_per_head_quant_scales", "per-head quantization scales"),
    flag(
        "use_rswa",
        "reference sliding-window attention (rswa_window in the model's config), where a token sees two intervals of "
        "keys, the prompt's and a window's,",
    ),
    flag("use_pcp", "prefill context parallelism", "set --prefill-context-parallel-size 1"),
    # Pages are read and written through their strides, and query lengths on the device.
    Rule("use_kv_connector", whatever, ""),
    Rule("use_adaptive_verification", whatever, ""),
)
# The fields of vLLM's AttentionSelectorConfig, 0.32 and 0.33.
SELECTION = (
    *EITHER,
    ATTN_TYPE,
    Rule("use_mm_prefix", whatever, ""),  # a mask of the problem
    Rule("use_non_causal", whatever, ""),  # the plan's
    Rule("use_dcp", whatever, ""),  # beside which DIVIDED holds
    Rule("use_mla", whatever, ""),  # such a layer has another class, of `mla`
    Rule("use_batch_invariant", whatever, ""),  # plans are then made so that results do not depend on the batch
    flag("use_sparse", "sparse attention"),
    Rule("has_sliding_window", whatever, ""),
    Rule("has_sink", whatever, ""),
)

# The arguments of a layer's implementation that the selection does not see.
LAYER = (
    Rule(
        "logits_soft_cap",
        lambda value, asked: value is None or (value >= 0 and math.isfinite(value)),
        "a soft cap of {value} on attention logits (logits_soft_cap) is not supported",
        "use a finite number above 0, or none",
    ),
    Rule(
        "sliding_window",
        lambda value, asked: value is None or (isinstance(value, int) and value > 0),
        "sliding window {value} (sliding_window) is not supported",
        "use a whole number of keys above 0, or none",
    ),
    Rule("sinks", whatever, ""),
    Rule(
        "chunk_lookback",
        lambda value, asked: value is None or value < 0,
        "chunked attention with lookback (chunk_lookback={value}) is not supported",
    ),
    Rule("use_mm_prefix", whatever, ""),  # a mask of the problem
    KV_CACHE_DTYPE,
    ATTN_TYPE,
    Rule("kv_sharing_target_layer_name", whatever, ""),
    Rule("use_dcp", whatever, ""),
)

# What is asked of an encoder's layer, whatever is of others: no kernel has it for keys without pages.
ENCODER = (
    flag("logits_soft_cap", "a soft cap on attention logits of an encoder"),
    Rule("alibi_slopes", off, "ALiBi (alibi_slopes) of an encoder is not supported"),
    flag("use_alibi_sqrt", "square-root ALiBi of an encoder"),
    Rule("sinks", off, "attention sinks (sinks) of an encoder are not supported"),
    flag("has_sink", "attention sinks of an encoder"),
)


def score_of(settings: Mapping[str, Any]) -> str:
    """What a layer with `settings` does to its scores, as `Problem.score` has it."""
    if settings.get("logits_soft_cap"):
        return "capped"
    if settings.get("alibi_slopes") is None:
        return "plain"
    return "rooted" if settings.get("use_alibi_sqrt") else "biased"


def _undivided(setting: str, what: str) -> Rule:
    return flag(setting, f"{what}, beside decode context parallelism,", ONE_RANK)


ONE_RANK = "set --decode-context-parallel-size 1"
# What the settings of either table must be where ranks divide the keys (`context_parallel`).
DIVIDED = (
    # A rank has runs of keys with gaps between: a window is no interval of them.
    _undivided("has_sliding_window", "a sliding window"),
    _undivided("sliding_window", "a sliding window"),
    _undivided("use_non_causal", "non-causal decoder attention"),
    _undivided("use_mm_prefix", "bidirectional attention over multimodal spans"),
    _undivided("use_batch_invariant", "batch-invariant mode"),
    _undivided("alibi_slopes", "ALiBi"),
    _undivided("logits_soft_cap", "a soft cap on attention logits"),
    Rule(
        "kv_sharing_target_layer_name",
        lambda value, asked: value is None,
        "another layer's keys (kv_sharing_target_layer_name={value}), beside decode context parallelism, are not "
        "supported",
        ONE_RANK,
    ),
    Rule(
        "attn_type",
        lambda value, asked: value in (None, "decoder"),
        "attention type {value} (attn_type), beside decode context parallelism, is not supported",
        ONE_RANK,
    ),
    Rule(
        "head_size",
        lambda value, asked: value is None or not new_tokens_problem(value, asked).refusals(asked.target),
        "head_size {value}, beside decode context parallelism, has no kernel",
        ONE_RANK,
    ),
)


def new_tokens_problem(head_size: int, asked: Asked) -> Problem:
    """What becomes of new tokens where ranks divide the keys; what is not told is taken to be served."""
    return Problem(served.DTYPES[asked.target][0], 1, 1, head_size, head_size, format="split")


def problem_of(settings: Mapping[str, Any], target: str) -> Problem:
    """What a layer with `settings` computes.

    What they do not tell, as vLLM's selection does not tell the heads, is taken to be served: the layer itself is asked
    again.
    """
    size = settings.get("head_size", served.HEAD_SIZES[0])
    heads = settings.get("num_heads", 1)
    return Problem(
        settings.get("dtype", served.DTYPES[target][0]),
        heads,
        settings.get("num_kv_heads", heads),
        size,
        settings.get("head_size_v") or size,
        format=format_of(settings.get("attn_type")),
        score="plain" if settings.get("attn_type") in ENCODERS else score_of(settings),  # which have rules for others
        mask="ranges" if settings.get("use_mm_prefix") else "windowed",
    )


def format_of(attn_type: str | None) -> str:
    """Where a layer's keys and values are: those of an encoder come without pages."""
    return "split" if attn_type in ENCODERS else "joined"


def refusals(settings: Mapping[str, Any], target: str, rules: tuple[Rule, ...] = SELECTION) -> list[str]:
    """Reasons why a layer with `settings` cannot be served on `target`; empty when it can.

    Args:
        settings: setting name -> value; dtypes as names ("bfloat16"). A name that is known neither here nor to the
            table is refused when its value is set, so that a later vLLM cannot switch on something the kernels never
            heard of.
        target: "amd", "nvidia" or "cpu".
        rules: SELECTION for the fields of vLLM's selector, LAYER for the arguments of an implementation.
    """
    encoder = settings.get("attn_type") in ENCODERS
    if encoder:
        stricter = {rule.setting for rule in ENCODER}
        rules = (*(rule for rule in rules if rule.setting not in stricter), *ENCODER)
    found = (
        problem_refusals(problem_of(settings, target), target)
        + ([] if encoder else score_refusals(settings))
        + rule_refusals(settings, target, rules, PROBLEM)
    )
    if settings.get("use_dcp"):
        asked = Asked(target, settings.get("dtype"))
        divided = (rule.refusal(settings.get(rule.setting), asked) for rule in DIVIDED)
        found += [reason for reason in divided if reason is not None]
    return found


def problem_refusals(problem: Problem, target: str) -> list[str]:
    """Reasons why there is no kernel for a problem, in the words of vLLM's settings."""
    found = problem.refusals(target)
    beside, text_alone = "", ""
    if problem.listed and found != replace(problem, mask="windowed").refusals(target):
        beside, text_alone = f" beside {IMAGE_SPANS}", TEXT_ALONE
    elif problem.score in SCORES and found != replace(problem, score="plain").refusals(target):
        beside = f" beside {SCORES[problem.score]}"
    return [
        f"{NAMES.get(field, field)} is {came}{beside}, for which there is no kernel; it must be {works}, or "
        f"{text_alone}{OTHER_BACKEND}"
        for field, came, works in found
    ]


def score_refusals(settings: Mapping[str, Any]) -> list[str]:
    """Reasons why what a layer does to its scores has no kernel, or no meaning."""
    cap, slopes = settings.get("logits_soft_cap"), settings.get("alibi_slopes")
    heads = settings.get("num_heads")
    found = []
    if slopes is not None and cap:
        found.append(
            f"ALiBi (alibi_slopes) beside a soft cap on attention logits (logits_soft_cap={cap}) has no kernel, while "
            f"each alone has; {OTHER_BACKEND}"
        )
    if slopes is not None and heads is not None and len(slopes) != heads:
        found.append(f"alibi_slopes are {len(slopes)}; they must be {heads}, one for each query head")
    return found


def rule_refusals(
    settings: Mapping[str, Any], target: str, rules: tuple[Rule, ...], elsewhere: tuple[str, ...]
) -> list[str]:
    """Reasons by a table; what is looked at `elsewhere` may be missing in it."""
    found = []
    asked = Asked(target, settings.get("dtype"))
    known = {rule.setting: rule for rule in rules}
    for setting, value in settings.items():
        if setting in known:
            reason = known[setting].refusal(value, asked)
            if reason is not None:
                found.append(reason)
        elif setting not in elsewhere and value is not None and value is not False:
            found.append(f"setting {setting}={value!r} is unknown to this version of rocmforge; {OTHER_BACKEND}")
    return found


def supported_table() -> list[tuple[str, str]]:
    """(feature, what is served) rows, for `rocmforge doctor` and the documents."""
    return [
        ("head sizes", head_sizes_text()),
        ("query heads per KV head", f"1 to {served.MAX_GROUP}"),
        ("dtypes", "; ".join(f"{target}: {', '.join(names)}" for target, names in served.DTYPES.items())),
        ("KV cache dtypes", "auto, or the model's"),
        ("KV block sizes", f"multiples of {served.BLOCK_MULTIPLE}"),
        *((words, f"head sizes {head_sizes_text(score)}") for score, words in SCORES.items()),
        ("attention types", ", ".join(ATTN_TYPES)),
        (
            "also",
            (
                "sliding windows, attention sinks, non-causal batches and requests, images whose tokens see each "
                "other, prefix caching, chunked prefill, KV sharing, KV connectors"
            ),
        ),
        ("refused", ", ".join(sorted({r.setting for r in (*SELECTION, *LAYER) if r.accepts is off}))),
    ]
