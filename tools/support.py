# SPDX-License-Identifier: Apache-2.0
"""The table of what rocmforge's attention and vLLM's attention backends for ROCm support.

    python -m tools.support

writes docs/support.md. What rocmforge supports is asked of its eligibility table and its problems, on the AMD target;
what a backend of vLLM's does, of its class, where the class is asked before a model is loaded. What vLLM asks of no
class stands with the line, and where it was read. A test holds the document to this.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rocmforge_plugin import served  # noqa: E402
from rocmforge_plugin.problem import Problem  # noqa: E402
from rocmforge_plugin.vllm.backend import eligibility  # noqa: E402

DOCUMENT = ROOT / "docs" / "support.md"
PEERS = {  # of vLLM, and where their classes are
    "ROCM_ATTN": "rocm_attn.RocmAttentionBackend",
    "ROCM_AITER_FA": "rocm_aiter_fa.AiterFlashAttentionBackend",
    "ROCM_AITER_UNIFIED_ATTN": "rocm_aiter_unified_attn.RocmAiterUnifiedAttentionBackend",
    "TRITON_ATTN": "triton_attn.TritonAttentionBackend",
}
PROBED = range(8, 520, 8)  # head sizes that are asked for
YES, NO = "yes", "no"
HEAD = """# What is supported

Made by `python -m tools.support`; a test holds it to what the code says. rocmforge's column is what its eligibility
table and its problems answer for AMD GPUs, where head sizes are named only if they are not those of the second line. A
refusal is an error when the backend is chosen or the model is built, and names the setting and what works.

The other columns: vLLM's attention backends for ROCm. What stands plainly there is what the classes of vLLM {version}
answer, without an AMD GPU; * was read in the sources of vLLM 0.33 at the places below the table, since vLLM asks no
class for it. Latent attention (MLA) has classes of its own, in vLLM and here."""


@dataclass(frozen=True)
class Feature:
    """A line of the table.

    Attributes:
        name: what the user would call it.
        selection: settings of vLLM's selection that ask for it.
        layer: arguments of a layer's implementation that do.
        format: of the problem, where the layer is asked of no backend.
        ours: rocmforge's cell, where it is not which head sizes have it.
        asked: a class's answer, where classes are asked.
        facts: cells by backend, where they are not: what is there, and where it was read.
    """

    name: str
    selection: Mapping[str, Any] = field(default_factory=dict)
    layer: Mapping[str, Any] = field(default_factory=dict)
    format: str | None = None
    ours: Callable[[], str] | None = None
    asked: Callable[[Any], str] | None = None
    facts: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def yes_or_no(answer: object) -> str:
    """A cell."""
    return YES if answer else NO


def sizes_text(sizes: Iterable[int]) -> str:
    """Such as "64, 80, multiples of 8 from 96 to 256": of steps of 8 three or more are one."""
    runs: list[list[int]] = []
    for size in sorted(sizes):
        if runs and size == runs[-1][-1] + 8:
            runs[-1].append(size)
        else:
            runs.append([size])
    parts = []
    for run in runs:
        parts += [f"multiples of 8 from {run[0]} to {run[-1]}"] if len(run) > 2 else [str(size) for size in run]
    return ", ".join(parts)


def peer_sizes(backend: Any) -> str:
    """Which head sizes a class takes."""
    found = [size for size in PROBED if backend.supports_head_size(size)]
    return f"any from {found[0]}" if found[-1] == PROBED[-1] and len(found) > 20 else sizes_text(found)


def block_sizes(backend: Any) -> str:
    """Of the KV cache, that a class takes."""
    found = backend.get_supported_kernel_block_sizes()
    return ", ".join(str(one) if isinstance(one, int) else f"multiples of {one.base}" for one in found)


def says(question: str, *arguments: Any) -> Callable[[Any], str]:
    """What a class answers to a question, which a vLLM that does not know it answers with no."""

    def ask(backend: Any) -> str:
        method = getattr(backend, question, None)
        return yes_or_no(method is not None and method(*arguments))

    return ask


def graphs(backend: Any) -> str:
    """How much of a step is captured whole."""
    name = backend.get_builder_cls()._cudagraph_support.name
    return {"ALWAYS": "every batch", "UNIFORM_BATCH": "decode and verification"}.get(name, name.lower())


def all_peers(cell: str, source: str) -> dict[str, tuple[str, str]]:
    """Facts that are the same of all backends."""
    return dict.fromkeys(PEERS, (cell, source))


def only(name: str, cell: str, source: str, others: str = NO) -> dict[str, tuple[str, str]]:
    """Facts that are so of one backend."""
    return {**all_peers(others, source), name: (cell, source)}


def refusals(feature: Feature, head_size: int, **other: Any) -> list[str]:
    """rocmforge's reasons not to serve a layer with the feature; as vLLM's selection asks, and then the layer."""
    if feature.format is not None:
        problem = Problem("bfloat16", 8, 8, head_size, head_size, format=feature.format)
        return [str(refusal) for refusal in problem.refusals("amd")]
    heads = {"dtype": "bfloat16", "head_size": head_size, **other}
    layer = {"num_heads": 8, "num_kv_heads": 8, **heads, **feature.layer}
    layer |= {name: value for name, value in feature.selection.items() if name in ("attn_type", "use_mm_prefix")}
    return [
        *eligibility.refusals({**heads, **feature.selection}, "amd"),
        *eligibility.refusals(layer, "amd", eligibility.LAYER),
    ]


def our_sizes(feature: Feature) -> list[int]:
    """Head sizes that rocmforge serves with the feature."""
    return [size for size in PROBED if not refusals(feature, size)]


def our_cell(feature: Feature) -> str:
    """Whether rocmforge has the feature, and for which heads if not for all."""
    if feature.ours is not None:
        return feature.ours()
    found = our_sizes(feature)
    if not found:
        return NO
    return YES if found == our_sizes(Feature("")) else f"{YES}; heads: {sizes_text(found)}"


def our_dtypes() -> str:
    """Of models that rocmforge serves."""
    return ", ".join(name for name in served.ELEMENTS if not refusals(Feature(""), 128, dtype=name))


def our_cache_dtypes() -> str:
    """Of caches that rocmforge serves."""
    names = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "int8_per_token_head")
    served_ones = (name for name in names if not refusals(Feature("", {"kv_cache_dtype": name}), 128))
    return f"{', '.join(served_ones)} (float16 of a float16 model)"


def our_graphs() -> str:
    """As `graphs`, of rocmforge's class."""
    from rocmforge_plugin.vllm.backend.backend import RocmForgeBackend

    return graphs(RocmForgeBackend)


def our_encoder_layer() -> str:
    """Of layers that a plugin replaces, and whose heads are asked of the problem."""
    if importlib.util.find_spec("rocmforge_plugin.vllm.encoder") is None:
        return NO
    return f"{YES}; heads: {sizes_text(our_sizes(Feature('', format='split')))}"


# Places in vLLM 0.33's v1/attention/backends but where another is named.
FEATURES = (
    Feature(
        "GPUs",
        ours=lambda: ", ".join(served.AMD_ARCHS),
        facts={
            "ROCM_ATTN": (
                "all; HIP decode on gfx9, gfx11 and gfx12 where heads are 64 or 128",
                "platforms/rocm.py:471-494",
            ),
            "ROCM_AITER_FA": ("gfx942, gfx950, gfx1250", "rocm_aiter_fa.py:987-993"),
            "ROCM_AITER_UNIFIED_ATTN": ("gfx942, gfx950; gfx12 by a variable", "platforms/rocm.py:560-563"),
            "TRITON_ATTN": ("all", "triton_attn.py:405"),
        },
    ),
    Feature("head sizes", ours=lambda: sizes_text(our_sizes(Feature(""))), asked=peer_sizes),
    Feature(
        "query heads per KV head",
        ours=lambda: f"1 to {served.MAX_GROUP}",
        facts={
            **all_peers("any", "ops/triton_unified_attention.py:950-953"),
            "ROCM_AITER_FA": ("not asked", "rocm_aiter_fa.py"),
            "ROCM_ATTN": ("any; HIP decode 1 to 16, on RDNA 3 to 16", "platforms/rocm.py:477-489"),
        },
    ),
    Feature(
        "dtypes",
        ours=our_dtypes,
        asked=lambda backend: ", ".join(str(dtype).removeprefix("torch.") for dtype in backend.supported_dtypes),
    ),
    Feature(
        "KV cache dtypes", ours=our_cache_dtypes, asked=lambda backend: ", ".join(backend.supported_kv_cache_dtypes)
    ),
    Feature("KV block sizes", ours=lambda: f"multiples of {served.BLOCK_MULTIPLE}", asked=block_sizes),
    Feature(
        "sliding window",
        {"has_sliding_window": True},
        {"sliding_window": 128},
        facts={
            "ROCM_ATTN": ("yes, never by HIP decode", "platforms/rocm.py:473-485"),
            "ROCM_AITER_FA": (YES, "rocm_aiter_fa.py:503-509"),
            "ROCM_AITER_UNIFIED_ATTN": (YES, "rocm_aiter_unified_attn.py"),
            "TRITON_ATTN": (YES, "triton_attn.py"),
        },
    ),
    Feature("attention sinks", {"has_sink": True}, {"sinks": object()}, asked=says("supports_sink")),
    Feature(
        "logits soft cap",
        layer={"logits_soft_cap": 50.0},
        facts={
            "ROCM_ATTN": ("**ignored without a word**", "rocm_attn.py:288-291"),
            "ROCM_AITER_FA": ("in decode; **ignored in prefill**", "rocm_aiter_fa.py:1354-1370"),
            "ROCM_AITER_UNIFIED_ATTN": (YES, "rocm_aiter_unified_attn.py:319"),
            "TRITON_ATTN": (YES, "triton_attn.py:712"),
        },
    ),
    Feature(
        "soft cap with windows and sinks",
        {"has_sliding_window": True, "has_sink": True},
        {"logits_soft_cap": 50.0, "sliding_window": 128, "sinks": object()},
        facts={
            "ROCM_ATTN": (NO, "rocm_attn.py:180-184"),
            "ROCM_AITER_FA": ("**ignored in prefill**", "rocm_aiter_fa.py:1354-1370"),
            "ROCM_AITER_UNIFIED_ATTN": (YES, "rocm_aiter_unified_attn.py:319"),
            "TRITON_ATTN": (YES, "triton_attn.py:712"),
        },
    ),
    Feature(
        "ALiBi",
        layer={"alibi_slopes": [0.5] * 8},
        facts={
            "ROCM_ATTN": ("causal, without sinks", "ops/prefix_prefill.py:916-919"),
            "ROCM_AITER_FA": (YES, "rocm_aiter_fa.py"),
            "ROCM_AITER_UNIFIED_ATTN": (YES, "rocm_aiter_unified_attn.py"),
            "TRITON_ATTN": (YES, "triton_attn.py"),
        },
    ),
    Feature(
        "ALiBi by the distance's root",
        layer={"alibi_slopes": [0.5] * 8, "use_alibi_sqrt": True},
        asked=says("supports_alibi_sqrt"),
    ),
    Feature("non-causal decoder layers", {"use_non_causal": True}, asked=says("supports_non_causal")),
    Feature(
        "causal by request",
        {"use_non_causal": True},
        facts=only("TRITON_ATTN", YES, "ops/triton_unified_attention.py:568-585"),
    ),
    Feature("image spans that see themselves (mm prefix)", {"use_mm_prefix": True}, asked=says("supports_mm_prefix")),
    Feature(
        "such spans within the window (Gemma 4)",
        {"use_mm_prefix": True, "has_sliding_window": True},
        {"sliding_window": 128},
        facts=only("TRITON_ATTN", YES, "ops/triton_attention_helpers.py:316-419"),
    ),
    Feature(
        "image spans beside a soft cap",
        {"use_mm_prefix": True},
        {"logits_soft_cap": 50.0},
        facts=only("TRITON_ATTN", YES, "triton_attn.py:712"),
    ),
    Feature(
        "encoder-only models (embedding, rerank)",
        {"attn_type": "encoder_only"},
        asked=says("supports_attn_type", "encoder_only"),
    ),
    Feature(
        "encoders of encoder-decoder models", {"attn_type": "encoder"}, asked=says("supports_attn_type", "encoder")
    ),
    Feature(
        "cross attention (Whisper)",
        {"attn_type": "encoder_decoder"},
        asked=says("supports_attn_type", "encoder_decoder"),
    ),
    Feature(
        "vision and audio encoder layers",
        ours=our_encoder_layer,
        facts={
            "ROCM_ATTN": (NO, "platforms/rocm.py:912-933"),
            "ROCM_AITER_FA": (YES, "platforms/rocm.py:912-933"),
            "ROCM_AITER_UNIFIED_ATTN": (NO, "platforms/rocm.py:912-933"),
            "TRITON_ATTN": ("if asked for; RDNA gets TORCH_SDPA", "platforms/rocm.py:955-967"),
        },
    ),
    Feature(
        "chunked local attention (Llama 4)",
        facts=all_peers("yes, vLLM cuts requests", "model_executor/layers/attention/chunked_local_attention.py"),
    ),
    Feature(
        "chunks with lookback (Rnj-1)",
        layer={"chunk_lookback": 1},
        facts=only("TRITON_ATTN", YES, "model_executor/layers/attention/attention.py:391"),
    ),
    Feature("reference sliding window (R-SWA)", {"use_rswa": True}, asked=says("supports_rswa")),
    Feature("batch-invariant mode", {"use_batch_invariant": True}, asked=says("supports_batch_invariance")),
    Feature("decode context parallelism", {"use_dcp": True}, asked=says("supports_dcp")),
    Feature("prefill context parallelism", {"use_pcp": True}, asked=says("supports_pcp")),
    Feature("KV connectors", {"use_kv_connector": True}, asked=says("supports_kv_connector")),
    Feature("scales of each head", {"use_per_head_quant_scales": True}, asked=says("supports_per_head_quant_scales")),
    Feature("batches in full graphs", ours=our_graphs, asked=graphs),
)


def peers() -> dict[str, Any]:
    """vLLM's classes.

    Raises:
        ImportError: vLLM, or one of them, is not here.
    """
    found = {}
    for name, path in PEERS.items():
        module, _, owner = path.partition(".")
        found[name] = getattr(importlib.import_module(f"vllm.v1.attention.backends.{module}"), owner)
    return found


def document() -> str:
    """The whole text of docs/support.md."""
    classes = peers()
    rows = []
    sources: dict[str, None] = {}
    for feature in FEATURES:
        cells = [our_cell(feature)]
        for name, backend in classes.items():
            if feature.asked is not None:
                cells.append(feature.asked(backend))
            else:
                cell, source = feature.facts[name]
                cells.append(f"{cell}*")
                sources.setdefault(f"{feature.name}: {source}")
        rows.append((feature.name, *cells))
    head = ("", "rocmforge", *PEERS)
    version = importlib.metadata.version("vllm").partition("+")[0]
    lines = [
        HEAD.format(version=version),
        "",
        *("| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *rows)),
        "",
        "Read in vLLM 0.33, in `v1/attention/backends` where nothing else is said:",
        "",
        *(f"* {source}" for source in sources),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Entry point."""
    DOCUMENT.write_text(document())
    print(DOCUMENT.relative_to(ROOT))


if __name__ == "__main__":
    main()
