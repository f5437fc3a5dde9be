# SPDX-License-Identifier: Apache-2.0
"""What the attention kernels can serve, as one table, and the function that turns a configuration into reasons.

Plain data: neither vLLM nor torch is imported, so the table can be read and tested anywhere. A reason names the
setting, the value that came and what works instead; an empty list means that rocmforge serves the layer.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HEAD_SIZES = (64, 80, 96, 128, 192, 256)
MAX_QUERIES_PER_KV_HEAD = 64
BLOCK_MULTIPLE = 16
DTYPES = {"amd": ("float16", "bfloat16"), "nvidia": ("float16", "bfloat16"),
          "cpu": ("float16", "bfloat16", "float32")}
KV_CACHE_DTYPES = ("auto", "float16", "bfloat16")
# AMD architectures with a code object of their own, by the helper of vllm.platforms.rocm that recognises them.
ROCM_ARCHS = {
    "on_gfx90a": ("gfx90a",),
    "on_gfx942": ("gfx942",),
    "on_gfx950": ("gfx950",),
    "on_gfx1100": ("gfx1100",),
    "on_gfx1151": ("gfx1151",),
    "on_rdna4": ("gfx1200", "gfx1201"),
}
OTHER_BACKEND = "leave out --attention-backend and vLLM picks a backend that does"


@dataclass(frozen=True)
class Rule:
    """One setting: which values are served, and what to say of the others.

    `accepts(value, target)` decides; `reason` and `instead` are format strings over `value`, `target` and `served`.
    """

    setting: str
    accepts: Callable[[Any, str], bool]
    reason: str
    instead: str
    served: tuple[Any, ...] | Mapping[str, tuple[Any, ...]] = ()

    def refusal(self, value: Any, target: str) -> str | None:
        """The reason why `value` is not served on `target` (amd, nvidia, cpu), or None."""
        if self.accepts(value, target):
            return None
        served = self.served.get(target, ()) if isinstance(self.served, Mapping) else self.served
        text = f"{self.reason}; {self.instead}"
        return text.format(value=value, target=target, served=", ".join(map(str, served)))


def _off(value: Any, target: str) -> bool:
    return value is None or (isinstance(value, (int, float)) and not value)


def _any(value: Any, target: str) -> bool:
    return True


def _flag(setting: str, what: str, instead: str = OTHER_BACKEND) -> Rule:
    return Rule(setting, _off, f"{what} ({setting}={{value}}) is not supported", instead)


# The fields of vLLM's AttentionSelectorConfig, 0.32 and 0.33.
SELECTION = (
    Rule("head_size", lambda v, t: v in HEAD_SIZES, "head size {value} (head_size) has no kernel",
         "supported head sizes: {served}", HEAD_SIZES),
    Rule("dtype", lambda v, t: v in DTYPES[t], "dtype {value} has no kernel on the {target} target",
         "use --dtype with one of: {served}", DTYPES),
    Rule("kv_cache_dtype", lambda v, t: v is None or v in KV_CACHE_DTYPES,
         "KV cache dtype {value} (--kv-cache-dtype) is not supported", "use one of: {served}", KV_CACHE_DTYPES),
    Rule("block_size", lambda v, t: v is None or (v > 0 and v % BLOCK_MULTIPLE == 0),
         "KV block size {value} (--block-size) is not supported", f"use a multiple of {BLOCK_MULTIPLE}"),
    Rule("attn_type", lambda v, t: v == "decoder", "attention type {value} (attn_type) is not supported",
         "rocmforge serves decoder self-attention; " + OTHER_BACKEND),
    _flag("use_mla", "multi-head latent attention (MLA)"),
    _flag("use_sparse", "sparse attention"),
    _flag("use_mm_prefix", "bidirectional attention over multimodal spans"),
    _flag("use_per_head_quant_scales", "per-head quantization scales"),
    _flag("use_non_causal", "non-causal decoder attention"),
    _flag("use_rswa", "reference sliding-window attention"),
    _flag("use_batch_invariant", "batch-invariant mode", "unset VLLM_BATCH_INVARIANT, or " + OTHER_BACKEND),
    _flag("use_pcp", "prefill context parallelism", "set --prefill-context-parallel-size 1"),
    _flag("use_dcp", "decode context parallelism", "set --decode-context-parallel-size 1"),
    Rule("has_sliding_window", _any, "", ""),
    Rule("has_sink", _any, "", ""),
    # Pages are read and written through their strides, and query lengths on the device.
    Rule("use_kv_connector", _any, "", ""),
    Rule("use_adaptive_verification", _any, "", ""),
)

# The arguments of a layer's implementation that the selection does not see.
LAYER = (
    Rule("num_queries_per_kv", lambda v, t: v == int(v) and 1 <= v <= MAX_QUERIES_PER_KV_HEAD,
         "{value:g} query heads per KV head (num_heads / num_kv_heads) is not supported",
         f"whole ratios from 1 to {MAX_QUERIES_PER_KV_HEAD} are"),
    Rule("alibi_slopes", _off, "ALiBi (alibi_slopes) is not supported", OTHER_BACKEND),
    _flag("use_alibi_sqrt", "square-root ALiBi"),
    _flag("logits_soft_cap", "a soft cap on attention logits"),
    Rule("sliding_window", lambda v, t: v is None or (isinstance(v, int) and v > 0),
         "sliding window {value} (sliding_window) is not supported", "use a whole number of keys above 0, or none"),
    Rule("sinks", _any, "", ""),
    Rule("chunk_lookback", lambda v, t: v is None or v < 0,
         "chunked attention with lookback (chunk_lookback={value}) is not supported", OTHER_BACKEND),
    Rule("head_size_v", lambda v, t: v is None, "value heads of another size (head_size_v={value}) are not supported",
         OTHER_BACKEND),
    next(rule for rule in SELECTION if rule.setting == "kv_cache_dtype"),
    next(rule for rule in SELECTION if rule.setting == "attn_type"),
)


def refusals(settings: Mapping[str, Any], target: str, rules: tuple[Rule, ...] = SELECTION) -> list[str]:
    """Reasons why a layer with `settings` cannot be served on `target`; empty when it can.

    Args:
        settings: setting name -> value; dtypes as names ("bfloat16"). A name that the table does not know is refused
            when its value is set, so that a later vLLM cannot switch on something the kernels never heard of.
        target: "amd", "nvidia" or "cpu".
        rules: SELECTION for the fields of vLLM's selector, LAYER for the arguments of an implementation.
    """
    found = []
    known = {rule.setting: rule for rule in rules}
    for setting, value in settings.items():
        if setting in known:
            reason = known[setting].refusal(value, target)
            if reason is not None:
                found.append(reason)
        elif value is not None and value is not False:
            found.append(f"setting {setting}={value!r} is unknown to this version of rocmforge; {OTHER_BACKEND}")
    return found


def supported_table() -> list[tuple[str, str]]:
    """(feature, what is served) rows, for `rocmforge doctor` and the README."""
    return [
        ("head sizes", ", ".join(map(str, HEAD_SIZES))),
        ("query heads per KV head", f"1 to {MAX_QUERIES_PER_KV_HEAD}"),
        ("dtypes", "; ".join(f"{target}: {', '.join(names)}" for target, names in DTYPES.items())),
        ("KV cache dtypes", ", ".join(KV_CACHE_DTYPES)),
        ("KV block sizes", f"multiples of {BLOCK_MULTIPLE}"),
        ("also", "sliding windows, attention sinks, prefix caching, chunked prefill, KV sharing, KV connectors"),
        ("refused", ", ".join(sorted({r.setting for r in (*SELECTION, *LAYER) if r.accepts is _off}))),
    ]
